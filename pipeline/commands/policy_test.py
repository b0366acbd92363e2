"""`weir policy test`: golden cases against the configured classifiers, or their recordings."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from pipeline.calibration import Calibrations
from pipeline.config import Settings
from pipeline.golden import Outcome, beside
from pipeline.junit import junit
from pipeline.recordings import Recording, load, save
from pipeline.rehearsal import Rehearsal
from pipeline.specs import reading_of, spec_of
from policies.cases import CaseFile
from policies.notation import nearest
from policies.schema import PolicySet, Status
from workers.errors import WorkerError
from workers.loading import load as load_classifier


def chosen(
    policies: PolicySet, cases: Mapping[str, CaseFile], names: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return the policies whose cases are run, and drafts whose cases are left out."""
    for name in names:
        if name not in cases:
            meant = nearest(name, cases)
            there = f", as there are of {', '.join(cases)}" if cases else ""
            hint = (
                f"did you mean {meant}?"
                if meant
                else f"write cases/{name}.yaml beside the policies{there}"
            )
            raise click.BadParameter(f"there are no cases of {name}: {hint}", param_hint="NAMES")
    if names:
        return list(names), []
    drafts = [name for name in cases if policies.by_name[name].status is Status.DRAFT]
    return [name for name in cases if name not in drafts], drafts


def run_cases(
    policies: PolicySet,
    cases: Mapping[str, CaseFile],
    names: Sequence[str],
    *,
    folder: Path,
    offline: bool,
    record: bool,
) -> list[Outcome]:
    """Return the outcome of every case of these policies."""
    settings = Settings()
    calibrations = Calibrations.load(settings.calibrations)
    now = datetime.now(UTC)
    outcomes: list[Outcome] = []
    recorded = {name: load(folder, name) for name in names}
    if offline:
        rehearsal = Rehearsal(folder, (), calibrations, now)
        for name in names:
            outcomes += rehearsal.replay(policies.by_name[name], cases[name], recorded[name])
        return outcomes
    with _progress(sum(len(cases[name].cases) for name in names)) as done:
        try:
            classifiers = [load_classifier(spec_of(entry)) for entry in settings.classifiers]
            reading = reading_of(settings)
        except WorkerError as error:
            raise click.ClickException(f"no classifier: {error}") from error
        rehearsal = Rehearsal(folder, classifiers, calibrations, now, reading)
        for name in names:
            mine: list[Outcome] = []

            def note(outcome: Outcome, mine: list[Outcome] = mine) -> None:
                mine.append(outcome)
                done()

            made = rehearsal.run(policies.by_name[name], cases[name], note)
            outcomes += mine
            if record:
                save(folder, made)
    return [with_past(outcome, recorded.get(outcome.policy)) for outcome in outcomes]


def with_past(outcome: Outcome, recording: Recording | None) -> Outcome:
    """Return a failed outcome that also says how far its scores are from those recorded."""
    before = recording.cases.get(outcome.case) if recording else None
    if outcome.status != "failed" or before is None:
        return outcome
    lines = [
        f"{question}: log-odds {before.scores[question].score:+.2f} when recorded"
        for question in outcome.answers
        if question in before.scores
    ]
    return Outcome(**{**asdict(outcome), "why": (*outcome.why, *lines)})


def report(
    outcomes: Sequence[Outcome],
    cases: Mapping[str, CaseFile],
    drafts: Sequence[str],
    *,
    as_json: bool,
    xml: Path | None,
) -> None:
    """Print what failed and why, write JUnit XML if wanted, and exit 1 where anything is not as it must be."""
    by_policy: dict[str, dict[str, Outcome]] = {}
    for outcome in outcomes:
        by_policy.setdefault(outcome.policy, {})[outcome.case] = outcome
    full = [
        Outcome(
            **{
                **asdict(o),
                "why": (*o.why, *beside(o, cases[o.policy], by_policy[o.policy])),
            }
        )
        for o in outcomes
    ]
    if xml is not None:
        xml.write_text(junit(full), encoding="utf-8")
    if as_json:
        click.echo(json.dumps([asdict(outcome) for outcome in full], indent=1))
    else:
        _print(full, drafts)
    sys.exit(1 if any(outcome.status != "passed" for outcome in full) else 0)


def _print(outcomes: Sequence[Outcome], drafts: Sequence[str]) -> None:
    colours = {"failed": "red", "stale": "yellow", "silent": "yellow"}
    for outcome in outcomes:
        if outcome.status != "passed":
            status = click.style(outcome.status, fg=colours[outcome.status])
            click.echo(f"{click.style(outcome.name, bold=True)}: {status}")
            for line in outcome.why:
                click.echo(f"    {line}")
    counts = {
        status: sum(outcome.status == status for outcome in outcomes)
        for status in ("passed", "failed", "stale", "silent")
    }
    words = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    click.echo(f"{len(outcomes)} cases: {words or 'none'}")
    if drafts:
        click.echo(
            f"left out, because drafts are not asked: {', '.join(drafts)} (name them to run)"
        )


@contextmanager
def _progress(cases: int) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Golden cases", total=cases)
        yield lambda: progress.advance(task)
