"""`weir legal-hold`: what must not be erased, by whose word, until when."""

import getpass
import json
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from pipeline.config import Settings
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.legal import Legal

_BY = click.option(
    "--by", default=getpass.getuser, show_default="who runs this", help="Who says so."
)


@click.group()
def command() -> None:
    """Keep contents from being erased: holds are events on Kafka, kept for ever."""


def _state(settings: Settings) -> "Legal":
    from pipeline.legal import known

    try:
        return known(settings.kafka)
    except PipelineError as error:
        raise click.ClickException(str(error)) from error


def _say(
    settings: Settings, kind: str, content: str, reason: str, by: str, until: datetime | None
) -> None:
    from pipeline.legal import write
    from pipeline.messages import LegalEvent

    event = LegalEvent(
        event_id=str(uuid.uuid4()),
        kind=kind,
        content_ids=(content,),
        reason=reason,
        by=by,
        at=datetime.now(UTC),
        until=until,
    )
    try:
        write(settings.kafka, [event])
    except PipelineError as error:
        raise click.ClickException(str(error)) from error


@command.command()
@click.argument("content")
@click.option("--reason", required=True, help="Why, like the number of the order.")
@click.option(
    "--until",
    required=True,
    type=click.DateTime(["%Y-%m-%d"]),
    help="The day (UTC) on which it ends by itself.",
)
@_BY
def add(content: str, *, reason: str, until: datetime, by: str) -> None:
    """Put CONTENT under a legal hold; a second one takes the place of the first."""
    end = until.replace(tzinfo=UTC)
    if end <= datetime.now(UTC):
        raise click.BadParameter("that day has begun already", param_hint="--until")
    _say(Settings(), "hold", content, reason, by, end)
    click.echo(f"{content} is under a legal hold until {end:%Y-%m-%d}")


@command.command()
@click.argument("content")
@click.option("--reason", required=True, help="Why it ends before its time.")
@_BY
def release(content: str, *, reason: str, by: str) -> None:
    """End the legal hold of CONTENT."""
    settings = Settings()
    if content not in _state(settings).held(datetime.now(UTC)):
        raise click.ClickException(f"{content} is under no legal hold: `weir legal-hold list`")
    _say(settings, "release", content, reason, by, None)
    click.echo(f"{content} is under no legal hold any more")


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_holds(*, as_json: bool) -> None:
    """List what is under a legal hold now."""
    held = _state(Settings()).held(datetime.now(UTC))
    if as_json:
        plain = {name: hold.model_dump(mode="json") for name, hold in sorted(held.items())}
        click.echo(json.dumps(plain, indent=1))
        return
    for name, hold in sorted(held.items()):
        end = "for ever" if hold.until is None else f"until {hold.until:%Y-%m-%d}"
        click.echo(f"{name}: {end}, by {hold.by}: {hold.reason}")
    if not held:
        click.echo("nothing is under a legal hold")
