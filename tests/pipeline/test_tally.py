"""What people's verdicts add up to."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.agreement import Agreement
from pipeline.messages import Decision, Finding, ReviewEvent, Source, Verdict, VerdictAnswer
from pipeline.review import Person
from pipeline.tally import Figures, Overturned, Ranked, Tally
from policies.schema import Action, Severity, Status

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def says(answer: str, clause: str | None = None, policy: str = "weapons") -> VerdictAnswer:
    """Return an answer."""
    return VerdictAnswer.model_validate({"policy": policy, "clause": clause, "answer": answer})


def verdict(job: str, part: str, who: str, *answers: VerdictAnswer, **more: Any) -> Verdict:
    """Return a verdict."""
    return Verdict(
        verdict_id=f"{job}-{part}-{who}",
        job_id=job,
        decision_id=job,
        reviewer=who,
        lease=1,
        part=part,
        answers=answers,
        decided_at=NOW,
        **more,
    )


def decision(
    job: str, by: str, *, probability: float = 0.8, acted: bool = False, supersedes: str = ""
) -> Decision:
    """Return a person's decision that came of a verdict."""
    finding = Finding(
        policy="weapons",
        policy_version=1,
        status=Status.LIVE,
        severity=Severity.HIGH,
        question="weapons",
        question_digest="x",
        score=1.0,
        probability=probability,
        calibration="fresh",
        answered_by="x",
        outcome="acted" if acted else "review",
    )
    return Decision(
        decision_id=f"made-{by}",
        source=Source(topic="moderation.verdicts", partition=0, offset=0),
        event_id="e",
        content_id="c",
        action=Action.ALLOW,
        findings=(finding,),
        policy_set="x",
        decided_by="person",
        verdict_id=by,
        decided_at=NOW,
        supersedes=supersedes or job,
    )


def tallied(*records: Verdict | Decision | ReviewEvent) -> Figures:
    """Return what these add up to, in this order."""
    tally = Tally()
    for record in records:
        if isinstance(record, Verdict):
            tally.verdict(record)
        elif isinstance(record, Decision):
            tally.decision(record)
        else:
            tally.known(record)
    return tally.figures()


def test_two_who_look_are_compared() -> None:
    """First and second verdicts on a job make pairs by policy; a repeated part makes none."""
    found = tallied(
        verdict("a", "first", "ann", says("violates", "W1"), says("allowed", policy="drugs")),
        verdict("a", "second", "bob", says("violates", "W1"), says("violates", "D1", "drugs")),
        verdict("a", "second", "cy", says("allowed")),
        verdict("b", "first", "ann", says("violates", "W1")),
    )

    assert found.agreement[""].pairs == 2
    assert found.agreement["weapons"] == Agreement(pairs=1, percent=100.0, kappa=None)
    assert found.agreement["drugs"].percent == 0
    assert found.disputed == (
        Ranked(policy="drugs", clause="", count=1, of=1),
        Ranked(policy="drugs", clause="D1", count=1, of=1),
    )
    assert found.verdicts == 3


def test_reliability_is_by_adjudication_and_by_known_items() -> None:
    """An adjudication says who was right; so does an item of known answers, whichever of both records comes first."""
    known = ReviewEvent(
        event_id="k",
        kind="golden",
        job_id="g",
        decision_id="g1",
        by="lea",
        at=NOW,
        answers=(says("violates", "W1"),),
    )
    golden = verdict("g1", "golden", "ann", says("allowed"))
    found = tallied(
        golden,
        known,
        golden.model_copy(update={"verdict_id": "g2", "reviewer": "bob"}),
        verdict("a", "first", "ann", says("violates", "W1")),
        verdict("a", "second", "bob", says("allowed")),
        verdict("a", "adjudication", "lea", says("violates", "W2")),
    )

    assert found.reliability["ann", "weapons"] == Agreement(pairs=2, percent=50.0, kappa=0.0)
    assert found.reliability["bob", "weapons"].percent == 0
    assert list(found.of(Person(id="bob"))) == ["weapons"]


@pytest.mark.parametrize("late", [False, True])
def test_overturned_counts_what_the_pipeline_did_by_itself(late: bool) -> None:  # noqa: FBT001
    """Only what the pipeline did by itself can be overturned; what a person did before says nothing of it."""
    records: list[Verdict | Decision] = [
        verdict("a", "first", "ann", says("allowed")),
        verdict("b", "first", "ann", says("violates", "W1")),
        verdict("c", "first", "ann", says("allowed")),
        verdict("a2", "appeal", "bob", says("violates", "W1")),
    ]
    decisions: list[Verdict | Decision] = [
        decision("a", "a-first-ann", acted=True),
        decision("b", "b-first-ann", acted=True),
        decision("c", "c-first-ann", acted=False),
        decision("a", "a2-appeal-bob", acted=True, supersedes="made-a-first-ann"),
    ]

    found = tallied(*(decisions + records if late else records + decisions))

    assert found.overturned == {"weapons": Overturned(looked_at=2, overturned=1)}
    assert found.overturned["weapons"].percent == 50


def test_anchoring_compares_shown_with_hidden() -> None:
    """How often people say what the model says is counted apart for those who saw it and those who did not."""
    found = tallied(
        verdict("a", "first", "ann", says("violates", "W1")),
        verdict("b", "first", "ann", says("allowed"), saw_model=False),
        decision("a", "a-first-ann", probability=0.9),
        decision("b", "b-first-ann", probability=0.9),
    )

    assert found.anchoring.shown.percent == 100
    assert found.anchoring.hidden.percent == 0


def test_unclear_clauses_are_ranked() -> None:
    """Clauses that people call unclear stand in the order of how often they do."""
    found = tallied(
        verdict("a", "first", "ann", says("violates", "W1"), policy_unclear=True),
        verdict("b", "first", "ann", says("violates", "W2"), policy_unclear=True),
        verdict("c", "first", "bob", says("violates", "W2"), policy_unclear=True),
        verdict("d", "first", "bob", says("violates", "W2")),
    )

    assert [(r.clause, r.count, r.of) for r in found.unclear] == [("W2", 2, 3), ("W1", 1, 1)]


def test_an_unclear_policy_is_unclear_at_what_settles_it() -> None:
    """Who presses one key names no clause: it is the one, or the carve-out, by which a lead decides then."""
    found = tallied(
        verdict("a", "first", "ann", says("cannot_tell"), policy_unclear=True),
        verdict("a", "adjudication", "lea", says("violates", "W2")),
        verdict("b", "first", "ann", says("cannot_tell"), policy_unclear=True),
        verdict("b", "adjudication", "lea", says("allowed").model_copy(update={"carve_out": "A3"})),
        verdict("c", "first", "ann", says("cannot_tell"), policy_unclear=True),
        verdict("d", "first", "bob", says("cannot_tell")),
        verdict("d", "adjudication", "lea", says("violates", "W2")),
    )

    assert {r.clause: (r.count, r.of) for r in found.unclear} == {
        "W2": (1, 3),
        "A3": (1, 1),
        "": (1, 3),
    }


@given(st.permutations(range(6)))
def test_order_across_topics_does_not_matter(order: list[int]) -> None:
    """Verdicts on different jobs and decisions may be read in any order."""
    records: list[Verdict | Decision] = [
        verdict("a", "first", "ann", says("allowed")),
        verdict("b", "first", "bob", says("violates", "W1")),
        verdict("c", "first", "ann", says("violates", "W1"), saw_model=False),
        decision("a", "a-first-ann", acted=True),
        decision("b", "b-first-bob", acted=True),
        decision("c", "c-first-ann"),
    ]

    assert tallied(*(records[n] for n in order)) == tallied(*records)
