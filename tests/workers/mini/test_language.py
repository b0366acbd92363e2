"""What the language part is taught: the truth, or what can be believed by what the eye says."""

from dataclasses import replace

import numpy as np
import pytest

from workers.mini.believing import fitted
from workers.mini.concepts import CONCEPTS
from workers.mini.language import LanguagePlan
from workers.mini.lessons import KINDS, Belief, Teacher
from workers.mini.sights import imagined


@pytest.mark.parametrize("kind", KINDS)
def test_a_certain_belief_is_the_truth(kind: str) -> None:
    """Who is sure of what is there is taught every answer, clause and thing as they are."""
    teacher = Teacher(np.random.default_rng(5))
    habits = dict.fromkeys(KINDS, 0.0)
    for _ in range(20):
        sight = imagined(teacher.rng)
        shown = frozenset(thing.concept for thing in sight.shown)
        said = teacher.words(shown)
        asked = teacher.ask(said.upload, kind)
        odds = np.full(len(CONCEPTS), -60.0)
        odds[sorted(shown)] = 60.0
        belief = Belief(odds=odds, breadth=0.0, habits=habits)
        sure, true = (teacher.item(asked, said, sight.shown, belief=one) for one in (belief, None))
        assert (sure.answer, sure.clauses, sure.nouns) == (true.answer, true.clauses, true.nouns)
        assert true.answer == bool(asked.broken(said.upload))


def test_beliefs_are_as_sure_as_they_are_right() -> None:
    """Over many questions what is believed is as often true as it is believed to be."""
    believing = fitted(11, None, imagine=1.0, uploads=400)
    teacher = Teacher(np.random.default_rng(6), present=0.42)
    sure, true = [], []
    for _ in range(300):
        sight = imagined(teacher.rng)
        said = teacher.words(frozenset(thing.concept for thing in sight.shown))
        belief = believing.of(sight, said)
        for kind in teacher.kinds(said.upload, 6):
            asked = teacher.ask(said.upload, kind)
            sure.append(teacher.item(asked, said, sight.shown, belief=belief).answer)
            true.append(bool(asked.broken(said.upload)))
    believed, right = np.array(sure), np.array(true)
    assert abs(believed.mean() - right.mean()) < 0.05
    assert right[believed > 0.9].mean() > 0.9
    assert right[believed < 0.1].mean() < 0.1


def test_what_is_half_seen_is_half_believed() -> None:
    """The more the eye says that a thing is there, the likelier a policy about it is believed to be broken."""
    teacher = Teacher(np.random.default_rng(7))
    said = teacher.words(frozenset({0}))
    asked = next(
        one
        for one in (teacher.ask(said.upload, "plain") for _ in range(400))
        if one.nouns[0].means == {0}
    )

    def answer(odds: float) -> float:
        every = np.full(len(CONCEPTS), odds)
        belief = Belief(odds=every, breadth=0.0, habits=dict.fromkeys(KINDS, 0.0))
        return float(
            np.mean([teacher.item(asked, said, (), belief=belief).answer for _ in range(40)])
        )

    found = [answer(odds) for odds in (-3.0, 0.0, 3.0)]
    assert found == sorted(found)
    assert found[1] == pytest.approx(0.5, abs=0.08)


def test_a_stage_lasts_steps_or_minutes() -> None:
    """Its rate rises, stays, and falls to nearly nothing at the end, however that is counted."""
    stepped = LanguagePlan(name="test", steps=1_000, rate=1.0, decay_from=0.5)
    timed = replace(stepped, minutes=10)
    assert [stepped.share(step, 9e9) for step in (0, 500, 1_000)] == [0, 0.5, 1]
    assert [timed.share(9_999, seconds) for seconds in (0, 300, 601)] == [0, 0.5, 1]
    rates = [stepped.rate_at(step, stepped.share(step, 0)) for step in (6, 60, 499, 750, 999)]
    assert rates == pytest.approx([0.1, 1, 1, 0.5, 0.02])


def test_questions_about_what_goes_together_are_taught_by_the_truth() -> None:
    """Whatever is believed of each thing, a carve-out's answer is true or false."""
    teacher = Teacher(np.random.default_rng(8))
    unsure = Belief(odds=np.zeros(len(CONCEPTS)), breadth=0.0, habits=dict.fromkeys(KINDS, 0.0))
    said = teacher.words(frozenset({0, 40, 60}))
    for kind, decided in (("carve-out", True), ("together", True), ("plain", False)):
        asked = [teacher.ask(said.upload, kind) for _ in range(40)]
        answers = {teacher.item(one, said, (), belief=unsure).answer for one in asked}
        assert (answers <= {0.0, 1.0}) == decided
