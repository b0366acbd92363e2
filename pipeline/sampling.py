"""A stratified sample, and what it says of the whole. Pure.

Some rows are taken for sure; the rest of the sample is shared out over strata in proportion to the square root of their
sizes (power allocation, Bankier 1988), so that rare strata are seen and common ones do not drown. Each row stands for
as many as its inverse chance. Intervals are Wilson's at the effective size of the sample (after Korn and Graubard
1998): normal ones fail where what is looked for is rare.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.reliability import Figure, Vector, score_interval

#: Rows of a stratum that are looked at in any case: one alone says nothing of how much the stratum varies.
_LEAST: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """Rows of a whole, each with its stratum and its weight: the inverse of its chance."""

    #: How many rows the whole has.
    of: int
    rows: NDArray[np.int64]
    #: Numbers of strata; below zero: taken for sure.
    strata: NDArray[np.int64]
    weights: Vector

    def kept(self, there: NDArray[np.bool_]) -> "Sampled":
        """Return those of the rows that could be had: they stand for the others of their stratum, too."""
        weights = self.weights * there
        for stratum in np.unique(self.strata[self.strata >= 0]):
            mine = self.strata == stratum
            if (left := weights[mine].sum()) > 0:
                weights[mine] *= self.weights[mine].sum() / left
        rows, strata, weights = self.rows[there], self.strata[there], weights[there]
        if len(rows) < len(there) and not (strata >= 0).any():
            # What was to be taken for sure and is gone makes a sample of what is left.
            strata = np.zeros(len(rows), np.int64)
        free = strata >= 0
        if free.any():
            # What nothing of its own kind stands for is taken to be like everything else.
            weights[free] *= (self.of - weights[~free].sum()) / weights[free].sum()
        return Sampled(of=self.of, rows=rows, strata=strata, weights=weights)

    def share(self, hits: NDArray[np.bool_]) -> Figure:
        """Return which share of the whole is like these rows, with its 95 % interval."""
        if not len(self.rows):
            return Figure(value=float("nan"), low=0.0, high=1.0)
        free = self.strata >= 0
        known = float((self.weights * hits)[~free].sum())
        rest = float(self.weights[free].sum())
        if rest <= 0:
            share = known / self.of
            return Figure(value=share, low=share, high=share)
        guessed = float((self.weights * hits)[free].sum()) / rest
        inner = score_interval(guessed, self._effective(hits[free], guessed))
        low, value, high = ((known + rest * p) / self.of for p in (inner.low, guessed, inner.high))
        return Figure(value=value, low=low, high=high)

    def _effective(self, hits: NDArray[np.bool_], share: float) -> float:
        """Return how many independent draws from all of it would say as much about this share."""
        free = self.strata >= 0
        strata, weights = self.strata[free], self.weights[free]
        total = weights.sum()
        # As unlike as the weights are, the sample is worth fewer draws (Kish 1965).
        flat = float(total**2 / (weights**2).sum())
        variance = 0.0
        for stratum in np.unique(strata):
            mine = strata == stratum
            size, n = float(weights[mine].sum()), int(mine.sum())
            if n > 1 and size > n:
                p = float(hits[mine].mean())
                variance += size**2 * (1 - n / size) * p * (1 - p) / (n - 1)
        variance /= total**2
        if variance <= 0 or not 0 < share < 1:
            return flat
        # A handful of hits with unlike weights says little about its own variance.
        return min(float(share * (1 - share) / variance), flat * 2)


def draw(
    strata: NDArray[Any], sure: NDArray[np.bool_], size: int, *, rng: np.random.Generator
) -> Sampled:
    """Return a sample of about this size, beside the rows that are taken for sure."""
    count = len(strata)
    numbers = np.where(sure, -1, strata)
    free, of_each = np.unique(numbers[numbers >= 0], return_counts=True)
    rows, found, weights = (
        [np.flatnonzero(sure)],
        [np.full(int(sure.sum()), -1)],
        [np.ones(sure.sum())],
    )
    order = rng.permutation(count)
    ranked = numbers[order]
    for stratum, there, wanted in zip(free, of_each, shared_out(of_each, size), strict=True):
        mine = order[np.flatnonzero(ranked == stratum)[:wanted]]
        rows.append(mine)
        found.append(np.full(len(mine), stratum))
        weights.append(np.full(len(mine), there / max(len(mine), 1)))
    return Sampled(
        of=count,
        rows=np.concatenate(rows).astype(np.int64),
        strata=np.concatenate(found).astype(np.int64),
        weights=np.concatenate(weights).astype(float),
    )


def shared_out(sizes: NDArray[Any], size: int) -> NDArray[np.int64]:
    """Return how many rows of each stratum are taken: at least a few, at most all."""
    taken: NDArray[np.int64] = np.minimum(sizes, _LEAST).astype(np.int64)
    open_ = taken < sizes
    while open_.any() and (left := size - int(taken.sum())) > 0:
        share = np.sqrt(sizes) * open_
        more = np.floor(left * share / share.sum()).astype(np.int64)
        if not more.any():
            more[int(np.argmax(share))] = 1
        taken = np.minimum(taken + more, sizes)
        open_ = taken < sizes
    return taken
