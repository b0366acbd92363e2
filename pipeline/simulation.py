"""Streams whose truth is known: what promises, calibrations and audits are tried on. Pure.

An upload has a true log-odds of violating; the model sees it, monotone but far too sure; reviewers see the upload, and
err. What differs from stream to stream is how labels come about, and whether the world stays as it was.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from pipeline.reliability import Vector
from pipeline.scored import Scores

#: Mean and spread of the true log-odds in the stream.
_CENTRE, _SPREAD = -1.5, 3.0
#: Share of violations in the stream whose labels were gathered half and half.
SHIFTED_PRIOR: Final = 0.05
#: Share of the labels at which a second person looked again.
_LOOKED_AGAIN: Final = 0.2
#: Mean share of wrong answers of one reviewer.
_ERRORS: Final = 0.05

Kind = Literal[
    "steady", "class shift", "drift", "selective", "one author", "reviewers", "all of it"
]
KINDS: Final[tuple[Kind, ...]] = (
    "steady",
    "class shift",
    "drift",
    "selective",
    "one author",
    "reviewers",
    "all of it",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploads:
    """Uploads with their true chance of violating, their truth, and the model's score."""

    chance: Vector
    violates: Vector
    scores: Vector


def uploads(
    count: int, rng: np.random.Generator, *, prior: float | None = None, moved: float = 0.0
) -> Uploads:
    """Return uploads of a stream.

    Args:
        count: how many.
        rng: where chance comes from.
        prior: share of violations, where it is not the stream's own; what violations look like stays the same.
        moved: how much the log-odds have fallen behind what the score says.
    """
    if prior is None:
        z = rng.normal(_CENTRE, _SPREAD, count)
        chance = expit(z - moved)
        violates = (rng.random(count) < chance).astype(float)
    else:
        wanted = (rng.random(count) < prior).astype(float)
        z = np.empty(count)
        for kind in (0.0, 1.0):
            z[wanted == kind] = _of_kind(kind, int((wanted == kind).sum()), rng)
        violates = wanted
        chance = expit(z + np.log(prior / (1 - prior)) - np.log(_SHARE / (1 - _SHARE)))
    return Uploads(chance=chance, violates=violates, scores=2.3 * z + 1.2 + 0.8 * np.tanh(z))


def whole(count: int, *, prior: float | None = None) -> Uploads:
    """Return the stream itself, as so many quantiles of it: what is read off it has no error of sampling."""
    levels = (np.arange(count) + 0.5) / count
    z = norm.ppf(levels, _CENTRE, _SPREAD)
    if prior is not None:
        up = expit(z)
        mass = np.cumsum(up * prior / _SHARE + (1 - up) * (1 - prior) / (1 - _SHARE))
        z = np.interp(levels, mass / mass[-1], z)
    return _seen(z, np.zeros(count), prior)


def _seen(z: Vector, violates: Vector, prior: float | None) -> Uploads:
    shift = 0.0 if prior is None else np.log(prior / (1 - prior)) - np.log(_SHARE / (1 - _SHARE))
    return Uploads(
        chance=expit(z + shift), violates=violates, scores=2.3 * z + 1.2 + 0.8 * np.tanh(z)
    )


def _of_kind(kind: float, count: int, rng: np.random.Generator) -> Vector:
    found = np.empty(0)
    while len(found) < count:
        z = rng.normal(_CENTRE, _SPREAD, 4 * count + 100)
        found = np.append(found, z[(rng.random(len(z)) < expit(z)) == bool(kind)])
    return found[:count]


#: The stream's own share of violations.
_SHARE: Final = float(
    expit(norm.ppf((np.arange(100_000) + 0.5) / 100_000, _CENTRE, _SPREAD)).mean()
)


def answers(found: Uploads, rng: np.random.Generator) -> Vector:
    """Return what one reviewer says: wrong in 5 % of all answers, more on hard items and towards the model."""
    hard = 1 - np.abs(2 * found.chance - 1)
    says = (found.scores > 0).astype(float)
    towards = np.where(says != found.violates, 3.0, 0.5)
    wrong = (0.5 + 2 * hard) * towards
    chance = np.minimum(0.6, wrong * _ERRORS / wrong.mean())
    return np.where(rng.random(len(wrong)) < chance, 1 - found.violates, found.violates)


def propensity(scores: Vector) -> Vector:
    """Return the chance of having been labelled where people see what the model is unsure of, and little else."""
    return np.where((scores > -3) & (scores < 6), 1.0, 0.15)  # noqa: PLR2004 -- the bands of this world


def labelled(kind: Kind, count: int, rng: np.random.Generator) -> Scores:
    """Return so many labels as this stream gives them."""
    found = uploads(count, rng)
    weights = np.ones(count)
    clusters = np.array([str(n) for n in range(count)])
    if kind == "class shift":
        found = uploads(count, rng, prior=0.5)
    if kind in {"selective", "all of it"}:
        more = uploads(12 * count + 200, rng)
        chosen = np.flatnonzero(rng.random(len(more.scores)) < propensity(more.scores))[:count]
        found = Uploads(
            chance=more.chance[chosen], violates=more.violates[chosen], scores=more.scores[chosen]
        )
        weights = 1 / propensity(found.scores)
    if kind in {"one author", "all of it"}:
        # A third of all labels are about three uploads that one author sent again and again.
        copies = np.arange(count) % 9 < 3  # noqa: PLR2004 -- a third
        of = np.where(copies, np.arange(count) % 9, np.arange(count))
        found = Uploads(
            chance=found.chance[of],
            violates=found.violates[of],
            scores=found.scores[of] + np.where(copies, rng.normal(0, 0.01, count), 0),
        )
        weights, clusters = weights[of], clusters[of]
    if kind not in {"reviewers", "all of it"}:
        return Scores(
            scores=found.scores, labels=found.violates, weights=weights, clusters=tuple(clusters)
        )
    first = answers(found, rng)
    again = rng.random(count) < _LOOKED_AGAIN
    return Scores(
        scores=found.scores,
        labels=np.where(again, found.violates, first),
        weights=weights,
        clusters=tuple(clusters),
        adjudicated=again,
        first=np.where(again, first, np.nan),
    )
