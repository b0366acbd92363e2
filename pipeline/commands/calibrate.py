"""`weir calibrate`: fit what scores mean, from labelled uploads."""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.ago import ago

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.calibrating import Calibrated
    from pipeline.config import Settings
    from pipeline.labels import Labelled
    from pipeline.scored import Scores
    from policies.schema import PolicySet
    from workers.classifier import Classifier
    from workers.reading import Reading

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("labelled", type=_PATH, required=False)
@click.option(
    "--since",
    default="90d",
    show_default=True,
    callback=ago,
    help="How far back the archive counts.",
)
@click.option("--classifier", help="Name of a configured classifier; the first by default.")
@click.option(
    "--policies", "folder", type=_PATH, help="Policy folder; the configured one by default."
)
@click.option("--policy", "only", multiple=True, help="Only this policy; may be given again.")
@click.option("--out", type=_PATH, help="Where the files go; WEIR_CALIBRATIONS by default.")
@click.option("--prior", type=click.FloatRange(0, 1), help="Share of violations in the stream.")
@click.option("--report", type=_PATH, help="Write a page with reliability diagrams here.")
@click.option("--seed", default=0, show_default=True, help="Of folds and resamples.")
@click.option("--dry-run", is_flag=True, help="Print the figures and write no calibration.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(  # noqa: PLR0913 -- one argument an option
    labelled: Path | None,
    *,
    since: timedelta,
    classifier: str | None,
    folder: Path | None,
    only: tuple[str, ...],
    out: Path | None,
    prior: float | None,
    report: Path | None,
    seed: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Fit what scores mean, from labelled uploads, and prove the promises of the bands.

    LABELLED is a folder with labels.jsonl (or .parquet), or such a file: one upload a line, with `id`, `media`,
    `caption` and `answers` (question id: true or false).

    Without it the labels are people's answers in the archive, beside the scores that stand there: no model is needed.
    Each counts as its chance of having been asked says; those to other versions of a policy, or to questions that were
    asked otherwise, do not.
    """
    from pipeline.config import Settings
    from pipeline.errors import PipelineError
    from policies.errors import PolicyError
    from policies.folder import read_policies
    from workers.errors import WorkerError

    settings = Settings()
    try:
        policies = read_policies(folder or settings.policies)
        if labelled is None:
            by_model = _archived(settings, policies, only, since)
        else:
            by_model = _judged(settings, labelled, classifier, policies, only, quiet=as_json)
    except (PipelineError, PolicyError, WorkerError) as error:
        raise click.ClickException(str(error)) from error
    source = "archive" if labelled is None else labelled.name
    found = [
        one
        for digest, scored in by_model.items()
        for one in _fitted(scored, policies, digest, prior, source, seed, quiet=as_json)
    ]
    target = out or settings.calibrations
    if not dry_run:
        from pipeline.calibration import write

        for one in found:
            write(target, one.calibration)
    if report is not None:
        from pipeline.diagrams import reliability_page

        report.write_text(reliability_page(found), encoding="utf-8")
    if as_json:
        click.echo(json.dumps([_row(one) for one in found], indent=1))
    else:
        _table(found, None if dry_run else target)
    sys.exit(0)


def _judged(
    settings: "Settings",
    labelled: Path,
    classifier: str | None,
    policies: "PolicySet",
    only: tuple[str, ...],
    *,
    quiet: bool,
) -> "Mapping[str, Mapping[str, Scores]]":
    """Return, by classifier digest, the scores of labelled uploads, which the classifier judges now."""
    from pipeline.labels import read_labels
    from pipeline.specs import reading_of

    rows = read_labels(labelled)
    model = _classifier(settings, classifier)
    scored = _scored(rows, model, policies, only, reading_of(settings), quiet=quiet)
    if not scored:
        raise click.ClickException(
            f"{labelled}: no answer there is to a question that {model.name} can judge; "
            f"questions are {', '.join(q.id for p in policies for q in p.questions)}"
        )
    return {model.digest: scored}


def _archived(
    settings: "Settings", policies: "PolicySet", only: tuple[str, ...], since: timedelta
) -> "Mapping[str, Mapping[str, Scores]]":
    """Return, by classifier digest, the scores that stand in the archive beside people's answers."""
    from pipeline.answered import look, scores_of
    from pipeline.archive import Archive

    answers = look(
        Archive(settings.archive, settings.store), since=datetime.now(UTC) - since
    ).answers
    found: dict[str, dict[str, Scores]] = {}
    for policy in policies:
        for question in policy.questions if not only or policy.policy in only else ():
            for digest in sorted({a.classifier for a in answers if a.question == question.id}):
                scored = scores_of(answers, question.id, question.digest, policy.version, digest)
                if scored is not None:
                    found.setdefault(digest, {})[question.id] = scored
    if not found:
        raise click.ClickException(
            f"of {len(answers)} answers in the archive none is about these policies in their words and versions; "
            "name labelled uploads, look further back with --since, or let people answer first"
        )
    return found


def _classifier(settings: "Settings", name: str | None) -> "Classifier":
    from pipeline.specs import spec_of
    from workers.loading import load

    configured = {spec.name: spec for spec in settings.classifiers}
    chosen = name or settings.classifiers[0].name
    if chosen not in configured:
        raise click.ClickException(
            f"no classifier is named {chosen!r}; configured: {', '.join(configured)}"
        )
    return load(spec_of(configured[chosen]))


def _scored(
    rows: "Sequence[Labelled]",
    model: "Classifier",
    policies: "PolicySet",
    only: tuple[str, ...],
    reading: "Reading",
    *,
    quiet: bool,
) -> "Mapping[str, Scores]":
    from pipeline.progress import bar
    from pipeline.scored import score

    questions = [q for p in policies if not only or p.policy in only for q in p.questions]
    with bar("Scoring", len(rows), quiet=quiet) as advance:
        return score(
            rows,
            model,
            questions,
            reading=reading,
            advance=advance,
            refused=lambda row, why: click.echo(f"{row.id}: left out: {why}", err=True),
        )


def _fitted(
    scored: "Mapping[str, Scores]",
    policies: "PolicySet",
    digest: str,
    prior: float | None,
    source: str,
    seed: int,
    *,
    quiet: bool,
) -> "list[Calibrated]":
    from pipeline.calibrating import calibrate
    from pipeline.progress import bar

    questions = {q.id: (p, q) for p in policies for q in p.questions}
    now = datetime.now(UTC).replace(microsecond=0)
    found = []
    with bar("Fitting", len(scored), quiet=quiet) as advance:
        for name, scores in scored.items():
            policy, question = questions[name]
            found.append(
                calibrate(
                    policy,
                    question,
                    scores,
                    classifier=digest,
                    now=now,
                    prior=prior,
                    source=source,
                    seed=seed,
                )
            )
            advance(1)
    return found


def _row(one: "Calibrated") -> dict[str, Any]:
    calibration = one.calibration
    return {
        "question": calibration.question,
        "classifier": calibration.classifier,
        "method": calibration.method,
        "violates": calibration.labels.violates,
        "allowed": calibration.labels.allowed,
        "auroc": [one.auroc.value, one.auroc.low, one.auroc.high],
        "ece_before": one.ece_before,
        "ece_after": [one.ece_after.value, one.ece_after.low, one.ece_after.high],
        "brier_before": one.brier_before,
        "brier_after": one.brier_after,
        "log_loss": calibration.log_loss,
        "promises": [kept.model_dump(mode="json") for kept in calibration.kept],
    }


def _table(found: "Sequence[Calibrated]", target: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Calibrations, on labels that they were not fitted on")
    for name in (
        "question",
        "method",
        "labels",
        "AUROC",
        "ECE before",
        "ECE after",
        "Brier",
        "promises",
    ):
        table.add_column(name, justify="left" if name in {"question", "method"} else "right")
    for one in found:
        labels = one.calibration.labels
        table.add_row(
            one.calibration.question,
            one.calibration.method,
            f"{labels.violates}+{labels.allowed}",
            f"{one.auroc.value:.3f} ({one.auroc.low:.3f}-{one.auroc.high:.3f})",
            f"{one.ece_before:.3f}",
            f"{one.ece_after.value:.3f} ({one.ece_after.low:.3f}-{one.ece_after.high:.3f})",
            f"{one.brier_before:.3f} > {one.brier_after:.3f}",
            "; ".join(_promise(kept) for kept in one.calibration.kept) or "none made",
        )
    console = Console()
    console.print(table)
    if target is not None:
        console.print(f"{len(found)} calibrations written to {target}")


def _promise(kept: Any) -> str:
    named = f"{'act' if hasattr(kept.promise, 'precision') else 'review'}"
    if kept.value is not None:
        doubt = f" (on single answers, wrong in up to {kept.reviewer_error:.0%})"
        return f"{named} from {kept.value:.3f}{doubt if kept.reviewer_error else ''}"
    return f"{named}: {kept.labels_needed} more labels needed ({kept.kind})"
