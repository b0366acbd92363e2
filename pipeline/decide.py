"""The decision: a pure function from an event, the calibrated answers and the policies to one action.

The same function serves the live stream, shadows, backtests and tests. It gets the time as an argument.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from pipeline.lottery import Stake, drawn, with_audit
from pipeline.messages import (
    Calibration,
    Content,
    Decision,
    Evidence,
    Fault,
    Finding,
    Review,
    ReviewReason,
    Source,
    Stage,
    UploadEvent,
)
from policies.question import Question
from policies.schema import (
    Action,
    Limits,
    MissRate,
    Policy,
    PolicySet,
    Precision,
    Rule,
    Severity,
    Status,
)

#: The queue of uploads that could not be read, or whose reason to hold is no policy's.
INTAKE = "intake"
#: Below this share of drawn reasons that agree, a person looks at what was done.
AGREED = 0.5
#: How soon somebody looks at an upload that could not be read.
INTAKE_DUE = timedelta(hours=4)


class Answer(NamedTuple):
    """A classification after calibration; a dozen are made for each upload, so a tuple."""

    question: str
    score: float
    probability: float
    calibration: Calibration
    answered_by: str
    interval: tuple[float, float] | None = None
    media: int | None = None
    time_s: float | None = None
    box: tuple[float, float, float, float] | None = None
    #: The probability of the picture read whole, where it was read in tiles as well.
    whole: float | None = None
    #: The thresholds that keep promises of bands; a promise that is missing, or None, is not kept.
    thresholds: Mapping[Precision | MissRate, float | None] = MappingProxyType({})
    #: What the monitor found against the calibration, if anything.
    alarm: Literal["risk", "drift"] | None = None
    #: What `whole` is the probability of.
    whole_score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a decision comes from: its record, its id, and what it replaces."""

    source: Source
    decision_id: str
    content: Content = Content()
    supersedes: str | None = None
    stages: tuple[Stage, ...] = ()


class Judgement(NamedTuple):
    """What one question asks for: an action now, and whether a person looks; a tuple, as `Answer` is."""

    question: Question
    rule: Rule
    action: Action
    acts: bool
    review: ReviewReason | None
    probability: float


_RANK: Final = attrgetter("rank")
_NO_LIMITS: Final = Limits()
_EVIDENCE: Final = Evidence(media=0)
_BLANK: Final = Decision.model_construct(
    decision_id="",
    source=Source(topic="", partition=0, offset=0),
    event_id="",
    content_id="",
    action=Action.HOLD,
    policy_set="",
    decided_at=datetime.min.replace(tzinfo=UTC),
)


def decide(
    event: UploadEvent,
    answers: Collection[Answer],
    policies: PolicySet,
    *,
    origin: Origin,
    now: datetime,
    uncovered: Collection[str] = (),
    text_found: bool = False,
    spent: Collection[str] = (),
) -> Decision:
    """Return the strictest action that any live question asks for, and every question's finding.

    `spent` names the policies that have acted as often today as their `daily_cap` allows: a person decides instead.
    `uncovered` names the policies that no configured classifier can judge; `text_found` says that text was read from
    the media, which questions about captions are then asked of.
    """
    # A score that is no number is no answer.
    by_question = {a.question: a for a in answers if 0.0 <= a.probability <= 1.0}
    context = event.context.values()
    asked = questions_for(event, policies, uncovered=uncovered, text_found=text_found)
    # Beyond its share of a rollout a policy is a shadow: its findings are recorded, and nothing follows.
    live = [(p, q) for p, q in asked if p.status is Status.LIVE and p.acts_on(event.content_id)]
    # Silence is not consent: a live question without an answer falls to its policy's `when_unavailable`.
    silent = [policy for policy, question in live if question.id not in by_question]
    language = origin.content.language
    everywhere = _judge_all(live, by_question, context, None, language, spent)
    regional = {}
    abroad: list[Judgement] = []
    for region in regions(event, policies):
        # Only what names the region can differ there.
        named = [(p, q) for p, q in live if region in p.regions]
        here = {policy.policy for policy, _ in named}
        circumstances = {**context, "region": region}
        there = _judge_all(named, by_question, circumstances, region, language, spent)
        same = [j for j in everywhere if j.question.policy not in here]
        regional[region] = strictest([*there, *same], silent)
        abroad += there
    acting = [j for j in everywhere if j.acts]
    action = strictest(everywhere, silent)
    # What is held in one region alone needs a person, too.
    further = _beyond(abroad, everywhere) if abroad else []
    wherever = [*everywhere, *further]
    acting_anywhere = [*acting, *(j for j in further if j.acts)]
    led = {judgement.question.id: judgement for judgement in wherever}
    # Every value is of our own making: validating a dozen findings takes longer than all the rest.
    return _BLANK.like(
        decision_id=origin.decision_id,
        source=origin.source,
        event_id=event.event_id,
        content_id=event.content_id,
        author_id=event.author_id,
        content=origin.content,
        context=context,
        action=action,
        labels=labels(acting),
        limits=limits_of(acting),
        regional={region: there for region, there in regional.items() if there is not action},
        review=_audited(_ticket(wherever, silent, event, now), wherever, policies, event),
        findings=tuple(
            _finding(
                policies,
                policy,
                question,
                by_question[question.id],
                context,
                led.get(question.id),
            )
            for policy, question in asked
            if question.id in by_question
        ),
        not_asked=tuple(
            p.policy for p in policies if p.status is Status.DRAFT or p.policy in uncovered
        ),
        unjudged=tuple(dict.fromkeys(policy.policy for policy in silent)),
        policy_set=policies.digest,
        ground=ground(acting, policies) or ground(acting_anywhere, policies),
        notice=notice(acting, policies) or notice(acting_anywhere, policies),
        stages=origin.stages,
        decided_at=now,
        supersedes=origin.supersedes,
    )


def hold(
    event: UploadEvent,
    fault: Fault,
    policies: PolicySet,
    *,
    origin: Origin,
    now: datetime,
    rescored: bool = False,
) -> Decision:
    """Return the hold of an upload that could not be judged; its exit is a job in `intake`, or a rescoring."""
    review = (
        None
        if rescored
        else Review(
            queue=INTAKE,
            priority=_priority(1.0, Severity.MEDIUM, event.context.reach),
            due_at=now + INTAKE_DUE,
            reason="intake",
        )
    )
    return Decision(
        decision_id=origin.decision_id,
        source=origin.source,
        event_id=event.event_id,
        content_id=event.content_id,
        author_id=event.author_id,
        content=origin.content,
        context=event.context.values(),
        action=Action.HOLD,
        review=review,
        fault=fault,
        not_asked=tuple(p.policy for p in policies if p.status is Status.DRAFT),
        unjudged=tuple(p.policy for p in policies if p.status is Status.LIVE),
        policy_set=policies.digest,
        stages=origin.stages,
        decided_at=now,
        supersedes=origin.supersedes,
    )


def for_people(decision: Decision, event: UploadEvent, policies: PolicySet) -> Decision:
    """Return a decision that has gone unjudged for good with a job for a person, who answers in the model's place."""
    if decision.review is not None:
        return decision
    silent = [policies.by_name[name] for name in decision.unjudged]
    first = max(silent, key=lambda policy: policy.severity.weight)
    return decision.model_copy(
        update={
            "review": Review(
                queue=first.review.queue or INTAKE,
                priority=_priority(1.0, first.severity, event.context.reach),
                due_at=None if first.review.due is None else decision.decided_at + first.review.due,
                reason="unavailable",
                questions=tuple(q.id for policy in silent for q in policy.questions),
            )
        }
    )


def with_doubts(
    decision: Decision, event: UploadEvent, policies: PolicySet, *, now: datetime
) -> Decision:
    """Return the decision with a job where it acts for a reason on which the model disagrees with itself.

    The action stands: a job is beside an action, not instead of it.
    """
    doubted = [
        finding
        for finding in decision.findings
        if finding.outcome == "acted"
        and finding.rationale is not None
        and finding.rationale.agreement is not None
        and finding.rationale.agreement < AGREED
    ]
    if not doubted or decision.review is not None:
        return decision
    rules = [
        (finding, policies.by_name[finding.policy].rule(finding.clause, decision.context))
        for finding in doubted
    ]
    first, rule = max(rules, key=lambda pair: (pair[1].severity.weight, pair[0].probability))
    reach = event.context.reach
    review = Review(
        queue=rule.queue,
        priority=_priority(first.probability, rule.severity, reach),
        due_at=None if rule.due is None else now + rule.due,
        reviewers=max(one.reviewers for _, one in rules),
        reason="disagreement",
        questions=tuple(finding.question for finding in doubted),
    )
    return decision.model_copy(update={"review": review})


def questions_for(
    event: UploadEvent,
    policies: PolicySet,
    *,
    uncovered: Collection[str] = (),
    text_found: bool = False,
) -> tuple[tuple[Policy, Question], ...]:
    """Return every question that this event is asked, with its policy.

    Left out are drafts, policies without a classifier, questions that read nothing that the event has, and clauses
    that bind only where the content will not be shown.
    """
    shown = event.context.regions
    text = bool(event.text) or text_found
    key = ("asked", bool(event.media), text, frozenset(uncovered))
    if shown is None and key in policies.remembered:
        known: tuple[tuple[Policy, Question], ...] = policies.remembered[key]
        return known
    has = {part for part, there in (("image", bool(event.media)), ("caption", text)) if there}
    found = tuple(
        (policy, question)
        for policy in policies
        if policy.status is not Status.DRAFT and policy.policy not in uncovered
        for question in policy.questions
        if has & question.reads and _shown(policy, question, shown)
    )
    # Senders choose regions, so only what is asked everywhere is kept.
    if shown is None:
        policies.remembered[key] = found
    return found


def _shown(policy: Policy, question: Question, shown: Collection[str] | None) -> bool:
    regions = policy.clauses[question.clause].regions if question.clause else ()
    return not regions or shown is None or bool(set(regions) & set(shown))


def _judge_all(
    asked: Collection[tuple[Policy, Question]],
    answers: Mapping[str, Answer],
    context: Mapping[str, Any],
    region: str | None,
    language: str | None,
    spent: Collection[str],
) -> list[Judgement]:
    judged = []
    for policy, question in asked:
        answer = answers.get(question.id)
        if answer is None or (question.clause and not policy.binds(question.clause, region)):
            continue
        over = bool(spent) and policy.policy in spent
        judged.append(judge(policy, question, answer, context, language=language, spent=over))
    return judged


def judge(
    policy: Policy,
    question: Question,
    answer: Answer,
    context: Mapping[str, Any],
    *,
    language: str | None,
    spent: bool = False,
) -> Judgement:
    """Return what one answered question asks for in this context; a policy that is `spent` acts no more today."""
    rule = policy.rule(question.clause, context)
    # A promise that no threshold keeps (yet): nobody acts on it, and a person sees all that might violate.
    act_at = _threshold(rule.act_at, answer)
    review_at = _threshold(rule.review_at, answer) or 0.0
    probability = answer.probability
    enough = act_at is not None and probability >= act_at
    if not enough and probability < review_at:
        # Nearly all end here.
        return Judgement(question, rule, Action.ALLOW, False, None, probability)
    tested = language is None or not policy.languages or language in policy.languages
    # What needs approval acts only once people have said so.
    trusted = answer.calibration == "fresh" or rule.acts_uncalibrated
    # Read whole, the picture would pass: what one of its tiles alone shows, a person decides.
    at_odds = answer.whole is not None and answer.whole < review_at <= answer.probability
    may_act = enough and tested and trusted and not rule.approval and not at_odds
    if may_act and not spent:
        # A hold always has an exit.
        seen: ReviewReason | None = "band" if rule.action is Action.HOLD else None
        return Judgement(
            question=question,
            rule=rule,
            action=rule.action,
            acts=True,
            review=seen,
            probability=probability,
        )
    return Judgement(
        question=question,
        rule=rule,
        action=rule.meanwhile,
        acts=False,
        review="disagreement" if at_odds else "cap" if may_act else "band",
        probability=probability,
    )


def _beyond(abroad: Iterable[Judgement], everywhere: Iterable[Judgement]) -> list[Judgement]:
    """Return what leads to something in a region though not everywhere, once for each question."""
    led = {j.question.id for j in everywhere if j.acts or j.review is not None}
    further: dict[str, Judgement] = {}
    for judgement in abroad:
        name = judgement.question.id
        known = further.get(name)
        if name in led or not (judgement.acts or judgement.review is not None):
            continue
        # A person is asked where any region asks for one; else the strictest action counts.
        if known is None or (judgement.review is not None, judgement.action.rank) > (
            known.review is not None,
            known.action.rank,
        ):
            further[name] = judgement
    return list(further.values())


def _threshold(band: float | Precision | MissRate | None, answer: Answer) -> float | None:
    if band is None or isinstance(band, float):
        return band
    return answer.thresholds.get(band)


def strictest(judgements: Iterable[Judgement], silent: Iterable[Policy]) -> Action:
    """Return the strictest action that anything asks for, silence included."""
    asked_for = [j.action for j in judgements] + [p.when_unavailable.action for p in silent]
    return max(asked_for, key=_RANK, default=Action.ALLOW)


def regions(event: UploadEvent, policies: PolicySet) -> list[str]:
    """Return the regions for which a policy says something of its own and where the upload is shown."""
    shown = event.context.regions
    return [r for r in policies.regions if shown is None or r in shown]


def labels(judgements: Iterable[Judgement]) -> tuple[str, ...]:
    """Return the labels of the policies that act, each once."""
    return tuple(dict.fromkeys(j.rule.label for j in judgements if j.acts and j.rule.label))


def limits_of(judgements: Iterable[Judgement]) -> Limits:
    """Return the limits of everything that acts, added up."""
    acting = [j.rule.limits for j in judgements if j.acts]
    if not acting:
        return _NO_LIMITS
    ages = [limits.age for limits in acting if limits.age is not None]
    return Limits(
        age=max(ages, default=None),
        no_recommend=any(limits.no_recommend for limits in acting),
        no_ads=any(limits.no_ads for limits in acting),
    )


def _ticket(
    judgements: Collection[Judgement], silent: Collection[Policy], event: UploadEvent, now: datetime
) -> Review | None:
    seen = [j for j in judgements if j.review is not None]
    waiting = [p for p in silent if p.when_unavailable.then == "review"]
    reach = event.context.reach
    if seen:
        # The job waits where its most severe finding waits; among equals, where the more probable one does.
        first = max(seen, key=lambda j: (j.rule.severity.weight, j.probability))
        return Review(
            queue=first.rule.queue,
            priority=max(_priority(j.probability, j.rule.severity, reach) for j in seen),
            due_at=None if first.rule.due is None else now + first.rule.due,
            reviewers=max(j.rule.reviewers for j in seen),
            reason=first.review or "band",
            questions=tuple(j.question.id for j in seen),
        )
    if waiting:
        policy = max(waiting, key=lambda p: p.severity.weight)
        return Review(
            queue=policy.review.queue or INTAKE,
            priority=_priority(1.0, policy.severity, reach),
            due_at=None if policy.review.due is None else now + policy.review.due,
            reason="unavailable",
            questions=tuple(q.id for p in waiting for q in p.questions),
        )
    return None


def _audited(
    review: Review | None,
    judgements: Collection[Judgement],
    policies: PolicySet,
    event: UploadEvent,
) -> Review | None:
    """Return the ticket with what a person is to see by lot: a share of what passed, and of what acted."""
    known = policies.remembered.get("audits")
    if known is None:
        known = any(p.audit.passed or p.audit.acted for p in policies)
        policies.remembered["audits"] = known
    if not known:
        return review
    alone = [j for j in judgements if j.review is None]
    chances = drawn(
        event.content_id,
        [Stake(question=j.question.id, share=_share(j, policies)) for j in alone],
    )
    if not chances:
        return review
    # The job waits where its most severe finding would; nothing in force changes until somebody has looked.
    of = [j for j in alone if j.question.id in chances]
    first = max(of, key=lambda j: (j.rule.severity.weight, j.probability))
    reach = event.context.reach
    audit = Review(
        queue=first.rule.queue,
        priority=max(_priority(j.probability, j.rule.severity, reach) for j in of),
        due_at=None,
        reviewers=max(j.rule.reviewers for j in of),
        reason="audit",
    )
    return with_audit(review, audit, chances)


def _share(judgement: Judgement, policies: PolicySet) -> float:
    audit = policies.by_name[judgement.question.policy].audit
    return audit.acted if judgement.acts else audit.passed


def _priority(probability: float, severity: Severity, reach: float) -> float:
    """Return the expected harm: probability × severity weight × log10(10 + reach)."""
    return round(probability * severity.weight * math.log10(10 + reach), 4)


def _finding(
    policies: PolicySet,
    policy: Policy,
    question: Question,
    answer: Answer,
    context: Mapping[str, Any],
    judgement: Judgement | None,
) -> Finding:
    rule = policy.rule(question.clause, context) if judgement is None else judgement.rule
    # Most of a finding is the same for every upload; a copy of it is made faster than the whole.
    kind = (question.id, answer.answered_by, answer.calibration, rule.severity.weight)
    blank: Finding | None = policies.remembered.get(kind)
    if blank is None:
        blank = policies.remembered[kind] = Finding(
            policy=policy.policy,
            policy_version=policy.version,
            status=policy.status,
            severity=rule.severity,
            clause=question.clause,
            question=question.id,
            question_digest=question.digest,
            score=0.0,
            probability=0.0,
            calibration=answer.calibration,
            answered_by=answer.answered_by,
        )
    return blank.like(
        score=answer.score,
        probability=answer.probability,
        interval=answer.interval,
        outcome=_outcome(judgement),
        alarm=answer.alarm,
        whole=answer.whole,
        whole_score=answer.whole_score,
        evidence=()
        if answer.media is None
        else (_EVIDENCE.like(media=answer.media, time_s=answer.time_s, box=answer.box),),
    )


def _outcome(judgement: Judgement | None) -> Literal["none", "review", "acted"]:
    if judgement is not None and judgement.acts:
        return "acted"
    return "review" if judgement is not None and judgement.review is not None else "none"


def _leading(judgements: Iterable[Judgement]) -> Judgement | None:
    acting = [j for j in judgements if j.acts]
    return max(
        acting, key=lambda j: (j.action.rank, j.rule.severity.weight, j.probability), default=None
    )


def ground(judgements: Iterable[Judgement], policies: PolicySet) -> str | None:
    """Return what the decision rests on: the law or the terms of the policy that leads it."""
    leading = _leading(judgements)
    if leading is None:
        return None
    ground = policies.by_name[leading.question.policy].ground
    return ground.law or ground.terms


def notice(judgements: Iterable[Judgement], policies: PolicySet) -> str | None:
    """Return the policy whose words a platform may show the author."""
    leading = _leading(judgements)
    return (
        leading.question.policy
        if leading and policies.by_name[leading.question.policy].notice
        else None
    )
