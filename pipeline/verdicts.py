"""What follows from a person's answers: whether somebody else must look, and the decision. Pure.

The answers go through the same policy file as a model's; what a person decided stands (`pipeline.review.in_force`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pipeline.decide import (
    Judgement,
    ground,
    labels,
    limits_of,
    notice,
    questions_for,
    regions,
    strictest,
)
from pipeline.messages import (
    DECISIONS,
    REVIEWS,
    TICKETS,
    VERDICTS,
    AppealOutcome,
    Decision,
    Review,
    ReviewEvent,
    Source,
    Ticket,
    Verdict,
    VerdictAnswer,
    headers,
)
from pipeline.records import Outgoing
from pipeline.review import Need
from policies.question import Question
from policies.schema import Action, Policy, PolicySet, Status

#: Reasons of escalation; each is the name of a queue.
ESCALATIONS: Final = ("minor_safety", "threat_to_life", "terrorism", "legal", "other")
#: What an escalated job weighs at least: it goes before what waits in its queue for other reasons.
_ESCALATED_HARM: Final = 30.0
#: Parts of a review in which a lead has the last word.
_LAST_WORDS: Final = {"adjudication"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The verdict counts, and somebody else has to look."""

    part: str
    need: Need
    saw: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decides:
    """The verdict decides."""

    verdict: Verdict
    escalate: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """The verdict changes nothing; `reason` is a stable word."""

    reason: str


def question_of(answer: VerdictAnswer, policies: PolicySet) -> str | None:
    """Return the id of the question that an answer answers, or None where there is no such policy or clause."""
    policy = policies.by_name.get(answer.policy)
    if policy is None:
        return None
    ids = {question.id for question in policy.questions}
    alone = f"{answer.policy}/{answer.clause}"
    if answer.clause and alone in ids:
        return alone
    if answer.clause and answer.clause not in policy.clauses:
        return None
    return policy.policy if policy.policy in ids else None


def by_question(verdict: Verdict, policies: PolicySet) -> dict[str, VerdictAnswer]:
    """Return the answers by the question that they answer; of two to one question the last counts."""
    named = ((question_of(answer, policies), answer) for answer in verdict.answers)
    return {question: answer for question, answer in named if question is not None}


def missing(decision: Decision, verdict: Verdict, policies: PolicySet) -> tuple[str, ...]:
    """Return the questions of the job that the verdict leaves without an answer.

    A job of which no question is known any more, such as an unreadable upload, wants at least one answer or action.
    """
    answered = by_question(verdict, policies)
    known = {question.id for policy in policies for question in policy.questions}
    asked = [q for q in (decision.review.questions if decision.review else ()) if q in known]
    if not asked and not answered and verdict.action is None:
        return ("any",)
    return tuple(question for question in asked if question not in answered)


def weigh(
    decision: Decision,
    verdict: Verdict,
    policies: PolicySet,
    *,
    part: str,
    saw: Sequence[Verdict],
    reviewers: int,
) -> Progress | Decides | Ignored:
    """Return what a verdict does to a job of which `part` is due and which `saw` these verdicts before."""
    if refused := _refused(decision, verdict, policies, part=part, saw=saw):
        return Ignored(reason=refused)
    seen = (*saw, verdict)
    escalate = next((v.escalate for v in reversed(seen) if v.escalate), None)
    if part in _LAST_WORDS or verdict.action is not None:
        return Decides(verdict=verdict, escalate=escalate)
    answers = by_question(verdict, policies)
    if any(answer.answer == "cannot_tell" for answer in answers.values()):
        return Progress(part="adjudication", need="lead", saw=seen)
    if part == "first" and reviewers > 1:
        return Progress(part="second", need="reviewer", saw=seen)
    if part in {"second", "approval"} and not _agree(saw[-1], verdict, policies):
        return Progress(part="adjudication", need="lead", saw=seen)
    if part in {"first", "second"} and _wants_approval(answers, policies, decision.context):
        return Progress(part="approval", need="lead", saw=seen)
    return Decides(verdict=verdict, escalate=escalate)


def decide_again(
    ticket: Ticket,
    verdict: Verdict,
    policies: PolicySet,
    *,
    source: Source,
    decision_id: str,
    now: datetime,
    escalate: str | None = None,
    appeal: str | None = None,
) -> Decision:
    """Return the decision that a person's answers make, which supersedes the ticket's.

    What nobody asked the person about stays as the pipeline had it: what acted by itself acts on, what could not be
    judged falls to `when_unavailable`, unless the whole upload was put before the person.
    """
    before, event = ticket.decision, ticket.event
    answers = by_question(verdict, policies)
    context = event.context.values()
    answered, silent = _judgements(ticket, answers, policies, context, None)
    action = verdict.action or strictest(answered, silent)
    regional = {}
    if verdict.action is None:
        for region in regions(event, policies):
            there, _ = _judgements(ticket, answers, policies, {**context, "region": region}, region)
            asked_for = strictest(there, silent)
            if asked_for is not action:
                regional[region] = asked_for
    return before.model_copy(
        update={
            "decision_id": decision_id,
            "source": source,
            "action": action,
            "labels": labels(answered),
            "limits": limits_of(answered),
            "regional": regional,
            "review": None if escalate is None else _escalated(before, escalate),
            "unjudged": tuple(dict.fromkeys(policy.policy for policy in silent)),
            "policy_set": policies.digest,
            "ground": ground(answered, policies),
            "notice": notice(answered, policies),
            "stages": (),
            "decided_by": "person",
            "reviewer": verdict.reviewer,
            "verdict_id": verdict.verdict_id,
            "appeal": None if appeal is None else _ended(appeal, before.action, action),
            "decided_at": now,
            "supersedes": before.decision_id,
        }
    )


def _refused(
    decision: Decision,
    verdict: Verdict,
    policies: PolicySet,
    *,
    part: str,
    saw: Sequence[Verdict],
) -> str | None:
    if verdict.part == "golden":
        return "golden"
    if verdict.verdict_id in {before.verdict_id for before in saw}:
        return "repeated"
    if verdict.reviewer in {before.reviewer for before in saw}:
        return "same_reviewer"
    if verdict.part != part:
        return "part_is_over"
    return "incomplete" if missing(decision, verdict, policies) else None


def _ended(appeal: str, before: Action, after: Action) -> AppealOutcome:
    milder = after.rank < before.rank
    return AppealOutcome(appeal_id=appeal, outcome="overturned" if milder else "upheld")


def _judgements(
    ticket: Ticket,
    answers: Mapping[str, VerdictAnswer],
    policies: PolicySet,
    context: Mapping[str, Any],
    region: str | None,
) -> tuple[list[Judgement], list[Policy]]:
    """Return what every live question asks for now, and the policies that are silent."""
    decision = ticket.decision
    found = {finding.question: finding for finding in decision.findings}
    # An unreadable upload, or one that no classifier judged, was put before the person as a whole.
    whole = decision.fault is not None or (
        decision.review is not None and decision.review.reason in {"intake", "unavailable"}
    )
    # What another person left unjudged stays so.
    by_person = decision.decided_by == "person"
    judged: list[Judgement] = []
    silent: list[Policy] = []
    asked = {question.id: (policy, question) for policy, question in _asked(ticket, policies)}
    added = {q: _named(q, policies) for q in answers if q not in asked}
    for name, (policy, question) in (asked | added).items():
        if policy.status is not Status.LIVE or not policy.binds(question.clause, region):
            continue
        if name in answers:
            judged.append(_answered(policy, question, answers[name].answer, context))
        elif name in found:
            acted = found[name].outcome == "acted"
            judged.append(_judgement(policy, question, context, acts=acted))
        elif policy.policy in decision.unjudged if by_person else not whole:
            silent.append(policy)
    return judged, silent


def _asked(ticket: Ticket, policies: PolicySet) -> Collection[tuple[Policy, Question]]:
    uncovered = {name for name in ticket.decision.not_asked if name in policies.by_name}
    return questions_for(ticket.event, policies, uncovered=uncovered)


def _named(question_id: str, policies: PolicySet) -> tuple[Policy, Question]:
    policy = policies.by_name[question_id.partition("/")[0]]
    return policy, next(q for q in policy.questions if q.id == question_id)


def _answered(
    policy: Policy, question: Question, answer: str, context: Mapping[str, Any]
) -> Judgement:
    if answer == "cannot_tell":
        rule = policy.rule(question.clause, context)
        return Judgement(
            question=question,
            rule=rule,
            action=rule.meanwhile,
            acts=False,
            review=None,
            probability=0.5,
        )
    return _judgement(policy, question, context, acts=answer == "violates")


def _judgement(
    policy: Policy, question: Question, context: Mapping[str, Any], *, acts: bool
) -> Judgement:
    rule = policy.rule(question.clause, context)
    return Judgement(
        question=question,
        rule=rule,
        action=rule.action if acts else Action.ALLOW,
        acts=acts,
        review=None,
        probability=1.0 if acts else 0.0,
    )


def _escalated(before: Decision, reason: str) -> Review:
    priority = before.review.priority if before.review else 0.0
    return Review(
        queue=reason if reason in ESCALATIONS else "other",
        priority=max(priority, _ESCALATED_HARM),
        due_at=None,
        reason="escalated",
        questions=before.review.questions if before.review else (),
    )


def _agree(one: Verdict, other: Verdict, policies: PolicySet) -> bool:
    """Return whether two verdicts say the same about every question, whichever clause they name."""
    first, second = by_question(one, policies), by_question(other, policies)
    return {q: a.answer for q, a in first.items()} == {q: a.answer for q, a in second.items()}


def _wants_approval(
    answers: Mapping[str, VerdictAnswer], policies: PolicySet, context: Mapping[str, Any]
) -> bool:
    violated = [_named(q, policies) for q, a in answers.items() if a.answer == "violates"]
    return any(policy.rule(q.clause, context).approval for policy, q in violated)


def verdict_record(verdict: Verdict, content_id: str) -> Outgoing:
    """Return the record of a verdict; verdicts on one content id stay in order."""
    return Outgoing(
        topic=VERDICTS,
        key=content_id.encode(),
        value=verdict.model_dump_json(exclude_none=True).encode(),
        headers=tuple(headers("verdict", verdict.verdict_id)),
    )


def review_record(event: ReviewEvent, about: str) -> Outgoing:
    """Return the record of what a person did to a job; `about` is its content, or else the queue or the person."""
    return Outgoing(
        topic=REVIEWS,
        key=about.encode(),
        value=event.model_dump_json(exclude_none=True).encode(),
        headers=tuple(headers("review", event.event_id)),
    )


def decision_records(ticket: Ticket) -> tuple[Outgoing, Outgoing]:
    """Return the record of a person's decision and of its ticket."""
    decision = ticket.decision
    named = tuple(headers("decision", decision.decision_id, source=decision.source))
    beside = tuple(headers("ticket", decision.decision_id, source=decision.source))
    key = decision.content_id.encode()
    return (
        Outgoing(
            topic=DECISIONS, key=key, value=decision.model_dump_json().encode(), headers=named
        ),
        Outgoing(topic=TICKETS, key=key, value=ticket.model_dump_json().encode(), headers=beside),
    )
