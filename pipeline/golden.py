"""Golden cases put to the test: what came out, against what must come out. Pure.

Scores may come from a classifier or from a recording; what follows from them is decided by the same function as live.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from pipeline.decide import Answer, Origin, decide
from pipeline.messages import Content, Context, Decision, MediaRef, Source, UploadEvent
from policies.cases import Case, CaseFile
from policies.question import Question
from policies.schema import Action, Policy, PolicySet, Status

#: From this probability on an answer counts as Yes.
YES: Final = 0.5

Result = Literal["passed", "failed", "stale", "silent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came out of one case.

    `stale`: its recording is older than its words. `silent`: nobody answered. `why` says so in lines.
    """

    policy: str
    case: str
    status: Result
    why: tuple[str, ...] = ()
    answers: Mapping[str, float]
    duration_s: float = 0.0

    @property
    def name(self) -> str:
        """The case's full name."""
        return f"{self.policy}/{self.case}"


def questions_of(policy: Policy, case: Case) -> tuple[Question, ...]:
    """Return the questions that a case is about: that of its clause, or all of its policy.

    A clause that binds in some regions alone counts where the case says that it is shown there.
    """
    if case.clause is None:
        shown = set(case.context.get("regions", ()))
        return tuple(
            question
            for question in policy.questions
            if question.clause is None
            or not (regions := policy.clauses[question.clause].regions)
            or shown & set(regions)
        )
    alone = [q for q in policy.questions if q.clause == case.clause]
    joint = [q for q in policy.questions if q.clause is None]
    return tuple(alone or joint)


def judge(
    policy: Policy, name: str, case: Case, answers: Sequence[Answer], *, now: datetime
) -> Outcome:
    """Return whether a case came out as it must, and if not, why."""
    by_question = {answer.question: answer.probability for answer in answers}
    asked = questions_of(policy, case)
    missing = [question.id for question in asked if question.id not in by_question]
    if missing:
        return Outcome(
            policy=policy.policy,
            case=name,
            status="silent",
            why=(f"no answer to {', '.join(missing)}",),
            answers=by_question,
        )
    why = tuple(_against(policy, case, answers, now))
    return Outcome(
        policy=policy.policy,
        case=name,
        status="failed" if why else "passed",
        why=why,
        answers=by_question,
    )


def _against(
    policy: Policy,
    case: Case,
    answers: Sequence[Answer],
    now: datetime,
) -> Iterator[str]:
    asked = questions_of(policy, case)
    by_question = {answer.question: answer.probability for answer in answers}
    highest = max(asked, key=lambda question: by_question[question.id])
    found = "violates" if by_question[highest.id] >= YES else "allowed"
    if found != case.expect:
        said = ", ".join(f"{q.id} {by_question[q.id]:.2f}" for q in asked)
        yield f"must come out as {case.expect}, came out as {found}: {said} (Yes from {YES:g})"
    if case.action is not None:
        decision = _decided(policy, case, answers, now)
        action = _deed(decision)
        if action != case.action:
            yield f"the action must be {case.action}, is {action}"


def _deed(decision: Decision) -> str:
    labelled = decision.action is Action.ALLOW and decision.labels
    return "label" if labelled else decision.action.value


def _decided(policy: Policy, case: Case, answers: Sequence[Answer], now: datetime) -> Decision:
    """Return what this policy alone decides, as if it were live."""
    event = UploadEvent(
        event_id="case",
        content_id="case",
        media=tuple(MediaRef(uri=name) for name in (*case.media, *case.drawings)),
        text=case.text,
        context=Context.model_validate(case.context),
    )
    live = policy.model_copy(update={"status": Status.LIVE})
    return decide(
        event,
        answers,
        PolicySet((live,)),
        origin=Origin(
            source=Source(topic="cases", partition=0, offset=0),
            decision_id="case",
            content=Content(language=None),
        ),
        now=now,
    )


def beside(outcome: Outcome, file: CaseFile, others: Mapping[str, Outcome]) -> tuple[str, ...]:
    """Return a failed case's answers beside those of its counterfactuals."""
    if outcome.status != "failed":
        return ()
    case = file.cases[outcome.case]
    names = [name for name, other in file.cases.items() if other.unlike == outcome.case]
    lines = []
    for name in [*([case.unlike] if case.unlike else []), *names]:
        other = others.get(name)
        if other is None:
            continue
        shared = [key for key in outcome.answers if key in other.answers]
        said = ", ".join(
            f"{key} {outcome.answers[key]:.2f} here, {other.answers[key]:.2f} there"
            for key in shared
        )
        lines.append(f"beside its counterpart {name}: {said}")
    return tuple(lines)
