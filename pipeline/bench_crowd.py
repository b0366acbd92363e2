"""The crowd of `weir bench queue`: uploads that people must see, and reviewers who differ in all that counts.

Everything follows from a seed, so that two runs have the same load.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from pipeline.care import Budget
from pipeline.messages import (
    Content,
    Decision,
    Finding,
    Review,
    ReviewEvent,
    Source,
    Ticket,
    UploadEvent,
)
from pipeline.review import Person, harm
from policies.queues import Queue
from policies.schema import Action, Policy, PolicySet, Severity, Status

_LANGUAGES: Final = ("en", "de", "fr", "ar", "pt")
_POLICIES: Final = tuple(f"policy{n}" for n in range(12))
_SKILLS: Final = ("graphic", "adult", "crisis")
#: Weights of severities as they come: much is mild, little is dire.
_SEVERITIES: Final = (Severity.LOW, Severity.MEDIUM, Severity.MEDIUM, Severity.HIGH)
#: What a reviewer of the bench may bear in a day.
BUDGET: Final = Budget(a_day=100, in_a_row=10_000)
#: One in so many jobs wants two reviewers, one in so many is urgent, one reviewer in so many has used up their day.
_TWO_OF: Final = 10
_URGENT_OF: Final = 20
_USED_UP_OF: Final = 10
#: One reviewer in so many is a lead.
_LEAD_OF: Final = 7
#: How the ids of reviewers begin whose day is used up.
_USED_UP: Final = "u"
#: Different findings, of which tickets are made.
_KINDS: Final = 1_000
#: Different pictures: some come again.
_LOOKS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much of everything."""

    open: int = 10_000
    queues: int = 3
    reviewers: int = 50
    seconds: float = 60.0
    processes: int = 2
    at_once: int = 4  # reviewers of one process who act in the same moment
    differ: bool = (
        False  # reviewers, in languages, skills, queues, opt-outs and in what they have seen today
    )
    seed: int = 1


def queues_of(count: int) -> dict[str, Queue]:
    """Return so many queues, some urgent, some for people with a skill."""
    queues = {}
    for number in range(count):
        queues[f"queue{number}"] = Queue(
            lane="urgent" if number % 10 == 0 else "normal",
            due=timedelta(hours=4 + number % 5),
            skills=(_SKILLS[number % 3],) if number % 4 == 1 else (),
        )
    return queues


def policies_of() -> PolicySet:
    """Return the policies by which the tickets are decided."""
    return PolicySet(
        tuple(
            Policy.model_validate(
                {
                    "policy": name,
                    "title": name.title(),
                    "version": 1,
                    "status": "live",
                    "question": "Does it break the rule?",
                    "clauses": {"C1": {"text": "Breaks it."}},
                    "severity": "high",
                    "action": "remove",
                    "bands": {"review": 0.3, "act": 0.9},
                    "review": {"queue": "queue0", "meanwhile": "hold"},
                }
            )
            for name in _POLICIES
        )
    )


def people_of(load: Load, queues: Mapping[str, Queue]) -> list[Person]:
    """Return reviewers, who differ in what they may, can and want to see if the load says so."""
    source = random.Random(load.seed)  # noqa: S311 -- load, not secrets
    people = []
    for number in range(load.reviewers):
        most = max(1, len(queues) // 2)
        chosen = source.sample(sorted(queues), k=source.randint(most, len(queues)))
        roles = frozenset({"reviewer", "lead"} if number % _LEAD_OF == 1 else {"reviewer"})
        if not load.differ:
            people.append(
                Person(id=f"r{number}", languages=_LANGUAGES, skills=_SKILLS, roles=roles)
            )
            continue
        people.append(
            Person(
                id=f"{'r' if number % _USED_UP_OF else _USED_UP}{number}",
                languages=tuple(source.sample(_LANGUAGES, k=source.randint(1, 3))),
                skills=tuple(source.sample(_SKILLS, k=source.randint(0, 3))),
                roles=roles,
                queues=None if number % 3 else tuple(chosen),
                opt_outs=tuple(source.sample(_POLICIES, k=source.choice((0, 0, 1, 2)))),
            )
        )
    return people


def used_up(person: Person) -> bool:
    """Return whether this person has seen as much today as a day may hold."""
    return person.id.startswith(_USED_UP)


def ceiling(person: Person) -> int:
    """Return the heaviest severity weight that this person may be handed."""
    return BUDGET.mild if used_up(person) else 10**9


def reveal(person: Person) -> ReviewEvent:
    """Return what uses a person's day up."""
    return ReviewEvent(
        event_id=f"seen-{person.id}",
        kind="revealed",
        job_id="earlier",
        decision_id="earlier",
        by=person.id,
        at=datetime.now(UTC),
        seconds=600,
        weight=30,
    )


class Uploads:
    """An endless row of tickets of uploads that people must see."""

    def __init__(self, queues: Mapping[str, Queue], seed: int) -> None:
        self._source = random.Random(seed)  # noqa: S311 -- load, not secrets
        urgent = [name for name, queue in queues.items() if queue.lane == "urgent"]
        normal = [name for name, queue in queues.items() if queue.lane == "normal"]
        self._urgent, self._normal = urgent or normal, normal or urgent
        self._kinds = [self._kind() for _ in range(_KINDS)]
        self._looks = [f"{self._source.getrandbits(64):016x}" for _ in range(_LOOKS)]

    def tickets(self, first: int, count: int) -> Iterator[Ticket]:
        """Yield so many, with ids that count on from `first`."""
        source = self._source
        for number in range(first, first + count):
            some = self._urgent if source.random() < 1 / _URGENT_OF else self._normal
            kind, asked = source.choice(self._kinds)
            reviewers = 2 if number % _TWO_OF == 0 else 1
            review = asked.model_copy(update={"queue": source.choice(some), "reviewers": reviewers})
            decision = kind.model_copy(
                update={
                    "decision_id": f"job-{number}",
                    "source": Source(topic="media.uploads", partition=0, offset=number),
                    "event_id": f"event-{number}",
                    "content_id": f"content-{number}",
                    "content": Content(
                        media=("sha256:x",),
                        perceptual=(source.choice(self._looks),),
                        text="sha256:x",
                        language=source.choice(_LANGUAGES),
                    ),
                    "review": review,
                    "decided_at": datetime.now(UTC),
                }
            )
            event = UploadEvent(
                event_id=f"event-{number}",
                content_id=f"content-{number}",
                text="a caption as written",
            )
            yield Ticket(decision=decision, event=event)

    def _kind(self) -> tuple[Decision, Review]:
        source = self._source
        severity = source.choice(_SEVERITIES)
        names = source.sample(_POLICIES, k=source.choice((1, 1, 1, 2)))
        probability = round(source.uniform(0.3, 0.95), 3)
        findings = tuple(
            Finding(
                policy=name,
                policy_version=1,
                status=Status.LIVE,
                severity=severity,
                question=name,
                question_digest="sha256:" + "0" * 16,
                score=1.0,
                probability=probability,
                interval=(probability - 0.1, probability + 0.05),
                calibration="fresh",
                answered_by="sha256:" + "1" * 16,
                outcome="review",
            )
            for name in names
        )
        review = Review(
            queue="",
            priority=harm(probability, severity.weight, source.choice((0, 10, 1_000, 50_000))),
            due_at=None,
            reason="band",
            questions=tuple(names),
        )
        decision = Decision(
            decision_id="",
            source=Source(topic="media.uploads", partition=0, offset=0),
            event_id="",
            content_id="",
            action=Action.HOLD,
            review=review,
            findings=findings,
            policy_set="sha256:bench",
            decided_at=datetime.now(UTC),
        )
        return decision, review
