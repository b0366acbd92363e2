"""Reads a folder of policies: every file, all that is wrong with them, and the set that they make."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from policies import queues, remedies
from policies.context import ContextFile
from policies.errors import Fault, PolicyError, Problem, field_name
from policies.lint import lint
from policies.queues import QueueFile
from policies.schema import Policy, PolicySet
from policies.yaml_file import MAX_BYTES, Document, read_yaml

QUEUES: Final = "queues.yaml"
CONTEXT: Final = "context.yaml"

_Model = TypeVar("_Model", bound=BaseModel)


def read_policies(folder: Path) -> PolicySet:
    """Return the set that a folder of policies makes.

    Raises:
        PolicyError: something in the folder is wrong; it lists everything that is.
    """
    policies, problems = inspect(folder)
    errors = [problem for problem in problems if problem.level == "error"]
    if policies is None or errors:
        raise PolicyError(errors or problems)
    return policies


def read_policy(path: Path) -> Policy:
    """Return the policy in one file, without looking at the queues and context keys beside it.

    Raises:
        PolicyError: the file is wrong.
    """
    problems: list[Problem] = []
    read = read_file(path, Policy, problems.extend)
    if read is None:
        raise PolicyError(problems)
    return read[0]


def inspect(path: Path) -> tuple[PolicySet | None, tuple[Problem, ...]]:
    """Return the set in a folder, or of one file of it, and everything that is wrong: warnings too.

    The set is None where anything is an error.
    """
    problems: list[Problem] = []
    single = path.is_file()
    folder = path.parent if single else path
    files = [path] if single else _files(folder, problems.extend)
    declared = _read_if_there(folder / QUEUES, QueueFile, problems.extend)
    keys = _read_if_there(folder / CONTEXT, ContextFile, problems.extend)
    context = keys[0] if keys else ContextFile()
    if declared:
        problems += placed(queues.faults(declared[0]), declared[1])
    elif files and not (folder / QUEUES).exists():
        problems.append(
            _whole(
                folder / QUEUES,
                "the file is missing",
                "`weir policy new` puts one beside the policy that it begins",
                "warning",
            )
        )
    texts = {
        name: document.text
        for name, document in ((QUEUES, declared and declared[1]), (CONTEXT, keys and keys[1]))
        if document
    }
    policies: list[Policy] = []
    homes: dict[str, Path] = {}
    for file in files:
        read = read_file(file, Policy, problems.extend)
        if read is None:
            continue
        policy, document = read
        found = [
            *lint(
                policy,
                document.value,
                queues=declared[0].queues if declared else None,
                context=context,
            ),
            *_name_faults(policy, file, homes.get(policy.policy)),
        ]
        problems += placed(found, document)
        homes.setdefault(policy.policy, file)
        texts[file.name] = document.text
        policies.append(policy)
    broken = any(problem.level == "error" for problem in problems)
    found_set = PolicySet(
        tuple(policies), declared[0].queues if declared else {}, context, files=texts
    )
    order = sorted(set(problems), key=lambda p: (p.file, p.line, p.column, p.field, p.what))
    return None if broken else found_set, tuple(order)


def _files(folder: Path, report: Callable[[Iterable[Problem]], None]) -> list[Path]:
    if not folder.is_dir():
        report([_whole(folder, "there is no such folder", "name the folder of the policies")])
        return []
    names = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    for entry in names:
        if entry.suffix.lower() in {".yml", ".yaml"} and entry.suffix != ".yaml":
            report([_whole(entry, "this file is not read", f"name it {entry.stem}.yaml")])
    files = [n for n in names if n.suffix == ".yaml" and n.name not in {QUEUES, CONTEXT}]
    if not files:
        report([_whole(folder, "there is no policy", "write one: weir policy new NAME")])
    return files


def _read_if_there(
    path: Path, model: type[_Model], report: Callable[[Iterable[Problem]], None]
) -> tuple[_Model, Document] | None:
    return read_file(path, model, report) if path.exists() else None


def read_file(
    path: Path, model: type[_Model], report: Callable[[Iterable[Problem]], None]
) -> tuple[_Model, Document] | None:
    """Return what is in a file and where it stands, or None after everything wrong is reported."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        why = error.strerror or str(error)
        report([_whole(path, f"the file cannot be read: {why}", "look at its path and rights")])
        return None
    try:
        document = read_yaml(data, str(path))
    except PolicyError as error:
        report(error.problems)
        return None
    empty = set(remedies.empty_fields(document.value))
    found = [
        Fault(path=p, what="it has no value", remedy="write one, or delete the line", at_key=True)
        for p in sorted(empty, key=str)
    ]
    try:
        value = model.model_validate(document.value)
    except ValidationError as error:
        found += [f for f in remedies.faults(error, model, document) if f.path not in empty]
    else:
        if not found:
            return value, document
    report(placed(found, document))
    return None


def _name_faults(policy: Policy, file: Path, home: Path | None) -> Iterator[Fault]:
    if home is not None:
        yield Fault(
            path=("policy",),
            what=f"{home.name} has a policy {policy.policy} already",
            remedy="give one of the two another name",
        )
    elif policy.policy != file.stem:
        yield Fault(
            path=("policy",),
            what=f"the policy is called {policy.policy}, its file {file.name}",
            remedy=f"write policy: {file.stem}, or name the file {policy.policy}.yaml",
            level="warning",
        )


def placed(faults: Iterable[Fault], document: Document) -> Iterator[Problem]:
    """Yield each fault with its file, line and column."""
    for fault in faults:
        value: Any = document.value
        for step in fault.path:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                break
        at_key = fault.at_key or isinstance(value, (dict, list))
        place = document.place(fault.path, key=at_key)
        yield Problem(
            file=document.file,
            line=place.line,
            column=place.column,
            field=field_name(fault.path),
            what=fault.what,
            remedy=fault.remedy,
            level=fault.level,
        )


def _whole(path: Path, what: str, remedy: str, level: Any = "error") -> Problem:
    return Problem(
        file=str(path), line=1, column=1, field="", what=what, remedy=remedy, level=level
    )
