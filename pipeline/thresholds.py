"""Bands with a promise: which threshold keeps a precision or a miss rate with a stated confidence.

Learn-then-Test (Angelopoulos et al. 2021): every threshold is a null hypothesis "the promise is broken here", tested
by the exact binomial tail in an order fixed before any label is seen, from several starts that share the error
budget. The order is that of the scores, which no rising calibration changes, so that the probabilities may come from a
fit on the same labels. The promise holds for the stream that the labels were sampled from, as long as that stream
stays the same.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from scipy.special import bdtr, betaincinv

from pipeline.reliability import Vector
from policies.schema import MissRate, Precision

#: Thresholds that are tried; more cost nothing in confidence, because testing stops at the first failure.
_STEPS: Final = 200
#: The sequence starts where this many errors can still be borne; the starts share the error budget, because one alone
#: would fail for good on one unlucky label at its head.
_BORNE: Final = (0, 1, 3, 8, 20)
#: How much of its error budget a miss rate spends on chance. The one sequence that it needs is exact: spending all, a
#: promise would hold exactly as often as is said where violations are wholly independent, and less often elsewhere.
_SPENT: Final = 0.4
#: Where the sequences start when labels of each kind were gathered by themselves: shares of the ranked labels.
_SHARES: Final = (0.02, 0.1, 0.2, 0.35, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Labels as a promise needs them: independent, and distributed like the stream."""

    probabilities: Vector
    labels: Vector
    #: Upper bound of how often a single answer is wrong; 0 for adjudicated labels.
    reviewer_error: float = 0.0
    #: The stream's share of violations, where labels of each kind were gathered by themselves; None: as in the stream.
    prior: float | None = None


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
    prior: float | None = None,
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
        probabilities=probabilities[keep],
        labels=labels[keep],
        reviewer_error=reviewer_error,
        prior=prior,
    )


def reviewer_error(probabilities: Vector, first: Vector, final: Vector) -> float:
    """Return an upper bound of how often a first answer is wrong, where it is so most often and it matters.

    Three shares are bounded at 99.5 % each: of what is allowed though it looks like a violation, what the first person
    called one; of the violations that do not look like one, what was let pass; of all that was called a violation,
    what is none. It assumes that errors are no more frequent beyond a threshold than beyond one half.
    """
    likely = probabilities >= 0.5  # noqa: PLR2004 -- where the model leans
    groups = (
        (likely & (final == 0), first == 1),
        (~likely & (final == 1), first == 0),
        (first == 1, final == 0),
    )
    return max(
        upper(int((group & wrong).sum()), int(group.sum()), 0.005) for group, wrong in groups
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
    if sample.prior is not None:
        return _act_at_prior(sample, ranked, wrong, ends, risk, delta)
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


def _act_at_prior(
    sample: Sample, ranked: Vector, wrong: Vector, ends: list[int], risk: float, delta: float
) -> Threshold:
    """Return the threshold where labels of each kind were gathered by themselves: both rates above it are bounded."""
    prior = sample.prior or 0.0
    allowed = int((sample.labels == 0).sum())
    violates = len(sample.labels) - allowed
    counts = _thinned(ends)
    # Starts at fixed shares of the labels, so that what the labels say has no part in it.
    heads = sorted({int(share * len(counts)) for share in _SHARES}) if counts else []
    certified: tuple[int, float] | None = None
    for head in heads:
        budget = delta / len(heads) / 2
        for count in counts[head:]:
            false = int(wrong[count - 1])
            alarms = (1 - prior) * upper(false, allowed, budget)
            found = prior * (1 - upper(violates - (count - false), violates, budget))
            bound = alarms / (alarms + found) if alarms + found > 0 else 1.0
            if bound > risk:
                break
            if certified is None or count > certified[0]:
                certified = (count, bound)
    if certified is None:
        # As if every violation lay above the threshold and nothing else did.
        tolerable = min(0.999, risk / (1 - risk) * prior / max(1 - prior, 1e-9))
        return Threshold(
            value=None,
            labels=len(ranked),
            errors=0,
            bound=1.0,
            labels_needed=max(1, least(tolerable, delta / len(_SHARES) / 2) - allowed),
            kind="adjudicated answers on uploads that are allowed",
        )
    count, bound = certified
    return Threshold(
        value=float(ranked[count - 1]),
        labels=count,
        errors=int(wrong[count - 1]),
        bound=bound / (1 - sample.reviewer_error),
        labels_needed=0,
        kind="",
    )


def review_at(sample: Sample, promise: MissRate) -> Threshold:
    """Return the highest threshold below which at most `miss_rate` of all violations lie."""
    # Squared: single answers both overlook what was missed and call violations what is none.
    doubt = (1 - sample.reviewer_error) ** 2
    risk = promise.miss_rate * doubt
    violations = np.sort(sample.probabilities[sample.labels == 1])
    n, delta = len(violations), (1 - promise.confidence) * _SPENT
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
    below = np.searchsorted(violations, violations, side="left")
    kept = bdtr(below, n, risk) <= delta
    passed = n if kept.all() else int(np.argmin(kept))
    missed = int(below[passed - 1]) if passed else 0
    return Threshold(
        value=float(violations[passed - 1]) if passed else 0.0,
        labels=n,
        errors=missed,
        bound=upper(missed, n, delta) / doubt,
        labels_needed=0,
        kind="",
    )


@lru_cache(maxsize=1024)
def least(risk: float, delta: float, *, errors: int = 0) -> int:
    """Return how many labels certify the risk with that many errors among them."""
    n = max(1, math.ceil(math.log(delta) / math.log1p(-risk)))
    while bdtr(errors, n, risk) > delta:
        n += max(1, n // 50)
    return n


def upper(errors: int, labels: int, delta: float) -> float:
    """Return the upper bound of a rate (Clopper, Pearson 1934)."""
    if errors >= labels:
        return 1.0
    return float(betaincinv(errors + 1, labels - errors, 1 - delta))


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
    if not counts:
        return None
    kept = bdtr(errors, counts, risk) <= delta / len(starts)
    certified = None
    for start in sorted(starts):
        run = len(counts) - start if kept[start:].all() else int(np.argmin(kept[start:]))
        if run:
            certified = max(start + run - 1, -1 if certified is None else certified)
    return certified
