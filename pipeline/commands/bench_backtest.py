"""`weir bench backtest`: a large archive decided again, and checked against deciding one by one."""

import json
from dataclasses import asdict

import click

#: What the backtest of a million decisions promises.
_WALL_S = 30
_PEAK_MB = 2000


@click.command()
@click.option("--decisions", default=1_000_000, show_default=True, help="In the archive.")
@click.option("--sample", default=20_000, show_default=True, help="Decided one by one as well.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(*, decisions: int, sample: int, as_json: bool) -> None:
    """Measure `weir policy backtest` over synthetic decisions with 12 questions each.

    A sample is decided one by one with `decide`, and every feature of the policies must change something in it. No
    broker, no Redis, no model; 400 bytes of disk a decision.

    Exit codes: 0 all as promised, 1 too slow, too large or not equal, 2 wrong use.
    """
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from pipeline.bench_backtest import measure

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("decisions", total=decisions)

        def advance(what: str, done: int, total: int) -> None:
            progress.update(bar, description=what, completed=done, total=total)

        found = measure(decisions, sample=sample, advance=advance)
    plain = asdict(found)
    if as_json:
        click.echo(json.dumps(plain, indent=1))
    else:
        table = Table("figure", "value")
        for name, value in plain.items():
            if name != "features":
                table.add_row(name.replace("_", " "), f"{value:,}")
        for name, count in found.features.items():
            table.add_row(f"without {name}: decided otherwise", f"{count:,}")
        Console().print(table)
    idle = [name for name, count in found.features.items() if not count]
    slow = found.wall_s > _WALL_S or found.peak_mb > _PEAK_MB
    if slow or found.different or not found.same_count or idle:
        raise SystemExit(1)
