"""What verdicts add up to, in words for a lead, and a reviewer's own figures, which are theirs to see first. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pipeline.agreement import Agreement
from pipeline.review import Person
from pipeline.tally import Figures, Ranked
from policies.schema import PolicySet

#: How many clauses a list of the worst names.
_WORST: Final = 10


def for_leads(figures: Figures, policies: PolicySet) -> dict[str, Any]:
    """Return everything that a lead sees of the verdicts so far."""
    titles = {policy.policy: policy.title for policy in policies}
    return {
        "verdicts": figures.verdicts,
        "agreement": [
            {"of": titles.get(name, name) or "All policies", **_agreed(found)}
            for name, found in figures.agreement.items()
        ],
        "reliability": [
            {"of": f"{who}, {titles.get(name, name)}", **_agreed(found)}
            for (who, name), found in figures.reliability.items()
        ],
        "overturned": [
            {
                "of": titles.get(name, name),
                "looked_at": found.looked_at,
                "overturned": found.overturned,
                "percent": _percent(found.percent),
            }
            for name, found in figures.overturned.items()
        ],
        "unclear": _worst(figures.unclear, titles),
        "disputed": _worst(figures.disputed, titles),
        "anchoring": [
            {"of": "Opinion shown", **_agreed(figures.anchoring.shown)},
            {"of": "Opinion hidden", **_agreed(figures.anchoring.hidden)},
        ],
    }


def own(figures: Figures, person: Person, policies: PolicySet) -> list[dict[str, str]]:
    """Return how a reviewer's own answers agree with those that counted in the end, or were known."""
    titles = {policy.policy: policy.title for policy in policies}
    found = figures.of(person)
    return [{"of": titles.get(name, name), **_agreed(found[name])} for name in sorted(found)]


def _agreed(found: Agreement) -> dict[str, str]:
    return {
        "pairs": str(found.pairs),
        "percent": _percent(found.percent),
        "kappa": "–" if found.kappa is None else f"{found.kappa:.2f}",
    }


def _worst(ranked: Iterable[Ranked], titles: Mapping[str, str]) -> list[dict[str, str]]:
    return [
        {
            "of": f"{titles.get(r.policy, r.policy)}{f', {r.clause}' if r.clause else ''}",
            "count": str(r.count),
            "percent": _percent(r.percent),
        }
        for r in list(ranked)[:_WORST]
    ]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0f} %"
