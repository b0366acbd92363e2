"""`weir model`: look at, evaluate, probe and tune classifiers."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.config import ClassifierSettings, Settings
    from pipeline.evaluating import AtBand, Evaluated
    from pipeline.probing import Probed
    from pipeline.reliability import Figure
    from workers.classifier import Classifier

_PATH = click.Path(path_type=Path)


@click.group()
def command() -> None:
    """Look at, evaluate and probe classifiers."""


@command.command()
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def info(names: tuple[str, ...], *, as_json: bool) -> None:
    """Load configured classifiers (all by default) and say what each is and covers."""
    from pipeline.config import Settings
    from policies.errors import PolicyError
    from policies.folder import read_policies
    from workers.errors import CheckpointError

    settings = Settings()
    try:
        policies = read_policies(settings.policies)
    except PolicyError as error:
        raise click.ClickException(str(error)) from error
    rows = []
    for name in names or tuple(spec.name for spec in settings.classifiers):
        try:
            model = _classifier(settings, name)
        except CheckpointError as error:
            raise click.ClickException(f"{name}: {error}") from error
        questions = [question for policy in policies for question in policy.questions]
        rows.append(
            {
                "name": model.name,
                "digest": model.digest,
                "reads": sorted(model.reads),
                "tier": getattr(getattr(model, "family", None), "tier", None),
                "covers": [q.id for q in questions if model.covers(q)],
                "does_not_cover": [q.id for q in questions if not model.covers(q)],
            }
        )
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        click.secho(str(row.pop("name")), bold=True)
        for key, value in row.items():
            told = ", ".join(value) if isinstance(value, list) else value
            click.echo(f"  {key.replace('_', ' ')}: {told or '–'}")


@command.command("eval")
@click.argument("labelled", type=_PATH)
@click.option("--classifier", "names", multiple=True, help="Configured name; may be repeated.")
@click.option("--policies", "folder", type=_PATH, help="Policy folder.")
@click.option("--out", type=_PATH, help="Write eval.json and eval.html into this folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def evaluate(
    labelled: Path, *, names: tuple[str, ...], folder: Path | None, out: Path | None, as_json: bool
) -> None:
    """Measure classifiers on labelled uploads, and name the cheapest that is good enough.

    LABELLED is a folder with labels.jsonl (or .parquet), or such a file.
    """
    from pipeline.calibration import Calibrations
    from pipeline.config import Settings
    from pipeline.errors import PipelineError
    from pipeline.evaluating import evaluate as measured
    from pipeline.evaluating import good_enough
    from pipeline.labels import read_labels
    from pipeline.progress import bar
    from pipeline.specs import reading_of
    from policies.errors import PolicyError
    from policies.folder import read_policies
    from workers.errors import WorkerError

    settings = Settings()
    found: list[Evaluated] = []
    try:
        policies = read_policies(folder or settings.policies)
        rows = read_labels(labelled)
        calibrations = Calibrations.load(settings.calibrations)
        reading = reading_of(settings)
        for name in names or (settings.classifiers[0].name,):
            model = _classifier(settings, name, mass=True)
            with bar(f"Scoring with {name}", len(rows), quiet=as_json) as advance:
                found += measured(
                    rows,
                    model,
                    tuple(policies),
                    calibrations,
                    reading=reading,
                    advance=advance,
                    refused=lambda row, why: click.echo(f"{row.id}: left out: {why}", err=True),
                )
    except (PipelineError, PolicyError, WorkerError) as error:
        raise click.ClickException(str(error)) from error
    if not found:
        raise click.ClickException(f"{labelled}: no answer to a question that is covered")
    chosen = good_enough(found)
    plain = [_plain(one, chosen.get(one.question) == one.classifier) for one in found]
    if out is not None:
        from pipeline.evaluation_page import page

        out.mkdir(parents=True, exist_ok=True)
        (out / "eval.json").write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
        text = page(found, chosen, source=labelled.name)
        (out / "eval.html").write_text(text, encoding="utf-8")
    if as_json:
        click.echo(json.dumps(plain, indent=1))
    else:
        _evaluated(found, chosen)


@command.command(
    "train-mini",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def train_mini(arguments: tuple[str, ...]) -> None:
    """Train the bundled model anew from drawings; --help says how."""
    try:
        from workers.mini.train import main
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"{error.name} is not installed: pip install 'weir-moderation[train]'"
        ) from error
    main(arguments, name="weir model train-mini")


@command.command()
@click.option("--classifier", "name", help="Configured name; the first by default.")
@click.option("--count", default=100, show_default=True, help="Trials of each check.")
@click.option("--seed", default=0, show_default=True, help="Of the scenes.")
@click.option("--bound", default=1.0, show_default=True, help="How far words may move a score.")
@click.option("--out", type=_PATH, help="Write probe.json and probe.html into this folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def probe(
    *, name: str | None, count: int, seed: int, bound: float, out: Path | None, as_json: bool
) -> None:
    """Test whether a checkpoint follows policies: inversion, off-topic, carve-outs, injections.

    Exits 1 where a check stays below its goal.
    """
    from pipeline.config import Settings
    from pipeline.probing import page, summed
    from pipeline.progress import bar
    from workers.errors import WorkerError
    from workers.probe import judge, trials

    settings = Settings()
    made = list(trials(count=count, seed=seed))
    try:
        model = _classifier(settings, name or settings.classifiers[0].name)
        with bar("Probing", len(made), quiet=as_json) as advance:
            rows = summed(judge(model, made, advance), bound=bound)
    except WorkerError as error:
        raise click.ClickException(str(error)) from error
    if not rows:
        raise click.ClickException(f"{model.name} covers none of the questions of the probe")
    plain = [asdict(row) | {"reached": row.reached} for row in rows]
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "probe.json").write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
        text = page(rows, classifier=model.name, bound=bound)
        (out / "probe.html").write_text(text, encoding="utf-8")
    if as_json:
        click.echo(json.dumps(plain, indent=1))
    else:
        _probed(rows)
    sys.exit(0 if all(row.reached for row in rows if row.detail == "all") else 1)


@command.command()
@click.argument("labelled", type=_PATH)
@click.argument("out", type=_PATH)
@click.option("--classifier", "name", help="Configured name; the first by default.")
@click.option("--policies", "folder", type=_PATH, help="Policy folder.")
@click.option("--rank", default=8, show_default=True, help="Of the low-rank updates.")
@click.option("--epochs", default=3, show_default=True, help="How often each answer is seen.")
@click.option("--rate", default=2e-4, show_default=True, help="The highest learning rate.")
@click.option("--batch", default=8, show_default=True, help="Questions a step.")
@click.option("--seed", default=0, show_default=True, help="Of the order.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def tune(  # noqa: PLR0913 -- one argument an option
    labelled: Path,
    out: Path,
    *,
    name: str | None,
    folder: Path | None,
    rank: int,
    epochs: int,
    rate: float,
    batch: int,
    seed: int,
    as_json: bool,
) -> None:
    """Fit a generative classifier to labelled uploads with LoRA; write a checkpoint with its card into OUT.

    LABELLED is a folder with labels.jsonl (or .parquet), or such a file; `weir archive labels` writes one from people's
    verdicts. A quarter of it is held back, and the checkpoint as written is measured on that. Exits 1 where it came out
    worse.
    """
    from pipeline.config import Settings
    from pipeline.errors import PipelineError
    from pipeline.labels import read_labels
    from pipeline.specs import reading_of, spec_of
    from pipeline.tuning import fit
    from policies.errors import PolicyError
    from policies.folder import read_policies
    from workers.errors import WorkerError
    from workers.tuning import Recipe

    settings = Settings()
    chosen = _named(settings, name or settings.classifiers[0].name)
    losses: list[float] = []

    def advance(loss: float) -> None:
        losses.append(loss)
        if not as_json and len(losses) % 20 == 0:
            click.echo(f"step {len(losses)}: loss {sum(losses[-20:]) / 20:.3f}", err=True)

    try:
        found = fit(
            read_labels(labelled),
            spec_of(chosen),
            tuple(read_policies(folder or settings.policies)),
            Recipe(rank=rank, epochs=epochs, rate=rate, batch=batch, seed=seed),
            out,
            reading=reading_of(settings),
            advance=advance,
            refused=lambda row, why: click.echo(f"{row.id}: left out: {why}", err=True),
        )
    except (PipelineError, PolicyError, WorkerError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(asdict(found) | {"better": found.better}, indent=1))
    else:
        for one in found.questions:
            click.echo(
                f"{one.question}: AUROC {one.auroc_before.value:.3f} → {one.auroc_after.value:.3f},"
                f" log-loss {one.log_loss_before:.3f} → {one.log_loss_after:.3f}"
            )
        click.echo(f"{out}: {found.digest}")
    sys.exit(0 if found.better else 1)


def _named(settings: "Settings", name: str) -> "ClassifierSettings":
    configured = {spec.name: spec for spec in settings.classifiers}
    if name not in configured:
        raise click.ClickException(
            f"no classifier is named {name!r}; configured: {', '.join(configured)}"
        )
    return configured[name]


def _classifier(settings: "Settings", name: str, *, mass: bool = False) -> "Classifier":
    from dataclasses import replace

    from pipeline.specs import spec_of
    from workers.loading import load

    spec = spec_of(_named(settings, name))
    if mass and (spec.kind == "generative" or (spec.kind == "text" and not spec.labels)):
        spec = replace(spec, options={**spec.options, "mass": True})
    return load(spec)


def _plain(one: "Evaluated", cheapest: bool) -> dict[str, Any]:  # noqa: FBT001 -- private
    kept = asdict(one)
    del kept["scores"], kept["probabilities"]
    return kept | {"cheapest_good_enough": cheapest}


def _evaluated(found: "Sequence[Evaluated]", chosen: "Mapping[str, str]") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title="Classifiers, with 95 % intervals; of the bands, precision above recall",
        caption=_below(found),
        box=box.HORIZONTALS,
        show_lines=True,
        padding=(0, 1),
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("question\nclassifier", overflow="fold")
    for name in ("labels", "AUROC", "AUPRC", "ECE", "review\nband", "act\nband", "Yes+No"):
        table.add_column(name, no_wrap=True)
    for one in found:
        best = chosen.get(one.question) == one.classifier
        bands = {band.band: band for band in one.bands}
        table.add_row(
            one.question.replace("/", "\n/")
            + "\n"
            + (f"[bold]{one.classifier}[/bold]" if best else one.classifier),
            f"{one.violates}/{one.allowed}",
            _stacked(one.auroc),
            _stacked(one.average_precision),
            _stacked(one.ece) + ("" if one.calibrated else "\nuncalibrated"),
            *(_at(bands[name]) if name in bands else "–" for name in ("review", "act")),
            "–" if one.mass is None else f"{one.mass:.3f}",
        )
    Console().print(table)


def _below(found: "Sequence[Evaluated]") -> str:
    from pipeline.evaluation_page import timed

    times = {one.classifier: timed(one) for one in found}
    told = "; ".join(f"{name} takes {time}" for name, time in times.items())
    return f"In bold: the cheapest that is not measurably worse at that question. {told}."


def _stacked(figure: "Figure") -> str:
    from math import isnan

    # Where all labels are alike there is nothing to tell apart.
    if isnan(figure.value):
        return "–"
    low, high = (f"{edge:.2f}".removeprefix("0") for edge in (figure.low, figure.high))
    return f"{figure.value:.3f}\n{low}–{high}"


def _at(band: "AtBand") -> str:
    from math import isnan

    # Of nothing there is no precision, and without violations no recall.
    shares = (band.precision.value, band.recall.value)
    return "\n".join("none" if isnan(share) else f"{share:.2f}" for share in shares)


def _probed(rows: "Sequence[Probed]") -> None:
    from rich.console import Console
    from rich.table import Table

    from pipeline.probing import GOALS

    table = Table(title="Trials, with 95 % intervals")
    for name in ("check", "kind", "trials", "passed", "goal", "how"):
        table.add_column(name)
    for row in rows:
        table.add_row(
            row.check,
            row.detail,
            str(row.trials),
            f"{row.passed.value:.2f} ({row.passed.low:.2f}–{row.passed.high:.2f})",
            f"{GOALS[row.check]:.2f}",
            row.how or "–",
        )
    Console().print(table)
