"""What the truth of an upload is likely to be after one person's word: learned where others looked again. Pure.

One person's answers are many and err; those that others looked at again are few and settled. How often which answer
turned out to be right, by the model's score, is fitted on the few and said of the many (regression imputation; Little,
Rubin 2019, chapter 4), so that each answer counts for what it tells and no more.
"""

from typing import Final

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from pipeline.reliability import Vector, worth
from pipeline.scored import Scores

#: Prior of what moves the log-odds of the truth: the answer, the score, the answer where the score is clear, the answer
#: by the score, how clear the score is, and a constant. Before anything is known an answer is right in 97 of 100.
_MEAN: Final = np.array([3.5, 0.5, 0.0, 0.0, 0.0, 0.0])
_SD: Final = np.array([1.0, 0.5, 0.3, 0.3, 0.3, 1.0])


def expected(scored: Scores) -> Vector:
    """Return each label, or how likely a violation is where it is one person's word.

    Where nobody looked again, or what the first person said is not known, the labels are returned as they are; so is
    the label of a score that is no number.
    """
    sure, finite = scored.settled, np.isfinite(scored.scores)
    if not finite.all():
        labels = scored.labels.copy()
        labels[finite] = expected(scored.take(finite))
        return labels
    if scored.first is None or sure.all() or not (sure & np.isfinite(scored.first)).any():
        return scored.labels
    weights = worth(scored.weights[sure])
    slope, shift = _line(scored.scores[sure], scored.labels[sure], weights)
    lean = slope * scored.scores + shift
    said = 2 * np.where(np.isfinite(scored.first), scored.first, scored.labels) - 1
    told = np.stack(
        [said, lean, said * np.abs(lean), said * lean, np.abs(lean), np.ones_like(said)], axis=1
    )
    # What was settled without a first answer on record says nothing about first answers.
    known = sure & np.isfinite(scored.first)
    by = _logistic(told[known], scored.labels[known], worth(scored.weights[known]), _MEAN, _SD)
    return np.where(sure, scored.labels, expit(told @ by))


def _line(scores: Vector, labels: Vector, weights: Vector) -> tuple[float, float]:
    """Return slope and shift of the log-odds by the score."""
    told = np.stack([scores, np.ones_like(scores)], axis=1)
    slope, shift = _logistic(
        told, labels, weights, np.array([0.5, 0.0]), np.array([0.5, 2.5]), rising=True
    )
    return float(slope), float(shift)


def _logistic(
    told: Vector,
    labels: Vector,
    weights: Vector,
    mean: Vector,
    sd: Vector,
    *,
    rising: bool = False,
) -> Vector:
    """Return the coefficients of a logistic regression, maximum a posteriori."""

    def loss(by: Vector) -> tuple[float, Vector]:
        z, off = told @ by, (by - mean) / sd
        nll = (weights * (np.logaddexp(0, z) - labels * z)).sum()
        gradient = told.T @ (weights * (expit(z) - labels)) + off / sd
        return float(nll + (off**2).sum() / 2), gradient

    bounds = [(0.0, None), *[(None, None)] * (len(mean) - 1)] if rising else None
    found: Vector = minimize(loss, mean, jac=True, method="L-BFGS-B", bounds=bounds).x
    return found
