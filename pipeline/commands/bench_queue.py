"""`weir bench queue`: the review queue under load."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipeline.bench_crowd import Load
    from pipeline.bench_queue import Advance, Figures
    from pipeline.bench_rebuild import Figures as RebuildFigures


@click.command(epilog="Exit codes: 0 no promise was broken, 1 one was, 2 wrong use.")
@click.option(
    "--open", "count", default=10_000, show_default=True, help="Open jobs, kept at that number."
)
@click.option("--queues", default=3, show_default=True, help="Queues.")
@click.option("--reviewers", default=50, show_default=True, help="Simulated reviewers.")
@click.option("--seconds", default=60.0, show_default=True, help="How long they work.")
@click.option(
    "--at-once",
    default=4,
    show_default=True,
    help="Reviewers in each of two processes who act in the same moment; the others take turns.",
)
@click.option(
    "--differ",
    is_flag=True,
    help="Reviewers differ in languages, skills, queues, opt-outs and in what they have seen today.",
)
@click.option(
    "--rebuild",
    is_flag=True,
    help="By way of the configured Kafka, on topics of its own; Redis is killed half way.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(
    *,
    count: int,
    queues: int,
    reviewers: int,
    seconds: float,
    at_once: int,
    differ: bool,
    rebuild: bool,
    as_json: bool,
) -> None:
    """Measure claims a second and their latency, and count broken promises.

    Reviewers claim a job, see that it is theirs to have, and close it, as fast as they can. Without --rebuild it needs
    Redis alone.
    """
    from pipeline.bench_crowd import Load
    from pipeline.errors import PipelineError

    load = Load(
        open=count,
        queues=queues,
        reviewers=reviewers,
        seconds=seconds,
        at_once=at_once,
        differ=differ,
    )
    with _progress(count) as advance:
        try:
            found = _measure(load, rebuild, advance)
        except (FileNotFoundError, PipelineError) as error:
            raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1))
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table("figure", "value")
        for name, value in asdict(found).items():
            table.add_row(name.replace("_", " "), f"{value:,}")
        Console().print(table)
    if found.broken:
        raise SystemExit(1)


def _measure(
    load: "Load",
    rebuild: bool,  # noqa: FBT001 -- as it was asked for
    advance: "Advance",
) -> "Figures | RebuildFigures":
    from pipeline import bench_queue, bench_rebuild
    from pipeline.bench_redis import own_redis
    from pipeline.config import Settings

    with own_redis() as own:
        if rebuild:
            return bench_rebuild.measure(Settings().kafka, own, load, advance=advance)
        return bench_queue.measure(own.url, load, advance=advance)


@contextmanager
def _progress(total: int) -> "Iterator[Advance]":
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("jobs", total=total)

        def advance(what: str, done: int, of: int) -> None:
            progress.update(bar, description=what, completed=done, total=of)

        yield advance
