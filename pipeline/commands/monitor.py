"""`weir monitor`: do the promises of the bands still hold?"""

import json
import math
import sys
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.watching import Watched


@click.command(epilog="Exit codes: 0 no alarm is on, 1 one is, 2 wrong use.")
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(1),
    help="Look again after so many seconds, for ever.",
)
@click.option("--dry-run", is_flag=True, help="Print how things stand and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, every_s: float | None, dry_run: bool, as_json: bool) -> None:
    """Hold promises and calibrations against what people answered since, from the archive.

    A promise that the audited decisions refute is turned off: nothing acts by it, pipelines notice within seconds,
    their metrics and decisions say so, and it stays off until `weir calibrate` fits anew. Looking often makes no
    false alarm likelier (5 % over all time). Scores that moved since the fit make the calibration stale.
    """
    from pipeline.config import Settings
    from pipeline.errors import PipelineError
    from pipeline.watchman import go_round

    settings = Settings()
    while True:
        try:
            found = go_round(settings, dry_run=dry_run)
        except PipelineError as error:
            raise click.ClickException(str(error)) from error
        if as_json:
            click.echo(json.dumps([_plain(one) for one in found], indent=1))
        else:
            _show(found)
        if every_s is None:
            sys.exit(1 if any(one.alarm for one in found) else 0)
        time.sleep(every_s)


def _plain(one: "Watched") -> dict[str, Any]:
    return {
        "question": one.calibration.question,
        "classifier": one.calibration.classifier,
        "promise": None if one.promise is None else one.promise.model_dump(mode="json"),
        "seen": one.seen,
        "errors": one.errors,
        "evidence": None if math.isnan(one.evidence) else one.evidence,
        "alarm": None if one.alarm is None else one.alarm.kind,
    }


def _show(found: "Sequence[Watched]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "question", "promise", "seen", "errors", "evidence", "state", title="What was promised"
    )
    for one in found:
        limit = "20: off" if one.promise is not None else "0.2: stale"
        state = "in force" if one.alarm is None else "OFF" if one.promise else "DRIFTS"
        table.add_row(
            one.calibration.question,
            str(one.promise or "scores as they were"),
            f"{one.seen:,}",
            f"{one.errors:,}" if one.promise else "",
            f"{one.evidence:.2f} ({limit})",
            state,
        )
    Console().print(table)
