"""Audit by lot: who is drawn, with which chance, and what the job says."""

from typing import Any

import pytest

from pipeline.decide import Answer, Origin, decide
from pipeline.lottery import Stake, drawn
from pipeline.messages import Decision, Source, UploadEvent
from policies.schema import Action, Policy, PolicySet
from tests.pipeline.test_decide import NOW, answer, policy

SOURCE = Source(topic="media.uploads", partition=0, offset=7)


def outcome(content_id: str, *answers: Answer, policies: tuple[Policy, ...]) -> Decision:
    """Return the decision on one upload."""
    event = UploadEvent(event_id="e", content_id=content_id, text="a caption")
    origin = Origin(source=SOURCE, decision_id="d")
    return decide(event, answers, PolicySet(policies), origin=origin, now=NOW)


def audited(**shares: Any) -> Policy:
    """Return a policy that has shares of its decisions audited."""
    return policy(audit=shares)


def test_the_lot_takes_the_share_that_was_asked_for() -> None:
    """Of 20,000 contents about 5 % are drawn, and a larger share takes those and more."""
    few = {n for n in range(20_000) if drawn(f"c{n}", [Stake(question="q", share=0.05)])}
    more = {n for n in range(20_000) if drawn(f"c{n}", [Stake(question="q", share=0.1)])}

    assert len(few) / 20_000 == pytest.approx(0.05, abs=0.006)
    assert few < more


@pytest.mark.parametrize(
    ("probability", "shares", "action"),
    [(0.1, {"passed": "100%"}, Action.ALLOW), (0.95, {"acted": "100%"}, Action.REMOVE)],
)
def test_an_audit_changes_nothing_but_opens_a_job(
    probability: float, shares: dict[str, str], action: Action
) -> None:
    """What passed passes and what acted acts; a person looks, and the chance stands beside the question."""
    decision = outcome("c", answer(probability=probability), policies=(audited(**shares),))

    assert decision.action is action
    assert decision.review is not None
    assert decision.review.reason == "audit"
    assert (decision.review.questions, decision.review.propensities) == (("weapons",), (1.0,))
    assert decision.review.propensity == 1.0


def test_shares_of_one_kind_leave_the_other_alone() -> None:
    """A policy that has only acted decisions audited opens no job for what passed."""
    assert outcome("c", answer(probability=0.1), policies=(audited(acted="100%"),)).review is None
    assert outcome("c", answer(probability=0.1), policies=(policy(),)).review is None


def test_a_person_who_looks_anyway_answers_for_the_lot_too() -> None:
    """A job of a band takes the audited questions of other policies along, each with its own chance."""
    hate = policy("hate", audit={"passed": "30%"})
    jobs = [
        outcome(f"c{n}", answer(probability=0.5), answer("hate", 0.1), policies=(policy(), hate))
        for n in range(300)
    ]

    drawn_too = [d for d in jobs if d.review and d.review.questions == ("weapons", "hate")]
    assert all(d.review and d.review.reason == "band" for d in jobs)
    assert {d.review.propensities for d in drawn_too if d.review} == {(1.0, 0.3)}
    assert 0.2 < len(drawn_too) / 300 < 0.4
