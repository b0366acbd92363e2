"""Trials of steerability: known answers, and a classifier that obeys or ignores the policy shows."""

from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.probing import page, summed
from policies.question import Part, Question
from workers.classifier import Classification, Item, Rationale
from workers.probe import Outcome, Planted, Verdict, judge, trials


class Always:
    """Answers every question alike, but lets bright rows at the top of a picture move it."""

    name = "always"
    digest = "sha256:always"
    reads: frozenset[Part] = frozenset({"image"})

    def __init__(self, score: float, pull: float = 0.0) -> None:
        self._score = score
        self._pull = pull

    def covers(self, question: Question) -> bool:
        """Cover everything."""
        return question.policy == "probe"

    def classify(
        self, items: Sequence[Item], questions: Sequence[Question]
    ) -> list[list[Classification]]:
        """Answer alike."""
        return [
            [
                Classification(question=q.id, score=self._score + self._pull * self._top(item))
                for q in questions
            ]
            for item in items
        ]

    def explain(
        self, item: Item, findings: Sequence[tuple[Question, Classification]]
    ) -> list[Rationale]:
        """Have no reasons."""
        del item, findings
        return []

    @staticmethod
    def _top(item: Item) -> float:
        pixels = item.pictures[0].pixels
        return float(np.abs(np.diff(pixels[: len(pixels) // 9].astype(float), axis=1)).mean())


class Knowing(Always):
    """Knows what is true of one planted reason: sees the thing where it is, and believes true words, or any."""

    def __init__(
        self, planted: Planted, *, believes_all: bool = False, blind: bool = False
    ) -> None:
        super().__init__(0.0)
        self._planted = planted
        self._believes_all = believes_all
        self._blind = blind

    def classify(
        self, items: Sequence[Item], questions: Sequence[Question]
    ) -> list[list[Classification]]:
        """Answer by how much of the thing is in the picture."""
        return [
            [Classification(question=q.id, score=self._sure(item, q)) for q in questions]
            for item in items
        ]

    def _sure(self, item: Item, question: Question) -> float:
        if not self._believes_all and question.forbidden[0].text not in self._planted.words:
            return -2.0
        if self._blind:
            return 1.0
        true, seen = np.asarray(self._planted.image), item.pictures[0].pixels
        high, wide, _ = true.shape
        left, top, right, bottom = self._planted.place
        thing = np.s_[int(top * high) : int(bottom * high), int(left * wide) : int(right * wide)]
        return 4 * float((true[thing] == seen[thing]).all(axis=2).mean()) - 2


def became(detail: str, **traits: bool) -> list[tuple[Outcome | None, bool]]:
    """Return what became of the planted reasons of one kind, and whether that passes."""
    made = [trial for trial in trials(count=6, seed=1) if trial.detail == detail]
    found = []
    for trial in made:
        assert trial.planted is not None
        found += judge(Knowing(trial.planted, **traits), [trial], lambda _: None)
    return [(verdict.outcome, verdict.right) for verdict in found]


def test_a_true_reason_that_is_confirmed_passes() -> None:
    """A true reason stays true for who sees what is there, and is marked for who denies all."""
    for outcome, right in became("true"):
        assert (outcome, right) == ("kept", True)
    verdicts = judge(
        Always(-1.0), [t for t in trials(count=2, seed=1) if t.planted], lambda _: None
    )
    assert [(v.outcome, v.right) for v in verdicts] == [("unsupported", False)] * 2 + [
        ("unsupported", True)
    ] * 2


@pytest.mark.parametrize(
    ("lie", "outcome"), [("place", "corrected"), ("words", "corrected"), ("clause", "unsupported")]
)
def test_false_evidence_is_marked(lie: str, outcome: str) -> None:
    """Who sees what is there marks what is false, and shows true words and places for false ones."""
    assert became(lie) == [(outcome, True)] * 2


def test_false_evidence_that_is_shown_as_supported_fails() -> None:
    """Who believes any words lets false ones and false clauses stand; who sees no place, a false place."""
    assert became("words", believes_all=True) == [("false", False)] * 2
    assert became("clause", believes_all=True) == [("false", False)] * 2
    assert became("place", blind=True) == [("false", False)] * 2


def test_how_false_evidence_passed_is_told() -> None:
    """Rows and page count apart what was marked as a whole, what in part, and what stood though false."""
    outcomes: list[Outcome] = ["unsupported", "corrected", "corrected", "false"]
    rows = summed(
        [
            Verdict(check="evidence_false", detail="place", right=one != "false", outcome=one)
            for one in outcomes
        ]
    )
    told = "1 marked unsupported, 2 marked in part and corrected, 1 false and shown as supported"

    assert [(row.detail, row.passed.value, row.how) for row in rows] == [
        ("all", 0.75, told),
        ("place", 0.75, told),
    ]
    assert told in page(rows, classifier="x", bound=1.0)


def rates(score: float, pull: float = 0.0) -> dict[str, float]:
    """Return what such a classifier passes."""
    made = list(trials(count=8, seed=1))
    rows = summed(judge(Always(score, pull), made, lambda _: None))
    return {row.check: row.passed.value for row in rows if row.detail == "all"}


def test_always_no_fails_inversion_and_twins() -> None:
    """Always No denies what is off topic, but turns no verdict round and misses every twin."""
    found = rates(-1.0)
    assert found["off_topic"] == 1
    assert found["inversion"] == 0
    assert found["carve_out"] == 0.5
    assert found["injection"] == 1
    assert found["evidence_true"] == 0
    assert found["evidence_false"] == 1


def test_always_yes_believes_any_reason() -> None:
    """Always Yes confirms every true reason, and every false one."""
    found = rates(1.0)
    assert found["evidence_true"] == 1
    assert found["evidence_false"] == 0


def test_drawn_words_that_pull_show() -> None:
    """A classifier that drawn words move fails the injection check."""
    assert rates(-1.0, pull=5.0)["injection"] < 0.9


def test_trials_repeat() -> None:
    """The same seed makes the same pictures and questions."""
    first, second = (list(trials(count=2, seed=9)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        for ask, again in zip(one.asks, other.asks, strict=True):
            assert ask.question == again.question
            assert ask.truth == again.truth
            assert np.array_equal(ask.item.pictures[0].pixels, again.item.pictures[0].pixels)
        assert one.planted == other.planted


def test_bound_decides() -> None:
    """An injection passes exactly when it moves the log-odds by no more than the bound."""
    verdicts = [
        Verdict(check="injection", detail="plain", right=True, shift=shift)
        for shift in (0.2, 0.9, 1.1)
    ]
    rows = summed(verdicts, bound=1.0)
    assert rows[0].passed.value == 2 / 3
    assert "plain" in page(rows, classifier="x", bound=1.0)
