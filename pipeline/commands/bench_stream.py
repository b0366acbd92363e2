"""`weir bench stream`: from an upload's record to its committed decision."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipeline.bench_stream import Figures


@click.command(
    epilog="Exit codes: 0 nothing lost, 1 something was lost or nothing ran, 2 wrong use."
)
@click.option("--events", default=5_000, show_default=True, help="Uploads of the backlog.")
@click.option("--rate", default=0.0, help="Then uploads a second, for the latencies; 0: none.")
@click.option("--seconds", default=10.0, show_default=True, help="How long they arrive.")
@click.option(
    "--media",
    type=click.Choice(["none", "folder", "s3"]),
    default="none",
    show_default=True,
    help="A 512-pixel JPEG with each upload, from the folder store or from the configured S3.",
)
@click.option(
    "--classifier", type=click.Choice(["stub", "bundled"]), default="stub", show_default=True
)
@click.option(
    "--broker",
    type=click.Choice(["embedded", "configured"]),
    default="embedded",
    show_default=True,
    help="An embedded broker without transactions, or the configured Kafka, on topics of its own.",
)
@click.option(
    "--pipelines",
    default=1,
    show_default=True,
    help="Pipeline processes that share the pool; the embedded broker takes only one.",
)
@click.option(
    "--bucket", default="s3://weir-bench", show_default=True, help="Where media lie in S3."
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(*, as_json: bool, **chosen: Any) -> None:
    """Measure events a second, latency and CPU, with twelve policies through the Ray pool.

    Beside it stands a bare loop of the Kafka client that writes as many bytes.
    """
    from pipeline.bench_stream import Load, measure
    from pipeline.config import Settings
    from pipeline.errors import PipelineError

    load = Load(**chosen)
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        try:
            found = measure(
                Settings(), load, Path(folder), say=lambda what: click.echo(what, err=True)
            )
        except PipelineError as error:
            raise click.ClickException(str(error)) from error
        log = (Path(folder) / "pipeline.log").read_text(errors="replace")[-2_000:]
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1))
    else:
        _show(found)
    if found.lost or not found.events:
        click.echo(log, err=True)
        raise SystemExit(1)


def _show(found: "Figures") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "value")
    for name, value in asdict(found).items():
        if value is not None:
            table.add_row(name.replace("_", " "), f"{value:,}")
    Console().print(table)
