"""From scored labels to a calibration file: the fit, the promises of the policy's bands, and the figures."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from pipeline.calibration import Calibration, Kept, Labels, logistic
from pipeline.fitting import fit
from pipeline.reliability import Figure, auroc, bootstrap, brier, ece, log_loss
from pipeline.scored import Scores
from pipeline.thresholds import Threshold, act_at, independent, review_at
from policies.question import Question
from policies.schema import MissRate, Policy, Precision


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
    held = _cross_fitted(scored, prior, seed)
    final = fit(scored.scores, scored.labels, scored.weights, prior=prior, seed=seed)
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
        # Promises are proven on probabilities that were not fitted on the labels that prove them.
        kept=_promises(policy, question, scored, held, seed),
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
            found = fit(
                scored.scores[train],
                scored.labels[train],
                scored.weights[train] if train.any() else None,
                prior=prior,
                seed=seed,
                draws=2,
            )
            held[test] = np.interp(
                scored.scores[test], found.curve.scores, found.curve.probabilities
            )
    return held


def _promises(
    policy: Policy, question: Question, scored: Scores, held: np.ndarray, seed: int
) -> tuple[Kept, ...]:
    sample = independent(
        held,
        scored.labels,
        clusters=np.array(scored.clusters),
        weights=scored.weights,
        seed=seed,
    )
    kept = []
    for promise in sorted(promises_of(policy, question.clause), key=str):
        found: Threshold = (
            act_at(sample, promise)
            if isinstance(promise, Precision)
            else review_at(sample, promise)
        )
        kept.append(
            Kept(
                promise=promise,
                value=found.value,
                labels=found.labels,
                errors=found.errors,
                bound=found.bound,
                labels_needed=found.labels_needed,
                kind=found.kind,
            )
        )
    return tuple(kept)


def promises_of(policy: Policy, clause: str | None) -> set[Precision | MissRate]:
    """Return every promise that the bands of this policy (or clause), or of an override, make."""
    own = policy.clauses[clause].bands if clause else None
    bands = [b for b in (policy.bands, own, *(o.bands for o in policy.overrides)) if b is not None]
    found = [value for band in bands for value in (band.act, band.review)]
    return {value for value in found if isinstance(value, (Precision, MissRate))}
