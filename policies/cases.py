"""Golden cases: uploads with a known answer, beside the policies, in `cases/NAME.yaml`.

A case tests the words of a policy: what must be found, what must not be, and what must follow. A counterfactual
(`unlike`) is the same upload with or without the one thing that matters.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from policies.context import condition_faults
from policies.errors import Fault, PolicyError, Problem
from policies.folder import placed, read_file
from policies.notation import ClauseId, Slug, Strict, Wording, nearest
from policies.rules import Deed
from policies.schema import Policy, PolicySet

#: The folder of cases, inside that of the policies.
FOLDER: Final = "cases"

Expected = Literal["violates", "allowed"]


class Case(Strict):
    """One upload, and what must come out."""

    says: Wording | None = None
    """What the case is about, for people."""
    text: str = ""
    """The caption."""
    media: tuple[str, ...] = ()
    """Pictures, by their paths from the folder of the case file."""
    drawings: Annotated[tuple[Slug, ...], Field(max_length=4)] = ()
    """Drawings that ship with the bundled model, composed into one more picture, like [pistol, dog]."""
    context: Mapping[str, Any] = Field(default_factory=dict)
    """The upload's context, like {audience: teens}."""
    expect: Expected
    """What must come out: violates or allowed."""
    clause: ClauseId | None = None
    """The clause that it is about; without it the policy as a whole."""
    action: Deed | None = None
    """The action that must follow from this policy alone, in this context."""
    unlike: Slug | None = None
    """The case of which this is the counterfactual: it must come out the other way."""


class CaseFile(Strict):
    """The golden cases of one policy."""

    policy: Slug
    """Name of the policy."""
    cases: Annotated[Mapping[Slug, Case], Field(min_length=1)]
    """Each case by its name."""


def read_cases(policies: PolicySet, folder: Path) -> dict[str, CaseFile]:
    """Return the golden cases of a policy folder, by policy; none where it has no folder of cases.

    Raises:
        PolicyError: a file of cases is wrong; it lists everything that is.
    """
    problems: list[Problem] = []
    found: dict[str, CaseFile] = {}
    for path in sorted((folder / FOLDER).glob("*.yaml")):
        read = read_file(path, CaseFile, problems.extend)
        if read is None:
            continue
        file, document = read
        problems += placed(_faults(file, path, policies), document)
        found[file.policy] = file
    if problems:
        raise PolicyError(problems)
    return found


def _faults(file: CaseFile, path: Path, policies: PolicySet) -> Iterator[Fault]:
    policy = policies.by_name.get(file.policy)
    if policy is None:
        meant = nearest(file.policy, policies.by_name)
        yield Fault(
            path=("policy",),
            what=f"there is no policy {file.policy}",
            remedy=f"did you mean {meant}?" if meant else "name one of this folder",
        )
        return
    if file.policy != path.stem:
        yield Fault(
            path=("policy",),
            what=f"the cases of {file.policy} stand in {path.name}",
            remedy=f"name the file {file.policy}.yaml",
        )
    for name, case in file.cases.items():
        for fault in _case_faults(case, file, path.parent, policies, policy):
            yield Fault(
                path=("cases", name, *fault.path),
                what=fault.what,
                remedy=fault.remedy,
                at_key=fault.at_key,
            )


def _case_faults(
    case: Case, file: CaseFile, folder: Path, policies: PolicySet, policy: Policy
) -> Iterator[Fault]:
    if not case.text and not case.media and not case.drawings:
        yield Fault(path=(), what="it has neither text nor media", remedy="add text: … or media")
    for index, name in enumerate(case.media):
        inside = (folder / name).resolve().is_relative_to(folder.resolve())
        if not inside or not (folder / name).is_file():
            yield Fault(
                path=("media", index),
                what=f"there is no file {name} below {folder}",
                remedy="put it there, or mend the path",
            )
    if case.clause is not None and case.clause not in policy.clauses:
        meant = nearest(case.clause, policy.clauses)
        yield Fault(
            path=("clause",),
            what=f"{policy.policy} has no clause {case.clause}",
            remedy=f"did you mean {meant}?"
            if meant
            else f"name one of {', '.join(policy.clauses)}",
        )
    # `regions` stands in an upload's context, though no override may name it.
    context = {key: value for key, value in case.context.items() if key != "regions"}
    yield from condition_faults(context, policies.context, ("context",))
    if case.unlike is not None:
        other = file.cases.get(case.unlike)
        if other is None:
            meant = nearest(case.unlike, file.cases)
            yield Fault(
                path=("unlike",),
                what=f"there is no case {case.unlike}",
                remedy=f"did you mean {meant}?" if meant else "name a case of this file",
            )
        elif other.expect == case.expect:
            yield Fault(
                path=("unlike",),
                what=f"{case.unlike} expects the same",
                remedy="a counterfactual comes out the other way",
            )
