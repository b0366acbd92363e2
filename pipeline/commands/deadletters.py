"""`weir deadletters`: list what was set aside, and replay it."""

import json
from collections.abc import Iterator

import click

from pipeline.config import Settings
from pipeline.deadletters import DeadLetter, original, parse_place, read_letter
from pipeline.errors import PipelineError
from pipeline.messages import DEAD_LETTERS

_SHOWN_BYTES = 60


@click.group()
def command() -> None:
    """List and replay dead letters."""


@command.command(name="list")
@click.option("--reason", help="Only those with this reason: undecodable, invalid, poison.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a dead letter.")
def list_letters(*, reason: str | None, as_json: bool) -> None:
    """List the events that were set aside, and why."""
    try:
        found = [letter for letter in _letters() if reason in {None, letter.reason}]
    except PipelineError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        for letter in found:
            click.echo(json.dumps(_row(letter)))
        return
    if not found:
        click.echo("no dead letters")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("place", "source", "reason", "detail", "key", "value")
    for letter in found:
        row = _row(letter)
        table.add_row(
            *(str(row[name] or "") for name in ("place", "source", "reason", "detail", "key")),
            row["value"],
        )
    Console().print(table)


@command.command(epilog="Exit codes: 0 replayed, 1 not found or not written, 2 wrong use.")
@click.argument("places", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Replay every dead letter.")
def replay(places: tuple[str, ...], *, every: bool) -> None:
    """Write dead letters back to the uploads topic: those at PLACES (partition/offset, as `list` shows them)."""
    if bool(places) == every:
        raise click.UsageError("name places like 0/17, or give --all")
    try:
        wanted = {parse_place(place) for place in places}
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    from pipeline.kafka import Producer

    settings = Settings()
    try:
        found = [
            letter
            for letter in _letters()
            if every or (letter.record.partition, letter.record.offset) in wanted
        ]
        missing = wanted - {(letter.record.partition, letter.record.offset) for letter in found}
        if missing:
            first = "/".join(map(str, min(missing)))
            raise click.ClickException(f"no dead letter at {first}: see `weir deadletters list`")
        producer = Producer(settings.kafka)
        producer.send([original(letter) for letter in found])
        producer.close()
    except PipelineError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"replayed {len(found)}")


def _letters() -> Iterator[DeadLetter]:
    from pipeline.kafka import read

    for record in read(Settings().kafka, [DEAD_LETTERS]):
        yield read_letter(record)


def _row(letter: DeadLetter) -> dict[str, str]:
    value = (letter.record.value or b"").decode("utf-8", "replace")
    return {
        "place": letter.place,
        "source": letter.source,
        "reason": letter.reason,
        "detail": letter.detail,
        "key": (letter.record.key or b"").decode("utf-8", "replace"),
        "value": value if len(value) <= _SHOWN_BYTES else value[:_SHOWN_BYTES] + "…",
    }
