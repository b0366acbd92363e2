"""Bands with a promise: which threshold keeps a precision or a miss rate with a stated confidence.

Learn-then-Test (Angelopoulos et al. 2021): every threshold is a null hypothesis "the promise is broken here", tested
by the exact binomial tail in an order fixed before any label is seen, from several starts that share the error
budget. The promise holds for the stream that the labels were sampled from, as long as that stream stays the same.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import binom

from pipeline.reliability import Vector
from policies.schema import MissRate, Precision

#: Thresholds that are tried; more cost nothing in confidence, because testing stops at the first failure.
_STEPS: Final = 200
#: The sequence starts where this many errors can still be borne; the starts share the error budget, because one alone
#: would fail for good on one unlucky label at its head.
_BORNE: Final = (0, 1, 3, 8, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Labels as a promise needs them: independent, and distributed like the stream."""

    probabilities: Vector
    labels: Vector
    #: Upper bound of how often a single answer is wrong; 0 for adjudicated labels.
    reviewer_error: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A threshold that keeps its promise, or None and how many labels are still needed, of which kind."""

    value: float | None
    labels: int
    errors: int
    bound: float
    labels_needed: int
    kind: str


def independent(
    probabilities: Vector,
    labels: Vector,
    *,
    clusters: np.ndarray | None = None,
    weights: Vector | None = None,
    reviewer_error: float = 0.0,
    seed: int = 0,
) -> Sample:
    """Return one label a cluster, thinned so that the rest is distributed like the stream.

    Near-duplicates are not independent: each content cluster counts once. Labels that were sampled with unequal
    propensities are kept with a chance proportional to their inverse (rejection sampling), which is exact where
    weighting would need a looser bound.
    """
    rng = np.random.default_rng(seed)
    keep = np.arange(len(labels))
    if clusters is not None:
        order = rng.permutation(len(labels))
        _, first = np.unique(np.asarray(clusters)[order], return_index=True)
        keep = order[first]
    if weights is not None and len(keep):
        w = weights[keep]
        keep = keep[rng.random(len(keep)) * w.max() < w]
    return Sample(
        probabilities=probabilities[keep], labels=labels[keep], reviewer_error=reviewer_error
    )


def act_at(sample: Sample, promise: Precision) -> Threshold:
    """Return the lowest threshold above which at most `1 - precision` of the uploads are not violations."""
    risk = (1 - promise.precision) * (1 - sample.reviewer_error)
    order = np.argsort(-sample.probabilities, kind="stable")
    ranked, wrong = sample.probabilities[order], np.cumsum(sample.labels[order] == 0)
    # A threshold is the number of uploads above it; equal probabilities stand or fall together.
    last_of_equals = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    ends = [int(place) + 1 for place in last_of_equals] if len(ranked) else []
    have, delta = ends[-1] if ends else 0, 1 - promise.confidence
    needed = least(risk, delta)
    counts = _thinned([n for n in ends if n >= needed])
    passed = _tested(counts, [int(wrong[n - 1]) for n in counts], risk, delta)
    if passed is None:
        seen = int(wrong[needed - 1]) if have >= needed else 0
        return Threshold(
            value=None,
            labels=have,
            errors=seen,
            bound=1.0,
            # Those at hand count only where they are among the most probable.
            labels_needed=max(1, least(risk, delta, errors=seen) - min(have, needed)),
            kind="adjudicated answers on uploads with the highest probabilities",
        )
    n = counts[passed]
    errors = int(wrong[n - 1])
    return Threshold(
        value=float(ranked[n - 1]),
        labels=n,
        errors=errors,
        bound=upper(errors, n, delta) / (1 - sample.reviewer_error),
        labels_needed=0,
        kind="",
    )


def review_at(sample: Sample, promise: MissRate) -> Threshold:
    """Return the highest threshold below which at most `miss_rate` of all violations lie."""
    risk = promise.miss_rate * (1 - sample.reviewer_error)
    violations = np.sort(sample.probabilities[sample.labels == 1])
    n, delta = len(violations), 1 - promise.confidence
    needed = least(risk, delta)
    if n < needed:
        return Threshold(
            value=None,
            labels=n,
            errors=0,
            bound=1.0,
            labels_needed=needed - n,
            kind="violations, also among what passed (audit)",
        )
    # The miss rate only rises with the threshold, so one sequence from below needs no further starts.
    missed, value = 0, 0.0
    for k in range(n):
        below = int((violations < violations[k]).sum())
        if binom.cdf(below, n, risk) > delta:
            break
        missed, value = below, float(violations[k])
    return Threshold(
        value=value,
        labels=n,
        errors=missed,
        bound=upper(missed, n, delta) / (1 - sample.reviewer_error),
        labels_needed=0,
        kind="",
    )


def least(risk: float, delta: float, *, errors: int = 0) -> int:
    """Return how many labels certify the risk with that many errors among them."""
    n = max(1, math.ceil(math.log(delta) / math.log1p(-risk)))
    while binom.cdf(errors, n, risk) > delta:
        n += max(1, n // 50)
    return n


def upper(errors: int, labels: int, delta: float) -> float:
    """Return the upper bound of a rate (Clopper, Pearson 1934)."""
    if errors >= labels:
        return 1.0
    low, high = errors / labels, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if binom.cdf(errors, labels, middle) > delta else (low, middle)
    return high


def _thinned(counts: list[int]) -> list[int]:
    if len(counts) <= _STEPS:
        return counts
    picked = np.unique(np.geomspace(1, len(counts), _STEPS).astype(int)) - 1
    return [counts[i] for i in picked]


def _tested(counts: list[int], errors: list[int], risk: float, delta: float) -> int | None:
    """Return the index of the largest count that is certified, or None."""
    # Which starts there are depends on the number of labels alone, never on what they say.
    heads = [least(risk, delta / len(_BORNE), errors=borne) for borne in _BORNE]
    starts = {bisect_left(counts, head) for head in heads} or {0}
    starts = {start for start in starts if start < len(counts)} or {0}
    certified = None
    for start in sorted(starts) if counts else []:
        for index in range(start, len(counts)):
            if binom.cdf(errors[index], counts[index], risk) > delta / len(starts):
                break
            certified = max(index, -1 if certified is None else certified)
    return certified
