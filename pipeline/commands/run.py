"""`weir run`: the pipeline against configured services."""

from typing import TYPE_CHECKING

import click

from pipeline.config import Settings
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.run import Part


@click.command()
@click.option(
    "--only",
    type=click.Choice(["uploads", "escalate", "archive", "monitor", "shadow"]),
    help="Run one part alone: `uploads` decides, `escalate` keeps the review queue, `archive` writes Parquet files, "
    "`monitor` watches what was promised, `shadow` decides without acting.",
)
def command(*, only: "Part | None") -> None:
    """Run the pipeline against the configured services, until a signal stops it.

    Uploads become decisions, and what a person must see comes into the review queue. Where WEIR_ARCHIVE is set, all of
    it is archived, and every five minutes held against what was promised. A process that runs beside others
    needs a name of its own: WEIR_INSTANCE.
    """
    from pipeline.run import run
    from policies.errors import PolicyError
    from workers.errors import CheckpointError

    settings = Settings()
    try:
        status = run(settings, only=only)
    except (PipelineError, PolicyError, CheckpointError) as error:
        raise click.ClickException(str(error)) from error
    if status:
        raise SystemExit(status)
