"""Composed policies mean what their words say."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.folder import read_policies
from policies.schema import Status
from workers.mini import phrases
from workers.mini.captions import LINES, STEERING
from workers.mini.concepts import CONCEPTS, GROUPS, INDEX, Concept, Group
from workers.mini.lessons import KINDS, Teacher
from workers.mini.scenes import Shown
from workers.mini.truth import TRUTHS, answer
from workers.mini.wordings import Upload, group_noun, noun


def test_no_word_names_two_things() -> None:
    """No singular or plural word belongs to two concepts or groups, so that a policy's word has one meaning."""
    seen: dict[str, str] = {}
    things: tuple[Concept | Group, ...] = (*CONCEPTS, *GROUPS)
    for each in things:
        for word in {word for pair in each.words for word in pair}:
            assert seen.setdefault(word, each.name) == each.name
    assert len(CONCEPTS) >= 60


@given(seed=st.integers(0, 2**20), kind=st.sampled_from(KINDS))
def test_answer_follows_from_clauses_and_carve_outs(seed: int, kind: str) -> None:
    """A question is answered Yes exactly where a clause holds that no carve-out lifts."""
    rng = np.random.default_rng(seed)
    teacher = Teacher(rng)
    chosen = rng.choice(len(CONCEPTS), 3, replace=False)
    shown = [Shown(concept=int(each), box=(0.1, 0.2, 0.4, 0.5)) for each in chosen]
    said = teacher.words(frozenset(each.concept for each in shown))
    asked = teacher.ask(said.upload, kind)
    held = {name for name, clause in asked.clauses if clause.holds(said.upload)}
    lifted = any(
        clause.holds(said.upload) and not set(unless) & held for _, clause, unless in asked.exempt
    )
    item = teacher.item(asked, said, shown)
    assert item.answer == (bool(held) and not lifted)
    assert len(item.clauses) == len(asked.clauses) + len(asked.exempt)
    assert all(0 < end <= len(item.text) for end, *_ in (*item.clauses, *item.nouns))


@given(seed=st.integers(0, 2**20))
def test_inverted_policy_is_the_opposite(seed: int) -> None:
    """A policy against a thing and the inverted one never agree."""
    rng = np.random.default_rng(seed)
    teacher = Teacher(rng)
    thing = noun(rng)
    upload = Upload(shown=frozenset(int(each) for each in rng.choice(len(CONCEPTS), 4)))
    plain, inverted = teacher.composer.plain(thing), teacher.composer.inverted(thing)
    assert bool(plain.broken(upload)) != bool(inverted.broken(upload))


def test_group_word_means_its_members() -> None:
    """A group's word means every member and nothing else."""
    weapons = group_noun(np.random.default_rng(0), "weapon")
    assert INDEX["pistol"] in weapons.means
    assert not {INDEX["water pistol"], INDEX["kitchen knife"]} & weapons.means


def test_every_measured_policy_has_a_truth() -> None:
    """The truth table knows every clause and carve-out of its policies, and all that are live are among them."""
    policies = read_policies(Path(__file__).parents[3] / "policies")
    live = {policy.policy for policy in policies if policy.status is Status.LIVE}
    assert live <= set(TRUTHS)
    for policy in (policies.by_name[name] for name in TRUTHS):
        assert {*policy.clauses, *policy.allowed} <= set(TRUTHS[policy.policy]), policy.policy


@pytest.mark.parametrize(
    ("shown", "topics", "broken"),
    [
        ({"pistol"}, set(), True),
        ({"pistol", "teddy bear"}, set(), False),
        ({"pistol"}, {"museum"}, False),
        ({"pistol"}, {"museum", "sell"}, True),
        ({"kitchen knife"}, set(), False),
        ({"dog"}, {"sell"}, False),
    ],
)
def test_truth_of_the_weapons_policy(shown: set[str], topics: set[str], *, broken: bool) -> None:
    """The weapons policy's truth follows its clauses, carve-outs and what beats them."""
    policies = read_policies(Path(__file__).parents[3] / "policies")
    question = next(q for q in policies.by_name["weapons"].questions if q.id == "weapons")
    upload = Upload(shown=frozenset(INDEX[name] for name in shown), topics=frozenset(topics))
    assert answer(question, upload) is broken


def test_nothing_that_is_held_back_is_trained_on() -> None:
    """No line or phrase of the figures stands among those of training, whatever its case and punctuation."""

    def bare(text: str) -> str:
        return re.sub(r"[^a-z0-9{}]+", " ", text.lower()).strip()

    lines = {**LINES, "steering": STEERING}
    trained = {bare(line) for topic in lines.values() for line in topic.trained}
    assert [one for topic in lines.values() for one in topic.held if bare(one) in trained] == []
    kept = vars(phrases).values()
    groups = [one for one in kept if isinstance(one, phrases.Phrases)]
    for each in kept:
        if isinstance(each, dict):
            groups += [one for one in each.values() if isinstance(one, phrases.Phrases)]
    assert len(groups) > 30
    for said in groups:
        assert not {*map(bare, said.held)} & {*map(bare, said.trained)}
