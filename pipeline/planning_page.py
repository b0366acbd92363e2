"""The page of `weir thresholds plan`: hours, automation and error over what may be missed, with the chosen point."""

from html import escape

import numpy as np

from pipeline.planning import STEPS, Plan, Point, Trade, yaml_of

_SIDE = 260
_STYLE = """
:root{color-scheme:light dark;--ink:#1a2230;--faint:#8892a0;--line:#d5dae1;--fill:#2f6fb3;--paper:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecf2;--faint:#98a3b3;--line:#3a4454;--fill:#7db4ee;--paper:#12161d}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:2rem auto;max-width:72rem;
padding:0 1rem}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(20rem,1fr));gap:1.5rem}
figure{margin:0;border:1px solid var(--line);border-radius:8px;padding:1rem}
figcaption b{display:block;font-size:1.05rem}
pre{white-space:pre-wrap;font-size:.8rem}
svg{width:100%;height:auto}
text{fill:var(--faint);font:11px system-ui,sans-serif}
"""


def page(found: Plan) -> str:
    """Return the page as HTML that fetches nothing and runs nothing."""
    figures = "".join(_figure(found, name, point) for name, point in found.points.items())
    short = (
        ""
        if found.miss_rate <= found.wanted
        else f" The wanted {found.wanted:.1%} need {found.hours_for_wanted:.1f} hours."
    )
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>Bands</title><style>{_STYLE}</style></head><body><h1>Where to put the bands</h1>"
        f"<p>{found.hours:.1f} hours of reviewers a week buy a miss rate of {found.miss_rate:.1%}.{short} Over "
        "the share of violations that may pass unseen: hours a week (line, scale on the left), the share of uploads "
        "that needs no person (dashes) and the share of violations that is expected to pass (dots; both on the right). "
        "The large dot is the chosen point.</p>"
        f"<main>{figures}</main></body></html>"
    )


def _figure(found: Plan, name: str, point: Point) -> str:
    bound = "not proven" if point.missed_at_most is None else f"at most {point.missed_at_most:.1%}"
    return (
        f"<figure><figcaption><b>{escape(name)}</b>passes {point.passed:.1%}, people see {point.reviewed:.1%}, "
        f"acts {point.acted:.1%}; expected to miss {point.missed:.1%} ({bound})</figcaption>"
        f"{_curve(found.curves[name], found.miss_rate, point.hours_a_week, name)}"
        f"<pre>{escape(yaml_of(point, found.wanted))}</pre></figure>"
    )


def _curve(trade: Trade, rate: float, now: float, name: str) -> str:
    low, high = np.log(STEPS[0]), np.log(STEPS[-1])
    top = max(*trade.hours, now, 1e-9)

    def place(step: float, share: float) -> str:
        across = (np.log(min(max(step, STEPS[0]), STEPS[-1])) - low) / (high - low)
        return f"{across * _SIDE:.1f},{(1 - share) * _SIDE:.1f}"

    def line(shares: list[float], dashes: str) -> str:
        points = " ".join(place(step, share) for step, share in zip(STEPS, shares, strict=True))
        return (
            f"<polyline points='{points}' fill='none' stroke='var(--fill)' stroke-width='2' "
            f"stroke-dasharray='{dashes}'/>"
        )

    x, y = place(rate, now / top).split(",")
    label = f"Hours, automation and expected misses over the miss rate of {name}"
    return (
        f"<svg viewBox='-44 -8 {_SIDE + 88} {_SIDE + 40}' role='img'"
        f" aria-label='{escape(label, quote=True)}'>"
        f"<rect width='{_SIDE}' height='{_SIDE}' fill='none' stroke='var(--line)'/>"
        f"{line([hours / top for hours in trade.hours], 'none')}"
        f"{line(trade.automated, '7 4')}{line(trade.missed, '1 4')}"
        f"<circle cx='{x}' cy='{y}' r='5' fill='var(--fill)'/>"
        f"<text x='0' y='{_SIDE + 16}'>{STEPS[0]:.1%}</text>"
        f"<text x='{_SIDE}' y='{_SIDE + 16}' text-anchor='end'>{STEPS[-1]:.0%}</text>"
        f"<text x='{_SIDE / 2}' y='{_SIDE + 28}' text-anchor='middle'>may be missed</text>"
        f"<text x='-6' y='10' text-anchor='end'>{top:.1f} h</text>"
        f"<text x='-6' y='{_SIDE}' text-anchor='end'>0</text>"
        f"<text x='{_SIDE + 6}' y='10'>100%</text><text x='{_SIDE + 6}' y='{_SIDE}'>0%</text></svg>"
    )
