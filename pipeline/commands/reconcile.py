"""`weir reconcile`: count uploads against outcomes."""

import json
from dataclasses import asdict

import click

from pipeline import reconcile
from pipeline.config import Settings
from pipeline.errors import PipelineError
from pipeline.messages import DEAD_LETTERS, DECISIONS, RESCORE, UPLOADS


@click.command(epilog="Exit codes: 0 balanced, 1 something is missing or doubled, 2 wrong use.")
@click.option("--json", "as_json", is_flag=True, help="Print the account as JSON.")
def command(*, as_json: bool) -> None:
    """Count uploads against outcomes, by their source: every upload has exactly one.

    Records that were read but not yet decided count as waiting, as long as nothing behind them is decided.
    """
    from pipeline.kafka import read

    settings = Settings()
    try:
        # Intake first: an upload that comes meanwhile must not look as if it had no outcome.
        records = list(read(settings.kafka, [UPLOADS, RESCORE]))
        account = reconcile.count([*records, *read(settings.kafka, [DECISIONS, DEAD_LETTERS])])
    except PipelineError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(asdict(account) | {"balanced": account.balanced}))
    else:
        click.echo(
            f"{account.uploads} uploads: {account.decided} decided, {account.dead_letters} dead letters, "
            f"{account.waiting} waiting, {len(account.missing)} missing, {len(account.doubled)} doubled"
        )
        for name in account.missing[:20]:
            click.echo(f"missing: {name}")
        for name in account.doubled[:20]:
            click.echo(f"doubled: {name}")
    if not account.balanced:
        raise SystemExit(1)
