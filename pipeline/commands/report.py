"""`weir report`: how well what runs is doing, measured from samples."""

import json
import math
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.ago import ago

if TYPE_CHECKING:
    from datetime import timedelta

    from pipeline.answered import Group, Looked
    from pipeline.comparing import Compared
    from pipeline.quality import Quality
    from pipeline.reliability import Figure

_WAYS = ("surface", "language", "region")


@click.group()
def command() -> None:
    """Measure what was decided from what people answered about samples of it."""


@command.command()
@click.option("--since", default="30d", show_default=True, callback=ago, help="How far back.")
@click.option(
    "--by", multiple=True, type=click.Choice(_WAYS), help="Also by this; may be given again."
)
@click.option("--policy", "only", multiple=True, help="Only this policy; may be given again.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def quality(
    *, since: "timedelta", by: tuple[str, ...], only: tuple[str, ...], as_json: bool
) -> None:
    """Estimate prevalence, miss rate and precision of each question, from the archive.

    What people saw for a band is known; of what passed and of what acted, `audit` of the policy has a share looked at
    by lot, and each answer stands for as many as its chance says. Intervals are 95 %. Where a second person looked at
    some of the answers, the first ones are corrected by what they found.
    """
    from pipeline.answered import look
    from pipeline.archive import Archive
    from pipeline.config import Settings
    from pipeline.errors import PipelineError

    settings = Settings()
    try:
        looked = look(Archive(settings.archive, settings.store), since=datetime.now(UTC) - since)
    except PipelineError as error:
        raise click.ClickException(str(error)) from error
    if not looked.counts:
        raise click.ClickException(
            "the archive holds no decision of that time: `weir archive run` fills it, --since looks further back"
        )
    rows = _rows(looked, by, only)
    if as_json:
        click.echo(json.dumps([_plain(row) for row in rows], indent=1))
    else:
        _show(rows)
    sys.exit(0)


@command.command()
@click.option("--since", default="7d", show_default=True, callback=ago, help="How far back.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def shadow(*, since: "timedelta", as_json: bool) -> None:
    """Show how the shadow decides beside what is in force, upload by upload, from the archive.

    What decides in the shadow is configured by WEIR_SHADOW_POLICIES, WEIR_SHADOW_CLASSIFIERS and WEIR_SHADOW_ROLLOUT;
    its decisions are the archive's view `shadows`.
    """
    from pipeline.archive import Archive
    from pipeline.comparing import compare
    from pipeline.config import Settings
    from pipeline.errors import PipelineError

    settings = Settings()
    try:
        found = compare(Archive(settings.archive, settings.store), since=datetime.now(UTC) - since)
    except PipelineError as error:
        raise click.ClickException(str(error)) from error
    if not found.decisions:
        raise click.ClickException(
            "the archive holds nothing that was decided both ways in that time: set WEIR_SHADOW_POLICIES or "
            "WEIR_SHADOW_CLASSIFIERS, and WEIR_ARCHIVE, for `weir run`"
        )
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=1))
    else:
        _show_shadow(found)


def _show_shadow(found: "Compared") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    differing = found.differing
    table = Table(
        "in force",
        "shadow",
        "decisions",
        "for example",
        title=f"{found.decisions:,} decisions both ways, {differing.value:.2%} of them differ "
        f"({differing.low:.2%} to {differing.high:.2%})",
    )
    for pair in found.pairs:
        table.add_row(pair.live, pair.shadow, f"{pair.count:,}", ", ".join(pair.examples))
    console.print(table)
    asked = Table("question", "asked both ways", "lead elsewhere", "probabilities apart")
    for one in found.questions:
        asked.add_row(one.question, f"{one.count:,}", f"{one.differing:,}", f"{one.apart:.3f}")
    console.print(asked)


def _rows(
    looked: "Looked", by: tuple[str, ...], only: tuple[str, ...]
) -> "list[tuple[str, str, str, Quality]]":
    from pipeline.quality import estimate

    groups = {group for _, _, group in looked.counts}
    found = []
    for question in looked.questions():
        if only and question.partition("/")[0] not in only:
            continue
        found.append((question, "", "", estimate(looked.strata(question))))
        for way in by:
            values = sorted({value for group in groups for value in _values(group, way)})
            for value in values:
                chosen = frozenset(g for g in groups if value in _values(g, way))
                told = estimate(looked.strata(question, chosen))
                if told.uploads:
                    found.append((question, way, value, told))
    return found


def _values(group: "Group", way: str) -> tuple[str, ...]:
    if way == "region":
        return group.regions or ("everywhere",)
    return (str(getattr(group, way) or "none"),)


def _plain(row: "tuple[str, str, str, Quality]") -> dict[str, Any]:
    question, way, value, told = row

    def figure(found: "Figure") -> list[float] | None:
        values = (found.value, found.low, found.high)
        return None if math.isnan(found.value) else [round(v, 6) for v in values]

    return {
        "question": question,
        "by": way or None,
        "value": value or None,
        "uploads": told.uploads,
        "answered": told.answered,
        "second_looks": told.second_looks,
        "prevalence": figure(told.prevalence),
        "miss_rate": figure(told.miss_rate),
        "precision": figure(told.precision),
    }


def _show(rows: "list[tuple[str, str, str, Quality]]") -> None:
    from rich.console import Console
    from rich.table import Table

    def figure(found: "Figure") -> str:
        if math.isnan(found.value):
            return "nobody looked"
        return f"{found.value:.2%} ({found.low:.2%}-{found.high:.2%})"

    table = Table(
        "question", "where", "uploads", "answered", "again", "violate", "of these missed", "acts rightly",
        title="Estimated from samples, with 95 % intervals",
    )  # fmt: skip
    for question, way, value, told in rows:
        table.add_row(
            question,
            f"{way} {value}".strip(),
            f"{told.uploads:,}",
            f"{told.answered:,}",
            f"{told.second_looks:,}",
            figure(told.prevalence),
            figure(told.miss_rate),
            figure(told.precision),
        )
    console = Console()
    console.print(table)
    if any(told.answered and not told.second_looks for *_, told in rows):
        console.print(
            "Single answers are taken at their word: with `review: {reviewers: 2}` their error is measured, too."
        )
