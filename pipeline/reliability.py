"""How far probabilities can be trusted: proper scores, calibration error, ranking, each with an interval.

All functions take arrays of one dimension and equal length: probabilities or scores, labels (1: violates), and
optional weights (inverse propensities).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

#: Keeps logarithms finite; far below what any number of labels could tell from zero.
_TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure and the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


def log_loss(probabilities: Vector, labels: Vector, weights: Vector | None = None) -> float:
    """Return the mean negative log-likelihood in nats."""
    p = np.clip(probabilities, _TINY, 1 - _TINY)
    losses = -(labels * np.log(p) + (1 - labels) * np.log(1 - p))
    return float(np.average(losses, weights=weights))


def brier(probabilities: Vector, labels: Vector, weights: Vector | None = None) -> float:
    """Return the mean squared error (Brier 1950)."""
    return float(np.average((probabilities - labels) ** 2, weights=weights))


def ece(
    probabilities: Vector, labels: Vector, weights: Vector | None = None, *, bins: int = 15
) -> float:
    """Return the expected calibration error over bins of equal mass."""
    if not len(probabilities):
        return float("nan")
    w = np.ones(len(labels)) if weights is None else weights
    order = np.argsort(probabilities, kind="stable")
    mass = np.cumsum(w[order]) / w.sum()
    bin_of = np.minimum((mass * bins - _TINY).astype(int), bins - 1)
    total = np.bincount(bin_of, weights=w[order], minlength=bins)
    said = np.bincount(bin_of, weights=(w * probabilities)[order], minlength=bins)
    was = np.bincount(bin_of, weights=(w * labels)[order], minlength=bins)
    return float(np.abs(said - was).sum() / total.sum())


def worth(weights: Vector) -> Vector:
    """Return weights that add up to the number of equal labels that they are worth (Kish 1965)."""
    return np.asarray(weights * weights.sum() / (weights**2).sum(), float)


def ece_floor(probabilities: Vector, *, bins: int = 15, draws: int = 50, seed: int = 0) -> float:
    """Return the calibration error that perfect probabilities would show at this sample size."""
    rng = np.random.default_rng(seed)
    drawn = [
        ece(
            probabilities, (rng.random(len(probabilities)) < probabilities).astype(float), bins=bins
        )
        for _ in range(draws)
    ]
    return float(np.mean(drawn))


def auroc(scores: Vector, labels: Vector, weights: Vector | None = None) -> float:
    """Return the area under the ROC curve, ties counting half; NaN where one class is missing."""
    w = np.ones(len(labels)) if weights is None else weights
    positive, negative = w * (labels == 1), w * (labels != 1)
    if not positive.sum() or not negative.sum():
        return float("nan")
    values, place = np.unique(scores, return_inverse=True)
    up = np.bincount(place, weights=positive, minlength=len(values))
    down = np.bincount(place, weights=negative, minlength=len(values))
    below = np.cumsum(down) - down
    return float((up * (below + down / 2)).sum() / (positive.sum() * negative.sum()))


def average_precision(scores: Vector, labels: Vector) -> float:
    """Return the area under the precision-recall curve as average precision; NaN without positives."""
    if not labels.sum():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order])
    # Equal scores are one threshold: each takes the precision at the last of its group.
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    precision = hits[last] / (last + 1)
    recall = hits[last] / labels.sum()
    return float((precision * np.diff(np.append(0.0, recall))).sum())


def bootstrap(
    figure: Callable[[Vector, Vector], float],
    values: Vector,
    labels: Vector,
    *,
    draws: int = 200,
    seed: int = 0,
) -> Figure:
    """Return a figure between 0 and 1 with its 95 % bootstrap interval (Efron 1979), corrected for bias.

    Samples drawn from a sample vary once more than it does itself. A calibration error only grows by that, so that its
    percentiles would lie above it: the interval is moved back by as much as they lie off on average.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(draws):
        pick = rng.integers(0, len(labels), len(labels))
        drawn.append(figure(values[pick], labels[pick]))
    kept = np.array([value for value in drawn if np.isfinite(value)])
    value = figure(values, labels)
    if not len(kept):
        return Figure(value=value, low=float("nan"), high=float("nan"))
    low, high = np.clip(np.quantile(kept, [0.025, 0.975]) - (kept.mean() - value), 0, 1)
    return Figure(value=value, low=float(low), high=float(high))


def wilson(successes: int, trials: int) -> Figure:
    """Return a share with its 95 % score interval (Wilson 1927)."""
    if not trials:
        return Figure(value=float("nan"), low=0.0, high=1.0)
    return score_interval(successes / trials, trials)


def score_interval(share: float, trials: float) -> Figure:
    """Return a share of so many trials, which a design effect may have made fractional, with its 95 % interval."""
    z, p = 1.959964, share
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * np.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2)) / (1 + z * z / trials)
    return Figure(value=p, low=float(max(0.0, centre - half)), high=float(min(1.0, centre + half)))
