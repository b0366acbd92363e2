"""`weir policy backtest`: what an edit would have done to the decisions in the archive."""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.ago import ago
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.stored import Stored
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
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page here.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown (the default).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def backtest(
    new: Path,
    *,
    since: timedelta,
    minutes: float,
    fail_if: list[tuple[str, float]],
    accept_review_hours: float | None,
    html: Path | None,
    as_markdown: bool,
    as_json: bool,
) -> None:
    """Decide the archive again under the folder of policies NEW, from stored scores; no model, no Kafka.

    Exits 1 where a limit is passed, where a wording changed (its scores are not known), and where a live policy that
    may act has no fresh calibration, unless --accept-review-hours covers the hours that are then needed. A share is
    held against its limit by the upper bound of its interval.
    """
    from pipeline.archive import Archive
    from pipeline.backtest import redecide
    from pipeline.backtest_report import account, markdown, page
    from pipeline.calibration import CalibrationError, Calibrations
    from pipeline.config import Settings
    from policies.errors import PolicyError
    from policies.folder import read_policies

    if as_json and as_markdown:
        raise click.UsageError("choose one of --json and --markdown")
    settings = Settings()
    try:
        policies = read_policies(new)
        calibrations = Calibrations.load(settings.calibrations)
        archive = Archive(settings.archive, settings.store)
        stored, verdicts = _read(archive, policies, datetime.now(UTC) - since)
    except PolicyError as error:
        for problem in error.problems:
            click.echo(f"{problem.file}:{problem.line}: {problem.what}; {problem.remedy}", err=True)
        sys.exit(1)
    except (PipelineError, CalibrationError) as error:
        raise click.ClickException(str(error)) from error
    _refuse_unknown(stored, policies)
    words = {question.id: question.digest for question in policies.questions}
    thresholds = {
        key[:2]: calibrations.kept(c)
        for key, c in calibrations.by_words.items()
        if words.get(c.question) == c.question_digest
    }
    made = redecide(stored, policies, thresholds)
    report = account(stored, made, policies, verdicts=verdicts, minutes_a_job=minutes)
    if html is not None:
        try:
            html.write_text(page(report), encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"{html} cannot be written: {error.strerror}") from error
    click.echo(json.dumps(report.as_json(), indent=1) if as_json else markdown(report))
    failed = [
        f"{name} may be {report.measure(name):.4g}, more than {limit:g}"
        for name, limit in fail_if
        if report.measure(name) > limit
    ]
    if report.not_fresh and (
        accept_review_hours is None or report.forecast_hours > accept_review_hours
    ):
        failed.append(
            f"live without a fresh calibration: {', '.join(report.not_fresh)}; calibrate them, or accept the "
            f"{report.forecast_hours:.1f} hours of reviewers with --accept-review-hours"
        )
    for line in failed:
        click.echo(line, err=True)
    sys.exit(1 if failed else 0)


def _read(archive: Any, policies: "PolicySet", since: datetime) -> "tuple[Stored, dict[str, bool]]":
    from pipeline.archive_query import ask, connect
    from pipeline.stored import read, selected

    stored = read(selected(archive, since=since), policies)
    connection = connect(archive, since_day=since.strftime("%Y-%m-%d"))
    # The last word on a decision counts; what was withdrawn, or is about golden items, does not.
    rows = ask(
        connection,
        "SELECT decision_id, arg_max(answers, decided_at) AS answers FROM verdicts WHERE part <> 'golden' "
        "AND withdraws IS NULL AND verdict_id NOT IN (SELECT withdraws FROM verdicts WHERE withdraws IS NOT NULL) "
        "GROUP BY decision_id",
    )
    verdicts = {}
    for batch in rows:
        for row in batch.to_pylist():
            said = {answer["answer"] for answer in row["answers"] or ()}
            if "violates" in said or said == {"allowed"}:
                verdicts[row["decision_id"]] = "violates" in said
    return stored, verdicts


def _refuse_unknown(stored: "Stored", policies: "PolicySet") -> None:
    from pipeline.stored import questions

    if not len(stored.decision_ids):
        raise click.ClickException(
            "the archive holds no decision of that time: `weir archive run` fills it, --since looks further back"
        )
    unknown = [
        question.id
        for policy, question in questions(policies)
        if policy.status == "live"
        and stored.digests.get(question.id, frozenset()) != {question.digest}
    ]
    if unknown:
        raise click.ClickException(
            f"the wording of {', '.join(unknown)} is new, so its scores are not known: {len(stored.decision_ids):,} "
            "uploads would have to be scored again. Run it as a shadow first (`status: shadow`), and backtest once "
            "its scores are in the archive"
        )
