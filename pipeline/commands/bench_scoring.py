"""`weir bench scoring`: what many questions on one image cost."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from workers.bench_scoring import Measured, Setting
    from workers.prompt import Wording


@click.command()
@click.option(
    "--shape",
    type=click.Choice(["tiny", "smolvlm-256m", "gemma3-300m", "qwen2.5-vl-3b", "gemma3-4b"]),
    default="smolvlm-256m",
    show_default=True,
    help="The model's shape, for a CPU or for a GPU; its weights are random.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--image-px", default=512, show_default=True, help="Edge of the picture.")
@click.option("--images", default=1, show_default=True, help="Pictures a batch.")
@click.option("--counts", default="1,4,12,30", show_default=True, help="Numbers of questions.")
@click.option("--repeats", default=3, show_default=True, help="The median of so many counts.")
@click.option("--threads", type=int, help="Threads of a CPU; all by default.")
@click.option(
    "--peak-tflops",
    type=float,
    help="The device's peak, for its utilisation; known for some GPUs.",
)
@click.option("--plain/--no-plain", default=True, help="Whether the plain ways are measured too.")
@click.option(
    "--sharing",
    type=click.Choice(["expanded", "packed", "split", "branched"]),
    multiple=True,
    help="How questions share the prefix, several one after the other; by default the fastest, measured first.",
)
@click.option(
    "--plain-images",
    default=1,
    show_default=True,
    help="Pictures a batch where one policy is asked at a time; at most --images.",
)
@click.option(
    "--prepared/--no-prepared",
    help="Prepare pictures before the clock starts: figures of the model alone.",
)
@click.option(
    "--wording",
    type=click.Choice(["full", "brief"]),
    default="full",
    show_default=True,
    help="How questions are worded; see workers/README.md.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(  # noqa: PLR0913 -- one argument an option
    *,
    shape: str,
    device: str,
    image_px: int,
    images: int,
    counts: str,
    repeats: int,
    threads: int | None,
    peak_tflops: float | None,
    plain: bool,
    sharing: tuple[str, ...],
    plain_images: int,
    prepared: bool,
    wording: str,
    as_json: bool,
) -> None:
    """Measure images a second for several numbers of policies, against plain ways of asking.

    Questions come from the configured policies and, past their number, from their clauses.
    """
    from pipeline.config import Settings
    from pipeline.progress import bar
    from workers.bench_scoring import measure, steps, use_threads

    if threads is not None:
        use_threads(threads)
    numbers = [int(count) for count in counts.split(",")]
    methods = sharing or (None,)
    total = steps(numbers, repeats=repeats, plain=plain, images=images, methods=len(methods))
    with bar("questions", total, quiet=as_json) as advance:
        setting, found = measure(
            _asks(Settings().policies, wording),  # type: ignore[arg-type]
            numbers,
            shape=shape,  # type: ignore[arg-type]
            device=device,
            dtype="float32" if device == "cpu" else "bfloat16",
            image_px=image_px,
            images=images,
            peak_tflops=peak_tflops,
            repeats=repeats,
            plain=plain,
            plain_images=plain_images,
            methods=methods,  # type: ignore[arg-type]
            prepared=prepared,
            wording=wording,  # type: ignore[arg-type]
            advance=advance,
        )
    if as_json:
        rows = [asdict(one) | {"image_s": one.image_s, "saving": one.saving} for one in found]
        click.echo(json.dumps({"setting": asdict(setting), "figures": rows}, indent=1))
    else:
        _table(setting, found)


def _asks(folder: "Path", wording: "Wording" = "full") -> list[str]:
    """Return what the policies ask, and past that what each of their clauses asks alone."""
    from dataclasses import replace

    from policies.folder import read_policies
    from workers import prompt

    questions = [question for policy in read_policies(folder) for question in policy.questions]
    alone = [
        replace(question, forbidden=(clause,))
        for question in questions
        for clause in question.forbidden
        if len(question.forbidden) > 1
    ]
    return list(dict.fromkeys(prompt.suffix(question, wording) for question in questions + alone))


def _table(setting: "Setting", found: "Sequence[Measured]") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(
        box=box.SIMPLE,
        padding=(0, 0, 0, 1),
        title=f"{setting.shape}, {setting.parameters / 1e6:.0f}M parameters, {setting.dtype},"
        f" {setting.device}, {datetime.now(UTC):%Y-%m-%d}",
        caption=f"Batches of {found[0].images}, {setting.image_px} pixels: {setting.prefix_tokens} tokens of"
        f" prefix ({setting.prefix_flops / 1e9:.3g} GFLOP, and {setting.tower_flops / 1e9:.3g} in the vision"
        f" tower), {setting.question_tokens:.0f} a question. Cost is against the first column. One by one asks"
        f" about {setting.plain_images} at a time, all in one batch about one."
        + (" Pictures were prepared before the clock started." if setting.prepared else ""),
    )
    first = found[0]
    table.add_column("policies")
    for one in found:
        table.add_column(str(one.questions), justify="right")
    for name, told in (
        ("images a second, shared", [f"{1 / one.image_s:.2f}" for one in found]),
        ("one by one", [_rate(one.one_by_one_s) for one in found]),
        ("all in one batch", [_rate(one.one_batch_s) for one in found]),
        ("ShieldGemma's own path", [_rate(one.replicated_s) for one in found]),
        ("gain over one by one", [_times(one.saving) for one in found]),
        ("what FLOPs allow", [_times(one.ideal) for one in found]),
        ("cost", [f"{one.shared_s / first.shared_s:.2f}×" for one in found]),
        ("cost in CPU time", [f"{one.shared_cpu_s / first.shared_cpu_s:.2f}×" for one in found]),
        ("seconds a batch, p50", [f"{one.shared_s:.3f}" for one in found]),
        ("p99 (of few, the longest)", [f"{one.shared_p99_s:.3f}" for one in found]),
        ("GFLOP a batch", [f"{one.flops / 1e9:.3g}" for one in found]),
        ("seconds for preparing", [f"{one.preparing_s:.3f}" for one in found]),
        ("of the device's peak", [_share(one.utilisation) for one in found]),
        ("way of sharing", [one.method for one in found]),
    ):
        table.add_row(name, *told)
    Console().print(table)


def _rate(seconds: float | None) -> str:
    return "–" if seconds is None else f"{1 / seconds:.2f}"


def _times(gain: float | None) -> str:
    return "–" if gain is None else f"{gain:.1f}×"


def _share(part: float | None) -> str:
    return "–" if part is None else f"{part:.1%}"
