"""`weir topics`: make the Kafka topics, and say what is wrong with those that exist."""

import json

import click

from pipeline import topics
from pipeline.config import Settings
from pipeline.errors import PipelineError
from pipeline.inventory import examine


@click.group()
def command() -> None:
    """Create and check the Kafka topics."""


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print the names of the topics made as JSON.")
def create(*, as_json: bool) -> None:
    """Make every topic that does not exist yet; those that exist are left as they are."""
    from pipeline.kafka import Topics

    settings = Settings()
    wanted = topics.plan(settings.kafka)
    try:
        admin = Topics(settings.kafka)
        made = admin.create(
            {topic.name: topic.options for topic in wanted},
            partitions={topic.name: topic.partitions for topic in wanted},
        )
        admin.close()
    except PipelineError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(made))
    else:
        click.echo(f"made {', '.join(made)}" if made else "every topic was there already")


@command.command(epilog="Exit codes: 0 as they should be, 1 something is wrong, 2 wrong use.")
@click.option("--json", "as_json", is_flag=True, help="Print what is wrong as JSON.")
def check(*, as_json: bool) -> None:
    """Say which topics are missing or not as they should be, and what to do."""
    settings = Settings()
    try:
        found = examine(settings)
    except PipelineError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        rows = [{"topic": p.topic, "wrong": p.wrong, "remedy": p.remedy} for p in found]
        click.echo(json.dumps(rows))
    else:
        for problem in found:
            click.echo(f"{problem.topic} {problem.wrong}: {problem.remedy}")
        if not found:
            click.echo("every topic is as it should be")
    if found:
        raise SystemExit(1)
