"""`weir bench overhead`: what the pipeline costs on top of its classifier."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.bench_overhead import Overhead

#: What the pipeline must reach of the bare loop's speed.
GOAL = 0.95


@click.command(epilog="Exit codes: 0 goal reached, 1 missed or something lost, 2 wrong use.")
@click.option("--uploads", default=600, show_default=True, help="Uploads of each run.")
@click.option("--bundled/--no-bundled", default=True, help="Whether the bundled model is measured.")
@click.option(
    "--sleeping",
    default="40,200",
    show_default=True,
    help="Images a second of stubs that sleep as a GPU works; empty for none.",
)
@click.option("--threads", default=1, show_default=True, help="CPU threads of the model.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(*, uploads: int, bundled: bool, sleeping: str, threads: int, as_json: bool) -> None:
    """Measure images a second of the whole pipeline beside a bare loop over the same model and batches.

    The pipeline fetches and decodes a 512-pixel JPEG for each upload and asks twelve policies about it.
    """
    from pipeline.bench_overhead import compare
    from pipeline.config import Settings

    settings = Settings()
    found: list[Overhead] = []
    runs: list[float] = [0.0] if bundled else []
    runs += [float(rate) for rate in sleeping.split(",") if rate]
    for per_s in runs:
        with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
            found.append(
                compare(
                    settings,
                    Path(folder),
                    classifier="stub" if per_s else "bundled",
                    uploads=uploads,
                    per_s=per_s,
                    threads=threads,
                    say=lambda what: click.echo(f"… {what}", err=True),
                )
            )
        one = found[-1]
        click.echo(f"… {one.classifier}: {one.ratio:.1%} of the bare loop", err=True)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=1))
    else:
        _show(found)
    if any(one.ratio < GOAL or one.lost for one in found):
        raise SystemExit(1)


def _show(found: "Sequence[Overhead]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Images a second")
    for name in (
        "classifier",
        "uploads",
        "bare loop, before and after",
        "pipeline",
        "share",
        "lost",
    ):
        table.add_column(name, justify="right")
    for one in found:
        table.add_row(
            one.classifier,
            str(one.uploads),
            f"{one.bare_per_s[0]:.1f}, {one.bare_per_s[1]:.1f}",
            f"{one.pipeline_per_s:.1f}",
            f"{one.ratio:.1%}",
            f"{one.lost:.2%}",
        )
    Console().print(table)
