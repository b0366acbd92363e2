"""`weir people`: who may sign in to the console, and as what."""

import sys
from pathlib import Path
from typing import Any

import click

from pipeline.config import Settings
from pipeline.errors import PipelineError


@click.group()
def command() -> None:
    """Say who may sign in to the console, and as what."""


@command.command()
@click.argument("identity")
@click.option("--name", default="", help="Their name, for people.")
@click.option("--roles", default="reviewer", show_default=True, help="Of reviewer, lead, ….")
@click.option("--languages", default="en", show_default=True, help="What they read: en,de.")
@click.option("--skills", default="", help="What they may see: graphic,legal.")
@click.option("--queues", default="", help="Only from these queues.")
@click.option("--policies", default="", help="Only items of these policies.")
@click.option("--sealed", default="", help="Sealed queues that are open to them.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="The file of people.")
def add(identity: str, *, password_stdin: bool, file: Path | None, **options: Any) -> None:
    """Add IDENTITY, or replace them, and ask for their password.

    Roles: reviewer, lead, wellbeing, author, operator, integrator.
    """
    from pydantic import ValidationError

    from pipeline.people import Account, hashed
    from pipeline.people import add as write

    path = file or Settings().console.people
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    said = {key: _list(value) for key, value in options.items() if key != "name"}
    try:
        account = Account.model_validate(
            {
                **said,
                "name": options["name"],
                "queues": said["queues"] or None,
                "policies": said["policies"] or None,
                "password": hashed(password),
            }
        )
        write(path, identity, account)
    except ValidationError as error:
        raise click.UsageError(str(error)) from error
    except PipelineError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{identity} may sign in as {', '.join(account.roles)}; it stands in {path}")


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="The file of people.")
def show(*, as_json: bool, file: Path | None) -> None:
    """Show everybody in the file, without their passwords."""
    import json

    from pipeline.people import read

    try:
        people = read(file or Settings().console.people)
    except PipelineError as error:
        raise click.ClickException(str(error)) from error
    rows = {
        identity: account.model_dump(mode="json", exclude={"password"})
        for identity, account in people.items()
    }
    if as_json:
        click.echo(json.dumps(rows))
        return
    for identity, row in rows.items():
        click.echo(f"{identity}: {', '.join(row['roles'])} ({', '.join(row['languages'])})")


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
