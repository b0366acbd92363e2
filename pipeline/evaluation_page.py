"""A page about one or more classifiers: a table and three pictures for each question."""

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from pipeline.diagrams import reliability_diagram
from pipeline.evaluating import AtBand, Evaluated
from pipeline.reliability import Figure, Vector

_SIDE = 240
_STYLE = """
:root{color-scheme:light dark;--ink:#1a2230;--faint:#8892a0;--line:#d5dae1;--fill:#2f6fb3;--paper:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecf2;--faint:#98a3b3;--line:#3a4454;--fill:#7db4ee;--paper:#12161d}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
margin:2rem auto;max-width:76rem;padding:0 1rem}
table{border-collapse:collapse;width:100%;margin:1rem 0}
th,td{text-align:right;padding:.3rem .6rem;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left}
section{display:grid;grid-template-columns:repeat(auto-fill,minmax(16rem,1fr));gap:1rem}
h2{font-size:1.1rem;margin:1.6rem 0 .4rem}
svg{width:100%;height:auto}
text{fill:var(--faint);font:11px system-ui,sans-serif}
"""


def page(found: Sequence[Evaluated], chosen: Mapping[str, str], *, source: str) -> str:
    """Return the page as HTML that fetches nothing and runs nothing."""
    head = (
        "question",
        "classifier",
        "labels",
        "AUROC",
        "AUPRC",
        "ECE",
        "review band",
        "act band",
        "Yes+No",
        "time",
    )
    rows = "".join(_row(one, chosen) for one in found)
    pictures = "".join(_section(one) for one in found)
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>Classifiers on {escape(source)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>Classifiers on {escape(source)}</h1>"
        "<p>Intervals are 95 %. A band shows precision / recall at its probability. A classifier"
        " in bold is the cheapest that is not measurably worse at that question.</p>"
        f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{rows}</table>"
        f"{pictures}</body></html>"
    )


def _row(one: Evaluated, chosen: Mapping[str, str]) -> str:
    name = escape(one.classifier)
    best = chosen.get(one.question) == one.classifier
    bands = {band.band: band for band in one.bands}
    cells = [
        escape(one.question),
        f"<b>{name}</b>" if best else name,
        f"{one.violates} / {one.allowed}",
        told(one.auroc),
        told(one.average_precision),
        told(one.ece) + ("" if one.calibrated else " uncalibrated"),
        *(_band(bands[band]) if band in bands else "–" for band in ("review", "act")),
        "–" if one.mass is None else f"{one.mass:.3f}",
        timed(one),
    ]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _band(band: AtBand) -> str:
    """Return precision and recall; of nothing there is no precision."""
    if math.isnan(band.precision.value):
        return f"none / {band.recall.value:.2f}"
    return f"{band.precision.value:.2f} / {band.recall.value:.2f}"


def told(figure: Figure) -> str:
    """Return a figure with its interval, in few characters."""
    return f"{figure.value:.3f} ({figure.low:.3f}–{figure.high:.3f})"


def timed(one: Evaluated) -> str:
    """Return what an image took, or an upload where no pictures were read."""
    if one.ms_per_image is None:
        return f"{one.ms_per_upload:.1f} ms an upload"
    return f"{one.ms_per_image:.1f} ms an image"


def _section(one: Evaluated) -> str:
    name = f"{one.question}, {one.classifier}"
    held = list(zip(one.probabilities.tolist(), one.scores.labels.tolist(), strict=True))
    return (
        f"<h2>{escape(name)}</h2><section>"
        f"{_curve(*_roc(one.scores.scores, one.scores.labels), f'ROC of {name}', 'false alarms', 'found')}"
        f"{_curve(*_pr(one.scores.scores, one.scores.labels), f'Precision of {name}', 'found', 'precision')}"
        f"{reliability_diagram(held, label=f'Reliability of {name}')}</section>"
    )


def _roc(scores: Vector, labels: Vector) -> tuple[Vector, Vector]:
    order = np.argsort(-scores, kind="stable")
    up = np.cumsum(labels[order]) / max(labels.sum(), 1)
    across = np.cumsum(1 - labels[order]) / max((1 - labels).sum(), 1)
    return np.append(0.0, across), np.append(0.0, up)


def _pr(scores: Vector, labels: Vector) -> tuple[Vector, Vector]:
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order])
    return hits / max(labels.sum(), 1), hits / np.arange(1, len(order) + 1)


def _curve(across: Vector, up: Vector, label: str, below: str, beside: str) -> str:
    points = " ".join(
        f"{x * _SIDE:.1f},{(1 - y) * _SIDE:.1f}" for x, y in zip(across, up, strict=True)
    )
    return (
        f"<svg viewBox='-34 -8 {_SIDE + 46} {_SIDE + 40}' role='img'"
        f" aria-label='{escape(label, quote=True)}'>"
        f"<rect width='{_SIDE}' height='{_SIDE}' fill='none' stroke='var(--line)'/>"
        f"<polyline points='{points}' fill='none' stroke='var(--fill)' stroke-width='2'/>"
        f"<text x='{_SIDE / 2}' y='{_SIDE + 20}' text-anchor='middle'>{below}</text>"
        f"<text x='-10' y='{_SIDE / 2}' text-anchor='middle'"
        f" transform='rotate(-90 -10 {_SIDE / 2})'>{beside}</text></svg>"
    )
