"""Watches a promise while it is in force: a sequential test that may be looked at after every answer. Pure.

The evidence against "the risk is at most what was promised" is a bet that grows with every error beyond it (test
martingales: Ville 1939, Waudby-Smith and Ramdas 2024). It is spread over several alternatives and over the moment at
which the risk may have risen. If the promise holds, the chance that the evidence ever reaches 1/alpha is at most
alpha, however often and whenever one looks.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from pipeline.reliability import Vector

#: The chance of a false alarm over all time.
ALPHA: Final = 0.05
#: Alternatives: the risk is this many times what was promised.
_WORSE: Final = (1.3, 1.7, 2.5, 4.0, 8.0)
#: Uploads that a drift alarm compares at least, and the population stability index above which it is on.
DRIFT_LEAST: Final = 500
DRIFT_LIMIT: Final = 0.2
_BINS: Final = 10


@dataclass(slots=True, kw_only=True)
class RiskMonitor:
    """Evidence that a risk is larger than was promised."""

    risk: float
    alpha: float = ALPHA
    seen: int = 0
    errors: int = 0
    #: The largest evidence so far; an alarm stays on.
    highest: float = 1.0
    _bets: Vector = field(init=False)
    _held: Vector = field(init=False)

    def __post_init__(self) -> None:
        """Lay out the alternatives."""
        ratios = np.array(_WORSE) * self.risk
        self._bets = np.minimum(ratios, (1 + self.risk) / 2)
        self._held = np.zeros(len(self._bets))

    def see(self, *, error: bool) -> bool:
        """Take in one answer, in the order in which they came, and return whether the alarm is on."""
        self.seen += 1
        self.errors += error
        # A share 1/(n(n+1)) of the stake is laid from the n-th answer on: the shares add up to one.
        self._held += 1 / (self.seen * (self.seen + 1))
        self._held *= self._bets / self.risk if error else (1 - self._bets) / (1 - self.risk)
        evidence = float(self._held.mean()) + 1 / (self.seen + 1)
        self.highest = max(self.highest, evidence)
        return self.alarm

    def follow(self, errors: Iterable[bool]) -> bool:
        """Take in several answers and return whether the alarm is on."""
        for error in errors:
            self.see(error=bool(error))
        return self.alarm

    @property
    def alarm(self) -> bool:
        """Return whether the promise is refuted."""
        return self.highest >= 1 / self.alpha


def drift(reference: Vector, scores: Vector) -> float:
    """Return how far scores have moved from quantiles of the reference: the population stability index.

    NaN where there are too few to tell.
    """
    if len(scores) < DRIFT_LEAST or len(reference) < _BINS:
        return float("nan")
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, _BINS + 1)[1:-1]))
    expected = _shares(reference, edges)
    found = _shares(scores, edges)
    return float(((found - expected) * np.log(found / expected)).sum())


def _shares(values: Vector, edges: Vector) -> Vector:
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    # Half an upload in each bin: an empty one would make the index infinite.
    return np.asarray((counts + 0.5) / (len(values) + 0.5 * len(counts)), float)
