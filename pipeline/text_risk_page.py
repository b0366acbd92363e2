"""The page of `weir bench text-risk`: figures before and after calibration, and reliability diagrams."""

from collections.abc import Sequence
from html import escape

from pipeline.diagrams import reliability_diagram
from pipeline.evaluation_page import told
from pipeline.text_risk import Automation, Found

_STYLE = """
:root{color-scheme:light dark;--ink:#1a2230;--faint:#8892a0;--line:#d5dae1;--fill:#2f6fb3;--paper:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecf2;--faint:#98a3b3;--line:#3a4454;--fill:#7db4ee;--paper:#12161d}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:2rem auto;max-width:68rem;
padding:0 1rem}
table{border-collapse:collapse;width:100%;margin:1rem 0}
th,td{text-align:right;padding:.3rem .6rem;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left}
section{display:grid;grid-template-columns:repeat(auto-fill,minmax(16rem,1fr));gap:1.5rem}
figure{margin:0}
svg{width:100%;height:auto}
text{fill:var(--faint);font:11px system-ui,sans-serif}
"""


def page(found: Sequence[Found], *, made_by: str) -> str:
    """Return the page as HTML that fetches nothing and runs nothing."""
    head = ("texts", "held back", "violate", "AUROC", "ECE before", "ECE after", "floor", "Brier")
    rows = "".join(_row(one) for one in found)
    parts = "".join(_part(one) for one in found)
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>Text risk</title><style>{_STYLE}</style></head><body>"
        "<h1>What calibration buys on real labels</h1>"
        f"<p>A logistic head on sentence vectors ({escape(made_by)}), trained on half of each set, calibrated on a "
        "quarter, measured on the last. Intervals are 95 %.</p>"
        f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{rows}</table>{parts}</body></html>"
    )


def _row(one: Found) -> str:
    cells = (
        escape(one.name),
        f"{one.held:,}",
        f"{one.share:.1%}",
        told(one.auroc),
        told(one.ece_before),
        told(one.ece_after),
        f"{one.floor:.3f}",
        f"{one.brier_before:.4f} → {one.brier_after:.4f}",
    )
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _part(one: Found) -> str:
    name = escape(one.name)
    rows = "".join(_automation(a) for a in one.automation)
    return (
        f"<h2>{name}</h2><table><tr><th>risk</th><th>its own word: decided (wrong)</th>"
        f"<th>calibrated ({escape(one.method)})</th><th>proven, at 95 % confidence</th></tr>{rows}</table><section>"
        f"{_diagram(one.before, one.name, 'before')}{_diagram(one.after, one.name, 'after')}</section>"
    )


def _diagram(held: Sequence[tuple[float, float]], name: str, when: str) -> str:
    picture = reliability_diagram(held, label=f"{name}, {when} calibration")
    return f"<figure><figcaption>{when.title()} calibration</figcaption>{picture}</figure>"


def _automation(found: Automation) -> str:
    cells = "".join(
        f"<td>{share:.1%} ({wrong:.2%})</td>"
        for share, wrong in (found.before, found.after, found.proven)
    )
    return f"<tr><td>{found.risk:.0%}</td>{cells}</tr>"
