"""From scored labels to a calibration file: the fit, the promises of the policy's bands, and the figures."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from pipeline.calibration import Calibration, Curve, Kept, Labels, logistic
from pipeline.fitting import NEEDS, Fit, fit, straighten
from pipeline.imputing import expected
from pipeline.reliability import Figure, Vector, auroc, bootstrap, brier, ece, log_loss
from pipeline.scored import Scores
from pipeline.thresholds import Threshold, act_at, independent, least, review_at, reviewer_error
from policies.question import Question
from policies.schema import MissRate, Policy, Precision

#: Adjudicated labels prove a promise by themselves once there are this many times the least number.
_ENOUGH = 5
#: A reviewer error above this proves nothing.
_HOPELESS = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """A calibration, and its figures on labels that it was not fitted on."""

    calibration: Calibration
    ece_before: float
    ece_after: Figure
    brier_before: float
    brier_after: float
    auroc: Figure
    #: Probabilities and answers of the held-back labels, for a reliability diagram.
    held: tuple[tuple[float, float], ...]


def calibrate(
    policy: Policy,
    question: Question,
    scored: Scores,
    *,
    classifier: str,
    now: datetime,
    prior: float | None = None,
    source: str = "",
    seed: int = 0,
) -> Calibrated:
    """Return the calibration of one question: fitted on all labels, its figures by two-fold cross-fitting."""
    scored = scored.one_a_cluster(seed)
    held = _cross_fitted(scored, prior, seed)
    final = fit_answers(scored, prior=prior, seed=seed)
    raw = np.array([logistic(s) for s in scored.scores])
    measured = ece(held, scored.labels, scored.weights)
    calibration = Calibration(
        question=question.id,
        question_digest=question.digest,
        policy_version=policy.version,
        classifier=classifier,
        method=final.method,
        curve=final.curve,
        low=final.low,
        high=final.high,
        labels=Labels(
            violates=int(scored.labels.sum()),
            allowed=int(len(scored.labels) - scored.labels.sum()),
            source=source,
        ),
        prior=prior,
        kept=tuple(
            prove(promise, scored, final.curve, prior=prior, seed=seed)
            for promise in sorted(promises_of(policy, question.clause), key=str)
        ),
        log_loss=round(log_loss(held, scored.labels, scored.weights), 5),
        ece=round(measured, 5),
        fitted_at=now,
    )
    return Calibrated(
        calibration=calibration,
        ece_before=ece(raw, scored.labels, scored.weights),
        ece_after=bootstrap(ece, held, scored.labels),
        brier_before=brier(raw, scored.labels, scored.weights),
        brier_after=brier(held, scored.labels, scored.weights),
        auroc=bootstrap(auroc, scored.scores, scored.labels),
        held=tuple(zip(held.tolist(), scored.labels.tolist(), strict=True)),
    )


def _cross_fitted(scored: Scores, prior: float | None, seed: int) -> np.ndarray:
    """Return for every label a probability from a fit on the other half of the clusters."""
    rng = np.random.default_rng(seed)
    names = sorted(set(scored.clusters))
    half = dict(zip(names, rng.permutation(len(names)) % 2, strict=True))
    side = np.array([half[cluster] for cluster in scored.clusters])
    held = np.empty(len(side))
    for this in (0, 1):
        train, test = side != this, side == this
        if test.any():
            found = fit_answers(scored.take(train), prior=prior, seed=seed, draws=2)
            held[test] = np.interp(
                scored.scores[test], found.curve.scores, found.curve.probabilities
            )
    return held


def fit_answers(
    scored: Scores, *, prior: float | None = None, seed: int = 0, draws: int = 60
) -> Fit:
    """Return the fit of one question's labels.

    Where only some are more than one person's word, the others count for what such answers turned out to tell. With
    few settled ones that is known too roughly to shape a curve by; then the plain answers shape it, and what they
    tell straightens it.
    """
    sure = scored.settled
    if sure.all() or not sure.any():
        return fit(
            scored.scores, scored.labels, scored.weights, prior=prior, seed=seed, draws=draws
        )
    settled = scored.labels[sure]

    def relabel(rows: NDArray[np.intp]) -> Vector:
        return expected(scored.take(rows))

    if min(settled.sum(), len(settled) - settled.sum()) >= NEEDS["isotonic"]:
        return fit(
            scored.scores,
            expected(scored),
            scored.weights,
            prior=prior,
            seed=seed,
            draws=draws,
            relabel=relabel,
        )
    found = fit(scored.scores, scored.labels, scored.weights, prior=prior, seed=seed, draws=draws)
    # Nobody knows what first answers tell where they were not kept: then the settled ones straighten it alone.
    used = scored if scored.first is not None else scored.take(sure)

    def as_in_stream(rows: NDArray[np.intp]) -> tuple[Vector, Vector]:
        drawn = used.take(rows)
        return _as_in_stream(expected(drawn), drawn.weights, prior)

    again = straighten(
        _log_odds(found.curve, used.scores), used.weights, as_in_stream, seed=seed, draws=draws
    )
    curves = [
        _through(found_curve, again_curve)
        for found_curve, again_curve in (
            (found.curve, again.curve),
            (found.low, again.low),
            (found.high, again.high),
        )
    ]
    return Fit(
        method=found.method,
        curve=curves[0],
        low=curves[1],
        high=curves[2],
        log_loss=again.log_loss,
        ece=again.ece,
        tried=found.tried,
    )


def _log_odds(curve: Curve, scores: Vector) -> Vector:
    p = np.clip(at(curve, scores), 1e-7, 1 - 1e-7)
    return np.asarray(np.log(p / (1 - p)), float)


def _through(first: Curve, second: Curve) -> Curve:
    scores = np.array(first.scores)
    return Curve(
        scores=first.scores, probabilities=tuple(at(second, _log_odds(first, scores)).tolist())
    )


def at(curve: Curve, scores: Vector) -> Vector:
    """Return a curve's probabilities exactly as decisions will have them: a tie must stay a tie."""
    xs, ys = np.array(curve.scores), np.array(curve.probabilities)
    right = np.searchsorted(xs, scores, side="right")
    inner = np.clip(right, 1, max(1, len(xs) - 1))
    x0, y0 = xs[inner - 1], ys[inner - 1]
    x1, y1 = xs[np.minimum(inner, len(xs) - 1)], ys[np.minimum(inner, len(xs) - 1)]
    with np.errstate(invalid="ignore", divide="ignore"):
        between = y0 + (y1 - y0) * (scores - x0) / (x1 - x0)
    ends = np.where(right == 0, ys[0], ys[-1])
    return np.asarray(np.where((right == 0) | (right == len(xs)), ends, between), float)


def _as_in_stream(labels: Vector, weights: Vector, prior: float | None) -> tuple[Vector, Vector]:
    """Return labels, and what to weigh them with so that the share of violations becomes the stream's."""
    if prior is None or not 0 < labels.mean() < 1:
        return labels, np.ones_like(labels)
    share = float(np.average(labels, weights=weights))
    prior = min(max(prior, 1e-6), 1 - 1e-6)
    violates, allowed = labels * prior / share, (1 - labels) * (1 - prior) / (1 - share)
    return violates / (violates + allowed), violates + allowed


def prove(
    promise: Precision | MissRate,
    scored: Scores,
    curve: Curve,
    *,
    prior: float | None = None,
    seed: int = 0,
) -> Kept:
    """Return the threshold that keeps a promise on these labels, or what is missing.

    Adjudicated labels prove it where there are enough of them; else all do, with the measured reviewer error taken
    into account; where that was never measured, single answers promise nothing.
    """
    risk = 1 - promise.precision if isinstance(promise, Precision) else promise.miss_rate
    sure = scored.settled
    enough = _ENOUGH * least(risk, 1 - promise.confidence)
    doubt = 0.0
    chosen = scored
    if not sure.all():
        doubt = _doubt(scored, curve)
        if int(sure.sum()) >= enough or doubt > _HOPELESS:
            chosen, doubt = scored.take(sure), 0.0
    said = at(curve, chosen.scores)
    if isinstance(promise, Precision) and prior is None:
        # What lies far below any such threshold says nothing about it, and its weights would thin out what does.
        chosen, said = (
            chosen.take(said >= promise.precision / 2),
            said[said >= promise.precision / 2],
        )
    sample = independent(
        said,
        chosen.labels,
        clusters=np.array(chosen.clusters, str),
        weights=chosen.weights,
        reviewer_error=doubt,
        prior=prior,
        seed=seed,
    )
    found: Threshold = (
        act_at(sample, promise) if isinstance(promise, Precision) else review_at(sample, promise)
    )
    return Kept(
        promise=promise,
        value=found.value,
        labels=found.labels,
        errors=found.errors,
        bound=min(1.0, found.bound),
        labels_needed=found.labels_needed,
        kind=found.kind,
        reviewer_error=round(doubt, 4),
    )


def _doubt(scored: Scores, curve: Curve) -> float:
    if scored.first is None:
        return 1.0
    again = np.isfinite(scored.first) & scored.settled
    return reviewer_error(
        at(curve, scored.scores[again]), scored.first[again], scored.labels[again]
    )


def promises_of(policy: Policy, clause: str | None) -> set[Precision | MissRate]:
    """Return every promise that the bands of this policy (or clause), or of an override, make."""
    own = policy.clauses[clause].bands if clause else None
    bands = [b for b in (policy.bands, own, *(o.bands for o in policy.overrides)) if b is not None]
    found = [value for band in bands for value in (band.act, band.review)]
    return {value for value in found if isinstance(value, (Precision, MissRate))}
