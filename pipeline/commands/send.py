"""`weir send`: files and captions as uploads, and what was decided about them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline import sending, tables
from pipeline.config import Settings
from pipeline.errors import PipelineError
from pipeline.messages import Decision
from workers.errors import WorkerError

#: Columns of a table that goes to no terminal.
_WIDTH = 140


@click.command(epilog="Exit codes: 0 all sent (and decided), 1 something is missing, 2 wrong use.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--wait", is_flag=True, help="Wait for the decisions and show them.")
@click.option(
    "--to",
    default="",
    help="Where the media go: `s3://BUCKET/PREFIX`, or a folder below the store's own.",
)
@click.option(
    "--timeout", "timeout_s", default=120.0, show_default=True, help="Longest wait, in seconds."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object an upload.")
def command(
    paths: tuple[Path, ...], *, wait: bool, to: str, timeout_s: float, as_json: bool
) -> None:
    """Send files and folders of media with captions as uploads.

    NAME.txt beside a medium is its caption. NAME.json says more: text, context, reports, author_id, content_id,
    published, media. A text or JSON file without a medium is an upload of its own.
    """
    settings = Settings()
    try:
        found = send(paths, settings, wait=wait, to=to, timeout_s=timeout_s, as_json=as_json)
    except (PipelineError, WorkerError) as error:
        raise click.ClickException(str(error)) from error
    if not found:
        raise SystemExit(1)


def send(
    paths: Sequence[Path],
    settings: Settings,
    *,
    wait: bool,
    to: str = "",
    timeout_s: float = 120.0,
    as_json: bool = False,
    going: Callable[[], bool] = lambda: True,
) -> bool:
    """Send, show what was asked for, and return whether everything came back.

    Waiting ends early when `going` says that there is nothing to wait for.
    """
    waiting = sending.parcels(paths)
    # Listening begins before the first event is sent, so that no decision is missed.
    decisions = sending.Decisions(settings.kafka) if wait else None
    with _progress() as progress:
        stored = progress.add_task("sent", total=len(waiting))
        events = sending.deliver(
            waiting,
            settings,
            prefix=to or settings.store.uploads,
            stored=lambda: progress.advance(stored),
        )
        if decisions is None:
            _print(
                [{"event_id": e.event_id, "content_id": e.content_id} for e in events],
                as_json=as_json,
            )
            return True
        task = progress.add_task("decided", total=len(events))
        found: dict[str, Decision] = {}
        for decision in decisions.of(events, timeout_s=timeout_s, going=going):
            found[decision.event_id] = decision
            progress.advance(task)
        decisions.close()
    in_order = [found[event.event_id] for event in events if event.event_id in found]
    if as_json:
        _print([decision.model_dump(mode="json") for decision in in_order], as_json=True)
    else:
        # A file or a pipe has no width: wide enough to read the reasons there.
        out = Console()
        Console(width=None if out.is_terminal else _WIDTH).print(tables.decisions(in_order))
    missing = [event.content_id for event in events if event.event_id not in found]
    if missing:
        click.echo(f"not decided within {timeout_s:g} s: {', '.join(missing)}", err=True)
    return not missing


def _print(rows: Sequence[dict[str, object]], *, as_json: bool) -> None:
    for row in rows:
        click.echo(json.dumps(row) if as_json else f"{row['content_id']}  {row['event_id']}")


def _progress() -> Progress:
    # On standard error, so that tables and JSON on standard output stay clean.
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
