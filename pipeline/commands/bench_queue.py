"""`weir bench queue`: the review queue under load."""

import json
from dataclasses import asdict

import click


@click.command()
@click.option("--jobs", default=10_000, show_default=True, help="Open jobs, kept at that number.")
@click.option("--queues", default=3, show_default=True, help="Queues.")
@click.option("--reviewers", default=50, show_default=True, help="Simulated reviewers.")
@click.option("--seconds", default=60.0, show_default=True, help="How long they work.")
@click.option("--processes", default=2, show_default=True, help="Processes that they work in.")
@click.option(
    "--redis",
    "url",
    help="A Redis to use, which is EMPTIED; without it, one of its own is started.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(
    *,
    jobs: int,
    queues: int,
    reviewers: int,
    seconds: float,
    processes: int,
    url: str | None,
    as_json: bool,
) -> None:
    """Measure claims a second and their latency, and count broken promises.

    Reviewers claim a job, see that it is theirs to have, and close it, as fast as they can. It needs Redis alone.

    Exit codes: 0 no promise was broken, 1 one was, 2 wrong use.
    """
    from rich.console import Console
    from rich.progress import Progress

    from pipeline.bench_queue import Load, measure, own_redis

    load = Load(jobs=jobs, queues=queues, reviewers=reviewers, seconds=seconds, processes=processes)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("jobs", total=jobs)

        def advance(what: str, done: int, total: int) -> None:
            progress.update(bar, description=what, completed=done, total=total)

        try:
            if url is None:
                with own_redis() as own:
                    found = measure(own, load, advance=advance)
            else:
                found = measure(url, load, advance=advance)
        except FileNotFoundError as error:
            raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1))
    else:
        from rich.table import Table

        table = Table("figure", "value")
        for name, value in asdict(found).items():
            table.add_row(name.replace("_", " "), f"{value:,}")
        Console().print(table)
    if found.twice or found.barred or found.both or found.urgent_passed_over or found.lost:
        raise SystemExit(1)
