"""`weir pool`: what the deployment's workers are at, and the end of them."""

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from pipeline.config import Settings

if TYPE_CHECKING:
    from rich.table import Table

    from workers.pool import WorkerState


@click.group()
def command() -> None:
    """Look at and stop the pool of workers, which all pipeline processes of a deployment share."""


@command.command(
    epilog="Exit codes: 0 all workers answer, 1 one does not or Ray is away, 2 wrong use."
)
@click.option("--json", "as_json", is_flag=True, help="Print the workers as JSON.")
def status(*, as_json: bool) -> None:
    """Show every worker: what it is, whether it answers, and what it is at."""
    from pipeline.pooling import options_of
    from workers.errors import WorkerError
    from workers.pool import look

    try:
        states = look(options_of(Settings()))
    except WorkerError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps([asdict(state) for state in states]))
    elif states:
        from rich.console import Console

        Console().print(_table(states))
    else:
        click.echo("no workers: the first pipeline process starts them")
    if not all(state.answers for state in states):
        raise SystemExit(1)


@command.command(epilog="Exit codes: 0 done, 1 Ray is away, 2 wrong use.")
@click.option("--json", "as_json", is_flag=True, help="Print the names of those ended as JSON.")
def stop(*, as_json: bool) -> None:
    """End all workers; pipeline processes that still run start new ones."""
    from pipeline.pooling import options_of
    from workers.errors import WorkerError
    from workers.pool import stop as stop_all

    try:
        names = stop_all(options_of(Settings()))
    except WorkerError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(names))
    else:
        click.echo(f"ended {', '.join(names)}" if names else "there were no workers")


def _table(states: "list[WorkerState]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Workers")
    for name in ("worker", "answers", "at its call for", "last answer", "process", "digest"):
        table.add_column(name, overflow="fold")
    now = time.time()
    for state in states:
        answered = state.last_answer_at
        table.add_row(
            Text(state.name),
            "yes" if state.answers else "[red]no[/red]",
            "idle" if state.busy_s is None else f"{state.busy_s:.1f} s",
            "never" if answered is None else f"{now - answered:.0f} s ago",
            str(state.pid or ""),
            (state.digest or "")[:19],
        )
    return table
