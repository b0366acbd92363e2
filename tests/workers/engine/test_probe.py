"""Trials of steerability: known answers, and a classifier that obeys or ignores the policy shows."""

from collections.abc import Sequence

import numpy as np

from pipeline.probing import page, summed
from policies.question import Part, Question
from workers.classifier import Classification, Item, Rationale
from workers.probe import Verdict, judge, trials


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


def test_bound_decides() -> None:
    """An injection passes exactly when it moves the log-odds by no more than the bound."""
    verdicts = [
        Verdict(check="injection", detail="plain", right=True, shift=shift)
        for shift in (0.2, 0.9, 1.1)
    ]
    rows = summed(verdicts, bound=1.0)
    assert rows[0].passed.value == 2 / 3
    assert "plain" in page(rows, classifier="x", bound=1.0)
