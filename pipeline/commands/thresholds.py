"""`weir thresholds`: where to put the bands."""

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.ago import ago

if TYPE_CHECKING:
    from pipeline.config import Settings
    from pipeline.planning import Plan, Stream

_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.group()
def command() -> None:
    """Lay out what bands cost and what they miss."""


@command.command(
    epilog="Exit codes: 0 the hours suffice for what is wanted, 1 they do not, 2 wrong use."
)
@click.option("--reviewer-hours", required=True, type=click.FloatRange(0), help="Hours a week.")
@click.option("--miss-rate", default=0.02, show_default=True, type=_SHARE, help="Wanted at most.")
@click.option("--precision", default=0.99, show_default=True, type=_SHARE, help="Of what acts.")
@click.option("--confidence", default=0.95, show_default=True, type=_SHARE, help="Of the bounds.")
@click.option("--minutes", default=1.0, show_default=True, type=click.FloatRange(0), help="A job.")
@click.option("--since", default="30d", show_default=True, callback=ago, help="How far back.")
@click.option("--policy", "only", multiple=True, help="Only this policy; may be given again.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page here.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(  # noqa: PLR0913 -- one argument an option
    *,
    reviewer_hours: float,
    miss_rate: float,
    precision: float,
    confidence: float,
    minutes: float,
    since: timedelta,
    only: tuple[str, ...],
    html: Path | None,
    as_json: bool,
) -> None:
    """Find the bands that miss no more than is wanted, within the hours that there are.

    From the archive's stored scores and people's answers, and the calibrations; no model, no Kafka, no Redis. Where the
    hours do not suffice, the plan misses as little as they allow, the same share under every question. Prints the
    bands to paste.
    """
    from pipeline.config import Settings
    from pipeline.errors import PipelineError
    from pipeline.planning import plan as find
    from pipeline.planning_page import page
    from policies.errors import PolicyError

    settings = Settings()
    try:
        streams = _streams(settings, since, only)
    except (PipelineError, PolicyError) as error:
        raise click.ClickException(str(error)) from error
    if not streams:
        raise click.ClickException(
            "the archive holds no decision of that time about these policies: `weir archive run` fills it, "
            "--since looks further back"
        )
    found = find(
        streams,
        hours=reviewer_hours,
        miss_rate=miss_rate,
        precision=precision,
        confidence=confidence,
        minutes=minutes,
    )
    if html is not None:
        html.write_text(page(found), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1))
    else:
        _show(found, reviewer_hours)
    sys.exit(1 if found.miss_rate > miss_rate else 0)


def _streams(settings: "Settings", since: timedelta, only: tuple[str, ...]) -> "list[Stream]":
    from pipeline.answered import look, scores_of, stored_scores
    from pipeline.archive import Archive
    from pipeline.calibration import Calibrations
    from pipeline.planning import Stream, meant
    from policies.folder import read_policies
    from policies.schema import Status

    policies = read_policies(settings.policies)
    calibrations = Calibrations.load(settings.calibrations)
    archive = Archive(settings.archive, settings.store)
    begin = datetime.now(UTC) - since
    answers = look(archive, since=begin).answers
    stored = stored_scores(archive, since=begin)
    found = []
    for policy in policies:
        if policy.status is Status.DRAFT or (only and policy.policy not in only):
            continue
        for question in policy.questions:
            # The model that answered most of it is the one that runs.
            mine = {k[2]: v for k, v in stored.items() if k[:2] == (question.id, question.digest)}
            if not mine:
                continue
            classifier = max(mine, key=lambda name: len(mine[name][0]))
            scores, probabilities, days = mine[classifier]
            calibration = calibrations.find(question, classifier)
            if calibration is not None and calibration.question_digest != question.digest:
                calibration = None
            labels = scores_of(answers, question.id, question.digest, policy.version, classifier)
            found.append(
                Stream(
                    question=question.id,
                    probabilities=meant(calibration, scores, probabilities),
                    uploads_a_week=len(scores) / days * 7,
                    calibration=calibration,
                    answered=None if labels is None else labels.one_a_cluster(0),
                )
            )
    return found


def _show(found: "Plan", hours: float) -> None:
    from rich.console import Console
    from rich.table import Table

    from pipeline.planning import yaml_of

    table = Table(
        "question", "review", "act", "h / week", "passes", "people", "acts", "missed", "proven",
        title="Bands",
    )  # fmt: skip
    for name, point in found.points.items():
        bound = (
            f"≤ {point.missed_at_most:.2%}"
            if point.missed_at_most is not None
            else f"{point.labels_needed} more"
            if point.labels_needed
            else "not calibrated"
        )
        table.add_row(
            name,
            f"{point.review_at:.4f}",
            "never" if point.act_at is None else f"{point.act_at:.4f}",
            f"{point.hours_a_week:.1f}",
            *(f"{v:.1%}" for v in (point.passed, point.reviewed, point.acted, point.missed)),
            bound,
        )
    console = Console()
    console.print(table)
    if found.miss_rate > found.wanted:
        console.print(
            f"{hours:g} hours a week buy a miss rate of {found.miss_rate:.1%}; "
            f"{found.wanted:.1%} would need {found.hours_for_wanted:.1f} hours."
        )
    else:
        console.print(f"{found.hours:.1f} of {hours:g} hours a week; misses as wanted.")
    for name, point in found.points.items():
        if point.kind:
            console.print(f"{name}: still needed: {point.labels_needed} {point.kind}")
    click.echo()
    for name, point in found.points.items():
        click.echo(f"# {name}\n{yaml_of(point, found.wanted)}")
