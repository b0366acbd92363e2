"""`weir policy backtest`: what an edit would have done to the decisions in the archive."""

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.ago import ago
from pipeline.errors import PipelineError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipeline.archive import Archive
    from pipeline.backtest_report import Judged, Report
    from pipeline.calibration import Calibrations
    from pipeline.config import Settings
    from pipeline.recalibrating import Meaning
    from pipeline.reworded import Reworded
    from pipeline.stored import Meant, Stored
    from policies.schema import PolicySet


def _limits(
    context: click.Context, option: click.Parameter, texts: tuple[str, ...]
) -> list[tuple[str, float]]:
    from pipeline.backtest_report import parse_limit

    del context, option
    try:
        return [parse_limit(text) for text in texts]
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.argument("new", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--since", default="7d", show_default=True, callback=ago, help="How far back.")
@click.option(
    "--minutes", default=1.0, show_default=True, type=click.FloatRange(0), help="Of a review job."
)
@click.option("--fail-if", multiple=True, callback=_limits, help="Like 'wrong_removals > 0.5%'.")
@click.option("--accept-review-hours", type=float, help="Hours of reviewers that may be needed.")
@click.option(
    "--sample",
    default=2000,
    show_default=True,
    type=click.IntRange(1),
    help="Uploads to score again where a wording changed, beside those that people judged.",
)
@click.option("--new-model", is_flag=True, help="Ask every question anew: the model changed.")
@click.option(
    "--labels-since", default="90d", show_default=True, callback=ago, help="How old labels may be."
)
@click.option(
    "--labelled",
    type=click.Path(path_type=Path, exists=True),
    help="Fit on these labelled uploads, as `weir calibrate` reads them, not on the archive's.",
)
@click.option("--cost", is_flag=True, help="Say what scoring again would cost, and stop.")
@click.option("--dry-run", is_flag=True, help="Write no calibration.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page here.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown (the default).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def backtest(  # noqa: PLR0913 -- one argument an option
    new: Path,
    *,
    since: timedelta,
    minutes: float,
    fail_if: list[tuple[str, float]],
    accept_review_hours: float | None,
    sample: int,
    new_model: bool,
    labels_since: timedelta,
    labelled: Path | None,
    cost: bool,
    dry_run: bool,
    html: Path | None,
    as_markdown: bool,
    as_json: bool,
) -> None:
    """Decide the archive again under the folder of policies NEW, from stored scores; no model, no Kafka.

    A stored score means what the calibration in force (WEIR_CALIBRATIONS) says, or what it meant when it was decided
    on, where none of that question and classifier is here; the report says which.

    Where a live question has new words (or with --new-model), a stratified sample of the uploads is scored again by the
    configured classifiers, and says with intervals what all would come to; the cost is said first. What people answered
    about the same version of the policy is held against the new scores, and the calibrations fitted on it are written
    to WEIR_CALIBRATIONS, beside those in force: merged, the policy goes on acting.

    Exits 1 where a limit is passed, and where a live policy that may act has no fresh calibration, unless
    --accept-review-hours covers the hours that are then needed. A figure is held against its limit by the upper bound
    of its interval.
    """
    from pipeline.backtest_report import markdown, page
    from policies.errors import PolicyError
    from workers.errors import WorkerError

    if as_json and as_markdown:
        raise click.UsageError("choose one of --json and --markdown")
    now = datetime.now(UTC)
    options = _Options(
        now=now,
        since=now - since,
        minutes=minutes,
        sample=sample,
        new_model=new_model,
        labels_since=now - labels_since,
        labelled=labelled,
        only_cost=cost,
        write=not dry_run,
        quiet=as_json,
    )
    try:
        report = _report(new, options)
    except PolicyError as error:
        for problem in error.problems:
            click.echo(f"{problem.file}:{problem.line}: {problem.what}; {problem.remedy}", err=True)
        sys.exit(1)
    except (PipelineError, WorkerError) as error:
        raise click.ClickException(str(error)) from error
    if report is None:
        return
    if html is not None:
        try:
            html.write_text(page(report), encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"{html} cannot be written: {error.strerror}") from error
    click.echo(json.dumps(report.as_json(), indent=1) if as_json else markdown(report))
    failed = list(_failures(report, fail_if, accept_review_hours))
    for line in failed:
        click.echo(line, err=True)
    sys.exit(1 if failed else 0)


def _failures(
    report: "Report", limits: "Sequence[tuple[str, float]]", accepted_hours: float | None
) -> "Iterator[str]":
    """Yield a line for everything that speaks against merging."""
    for name, limit in limits:
        if report.measure(name) > limit:
            yield f"{name} may be {report.measure(name):.4g}, more than {limit:g}"
    hours = report.forecast_hours
    if report.not_fresh and (accepted_hours is None or hours > accepted_hours):
        yield (
            f"live without a fresh calibration: {', '.join(report.not_fresh)}; calibrate them, or accept the "
            f"{hours:.1f} hours of reviewers with --accept-review-hours"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """What is decided again, and how questions are asked anew."""

    now: datetime
    since: datetime
    minutes: float
    sample: int
    new_model: bool
    labels_since: datetime
    labelled: Path | None
    only_cost: bool
    write: bool
    quiet: bool


def _report(new: Path, options: _Options) -> "Report | None":
    """Return what comes of these policies; None where only the cost was asked for."""
    from pipeline.archive import Archive
    from pipeline.backtest import redecide, thresholds_of
    from pipeline.backtest_report import account
    from pipeline.calibration import Calibrations
    from pipeline.config import Settings
    from pipeline.recalibrating import Recalibration
    from pipeline.resampling import changed
    from policies.folder import read_policies
    from policies.schema import Status

    settings = Settings()
    policies = read_policies(new)
    calibrations = Calibrations.load(settings.calibrations)
    archive = Archive(settings.archive, settings.store)
    recalibration = Recalibration(calibrations=calibrations, policies=policies, now=options.now)
    stored, verdicts = _read(archive, policies, options.since, recalibration)
    asked = changed(stored, policies)
    if options.new_model:
        asked = [q.id for p in policies if p.status is Status.LIVE for q in p.questions]
    if asked:
        reworded = _reworded(settings, archive, policies, asked, calibrations, options)
        meanings = tuple(m for m in recalibration.meanings() if m.question not in asked)
        return _anew(reworded, settings, stored, verdicts, meanings, options)
    if options.only_cost:
        click.echo("nothing is scored again: no live question has new words", err=True)
        return None
    made = redecide(stored, policies, thresholds_of(calibrations, policies))
    return account(
        stored,
        made,
        policies,
        verdicts=verdicts,
        minutes_a_job=options.minutes,
        meanings=recalibration.meanings(),
    )


def _read(
    archive: Any, policies: "PolicySet", since: datetime, meant: "Meant"
) -> "tuple[Stored, dict[str, Judged]]":
    from pipeline.answered import STANDING
    from pipeline.archive_query import ask, connect
    from pipeline.backtest_report import Judged
    from pipeline.stored import read, selected

    stored = read(selected(archive, since=since), policies, meant=meant)
    if not len(stored.decision_ids):
        raise RefusedError(
            "the archive holds no decision of that time: `weir archive run` fills it, --since looks further back"
        )
    connection = connect(archive, since_day=since.strftime("%Y-%m-%d"))
    # The last word on a decision counts. What came to people by lot alone stands for others of its kind.
    rows = ask(
        connection,
        "SELECT decision_id, answers, list_max(review_propensities) AS chance FROM "  # noqa: S608 -- our own words
        f"(SELECT decision_id, arg_max(answers, decided_at) AS answers FROM {STANDING} GROUP BY decision_id) "
        "JOIN decisions USING (decision_id)",
    )
    verdicts = {}
    for batch in rows:
        for row in batch.to_pylist():
            said = {answer["answer"] for answer in row["answers"] or ()}
            if "violates" in said or said == {"allowed"}:
                verdicts[row["decision_id"]] = Judged("violates" in said, row["chance"] or 1.0)
    return stored, verdicts


def _reworded(
    settings: "Settings",
    archive: "Archive",
    policies: "PolicySet",
    asked: "Sequence[str]",
    calibrations: "Calibrations",
    options: _Options,
) -> "Reworded":
    from pipeline.labels import read_labels
    from pipeline.rescoring import Rescoring
    from pipeline.reworded import Reworded
    from pipeline.specs import access_of, reading_of, spec_of
    from workers.loading import load
    from workers.store import open_stores

    labelled = options.labelled
    return Reworded(
        archive=archive,
        policies=policies,
        asked=asked,
        rescoring=Rescoring(
            classifiers=[load(spec_of(classifier)) for classifier in settings.classifiers],
            store=open_stores(access_of(settings)),
            reading=reading_of(settings),
        ),
        calibrations=calibrations,
        now=options.now.replace(microsecond=0),
        file=() if labelled is None else read_labels(labelled),
        source="archive" if labelled is None else labelled.name,
    )


def _anew(
    reworded: "Reworded",
    settings: "Settings",
    stored: "Stored",
    verdicts: "Mapping[str, Judged]",
    meanings: "Sequence[Meaning]",
    options: _Options,
) -> "Report | None":
    """Say what asking anew costs, ask, write the calibrations, and return the report."""
    from pipeline.answered import answers_in
    from pipeline.calibration import write
    from pipeline.progress import bar

    answers = answers_in(reworded.archive, since=options.labels_since)
    plan = reworded.plan(stored, judged=verdicts, answers=answers, size=options.sample)
    cost = reworded.cost(plan)
    click.echo(
        f"{cost.uploads:,} uploads are scored again on {', '.join(reworded.asked)}, {cost.labelled:,} of them because "
        f"people answered about them: about {cost.seconds:,.1f} s of the classifiers, timed on {cost.timed}",
        err=True,
    )
    if options.only_cost:
        return None
    with bar("Scoring", cost.uploads, quiet=options.quiet) as advance:
        fits = reworded.fit(plan, advance=advance)
        report = reworded.decide(
            stored,
            plan,
            verdicts=verdicts,
            minutes_a_job=options.minutes,
            fits=fits,
            meanings=meanings,
            advance=advance,
        )
    if options.write:
        try:
            written = [write(settings.calibrations, one.calibration) for one in fits[0]]
        except OSError as error:
            raise click.ClickException(
                f"{settings.calibrations} cannot be written: {error.strerror}; see WEIR_CALIBRATIONS"
            ) from error
        for path in written:
            click.echo(f"calibration written: {path}", err=True)
    return report
