"""What a calibration makes of a score."""

import math
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.calibration import Calibration, Calibrations, Curve, Labels
from pipeline.decide import Origin, decide
from pipeline.messages import Decision, Source, UploadEvent
from policies.schema import Action, Policy, PolicySet
from workers.classifier import Classification

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
CURVE = Curve(scores=(-5.0, 0.0, 5.0), probabilities=(0.01, 0.5, 0.99))
POLICY = Policy.model_validate(
    {
        "policy": "weapons",
        "title": "Weapons",
        "version": 1,
        "status": "live",
        "question": "Does it sell a weapon?",
        "clauses": {"W1": {"text": "Sells one."}},
        "severity": "high",
        "action": "remove",
        "bands": {"review": 0.3, "act": 0.9},
        "review": {"queue": "weapons", "meanwhile": "hold", "due": "4h"},
    }
)
(QUESTION,) = POLICY.questions
CALIBRATIONS = Calibrations.of(
    [
        Calibration(
            question=QUESTION.id,
            question_digest=QUESTION.digest,
            policy_version=1,
            classifier="sha256:x",
            method="isotonic",
            curve=CURVE,
            low=CURVE,
            high=CURVE,
            labels=Labels(violates=50, allowed=50),
            fitted_at=NOW - timedelta(days=1),
        )
    ]
)


def decided(classification: Classification, classifier: str) -> Decision:
    """Return the decision on an upload that this is said of."""
    return decide(
        UploadEvent.model_validate({"event_id": "e", "content_id": "c", "text": "a caption"}),
        [CALIBRATIONS.answer(QUESTION, classification, classifier, now=NOW)],
        PolicySet((POLICY,)),
        origin=Origin(source=Source(topic="media.uploads", partition=0, offset=7), decision_id="d"),
        now=NOW,
    )


@pytest.mark.parametrize(
    ("score", "probability"), [(-9.0, 0.01), (-5.0, 0.01), (2.5, 0.745), (5.0, 0.99), (9.0, 0.99)]
)
def test_between_its_points_a_curve_is_straight_and_beyond_them_flat(
    score: float, probability: float
) -> None:
    """A score has the probability of the line that it lies on."""
    assert CURVE.at(score) == pytest.approx(probability)


@pytest.mark.parametrize("classifier", ["sha256:x", "sha256:uncalibrated"])
def test_what_is_no_number_stays_none(classifier: str) -> None:
    """The score of a model that overflowed has no probability, calibrated or not."""
    broken = Classification(question=QUESTION.id, score=math.nan, whole=math.nan)
    answer = CALIBRATIONS.answer(QUESTION, broken, classifier, now=NOW)
    assert math.isnan(answer.probability)
    assert answer.whole is not None
    assert math.isnan(answer.whole)


@pytest.mark.parametrize("classifier", ["sha256:x", "sha256:uncalibrated"])
def test_what_is_no_number_neither_acts_nor_allows(classifier: str) -> None:
    """An upload whose score is no number is as good as unjudged; the highest score there is acts."""
    broken = decided(Classification(question=QUESTION.id, score=math.nan), classifier)
    assert (broken.action, broken.unjudged, broken.findings) == (Action.HOLD, ("weapons",), ())
    sure = decided(Classification(question=QUESTION.id, score=9.0), "sha256:x")
    assert (sure.action, sure.unjudged) == (Action.REMOVE, ())
