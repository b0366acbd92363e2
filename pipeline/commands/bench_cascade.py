"""`weir bench cascade`: what a cheap first classifier saves, and what quality it costs."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipeline.bench_cascade import Report

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("labelled", type=_PATH)
@click.option("--classifier", "names", multiple=True, help="Configured name; all in their order.")
@click.option("--policies", "folder", type=_PATH, help="Policy folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(labelled: Path, *, names: tuple[str, ...], folder: Path | None, as_json: bool) -> None:
    """Measure the configured classifiers as a cascade, on labelled uploads.

    LABELLED is a folder with labels.jsonl (or .parquet), or such a file. One half of it calibrates each classifier,
    the other half is what the figures are about.
    """
    from pipeline.bench_cascade import measure
    from pipeline.config import Settings
    from pipeline.errors import PipelineError
    from pipeline.labels import read_labels
    from pipeline.specs import reading_of, spec_of
    from policies.errors import PolicyError
    from policies.folder import read_policies
    from workers.errors import WorkerError
    from workers.loading import load

    settings = Settings()
    known = {spec.name: spec for spec in settings.classifiers}
    for name in names:
        if name not in known:
            raise click.UsageError(f"no classifier is named {name}; configured: {', '.join(known)}")
    try:
        found = measure(
            read_labels(labelled),
            [load(spec_of(known[name])) for name in names or known],
            tuple(read_policies(folder or settings.policies)),
            reading=reading_of(settings),
            advance=lambda what: None if as_json else click.echo(f"… {what}", err=True),
            refused=lambda row, why: click.echo(f"{row.id}: left out: {why}", err=True),
        )
    except (PipelineError, PolicyError, WorkerError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1))
    else:
        _show(found)


def _show(found: "Report") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"{found.uploads} uploads; the cascade takes {found.cost:.0%} of the time")
    for name in ("classifier", "uploads that reach it", "questions", "ms an upload"):
        table.add_column(name, justify="right")
    for stage in found.stages:
        table.add_row(
            stage.classifier,
            f"{stage.uploads:.1%}",
            f"{stage.questions:.1%}",
            f"{stage.ms_per_upload:.1f}",
        )
    console.print(table)
    table = Table(title="Quality, beside the last classifier asked about everything")
    for name in ("question", "labels", "settled early", "AUROC", "alone", "Brier lost", "same"):
        table.add_column(name, justify="right")
    for one in found.questions:
        lost = one.brier_lost
        table.add_row(
            one.question,
            str(one.labels),
            f"{one.settled:.1%}",
            f"{one.auroc:.3f}",
            f"{one.auroc_alone:.3f}",
            f"{lost.value:+.4f} ({lost.low:+.4f} to {lost.high:+.4f})",
            f"{one.same:.1%}",
        )
    console.print(table)
