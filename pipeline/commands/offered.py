"""`weir policy offered`: overturned appeals that may become golden cases."""

import json
from dataclasses import asdict
from pathlib import Path

import click


@click.command(
    epilog="Exit codes: 0 there are some or one was taken, 1 there are none, 2 wrong use."
)
@click.argument("policy", required=False)
@click.option("--take", "appeal", help="Write the cases of this appeal into the folder.")
@click.option("--folder", type=click.Path(path_type=Path), help="The folder of policies.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(policy: str | None, *, appeal: str | None, folder: Path | None, as_json: bool) -> None:
    """Show overturned appeals about POLICY, or all, that may become golden cases; with --take, make one of them.

    Its media are copied beside the cases. What ever lay in a sealed queue is not offered.
    """
    from pipeline.config import Settings
    from pipeline.errors import PipelineError
    from pipeline.overturned import offers, take
    from pipeline.projection import read_queues
    from pipeline.specs import access_of
    from policies.errors import PolicyError
    from workers.errors import WorkerError
    from workers.store import open_stores

    settings = Settings()
    where = folder or settings.policies
    try:
        found = [
            offer
            for offer in offers(settings.kafka, read_queues(where))
            if policy in {None, offer.policy} and appeal in {None, offer.appeal}
        ]
        if appeal is not None:
            for offer in found:
                click.echo(f"written to {take(offer, where, open_stores(access_of(settings)))}")
    except (PipelineError, PolicyError, WorkerError) as error:
        raise click.ClickException(str(error)) from error
    if not found:
        click.echo("no overturned appeal is on the log", err=True)
        raise SystemExit(1)
    if appeal is not None:
        return
    if as_json:
        click.echo(json.dumps([asdict(offer) for offer in found], ensure_ascii=False))
        return
    for offer in found:
        rule = f"{offer.policy} {offer.clause}" if offer.clause else offer.policy
        media = "".join(f" {uri}" for uri in offer.media)
        click.echo(f"{offer.appeal}  {rule}: allowed  {json.dumps(offer.text)}{media}")
        click.echo(f"    the author said: {json.dumps(offer.said)}")
