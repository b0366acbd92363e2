"""Calibrations of new words, or of a new model, from labels that count on.

Labels belong to the content and the policy's version, not to its wording: what people answered about an upload is held
against the score that the new words, or the new model, give the same upload. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pipeline.answered import Answered as Label
from pipeline.answered import scores_beside
from pipeline.asking import Answered
from pipeline.calibrating import Calibrated, calibrate
from pipeline.fitting import NEEDS
from pipeline.scored import Scores
from policies.question import Question
from policies.schema import Policy

#: Labels of the rarer kind below which nothing is fitted: a score would then mean what it says.
LEAST = min(NEEDS.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfitted:
    """A question whose labels are too few for a calibration."""

    question: str
    violates: int
    allowed: int


def labels_for(policy: Policy, question: Question, labels: Sequence[Label]) -> list[Label]:
    """Return the answers that count for a question: of this policy's version, in whatever words it was asked."""
    return [
        label
        for label in labels
        if label.question == question.id and label.policy_version == policy.version
    ]


def scores_anew(
    labels: Sequence[Label], question: Question, answers: Mapping[str, Sequence[Answered]]
) -> dict[str, Scores]:
    """Return, by classifier digest, the labels beside what the uploads score now."""
    pairs: dict[str, list[tuple[Label, float]]] = {}
    for label in labels:
        for asked, found, digest in answers.get(label.decision_id, ()):
            if asked.id == question.id:
                pairs.setdefault(digest, []).append((label, found.score))
    return {
        digest: scores_beside([label for label, _ in of], [score for _, score in of])
        for digest, of in pairs.items()
    }


def refit(
    policy: Policy,
    question: Question,
    by_classifier: Mapping[str, Scores],
    *,
    now: datetime,
    source: str,
    seed: int = 0,
) -> tuple[list[Calibrated], list[Unfitted]]:
    """Return the calibrations that the labels support, and what they are too few for."""
    fitted, unfitted = [], []
    for digest, scored in sorted(by_classifier.items()):
        once = scored.one_a_cluster(seed)
        violates = int(once.labels.sum())
        allowed = len(once.labels) - violates
        if min(violates, allowed) < LEAST:
            unfitted.append(Unfitted(question=question.id, violates=violates, allowed=allowed))
            continue
        found = calibrate(
            policy, question, scored, classifier=digest, now=now, source=source, seed=seed
        )
        if found.calibration.method == "default":
            # So unlike are the weights that the labels are worth too few.
            unfitted.append(Unfitted(question=question.id, violates=violates, allowed=allowed))
        else:
            fitted.append(found)
    return fitted, unfitted
