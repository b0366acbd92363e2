"""Cascades: what a cheap classifier may settle, and what its settling saves and costs."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bench_cascade import measure
from pipeline.calibration import Calibration, Calibrations, Curve, Labels
from pipeline.cascading import SURE, clear, settling
from pipeline.decide import Answer, judge
from pipeline.labels import Labelled
from policies.question import Part, Question
from policies.schema import Policy, PolicySet
from workers.bounds import Bounds
from workers.classifier import Classification, Item, Rationale
from workers.reading import Reading

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
READING = Reading(bounds=Bounds())
BANDS = {"review": 0.3, "act": 0.9}


def policy(**fields: object) -> Policy:
    """Return a live policy with its bands."""
    return Policy.model_validate(
        {
            "policy": "weapons",
            "title": "Weapons",
            "version": 1,
            "status": "live",
            "question": "Is it a weapon?",
            "clauses": {"W1": {"text": "Sells one."}},
            "severity": "high",
            "action": "remove",
            "bands": BANDS,
            "review": {"queue": "weapons", "meanwhile": "hold", "due": "4h"},
            **fields,
        }
    )


TEENS = policy(overrides=[{"when": {"audience": "teens"}, "bands": {"review": 0.1}}])


@given(st.floats(0, 1), st.floats(0, 0.2), st.sampled_from(["general", "teens"]))
def test_what_is_settled_is_no_persons_business(p: float, width: float, audience: str) -> None:
    """An answer that settles leads, in every context and anywhere in its interval, to no review."""
    low, high = max(0.0, p - width), min(1.0, p + width)
    answer = Answer(
        question="weapons",
        score=0.0,
        probability=p,
        calibration="fresh",
        answered_by="sha256:x",
        interval=(low, high),
    )
    rules = [TEENS.rule_under(None, over) for over in (None, *TEENS.overrides)]
    (question,) = TEENS.questions
    if clear(answer, rules, rare=0.05):
        assert p <= 0.05 or p >= 0.9
        for at in (low, p, high):
            found = judge(
                TEENS,
                question,
                answer._replace(probability=at),
                {"audience": audience},
                language=None,
            )
            assert found.review is None
    assert not clear(answer._replace(calibration="none"), rules, rare=0.05)
    assert not clear(answer._replace(calibration="stale"), rules, rare=0.05)


def test_only_a_fresh_calibration_of_this_classifier_settles() -> None:
    """The same score settles under the digest that was calibrated, and under no other."""
    rule = policy()
    (question,) = rule.questions
    curve = Curve(scores=(-5.0, 0.0, 5.0), probabilities=(0.01, 0.5, 0.99))
    calibration = Calibration(
        question="weapons",
        question_digest=question.digest,
        policy_version=1,
        classifier="sha256:cheap",
        method="isotonic",
        curve=curve,
        low=curve,
        high=curve,
        labels=Labels(violates=50, allowed=50, source="test"),
        fitted_at=NOW,
    )
    settles = settling(lambda: Calibrations.of([calibration]), PolicySet((rule,)), lambda: NOW)

    def at(score: float, digest: str = "sha256:cheap") -> bool:
        return settles(question, Classification(question="weapons", score=score), digest)

    assert (at(-5.0), at(0.0), at(5.0)) == (True, False, True)
    assert not at(-5.0, "sha256:other")
    never = policy(bands={"review": 0.3, "act": "never"})
    settles = settling(lambda: Calibrations.of([calibration]), PolicySet((never,)), lambda: NOW)
    assert (at(-5.0), at(5.0)) == (True, False)


def test_what_is_rare_is_not_settled_by_a_guess() -> None:
    """Where violations are rarer than the band, only what is far rarer still passes early."""
    rules = [policy().rule_under(None, None)]
    answer = Answer(
        question="weapons", score=0.0, probability=0.01, calibration="fresh", answered_by="sha256:x"
    )
    assert not clear(answer, rules, rare=0.01 / SURE)
    assert clear(answer._replace(probability=0.0004), rules, rare=0.01 / SURE)


class Noisy:
    """Reads the truth from the caption, with so much noise."""

    reads: frozenset[Part] = frozenset({"caption"})

    def __init__(self, name: str, noise: float, *, blind_to: str = "?") -> None:
        self.name = name
        self.digest = f"sha256:{name}"
        self._noise = noise
        self._blind_to = blind_to

    def covers(self, question: Question) -> bool:
        """Cover everything."""
        return bool(question.forbidden)

    def classify(
        self, items: Sequence[Item], questions: Sequence[Question]
    ) -> list[list[Classification]]:
        """Answer by what the caption says."""
        found = []
        for item in items:
            number, truth = item.caption.split()
            rng = np.random.default_rng([int(number), round(self._noise * 100)])
            seen = 0.0 if self._blind_to in item.caption else 4.0 * (truth == "bad") - 2.0
            score = seen + float(rng.normal(0, self._noise))
            found.append([Classification(question=q.id, score=score) for q in questions])
        return found

    def explain(
        self, item: Item, findings: Sequence[tuple[Question, Classification]]
    ) -> list[Rationale]:
        """Have no reasons."""
        del item, findings
        return []


def labelled(count: int) -> list[Labelled]:
    """Return labelled captions, a fifth of them bad."""
    return [
        Labelled(
            id=str(number),
            caption=f"{number} {'bad' if number % 5 == 0 else 'good'}",
            answers={"weapons": number % 5 == 0},
        )
        for number in range(count)
    ]


def test_a_cascade_spares_the_last_classifier() -> None:
    """One that guesses settles nothing; a fair cheap classifier settles much at little cost in quality."""
    guess = Noisy("guess", 0.8, blind_to=" ")
    last = Noisy("last", 0.3)
    report = measure(labelled(300), [guess, Noisy("cheap", 0.8), last], [policy()], reading=READING)
    first, second, third = report.stages
    assert (first.uploads, first.questions, second.uploads) == (1.0, 1.0, 1.0)
    assert 0.0 < third.uploads < 0.7
    (one,) = report.questions
    assert one.settled == pytest.approx(1 - third.uploads)
    assert one.auroc > 0.97
    assert one.brier_lost.low <= one.brier_lost.value <= one.brier_lost.high < 0.03
    assert one.same > 0.9
    with pytest.raises(ValueError, match="two classifiers"):
        measure(labelled(60), [last], [policy()], reading=READING)
