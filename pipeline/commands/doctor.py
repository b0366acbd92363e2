"""`weir doctor`: what is wrong with the surroundings, and the configuration with secrets masked."""

import json
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline import doctor
from pipeline.config import Settings

_STYLES = {"well": "green", "warning": "yellow", "wrong": "red"}


@click.command(epilog="Exit codes: 0 all well (warnings too), 1 something is wrong, 2 wrong use.")
@click.option("--no-models", is_flag=True, help="Load no classifier; says nothing of them then.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def command(*, no_models: bool, as_json: bool) -> None:
    """Check every connection and print the configuration."""
    settings = Settings()
    console = Console(stderr=True)
    found = []
    with console.status("looking …"):
        for diagnosis in doctor.examine(settings, models=not no_models):
            found.append(diagnosis)
            console.log(f"{diagnosis.of}: {diagnosis.state}")
    if as_json:
        whole = {
            "configuration": doctor.masked(settings),
            "diagnoses": [asdict(diagnosis) for diagnosis in found],
        }
        click.echo(json.dumps(whole))
    else:
        out = Console()
        out.print_json(data=doctor.masked(settings))
        out.print(_table(found))
    if any(diagnosis.state == "wrong" for diagnosis in found):
        raise SystemExit(1)


def _table(found: list[doctor.Diagnosis]) -> Table:
    table = Table(show_lines=True)
    for name in ("what", "how", "says", "to do"):
        table.add_column(name, overflow="fold")
    for diagnosis in found:
        table.add_row(
            Text(diagnosis.of),
            Text(diagnosis.state, style=_STYLES[diagnosis.state]),
            Text(diagnosis.says),
            Text(diagnosis.remedy),
        )
    return table
