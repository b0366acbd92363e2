"""The rules of the review queue: which job a ticket makes, who may take it, and in which order.

Everything here is pure. `pipeline.redis` keeps these rules in Redis; a test holds it against them.
"""

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from urllib.parse import quote, unquote

from pipeline.messages import Decision, Finding, Ticket
from policies.queues import Queue
from policies.schema import PolicySet, Severity

Lane = Literal["urgent", "normal"]
LANES: Final[tuple[Lane, ...]] = ("urgent", "normal")

#: Points of standing that a job gains by each hour of waiting, so that low harm does not starve.
AGEING_PER_HOUR: Final = 5.0
#: What an overdue job gains when its queue says `raise`: more than harm and ageing ever add up to.
RAISED: Final = 1_000_000.0
#: Whom a job needs.
Need = Literal["reviewer", "lead"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who claims: what this person may see and can read."""

    id: str
    languages: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()
    roles: frozenset[str] = frozenset({"reviewer"})
    queues: tuple[str, ...] | None = None  # None: every queue that is not sealed
    policies: tuple[str, ...] | None = None  # None: every policy
    sealed: tuple[str, ...] = ()  # sealed queues that are open to this person by name
    opt_outs: tuple[str, ...] = ()  # policies whose items this person does not want to see

    @property
    def lead(self) -> bool:
        """Return whether this person may adjudicate, approve and move what others hold."""
        return "lead" in self.roles


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a ticket asks people to do, before anybody has touched it."""

    decision_id: str
    queue: str
    language: str  # "": anybody may read it
    policies: tuple[str, ...]
    weight: int  # of the most severe finding that people look at
    harm: float
    reason: str
    born: datetime
    due: datetime
    reviewers: int = 1
    part: str = "first"
    need: Need = "reviewer"
    barred: tuple[str, ...] = ()
    print: str = ""  # equal for jobs that one verdict answers; "": none
    hashes: tuple[str, ...] = ()  # perceptual ones of its media, by which jobs like it are found

    @property
    def widens(self) -> datetime | None:
        """Return when people who do not read its language may take the job; None: at once."""
        return self.born + (self.due - self.born) / 2 if self.language else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Why a job stands where it stands."""

    probability: float
    severity: str
    weight: int
    reach: float
    harm: float
    waited_h: float
    ageing: float
    raised: float

    @property
    def standing(self) -> float:
        """Return the sum by which jobs of one lane are ordered, the largest first."""
        return self.harm + self.ageing + self.raised


def harm(probability: float, weight: int, reach: float) -> float:
    """Return the expected harm: probability × severity weight × log10(10 + reach)."""
    return probability * weight * math.log10(10 + max(0.0, reach))


def key(job_harm: float, born: datetime) -> float:
    """Return the number by which a lane is sorted, the smallest first.

    All jobs age at the same rate, so the order of two never changes while they wait, and nothing
    has to be sorted again: `now × rate - key` is the standing.
    """
    return int(born.timestamp() * 1000) / 1000 * AGEING_PER_HOUR / 3600 - job_harm


def terms(ticket: Ticket, *, born: datetime, now: datetime, raised: bool = False) -> Terms:
    """Return the terms of a job's standing, for people to read."""
    decision = ticket.decision
    reach = ticket.event.context.reach
    seen = reviewed(decision)
    first = max(seen, key=lambda f: harm(f.probability, f.severity.weight, reach), default=None)
    waited_h = max(0.0, (now - born).total_seconds() / 3600)
    severity = first.severity if first else Severity.MEDIUM
    return Terms(
        probability=first.probability if first else 1.0,
        severity=severity.value,
        weight=severity.weight,
        reach=reach,
        harm=decision.review.priority if decision.review else 0.0,
        waited_h=round(waited_h, 3),
        ageing=round(waited_h * AGEING_PER_HOUR, 3),
        raised=RAISED if raised else 0.0,
    )


def reviewed(decision: Decision) -> tuple[Finding, ...]:
    """Return the findings that a person has to answer."""
    asked = decision.review.questions if decision.review else ()
    return tuple(f for f in decision.findings if f.question in asked)


def job_of(
    ticket: Ticket,
    policies: PolicySet,
    queues: Mapping[str, Queue],
    *,
    recorded_at: datetime,
    decided_before: Collection[str] = (),
) -> Job | None:
    """Return the job that a ticket opens, or None where nobody has to look.

    `recorded_at` is the broker's time of the ticket: due times count from it. `decided_before` are
    people who must not judge this content again.
    """
    decision = ticket.decision
    review = decision.review
    if review is None:
        return None
    queue = queues.get(review.queue, Queue())
    seen = reviewed(decision)
    named = tuple(dict.fromkeys(question.partition("/")[0] for question in review.questions))
    if review.due_at is not None and review.due_at > decision.decided_at:
        due = recorded_at + (review.due_at - decision.decided_at)
    else:
        due = recorded_at + queue.due
    return Job(
        decision_id=decision.decision_id,
        queue=review.queue,
        language=(decision.content.language or "") if ticket.event.text else "",
        policies=named,
        weight=max((f.severity.weight for f in seen), default=Severity.MEDIUM.weight),
        harm=review.priority,
        reason=review.reason,
        born=recorded_at,
        due=due,
        reviewers=review.reviewers,
        part="appeal" if review.reason == "appeal" else "first",
        barred=_barred(decision, decided_before),
        print=fingerprint(ticket, policies) or "",
        hashes=()
        if queue.sealed
        else tuple(dict.fromkeys(filter(None, decision.content.perceptual))),
    )


def _barred(decision: Decision, decided_before: Collection[str]) -> tuple[str, ...]:
    """Return who must not judge this: above all whoever made the decision that is appealed against."""
    review = decision.review
    made_by = decision.reviewer if review and review.reason == "appeal" else None
    return tuple(sorted({*decided_before, *([made_by] if made_by else [])}))


def fingerprint(ticket: Ticket, policies: PolicySet) -> str | None:
    """Return what jobs share that one verdict answers, or None where each is judged by itself.

    The same bytes under the same finding are one job only if every policy at issue reads the media
    alone: with a caption in play, the same picture may mean something else.
    """
    decision, review = ticket.decision, ticket.decision.review
    if review is None or review.reason in {"appeal", "audit", "intake", "escalated"}:
        return None
    if not decision.content.media or not review.questions or decision.decided_by != "pipeline":
        return None
    seen = reviewed(decision)
    if {f.question for f in seen} != set(review.questions):
        return None
    for finding in seen:
        policy = policies.by_name.get(finding.policy)
        if policy is None or set(policy.reads) != {"image"}:
            return None
    said = {
        "media": decision.content.media,
        "queue": review.queue,
        "reviewers": review.reviewers,
        "action": decision.action,
        "questions": sorted((f.question, f.policy_version, f.question_digest) for f in seen),
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


def open_to(person: Person, queues: Mapping[str, Queue]) -> tuple[str, ...]:
    """Return the queues from which this person may take jobs."""
    return tuple(name for name, queue in queues.items() if _open(person, name, queue))


def _open(person: Person, name: str, queue: Queue) -> bool:
    named = person.queues is None or name in person.queues
    if queue.sealed:
        named = name in person.sealed
    if not named:
        return False
    reads = not queue.languages or any(spoken in person.languages for spoken in queue.languages)
    return reads and all(skill in person.skills for skill in queue.skills)


def leads(person: Person, name: str, queue: Queue, policies: Collection[str] = ()) -> bool:
    """Return whether this person may touch what others hold in a queue, of jobs about these policies."""
    named = person.queues is None or name in person.queues
    if queue.sealed:
        named = name in person.sealed
    theirs = person.policies is None or set(policies) <= set(person.policies)
    return person.lead and named and theirs


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """What decides who may take a job; jobs that agree in it wait in one sorted set."""

    queue: str
    language: str = ""  # "": anybody; "*de": German, half its time over: anybody
    policies: tuple[str, ...] = ()
    weight: int = 1
    need: Need = "reviewer"
    barred: tuple[str, ...] = ()

    def __str__(self) -> str:
        fields = (
            self.queue,
            self.language,
            ",".join(self.policies),
            str(self.weight),
            self.need,
            ",".join(quote(person, safe="@.-_") for person in self.barred),
        )
        return "|".join(fields)

    @classmethod
    def parse(cls, text: str) -> "Bucket":
        """Return the bucket of this name."""
        queue, language, policies, weight, need, barred = text.split("|")
        return cls(
            queue=queue,
            language=language,
            policies=tuple(policies.split(",")) if policies else (),
            weight=int(weight),
            need="lead" if need == "lead" else "reviewer",
            barred=tuple(unquote(person) for person in barred.split(",")) if barred else (),
        )

    def admits(self, person: Person, open_queues: Collection[str], ceiling: int) -> bool:
        """Return whether the person may take its jobs; no weight above `ceiling`."""
        return (
            self.queue in open_queues
            and (self.language[:1] in {"", "*"} or self.language in person.languages)
            and not set(self.policies) & set(person.opt_outs)
            and (person.policies is None or set(self.policies) <= set(person.policies))
            and self.weight <= ceiling
            and (self.need == "reviewer" or person.lead)
            and person.id not in self.barred
        )


#: Media whose perceptual hashes differ in at most so many bits look alike.
NEAR: Final = 5
#: Two hashes of 64 bits that differ in at most so many agree in one of these places; `queue.lua` has the same.
_BANDS: Final = ((0, 3), (3, 6), (6, 9), (9, 12), (12, 14), (14, 16))


def bands(hashes: Collection[str]) -> list[str]:
    """Return under which names media with these perceptual hashes are kept, so that those like them are found."""
    return [
        f"{number}:{found[first:last]}"
        for found in hashes
        for number, (first, last) in enumerate(_BANDS, start=1)
    ]


def differ(some: Collection[str], others: Collection[str]) -> int:
    """Return in how many bits those two perceptual hashes differ that are nearest to each other; 64: there are none."""
    pairs = ((int(one, 16) ^ int(other, 16)).bit_count() for one in some for other in others)
    return min(pairs, default=64)


def in_force(decisions: Sequence[Decision]) -> Decision | None:
    """Return the decision that holds for one content id, given all of its decisions in log order.

    The last one by a person, as long as the media, the text and the policy versions are those that
    it was made for; else the last by the pipeline.
    """
    newest = next((d for d in reversed(decisions) if d.decided_by == "pipeline"), None)
    person = next((d for d in reversed(decisions) if d.decided_by == "person"), None)
    if person is None or newest is None:
        return person or newest
    return person if _made_for(person) == _made_for(newest) else newest


def _made_for(decision: Decision) -> tuple[tuple[str, ...], str | None, frozenset[tuple[str, int]]]:
    versions = frozenset((f.policy, f.policy_version) for f in decision.findings)
    return decision.content.media, decision.content.text, versions
