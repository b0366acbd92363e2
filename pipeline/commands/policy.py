"""`weir policy`: check, show, begin, compare and test policies."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.backtest import backtest
from pipeline.commands.offered import command as offered

if TYPE_CHECKING:
    from pipeline.history import Published
    from policies.errors import Problem
    from policies.schema import PolicySet
    from workers.classifier import Classifier

EXISTING = click.Path(path_type=Path)


def _folder(given: Path | None) -> Path:
    if given is not None:
        return given
    from pipeline.config import Settings

    return Settings().policies


def _read(folder: Path) -> "PolicySet":
    from policies.errors import PolicyError
    from policies.folder import read_policies

    try:
        return read_policies(folder)
    except PolicyError as error:
        _complain(error.problems)
        sys.exit(1)


def _complain(problems: "Sequence[Problem]") -> None:
    for problem in problems:
        place = click.style(f"{problem.file}:{problem.line}:{problem.column}", bold=True)
        colour = "red" if problem.level == "error" else "yellow"
        field = f"{problem.field}: " if problem.field else ""
        click.echo(f"{place}: {click.style(problem.level, fg=colour)}: {field}{problem.what}")
        click.echo(f"    {problem.remedy}")


@click.group()
def command() -> None:
    """Check, show, test and compare policies."""


command.add_command(backtest)
command.add_command(offered, "offered")


@command.command()
@click.argument("path", type=EXISTING, required=False)
@click.option(
    "--classifier",
    is_flag=True,
    help="Also load the configured classifiers: a policy that none can judge must not be live.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the problems as JSON.")
def lint(path: Path | None, *, classifier: bool, as_json: bool) -> None:
    """Check a folder of policies and their golden cases, or one file: what is wrong where, what to do.

    Exits 1 when it finds anything, warnings too.
    """
    from policies.folder import inspect

    target = _folder(path)
    policies, problems = inspect(target)
    where = target.parent if target.is_file() else target
    if policies is not None and not target.is_file():
        problems += _problems_of_cases(policies, where)
    if classifier and policies is not None:
        from pipeline.coverage import uncovered

        problems += tuple(uncovered(policies, _classifiers(), where))
    if as_json:
        click.echo(json.dumps([asdict(problem) for problem in problems], indent=1))
    else:
        _complain(problems)
        if policies is not None and not problems:
            live = sum(policy.status == "live" for policy in policies)
            count = len(policies.policies)
            click.echo(
                f"{count} policies, {live} of them live, {len(policies.questions)} questions: "
                f"nothing wrong"
            )
        elif problems:
            errors = sum(problem.level == "error" for problem in problems)
            click.echo(f"{errors} errors, {len(problems) - errors} warnings")
    sys.exit(1 if problems else 0)


@command.command()
@click.argument("name")
@click.option("--folder", type=EXISTING, help="Folder of the policies.")
@click.option("--prompt", is_flag=True, help="Print what is put to the classifier, word for word.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def show(name: str, folder: Path | None, *, prompt: bool, as_json: bool) -> None:
    """Show what a policy says: NAME, `all` for the whole folder, or the digest of a set that was ever live."""
    from policies.account import account
    from policies.notation import nearest

    policies = _read(_folder(folder))
    if name in {"all", policies.digest}:
        click.echo(json.dumps(policies.content, indent=1) if as_json else policies.digest)
        if not as_json:
            for policy in policies:
                click.echo("\n".join(account(policy)))
        return
    if name.startswith("sha256:"):
        _show_past(name, as_json=as_json)
        return
    found = policies.by_name.get(name)
    if found is None:
        meant = nearest(name, policies.by_name)
        hint = f"did you mean {meant}?" if meant else f"there are {', '.join(policies.by_name)}"
        raise click.BadParameter(f"there is no policy {name}: {hint}", param_hint="NAME")
    if prompt:
        from workers.prompt import suffix

        if as_json:
            prompts = [
                {"question": q.id, "digest": q.digest, "prompt": suffix(q)} for q in found.questions
            ]
            click.echo(json.dumps(prompts, indent=1))
            return
        for question in found.questions:
            click.secho(f"# {question.id} {question.digest}", dim=True)
            click.echo(suffix(question) + "\n")
    elif as_json:
        click.echo(found.model_dump_json(indent=1))
    else:
        click.echo("\n".join(account(found)))


def _show_past(digest: str, *, as_json: bool) -> None:
    kept = _published(digest)
    if as_json:
        click.echo(kept.model_dump_json(indent=1))
        return
    click.echo(kept.digest)
    for name, text in sorted(kept.files.items()):
        click.secho(f"# {name}", bold=True)
        click.echo(text)


def _problems_of_cases(policies: "PolicySet", folder: Path) -> "tuple[Problem, ...]":
    from policies.cases import read_cases
    from policies.errors import PolicyError

    try:
        read_cases(policies, folder)
    except PolicyError as error:
        return error.problems
    return ()


def _classifiers() -> "list[Classifier]":
    from pipeline.config import Settings
    from workers.errors import WorkerError
    from workers.loading import load
    from workers.spec import ClassifierSpec

    try:
        return [load(ClassifierSpec(**entry.model_dump())) for entry in Settings().classifiers]
    except WorkerError as error:
        raise click.ClickException(f"no classifier: {error}") from error


def _published(digest: str) -> "Published":
    from pipeline.config import Settings
    from pipeline.errors import KafkaError, RefusedError
    from pipeline.history import published

    try:
        return published(Settings().kafka, digest)
    except (RefusedError, KafkaError) as error:
        raise click.ClickException(str(error)) from error


@command.command()
@click.argument("digest")
@click.option("--folder", type=EXISTING, help="Folder of the policies.")
def rollback(digest: str, folder: Path | None) -> None:
    """Write the files of a set that was live back into the policy folder; pipelines then reload it."""
    from pipeline.errors import RefusedError
    from pipeline.history import ASIDE, put_back

    where = _folder(folder)
    kept = _published(digest)
    try:
        change = put_back(kept, where)
    except RefusedError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{where} is {kept.digest} again: {', '.join(change.written)}")
    for name in change.set_aside:
        click.echo(f"{name} was no part of it: set aside as {name}{ASIDE}")


@command.command()
@click.argument("name")
@click.option("--folder", type=EXISTING, help="Folder of the policies.")
def new(name: str, folder: Path | None) -> None:
    """Begin a policy: write NAME.yaml, a draft that is right as it stands.

    Schemas for your editor, queues and context keys are put beside it where they are missing.
    """
    from policies.draft import draft, furnish

    try:
        text = draft(name)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="NAME") from None
    path = _folder(folder) / f"{name}.yaml"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        beside = furnish(path.parent)
    except FileExistsError:
        raise click.BadParameter(f"{path} is there already", param_hint="NAME") from None
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from error
    if beside:
        click.echo(f"beside it: {', '.join(beside)}")
    click.echo(f"{path}: a draft; write its clauses, then run: weir policy lint {path}")


@command.command()
@click.argument("old", type=EXISTING)
@click.argument("new", type=EXISTING)
@click.option("--json", "as_json", is_flag=True, help="Print the changes as JSON.")
def diff(old: Path, new: Path, *, as_json: bool) -> None:
    """Say in words what changed in meaning between two files or two folders of policies."""
    from policies.diff import compare

    changes = compare(_one_or_all(old), _one_or_all(new))
    if as_json:
        click.echo(json.dumps([asdict(change) for change in changes], indent=1))
        return
    if not changes:
        click.echo("nothing changed in meaning")
    last = None
    for change in changes:
        if change.policy != last:
            click.secho(change.policy, bold=True)
            last = change.policy
        where = f"{change.where}: " if change.where else ""
        click.echo(f"  {where}{change.what}")
        if change.effect:
            click.secho(f"      {change.effect}", dim=True)


def _one_or_all(path: Path) -> "PolicySet":
    from policies.errors import PolicyError
    from policies.folder import read_policies, read_policy
    from policies.schema import PolicySet

    try:
        return read_policies(path) if path.is_dir() else PolicySet((read_policy(path),))
    except PolicyError as error:
        _complain(error.problems)
        sys.exit(1)


@command.command(name="test")
@click.argument("names", nargs=-1)
@click.option("--folder", type=EXISTING, help="Folder of the policies.")
@click.option("--offline", is_flag=True, help="Replay recorded scores: no model is loaded.")
@click.option("--record", is_flag=True, help="Record the scores, for --offline.")
@click.option("--junit", type=EXISTING, help="Also write JUnit XML to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print every outcome as JSON.")
def test_cases(
    names: tuple[str, ...],
    folder: Path | None,
    *,
    offline: bool,
    record: bool,
    junit: Path | None,
    as_json: bool,
) -> None:
    """Put the golden cases of these policies (of all that are asked, without NAMES) to the classifiers.

    Exits 1 where a case does not come out as it must, has no answer, or a recording older than its words.
    """
    if offline and record:
        raise click.UsageError("--offline replays recordings, --record makes them: choose one")
    from pipeline.commands.policy_test import chosen, report, run_cases
    from policies.cases import read_cases
    from policies.errors import PolicyError

    where = _folder(folder)
    policies = _read(where)
    try:
        cases = read_cases(policies, where)
        wanted, drafts = chosen(policies, cases, names)
        outcomes = run_cases(policies, cases, wanted, folder=where, offline=offline, record=record)
    except PolicyError as error:
        _complain(error.problems)
        sys.exit(1)
    report(outcomes, cases, drafts, as_json=as_json, xml=junit)
