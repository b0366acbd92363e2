"""What a reviewer sees of a job, in words; pure. Nothing in it tells what answer is expected."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from dashboards.console.appealed import appealed
from pipeline.messages import Decision, Finding, Ticket
from pipeline.redis import Entry
from pipeline.review import Terms
from policies.question import Question
from policies.queues import Queue
from policies.schema import PolicySet, Status

_IN_FORCE: Final = {
    "allow": "Visible to everybody",
    "restrict": "Restricted",
    "hold": "Held back until you decide",
    "remove": "Removed",
}
_REASONS: Final = {
    "intake": "Here because it could not be read: {fault}.",
    "unavailable": "Here because no model could judge it.",
    "cap": "Here because the policy has acted by itself as often as it may today.",
    "audit": "Here by lot, to check what was decided without a person.",
    "disagreement": "Here because two judgements differ.",
    "appeal": "Here because its author objects.",
    "escalated": "Here because a reviewer escalated it.",
}


def blind(job_id: str, share: float) -> bool:
    """Return whether the model's opinion is hidden at this job; the same job gives the same answer."""
    number = int.from_bytes(hashlib.sha256(f"blind:{job_id}".encode()).digest()[:8], "big")
    return number < share * 2**64


def sheet(
    entry: Entry,
    policies: PolicySet,
    queues: Mapping[str, Queue],
    *,
    notes: list[dict[str, Any]],
    hidden: bool,
    link: Callable[[int], str],
    terms: Terms | None = None,
    then: PolicySet | None = None,
) -> dict[str, Any]:
    """Return one held job as the page shows it; `hidden` leaves the model's opinion out.

    `terms` say why it stands where it stands; `then` is the policy set under which an appealed decision was made.
    """
    ticket = entry.ticket
    if ticket is None:
        return {}
    decision, event = ticket.decision, ticket.event
    queue = queues.get(entry.queue, Queue())
    asked = _asked(decision, policies)
    return {
        "job": entry.job_id,
        "lease": entry.lease,
        "queue": queue.title or entry.queue,
        "lane": entry.lane,
        "part": "first" if entry.part == "golden" else entry.part,
        "due": entry.due.isoformat(),
        "late": entry.late,
        "widened": entry.widened,
        "language": entry.language,
        "weight": entry.weight,
        "hidden": hidden,
        "in_force": _IN_FORCE[decision.action.value],
        "why": _why(decision, asked, policies, hidden=hidden),
        "questions": [_question(q, decision.findings, policies, hidden=hidden) for q in asked],
        "choices": [] if asked else _choices(policies),
        "caption": event.text,
        "media": [link(index) for index in range(len(event.media))],
        "evidence": [] if hidden else _evidence(decision, asked),
        "author": event.author_id or "",
        "context": {k: str(v) for k, v in decision.context.items()},
        "reports": [{"category": r.category or "", "text": r.text or ""} for r in event.reports],
        "appeal": ticket.appeal.text if ticket.appeal else None,
        "appealed": appealed(decision, asked, then, policies) if ticket.appeal else None,
        "standing": "" if terms is None else _standing(terms, hidden=hidden),
        "notes": [{"by": n.get("by") or "", "text": n.get("note") or n.get("reason") or ""} for n in notes],
        "before": _before(entry, ticket),
    }  # fmt: skip


def _asked(decision: Decision, policies: PolicySet) -> list[Question]:
    names = decision.review.questions if decision.review else ()
    known = {question.id: question for policy in policies for question in policy.questions}
    return [known[name] for name in names if name in known]


def _question(
    question: Question, findings: Sequence[Finding], policies: PolicySet, *, hidden: bool
) -> dict[str, Any]:
    found = next((f for f in findings if f.question == question.id), None)
    policy = policies.by_name[question.policy]
    rationale = found.rationale if found and not hidden else None
    return {
        "id": question.id,
        "policy": question.policy,
        "clause": question.clause,
        "title": policy.title,
        "text": question.question,
        "severity": (found.severity if found else policy.severity).value,
        "clauses": [{"id": clause.id, "text": clause.text} for clause in question.forbidden],
        "allowed": [{"id": exempt.id, "text": exempt.text} for exempt in question.allowed],
        "rationale": None
        if rationale is None
        else rationale.model_dump(mode="json", include={"clause", "text", "supported", "denied"}),
    }


def _choices(policies: PolicySet) -> list[dict[str, Any]]:
    """Return every question of every live policy, for uploads that were put before a person as a whole."""
    return [
        _question(question, (), policies, hidden=True)
        for policy in policies
        if policy.status is Status.LIVE
        for question in policy.questions
    ]


def _why(
    decision: Decision, asked: list[Question], policies: PolicySet, *, hidden: bool
) -> list[str]:
    reason = decision.review.reason if decision.review else "band"
    words = []
    if reason in _REASONS:
        fault = decision.fault.reason.replace("_", " ") if decision.fault else "nobody knows why"
        words.append(_REASONS[reason].format(fault=fault))
    for question in asked:
        found = next((f for f in decision.findings if f.question == question.id), None)
        title = policies.by_name[question.policy].title
        name = title if question.clause is None else f"{title}, {question.clause}"
        said = "" if hidden or found is None else f" {_odds(found)}"
        words.append(f"Here because of {name}.{said}" if reason == "band" else f"{name}.{said}")
    return words


def _odds(finding: Finding) -> str:
    if finding.interval is None or finding.calibration == "none":
        return "The model's score is not calibrated: it does not say how often such items violate."
    low, high = (round(100 * bound) for bound in finding.interval)
    old = " (measured before the policy or the model changed)" if finding.calibration == "stale" else ""  # fmt: skip
    span = f"{low}" if low == high else f"{low} to {high}"
    return f"Of 100 items like this, {span} were violations{old}."


def _standing(terms: Terms, *, hidden: bool) -> str:
    """Return why a job stands where it stands, in words; the model's share in it is an opinion, too."""
    waited = f"waited {terms.waited_h:.1f} h, which adds {terms.ageing:.1f}"
    raised = "; raised, because it is overdue" if terms.raised else ""
    if hidden:
        return f"{terms.severity} severity; {waited}{raised}"
    return (
        f"expected harm {terms.harm:.1f} (probability {terms.probability:.2f}, {terms.severity} severity "
        f"weighing {terms.weight}, reach {terms.reach:g}); {waited}{raised}"
    )


def _evidence(decision: Decision, asked: list[Question]) -> list[dict[str, Any]]:
    names = {question.id for question in asked}
    return [
        {"media": place.media, "box": place.box, "time_s": place.time_s}
        for finding in decision.findings
        if finding.question in names
        for place in finding.evidence
    ]


def _before(entry: Entry, ticket: Ticket) -> list[dict[str, Any]]:
    """Return what others said, for whoever has the last word; a second reviewer is blind to the first."""
    del ticket
    if entry.part not in {"adjudication", "approval"}:
        return []
    return [
        {
            "said": [
                f"{a.policy}: {a.answer.replace('_', ' ')} {a.clause or a.carve_out or ''}".strip()
                for a in verdict.answers
            ],
            "note": verdict.note,
        }
        for verdict in entry.saw
    ]
