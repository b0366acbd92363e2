"""What follows from a person's answers."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decide import Answer, Origin, decide
from pipeline.messages import (
    AppealOutcome,
    Decision,
    Source,
    Ticket,
    UploadEvent,
    Verdict,
    VerdictAnswer,
)
from pipeline.verdicts import (
    Decides,
    Ignored,
    Progress,
    decide_again,
    missing,
    question_of,
    weigh,
)
from policies.schema import Action, Policy, PolicySet

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
WHERE = Source(topic="moderation.verdicts", partition=0, offset=3)


def policy(name: str, **fields: Any) -> Policy:
    """Return a live policy with a clause that is asked by itself."""
    return Policy.model_validate(
        {
            "policy": name,
            "title": name,
            "version": 1,
            "status": "live",
            "question": "Does it?",
            "clauses": {
                "W1": {"text": "It sells."},
                "W2": {"text": "It praises."},
                "W3": {"text": "It threatens.", "severity": "critical", "action": "remove"},
            },
            "allowed": {"A1": {"text": "Toys."}},
            "severity": "high",
            "action": "restrict",
            "label": name,
            "limits": {"age": 18},
            "bands": {"review": 0.3, "act": 0.9},
            "review": {"queue": "weapons", "meanwhile": "hold"},
            "ground": {"terms": f"https://example.org/{name}"},
            **fields,
        }
    )


POLICIES = PolicySet((policy("weapons"), policy("drugs"), policy("severe", review={
    "queue": "weapons", "meanwhile": "hold", "approval": True
})))  # fmt: skip


def ticket(policies: PolicySet = POLICIES, **probabilities: float) -> Ticket:
    """Return the ticket of an upload on which the questions have these probabilities; the others, none."""
    event = UploadEvent(event_id="e", content_id="c", text="a caption")
    questions = [q.id for p in policies for q in p.questions]
    answers = [
        Answer(
            question=question,
            score=0.0,
            probability=probabilities.get(question.replace("/", "_"), 0.01),
            calibration="fresh",
            answered_by="sha256:m",
        )
        for question in questions
    ]
    origin = Origin(source=Source(topic="u", partition=0, offset=1), decision_id="d")
    return Ticket(decision=decide(event, answers, policies, origin=origin, now=NOW), event=event)


def verdict(*answers: str, by: str = "ann", part: str = "first", **fields: Any) -> Verdict:
    """Return a verdict of answers like `weapons=violates:W1`."""
    said = []
    for text in answers:
        name, _, rest = text.partition("=")
        answer, _, clause = rest.partition(":")
        said.append({"policy": name, "answer": answer, "clause": clause or None})
    return Verdict.model_validate(
        {
            "verdict_id": f"v-{by}-{part}",
            "job_id": "d",
            "decision_id": "d",
            "reviewer": by,
            "lease": 1,
            "part": part,
            "answers": said,
            "decided_at": NOW,
            **fields,
        }
    )


def again(about: Ticket, said: Verdict, **fields: Any) -> Decision:
    """Return the decision that a verdict makes."""
    return decide_again(about, said, POLICIES, source=WHERE, decision_id="p", now=NOW, **fields)


def test_answers_go_through_the_policy_file() -> None:
    """A violation does what the policy says, with its label, limits and ground; nothing else acts."""
    about = ticket(weapons=0.5)
    assert about.decision.action is Action.HOLD

    decision = again(about, verdict("weapons=violates:W1"))

    assert decision.action is Action.RESTRICT
    assert decision.labels == ("weapons",)
    assert decision.limits.age == 18
    assert decision.ground == "https://example.org/weapons"
    assert (decision.decided_by, decision.reviewer, decision.supersedes) == ("person", "ann", "d")
    assert decision.review is None


def test_a_clause_of_its_own_has_its_own_action() -> None:
    """An answer that names a clause asked by itself answers that clause's question."""
    about = ticket(weapons_W3=0.5)
    assert about.decision.review is not None
    assert about.decision.review.questions == ("weapons/W3",)

    assert missing(about.decision, verdict("weapons=allowed"), POLICIES) == ("weapons/W3",)
    assert again(about, verdict("weapons=violates:W3")).action is Action.REMOVE
    assert again(about, verdict("weapons=allowed:W3")).action is Action.ALLOW


def test_what_nobody_was_asked_about_acts_on() -> None:
    """What the pipeline was sure of stays, though a person allows what they were asked about."""
    about = ticket(weapons=0.5, drugs=0.95)

    decision = again(about, verdict("weapons=allowed"))

    assert decision.action is Action.RESTRICT
    assert decision.labels == ("drugs",)


def test_silence_stays_silence() -> None:
    """A policy that no classifier could judge keeps its `when_unavailable`; an answer under it ends that."""
    about = ticket(weapons=0.5)
    findings = tuple(f for f in about.decision.findings if f.policy != "drugs")
    silent = about.model_copy(
        update={"decision": about.decision.model_copy(update={"findings": findings})}
    )

    assert again(silent, verdict("weapons=allowed")).unjudged == ("drugs",)
    assert again(silent, verdict("weapons=allowed")).action is Action.HOLD
    seen = verdict("weapons=allowed", "drugs=allowed", "drugs=allowed:W3")
    assert again(silent, seen).action is Action.ALLOW


def test_a_lead_may_choose_another_action() -> None:
    """The action of a verdict goes before what follows from its answers."""
    said = verdict("weapons=allowed", action="remove", note="a court says so")

    assert again(ticket(weapons=0.5), said).action is Action.REMOVE


def test_an_escalating_answer_opens_a_second_job() -> None:
    """The decision of an answer that escalates has a ticket of its own for the queue of the reason."""
    decision = again(ticket(weapons=0.5), verdict("weapons=violates:W1"), escalate="threat_to_life")

    assert decision.review is not None
    assert (decision.review.queue, decision.review.reason) == ("threat_to_life", "escalated")


@pytest.mark.parametrize(
    ("answer", "outcome"), [("allowed", "overturned"), ("violates:W1", "upheld")]
)
def test_an_appeal_ends_one_way_or_the_other(answer: str, outcome: Any) -> None:
    """A milder decision overturns the one appealed against; any other upholds it."""
    about = ticket(weapons=0.5)
    removed = again(about, verdict("weapons=violates:W1"))
    appealed = about.model_copy(update={"decision": removed})

    ended = again(appealed, verdict(f"weapons={answer}", by="bob"), appeal="a1").appeal

    assert ended == AppealOutcome(appeal_id="a1", outcome=outcome)


def step(
    said: Verdict, *, part: str = "first", saw: tuple[Verdict, ...] = (), reviewers: int = 1
) -> Progress | Decides | Ignored:
    """Return what a verdict does to a job on weapons and on the severe policy."""
    about = ticket(severe=0.5) if "severe" in said.answers[0].policy else ticket(weapons=0.5)
    return weigh(about.decision, said, POLICIES, part=part, saw=saw, reviewers=reviewers)


def test_one_reviewer_decides() -> None:
    """Where one person is enough, the answer decides."""
    assert isinstance(step(verdict("weapons=allowed")), Decides)


def test_two_must_agree_else_a_lead_decides() -> None:
    """The second of two decides when they agree; where they differ, a lead has the last word."""
    first = verdict("weapons=allowed")
    after = step(first, reviewers=2)
    assert isinstance(after, Progress)
    assert (after.part, after.need) == ("second", "reviewer")
    same = verdict("weapons=allowed", by="bob", part="second")
    other = verdict("weapons=violates:W2", by="bob", part="second")
    assert isinstance(step(same, part="second", saw=after.saw, reviewers=2), Decides)
    differ = step(other, part="second", saw=after.saw, reviewers=2)
    assert isinstance(differ, Progress)
    assert (differ.part, differ.need) == ("adjudication", "lead")
    last = verdict("weapons=violates:W1", by="lea", part="adjudication")
    assert isinstance(step(last, part="adjudication", saw=differ.saw, reviewers=2), Decides)


def test_a_severe_violation_wants_approval() -> None:
    """A violation under a policy that wants approval waits for a lead; an allowed item does not."""
    after = step(verdict("severe=violates:W1"))
    assert isinstance(after, Progress)
    assert (after.part, after.need) == ("approval", "lead")
    assert isinstance(step(verdict("severe=allowed")), Decides)
    yes = verdict("severe=violates:W2", by="lea", part="approval")
    no = verdict("severe=allowed", by="lea", part="approval")
    assert isinstance(step(yes, part="approval", saw=after.saw), Decides)
    refused = step(no, part="approval", saw=after.saw)
    assert isinstance(refused, Progress)
    assert refused.part == "adjudication"


def test_whoever_cannot_tell_leaves_it_to_a_lead() -> None:
    """An answer of "cannot tell" is no decision."""
    after = step(verdict("weapons=cannot_tell"))

    assert isinstance(after, Progress)
    assert after.need == "lead"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (verdict("drugs=allowed"), "incomplete"),
        (verdict("weapons=allowed", part="second"), "part_is_over"),
        (verdict("weapons=allowed", part="golden"), "golden"),
    ],
)
def test_some_verdicts_change_nothing(said: Verdict, why: str) -> None:
    """A verdict that leaves a question open, comes too late, or is on a known item is no decision."""
    assert step(said) == Ignored(reason=why)


def test_nobody_gives_both_verdicts() -> None:
    """The same person's second verdict, and the same verdict again, do not count."""
    first = verdict("weapons=allowed")
    mine = verdict("weapons=allowed", part="second")
    assert step(mine, part="second", saw=(first,), reviewers=2) == Ignored(reason="same_reviewer")
    assert step(first, part="second", saw=(first,)) == Ignored(reason="repeated")


answers = st.sampled_from(["violates", "allowed", "cannot_tell"])


@given(st.lists(answers, min_size=2, max_size=2), st.booleans())
def test_answers_never_loosen_what_they_are_not_about(
    said: list[str],
    sure: bool,  # noqa: FBT001
) -> None:
    """Whatever people answer, what acts by itself elsewhere stays in force, and a violation always acts."""
    about = ticket(weapons=0.5, severe=0.5, drugs=0.95 if sure else 0.01)
    text = [
        f"{name}={answer}" + (":W1" if answer == "violates" else "")
        for name, answer in zip(["weapons", "severe"], said, strict=True)
    ]
    decision = again(about, verdict(*text))

    if sure or "violates" in said:
        assert decision.action.rank >= Action.RESTRICT.rank
    if said == ["allowed", "allowed"] and not sure:
        assert decision.action is Action.ALLOW


def test_answers_name_what_exists() -> None:
    """An answer under an unknown policy or clause answers nothing."""
    assert question_of(VerdictAnswer(policy="nope", answer="allowed"), POLICIES) is None
    assert (
        question_of(VerdictAnswer(policy="weapons", clause="W9", answer="allowed"), POLICIES)
        is None
    )
    assert (
        question_of(VerdictAnswer(policy="weapons", clause="W2", answer="allowed"), POLICIES)
        == "weapons"
    )
