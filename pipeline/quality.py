"""What passed and what acted, measured from samples: prevalence, miss rate and precision, with intervals. Pure.

Every stratum (passed, reviewed, acted) is counted whole; within it the answered uploads are a sample with known
chances, so that each stands for as many as its inverse chance (Horvitz and Thompson 1952, Hájek 1971). Where a second
person looked again at some of them, single answers are corrected by what the second look found (Tenenbein 1970).
Intervals come from draws of each rate's Jeffreys distribution at the sample's effective size: they hold for rare
violations, where normal ones do not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from pipeline.reliability import Figure, Vector

Where = Literal["passed", "review", "acted"]
_DRAWS: Final = 2_000
_EDGES: Final = (0.025, 0.975)
#: As many answers of the rarer kind weigh as much in their own variance as what is assumed of it.
_BORROWED: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """Uploads with the same outcome, and people's answers about a sample of them."""

    #: How many uploads there are, answered or not.
    count: int
    #: Of the answered: inverse chances, what the first person said, and what holds after a second look (NaN: none).
    weights: Vector
    first: Vector
    final: Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Estimates with 95 % intervals; a figure is not a number where nobody looked."""

    uploads: int
    answered: int
    second_looks: int
    prevalence: Figure
    miss_rate: Figure
    precision: Figure


def estimate(strata: Mapping[Where, Stratum], *, seed: int = 0, draws: int = _DRAWS) -> Quality:
    """Return how much violates, how much of that passes unseen, and how much of what acted was right."""
    rng = np.random.default_rng(seed)
    rates = {where: _rate(s, rng, draws) for where, s in strata.items() if s.count}
    counts = {where: strata[where].count for where in rates}
    total = sum(counts.values())
    # What nobody looked into may hold anything; the draws of such a stratum reach from 0 to 1.
    known = all(np.isfinite(value) for value, _ in rates.values()) and bool(rates)
    values = {where: np.append(value, drawn) for where, (value, drawn) in rates.items()}
    violations = sum((counts[w] * v for w, v in values.items()), np.zeros(draws + 1))
    missed = counts.get("passed", 0) * values.get("passed", np.zeros(draws + 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        miss_rate = np.where(violations > 0, missed / violations, np.nan)
    acted = values.get("acted")
    return Quality(
        uploads=total,
        answered=sum(len(strata[w].weights) for w in rates),
        second_looks=sum(int(np.isfinite(strata[w].final).sum()) for w in rates),
        prevalence=_figure(violations / total) if known else _NOTHING,
        miss_rate=_figure(miss_rate) if known else _NOTHING,
        precision=_NOTHING if acted is None or not np.isfinite(acted[0]) else _figure(acted),
    )


_NOTHING: Final = Figure(value=float("nan"), low=float("nan"), high=float("nan"))


def _figure(values: Vector) -> Figure:
    drawn = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(drawn, _EDGES) if len(drawn) else (np.nan, np.nan)
    # The interval's own middle may miss a plug-in value at the edge, like 0 of 10.
    value = float(values[0])
    return Figure(value=value, low=float(min(low, value)), high=float(max(high, value)))


def _rate(stratum: Stratum, rng: np.random.Generator, draws: int) -> tuple[float, Vector]:
    """Return the rate of violations in a stratum, and draws from its distribution."""
    first, final = stratum.first, stratum.final
    if not len(first):
        return float("nan"), rng.random(draws)
    # Answers that are still to come are like those that are there: these stand for them, too.
    w = np.maximum(1.0, stratum.weights * stratum.count / stratum.weights.sum())
    again = np.isfinite(final)
    if again.all() or not again.any():
        return _share(np.where(again, final, first), w, rng, draws)
    said, said_drawn = _share(first, w, rng, draws)
    right, right_drawn = _second(first == 1, again, final, w, rng, draws)
    overlooked, overlooked_drawn = _second(first == 0, again, final, w, rng, draws)
    return (
        said * right + (1 - said) * overlooked,
        said_drawn * right_drawn + (1 - said_drawn) * overlooked_drawn,
    )


def _second(
    group: np.ndarray,
    again: np.ndarray,
    final: Vector,
    weights: Vector,
    rng: np.random.Generator,
    draws: int,
) -> tuple[float, Vector]:
    """Return how often the second look found a violation among those of whom the first person said the same."""
    chosen = group & again
    if not chosen.any():
        # The first person's word stands.
        word = float(final[again].mean()) if not group.any() else float("nan")
        return (0.0 if not np.isfinite(word) else word), rng.beta(0.5, 0.5, draws)
    # A second look is itself a sample of the first ones: of each it stands for as many as were not looked at again.
    share = chosen.sum() / group.sum()
    return _share(final[chosen], weights[chosen] / share, rng, draws)


def _share(
    labels: Vector, weights: Vector, rng: np.random.Generator, draws: int
) -> tuple[float, Vector]:
    total = weights.sum()
    p = float((weights * labels).sum() / total)
    # Of independent draws without replacement: what was sure to be seen adds no uncertainty.
    spare = (weights * (weights - 1)).clip(min=0)
    variance = float((spare * (labels - p) ** 2).sum() / total**2)
    if spare.sum() <= 0:
        return p, np.full(draws, p)
    flat = float(total**2 / spare.sum())
    size = flat
    if 0 < p < 1:
        # A handful of violations with unlike weights says little about its own variance; the fewer they are, the more
        # counts what it would be if chances and answers had nothing to do with each other.
        rarer = float(min(labels.sum(), len(labels) - labels.sum()))
        alike = p * (1 - p) / flat
        size = p * (1 - p) * (rarer + _BORROWED) / (variance * rarer + alike * _BORROWED)
    return p, rng.beta(p * size + 0.5, (1 - p) * size + 0.5, draws)
