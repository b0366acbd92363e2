"""Pictures of figures as SVG inside one page: no script, nothing fetched."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from pipeline.reliability import wilson

if TYPE_CHECKING:
    from pipeline.calibrating import Calibrated

#: Edge of a diagram, in CSS pixels.
_SIDE = 240
_BINS = 10

_STYLE = """
:root{color-scheme:light dark;--ink:#1a2230;--faint:#8892a0;--line:#d5dae1;--fill:#2f6fb3;--paper:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecf2;--faint:#98a3b3;--line:#3a4454;--fill:#7db4ee;--paper:#12161d}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:2rem auto;max-width:72rem;
padding:0 1rem}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(19rem,1fr));gap:1.5rem}
figure{margin:0;border:1px solid var(--line);border-radius:8px;padding:1rem}
figcaption b{display:block;font-size:1.05rem}
svg{width:100%;height:auto}
text{fill:var(--faint);font:11px system-ui,sans-serif}
"""


def reliability_page(found: "Sequence[Calibrated]") -> str:
    """Return a page with one reliability diagram for each calibration."""
    figures = "".join(_figure(one) for one in found)
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>Calibration</title><style>{_STYLE}</style></head><body>"
        "<h1>What the scores mean</h1><p>Each point: of the uploads that were given about this probability, the share "
        "that people answered “violates” for, with its 95 % interval. On the diagonal the probability keeps its word. "
        "The labels were not used to fit the probabilities that they are held against.</p>"
        f"<main>{figures}</main></body></html>"
    )


def _figure(one: "Calibrated") -> str:
    c = one.calibration
    return (
        f"<figure><figcaption><b>{escape(c.question)}</b>{escape(c.method)}, "
        f"{c.labels.violates} violate, {c.labels.allowed} allowed<br>"
        f"AUROC {one.auroc.value:.3f}; calibration error {one.ece_before:.3f} before, "
        f"{one.ece_after.value:.3f} after ({one.ece_after.low:.3f} to {one.ece_after.high:.3f})</figcaption>"
        f"{reliability_diagram(one.held, label=f'Reliability of {c.question}')}</figure>"
    )


def reliability_diagram(held: Sequence[tuple[float, float]], *, label: str) -> str:
    """Return one diagram as SVG: probability across, observed share upward, bins of equal width."""
    table = np.array(held, float).reshape(-1, 2)
    marks = []
    for low in np.arange(_BINS) / _BINS:
        top = low + 1 / _BINS
        inside = table[(table[:, 0] >= low) & ((table[:, 0] < top) | (top >= 1))]
        if len(inside):
            share = wilson(int(inside[:, 1].sum()), len(inside))
            x = _SIDE * float(inside[:, 0].mean())
            marks.append(
                f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{_up(share.low)}' y2='{_up(share.high)}' "
                "stroke='var(--fill)' stroke-width='2'/>"
                f"<circle cx='{x:.1f}' cy='{_up(share.value)}' r='4' fill='var(--fill)'>"
                f"<title>{len(inside)} uploads: said {inside[:, 0].mean():.2f}, were {share.value:.2f}</title></circle>"
            )
    return (
        f"<svg viewBox='-34 -8 {_SIDE + 46} {_SIDE + 40}' role='img' aria-label='{escape(label, quote=True)}'>"
        f"<rect width='{_SIDE}' height='{_SIDE}' fill='none' stroke='var(--line)'/>"
        f"<line x1='0' y1='{_SIDE}' x2='{_SIDE}' y2='0' stroke='var(--faint)' stroke-dasharray='4 4'/>"
        f"{''.join(marks)}"
        f"<text x='0' y='{_SIDE + 16}'>0</text><text x='{_SIDE}' y='{_SIDE + 16}' text-anchor='end'>1</text>"
        f"<text x='{_SIDE / 2}' y='{_SIDE + 28}' text-anchor='middle'>said</text>"
        f"<text x='-6' y='{_SIDE}' text-anchor='end'>0</text><text x='-6' y='10' text-anchor='end'>1</text>"
        f"<text x='-10' y='{_SIDE / 2}' text-anchor='middle' transform='rotate(-90 -10 {_SIDE / 2})'>was</text></svg>"
    )


def _up(share: float) -> str:
    return f"{_SIDE * (1 - share):.1f}"
