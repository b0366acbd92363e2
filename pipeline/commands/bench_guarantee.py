"""`weir bench guarantee`: promises, calibrations and audits where the truth is known."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.bench_guarantee import Calibrated, Covered, Kept


@click.command(epilog="Exit codes: 0 every figure is within its bound, 1 one is not, 2 wrong use.")
@click.option(
    "--runs",
    default=200,
    type=click.IntRange(1),
    show_default=True,
    help="Repetitions of each stream and size.",
)
@click.option(
    "--labels", default="100,1000,10000", show_default=True, help="Numbers of labels, by commas."
)
@click.option(
    "--audit-runs",
    default=1000,
    type=click.IntRange(1),
    show_default=True,
    help="Repetitions of each audit.",
)
@click.option("--audits", default="300,1000,3000", show_default=True, help="Audited uploads.")
@click.option(
    "--seed", default=0, type=click.IntRange(0), show_default=True, help="Other runs of the same."
)
@click.option("--only", multiple=True, help="Only this stream; may be given again.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(
    *,
    runs: int,
    labels: str,
    audit_runs: int,
    audits: str,
    seed: int,
    only: tuple[str, ...],
    as_json: bool,
) -> None:
    """Simulate streams whose truth is known, and count how often Weir's word holds.

    Streams: as it is; labels gathered half and half; a world that drifts (the risk monitor watches); labels that come
    from the review queue; a third of the labels from one author's near-duplicates; reviewers who err; and the last
    three at once. Beside each promise stands the naive threshold: the first that looks good on the labels.
    """
    from pipeline.bench_guarantee import measure, measure_audits
    from pipeline.progress import bar
    from pipeline.simulation import KINDS

    kinds = [kind for kind in KINDS if not only or kind in only]
    if unknown := set(only) - set(KINDS):
        raise click.BadParameter(
            f"no stream is called {min(unknown)}; there are {', '.join(KINDS)}", param_hint="--only"
        )
    counts, looked = _numbers(labels, "--labels"), _numbers(audits, "--audits")
    with bar("Promises", len(kinds) * len(counts) * runs, quiet=as_json) as advance:
        kept, calibrated = measure(kinds, counts, runs, seed=seed, advance=advance)
    with bar("Audits", 3 * len(looked) * audit_runs, quiet=as_json) as advance:
        covered = measure_audits(looked, audit_runs, seed=seed, advance=advance)
    if as_json:
        found = {
            "promises": [asdict(row) for row in kept],
            "calibration": [asdict(row) for row in calibrated],
            "audits": [asdict(row) for row in covered],
        }
        click.echo(json.dumps(found, indent=1))
    else:
        _show(kept, calibrated, covered)
    rows: list[Kept | Calibrated | Covered] = [*kept, *calibrated, *covered]
    if not all(row.well for row in rows):
        raise SystemExit(1)


def _numbers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part]
    except ValueError as error:
        raise click.BadParameter("write numbers with commas between", param_hint=option) from error


def _show(
    kept: "Sequence[Kept]", calibrated: "Sequence[Calibrated]", covered: "Sequence[Covered]"
) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if kept:
        table = Table(
            "stream", "labels", "promise", "held", "interval", "naive held", "found", "share", "off", "",
            title="Promises at 95 % confidence: share of runs in which they held, with its 95 % interval",
        )  # fmt: skip
        for row in kept:
            table.add_row(
                row.stream,
                f"{row.labels:,}",
                row.promise,
                f"{row.held:.1%}",
                f"{row.interval[0]:.1%} to {row.interval[1]:.1%}",
                f"{row.naive_held:.1%}",
                f"{row.found:.0%}",
                f"{row.automated:.1%}",
                "" if row.turned_off is None else f"{row.turned_off:.0%}",
                "" if row.well else "BROKEN" if row.refuted else "BELOW",
            )
        console.print(table)
    if calibrated:
        table = Table(
            "stream", "labels", "before", "after", "floor", "above it", "",
            title="Calibration error on as many other uploads, mean over runs",
        )  # fmt: skip
        for one in calibrated:
            table.add_row(
                one.stream,
                f"{one.labels:,}",
                *(f"{v:.4f}" for v in (one.before, one.after, one.floor)),
                f"{one.after - one.floor:.4f} ± {1.96 * one.error:.4f}",
                "" if one.well else "OVER",
            )
        console.print(table)
    if covered:
        table = Table(
            "stream", "audited", "figure", "covered", "mean width", "",
            title="Audits: share of runs in which the 95 % interval held the truth",
        )  # fmt: skip
        for cover in covered:
            table.add_row(
                cover.stream,
                f"{cover.audited:,}",
                cover.figure,
                f"{cover.covered:.1%}",
                f"{cover.width:.3f}",
                "" if cover.well else "OUTSIDE",
            )
        console.print(table)
