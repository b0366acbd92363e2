"""The desk: everything that a person does with the review queue, for the command line and for the console alike.

One `Desk` serves many people and threads. Each method takes the `Person` who acts, and the lease under which they hold
the job. What is written to the log is written there first and changes Redis then, so that nothing that a person did is
lost with Redis:

- `claim` hands out jobs; `renew` keeps a lease alive (a page does so every half lease).
- `resolve` takes the answers. They wait under the lease for `undo_for`, during which `undo` takes them back, even if
  the page closes or the server restarts; then `escalate` sends them to the log. With `at_once` they go there directly.
- `withdraw` replaces a verdict that is on the log by another one.
- `release`, `skip`, `move`, `note`, `escalate`, `reveal`, `reassign` are events on `moderation.reviews`; so are `pause`
  and `resume`, of a queue, and `rest` and `go_on`, of a person.
- `peek`, `stats`, `entry`, `terms`, `notes`, `held`, `exposure`, `figures` look, and change nothing.

`LeaseLostError`: this person does not hold the job under this lease (any more). `RefusedError`: they may not do this,
or left something out. `KafkaError` and `pipeline.redis.Unavailable`: nothing was done; try again.
"""

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol
from uuid import uuid4, uuid5

from pipeline import telemetry
from pipeline.care import Budget
from pipeline.config import Kafka, Settings
from pipeline.errors import LeaseLostError, ProjectionLostError, RefusedError
from pipeline.kafka import Producer
from pipeline.lookback import Lookback
from pipeline.messages import ReviewEvent, Ticket, Verdict, VerdictAnswer
from pipeline.projection import read_queues
from pipeline.records import Outgoing, Partition
from pipeline.redis import Depth, Entry, Handed, ReviewQueue, bucket_of
from pipeline.review import Person, Terms, leads, open_to, terms
from pipeline.tally import Figures
from pipeline.verdicts import (
    ESCALATIONS,
    by_question,
    missing,
    question_of,
    review_record,
    verdict_record,
)
from policies.queues import Queue
from policies.reload import PolicyFolder
from policies.schema import Action, PolicySet

#: No exposure forbids it: whether a job is too heavy today is the claim's to say.
ANY_WEIGHT: Final = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a person says about one job."""

    answers: tuple[VerdictAnswer, ...] = ()
    note: str = ""
    escalate: str | None = None  # one of `ESCALATIONS`: the answers count, and a second job opens
    action: Action | None = None  # another than follows from the answers: leads only, with a note
    policy_unclear: bool = False
    saw_model: bool = True
    revealed_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How the desk hands out jobs."""

    lease: timedelta = timedelta(minutes=2)
    undo_for: timedelta = timedelta(seconds=10)
    at_most: int = 20  # jobs that one person may hold at once
    golden: float = 0.0  # share of claims that mix in a job whose right answer is known
    budget: Budget = field(default_factory=Budget)


class Log(Protocol):
    """Where the desk writes: `pipeline.kafka.Producer`, or one that connects when it is first needed."""

    def place(self, records: Sequence[Outgoing]) -> list[tuple[Partition, int]]:
        """Write the records and return the partition and the offset of each."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


class LateLog:
    """Connects to Kafka when something is first written, so that looking and claiming need Redis alone."""

    def __init__(self, settings: Kafka) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._producer: Producer | None = None

    def place(self, records: Sequence[Outgoing]) -> list[tuple[Partition, int]]:
        """Write the records and return the partition and the offset of each.

        Raises:
            KafkaError: a record could not be written.
        """
        with self._lock:
            if self._producer is None:
                self._producer = Producer(self._settings)
        return self._producer.place(records)

    def close(self) -> None:
        """Let go of the connection."""
        if self._producer is not None:
            self._producer.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Everything that a person does with the review queue."""

    queue: ReviewQueue
    log: Log
    policies: Callable[[], PolicySet]
    queues: Mapping[str, Queue]
    rules: Rules = field(default_factory=Rules)
    lookback: Lookback | None = None
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def claim(
        self,
        person: Person,
        *,
        count: int = 1,
        only: str | None = None,
        queue: str | None = None,
        budget: Budget | None = None,
    ) -> Handed:
        """Hand out the jobs that stand first among those that this person may take, `only` one, or of one queue."""
        queues = self.queues if queue is None else {queue: self.queues[queue]}
        golden = self._golden(only)
        found: list[Entry] = []
        while True:
            handed = self.queue.claim(
                person,
                queues,
                count=count - len(found),
                lease=self.rules.lease,
                budget=budget or self.rules.budget,
                at_most=self.rules.at_most,
                only=only or "",
                golden=golden,
            )
            idle = [entry for entry in handed.entries if self._measures_sealed(entry)]
            found += [entry for entry in handed.entries if entry not in idle]
            for entry in idle:
                self.queue.drop(entry)
            if not idle:
                return Handed(entries=tuple(found), reason=handed.reason)
            golden = ""

    def renew(self, person: Person, job_id: str, lease: int) -> datetime:
        """Keep a lease alive; return its new end.

        Raises:
            LeaseLostError: the lease is lost.
        """
        return self._held(job_id, person, lease, "renew", _ms(self.rules.lease))

    def release(self, person: Person, job_id: str, lease: int) -> None:
        """Give a job back, untouched.

        Raises:
            LeaseLostError: the lease is lost.
        """
        self._record(person, self._mine(person, job_id, lease), "released", lease)

    def resolve(
        self, person: Person, job_id: str, lease: int, said: Answers, *, at_once: bool = False
    ) -> Verdict:
        """Take the answers to a job; return the verdict that they make.

        Raises:
            LeaseLostError: the lease is lost; nothing was taken.
            RefusedError: something is missing or not this person's to say.
        """
        entry = self._mine(person, job_id, lease)
        ticket = _ticket(entry)
        verdict = Verdict(
            verdict_id=str(uuid4()),
            job_id=entry.job_id,
            decision_id=entry.decision_id,
            reviewer=person.id,
            lease=lease,
            part=entry.part,
            answers=said.answers,
            action=said.action,
            escalate=said.escalate,
            policy_unclear=said.policy_unclear,
            note=said.note,
            saw_model=said.saw_model,
            opened_at=entry.opened,
            revealed_s=said.revealed_s,
            decided_at=self.clock(),
            sealed=self.hides(entry),
        )
        self._check(person, ticket, verdict)
        if at_once:
            self.log.place([verdict_record(verdict, ticket.decision.content_id)])
            # If the lease ended this very moment, the verdict counts all the same: it is on the log.
            self.queue.hold(entry.job_id, person.id, lease, "sent")
        else:
            self._held(
                job_id, person, lease, "pend", verdict.model_dump_json(), _ms(self.rules.undo_for)
            )
        return verdict

    def undo(self, person: Person, job_id: str, lease: int) -> datetime:
        """Take a verdict back that was not sent yet; return the end of the lease, which lives again.

        Raises:
            LeaseLostError: it is too late.
        """
        return self._held(job_id, person, lease, "undo", _ms(self.rules.lease))

    def withdraw(self, person: Person, job_id: str, said: Answers) -> Verdict:
        """Replace the verdict that closed a job by another one; return it.

        Raises:
            RefusedError: there is no such verdict, it is somebody else's, or something is missing.
        """
        marker = self.queue.marker(job_id)
        if marker is None or marker.how != "verdict":
            raise RefusedError(f"no verdict on the job {job_id} is known: look at its id")
        if person.id != marker.by and not self.leads(person, marker.queue):
            raise RefusedError("only its author or a lead may replace a verdict")
        old = next((t for m in marker.made if (t := self.queue.ticket(m)) is not None), None)
        if old is None:
            raise RefusedError("this verdict is too old to be replaced: open an appeal instead")
        verdict = Verdict(
            verdict_id=str(uuid4()),
            job_id=job_id,
            decision_id=old.decision.decision_id,
            reviewer=person.id,
            lease=0,
            part="first" if person.id == marker.by else "adjudication",
            answers=said.answers,
            action=said.action,
            escalate=said.escalate,
            note=said.note,
            saw_model=said.saw_model,
            decided_at=self.clock(),
            withdraws=marker.verdict_id,
            sealed=self.sealed(marker.queue) or self.queue.sealed(old) is not None,
        )
        self._check(person, old, verdict)
        self.log.place([verdict_record(verdict, old.decision.content_id)])
        return verdict

    def skip(self, person: Person, job_id: str, lease: int, reason: str) -> None:
        """Give a job back with a reason; it is others' before this person may get it again.

        They are passed over until half of the time that it still had is over; so is whoever moves or escalates a job.

        Raises:
            LeaseLostError: the lease is lost.
            RefusedError: there is no reason.
        """
        if not reason.strip():
            raise RefusedError("say why you skip this job")
        self._record(person, self._mine(person, job_id, lease), "skipped", lease, reason=reason)

    def move(
        self, person: Person, job_id: str, queue: str, reason: str, *, lease: int | None = None
    ) -> None:
        """Move a job to another queue: one's own, or, for a lead, anybody's.

        Raises:
            LeaseLostError: the lease is lost.
            RefusedError: there is no such queue or job, or it is not this person's to move.
        """
        if queue not in self.queues:
            raise RefusedError(f"there is no queue {queue}")
        entry = self._touchable(person, job_id, lease)
        self._record(person, entry, "moved", lease, queue=queue, reason=reason, media=_media(entry))

    def escalate(
        self, person: Person, job_id: str, lease: int, reason: str, note: str = ""
    ) -> None:
        """Move a job, without an answer, to the queue of a reason of escalation.

        Raises:
            LeaseLostError: the lease is lost.
            RefusedError: there is no such reason.
        """
        if reason not in ESCALATIONS:
            raise RefusedError(f"{reason!r} is no reason: choose of {', '.join(ESCALATIONS)}")
        entry = self._mine(person, job_id, lease)
        self._record(
            person,
            entry,
            "escalated",
            lease,
            queue=reason,
            reason=reason,
            note=note,
            media=_media(entry),
        )

    def reassign(self, lead: Person, job_id: str, to: Person, reason: str) -> Entry:
        """Hand a job, whoever holds it, to another person, if they may have it; return it.

        Raises:
            RefusedError: it is not a lead's wish, or the other may not have it, or it is answered already.
        """
        if not lead.lead:
            raise RefusedError("only a lead hands a job to somebody else")
        entry = self._touchable(lead, job_id, None)
        if entry.state not in {"open", "leased"}:
            raise RefusedError(f"the job {job_id} is answered already")
        # What somebody opted out of and has borne is not a lead's to know: whatever it is, the words are these.
        cannot = RefusedError(f"{to.id} cannot take this job, or not now: hand it to somebody else")
        # Where it can be seen beforehand, nobody loses a job for nothing; the claim has the last word.
        if not bucket_of(entry).admits(to, open_to(to, self.queues), ANY_WEIGHT):
            raise cannot
        if entry.state == "leased":
            self._record(lead, entry, "released", None, reason=reason, note=f"for {to.id}")
        handed = self.claim(to, only=entry.job_id)
        if not handed.entries:
            raise cannot
        return handed.entries[0]

    def note(self, person: Person, job_id: str, text: str, *, lease: int | None = None) -> None:
        """Leave a note for whoever looks at the job next.

        Raises:
            LeaseLostError: the lease is lost.
            RefusedError: the job is not this person's to note on.
        """
        self._record(person, self._touchable(person, job_id, lease), "noted", lease, note=text)

    def reveal(self, person: Person, job_id: str, lease: int, seconds: float) -> None:
        """Record that the media of a job were seen clearly for so long; it counts against the budget.

        Raises:
            LeaseLostError: the lease is lost.
        """
        entry = self._mine(person, job_id, lease)
        self._record(person, entry, "revealed", lease, seconds=seconds, weight=entry.weight)

    def golden(
        self, person: Person, job_id: str, decision_id: str, answers: Sequence[VerdictAnswer]
    ) -> None:
        """Let a decided item be mixed in among others, to see how people answer what is known.

        Raises:
            RefusedError: it is not a lead's wish, or the item is not known (any more), or sealed.
        """
        if not person.lead:
            raise RefusedError("only a lead says which answers are right")
        ticket, marker = self.queue.ticket(decision_id), self.queue.marker(job_id)
        review = None if ticket is None else ticket.decision.review
        if ticket is None or review is None or marker is None or ticket.appeal is not None:
            raise RefusedError(f"the decision {decision_id} is not one that was reviewed lately")
        if self.queue.job_id(decision_id) != self.queue.job_id(job_id):
            raise RefusedError(f"the decision {decision_id} was not reviewed in the job {job_id}")
        # It may have been moved: where it was answered, whoever may see its like is handed it.
        queue = marker.queue
        if sealed := [name for name in (queue, review.queue) if self.sealed(name)]:
            raise RefusedError(f"the queue {sealed[0]} is sealed: nothing of it is shown again")
        if was := self.queue.sealed(ticket):
            raise RefusedError(f"it lay in the sealed queue {was}: nothing of it is shown again")
        if not self.leads(person, queue):
            raise RefusedError(f"the queue {queue} is another lead's")
        policies = self.policies()
        _check_answers(answers, policies)
        named = {question_of(answer, policies) for answer in answers}
        if left := set(review.questions) - named:
            raise RefusedError(f"these questions have no answer: {', '.join(sorted(left))}")
        weights = [f.severity.weight for f in ticket.decision.findings if f.question in named]
        event = ReviewEvent(
            event_id=str(uuid4()),
            kind="golden",
            job_id=self.queue.job_id(job_id),
            decision_id=decision_id,
            by=person.id,
            at=self.clock(),
            queue=queue,
            weight=max(weights, default=1),
            answers=tuple(answers),
        )
        self._write(event, ticket.decision.content_id)

    def saw(self, person: Person, entry: Entry, seconds: float) -> None:
        """Record a clear view whose lease is over: it counts against the budget all the same."""
        self._record(person, entry, "revealed", None, seconds=seconds, weight=entry.weight)

    def pause(self, lead: Person, queue: str) -> None:
        """Hand out nothing of a queue until it is resumed.

        Raises:
            RefusedError: there is no such queue, or it is not this person's to pause.
        """
        self._stop(lead, queue, "paused")

    def resume(self, lead: Person, queue: str) -> None:
        """Hand out the jobs of a queue again.

        Raises:
            RefusedError: there is no such queue, or it is not this person's to pause.
        """
        self._stop(lead, queue, "resumed")

    def rest(self, person: Person, span: timedelta) -> datetime:
        """Begin a break that somebody chose themselves: nothing is handed to them until it is over; return its end."""
        event = self._alone(person, "rested", seconds=span.total_seconds())
        return event.at + span

    def go_on(self, person: Person) -> None:
        """End a break that somebody chose themselves."""
        self._alone(person, "returned")

    def close(self) -> None:
        """Let go of the connections."""
        self.log.close()
        self.queue.close()
        if self.lookback is not None:
            self.lookback.close()

    # Looking.

    def entry(self, job_id: str) -> Entry | None:
        """Return an unclosed job."""
        return self.queue.entry(job_id)

    def held(self, person: Person) -> list[Entry]:
        """Return the jobs that this person holds, without what is in them."""
        return self.queue.held(person.id)

    def peek(
        self, person: Person | None = None, *, queue: str | None = None, count: int = 20
    ) -> list[Entry]:
        """Return the open jobs that stand first, those in sealed queues only for people named for them."""
        seen = open_to(person, self.queues) if person is not None else ()
        shown = self.queue.peek(queue, count=count)
        return [e for e in shown if e.queue in seen or not self.sealed(e.queue)]

    def stats(self) -> list[Depth]:
        """Return every queue in numbers."""
        return self.queue.depths(self.queues)

    def terms(self, entry: Entry) -> Terms:
        """Return why a job stands where it stands."""
        return terms(_ticket(entry), born=entry.born, now=self.clock(), raised=entry.raised)

    def notes(self, job_id: str) -> list[dict[str, str | None]]:
        """Return what people noted on a job."""
        return self.queue.notes(job_id)

    def exposure(self, person: Person) -> dict[str, str]:
        """Return what this person has borne: for themselves and for those who care for them only."""
        return self.queue.exposure(person.id)

    def rests_until(self, person: Person) -> datetime | None:
        """Return when the break ends that this person's exposure gave them; None: they are on none."""
        return self._until(person, "rest")

    def own_break_until(self, person: Person) -> datetime | None:
        """Return when the break ends that this person took; None: they are on none."""
        return self._until(person, "own")

    def paused(self) -> frozenset[str]:
        """Return the queues of which nothing is handed out."""
        return frozenset(self.queue.paused())

    def figures(self) -> Figures:
        """Return what verdicts add up to: agreement, reliability, overturned decisions, unclear clauses.

        Raises:
            RefusedError: this desk does not look back.
            PipelineError: the log cannot be read.
        """
        if self.lookback is None:
            raise RefusedError("this desk was opened without a log to look back on")
        return self.lookback.figures()

    def leads(self, person: Person, queue: str, policies: Sequence[str] = ()) -> bool:
        """Return whether this person may touch what others hold in a queue, of jobs about these policies."""
        return leads(person, queue, self.queues.get(queue, Queue()), policies)

    def sealed(self, queue: str) -> bool:
        """Return whether a queue is open to people who are named for it only."""
        return queue in self.queues and self.queues[queue].sealed

    def hides(self, entry: Entry) -> bool:
        """Return whether a job, or anything of it, lies or lay in a sealed queue: nothing of it is shown elsewhere."""
        if self.sealed(entry.queue):
            return True
        return entry.ticket is not None and self.queue.sealed(entry.ticket) is not None

    def _measures_sealed(self, entry: Entry) -> bool:
        """Return whether a job is there to measure people or the pipeline by what has come to lie in a sealed queue."""
        measures = entry.part == "golden" or entry.reason == "audit"
        return measures and self.hides(entry)

    def _until(self, person: Person, which: str) -> datetime | None:
        ms = self.exposure(person).get(which)
        ends = None if ms is None else datetime.fromtimestamp(float(ms) / 1000, UTC)
        return ends if ends is not None and ends > self.clock() else None

    def _stop(self, lead: Person, queue: str, kind: str) -> None:
        if queue not in self.queues:
            raise RefusedError(f"there is no queue {queue}")
        if not self.leads(lead, queue):
            raise RefusedError(f"the queue {queue} is another lead's")
        self._alone(lead, kind, queue=queue)

    def _alone(
        self, person: Person, kind: str, *, queue: str | None = None, seconds: float | None = None
    ) -> ReviewEvent:
        """Record what is about no job, but about a queue or the person alone."""
        event = ReviewEvent(
            event_id=str(uuid4()),
            kind=kind,
            by=person.id,
            at=self.clock(),
            queue=queue,
            seconds=seconds,
        )
        self._write(event, queue or person.id)
        return event

    def _held(
        self, job_id: str, person: Person, lease: int, what: str, *args: str | int
    ) -> datetime:
        end = self.queue.hold(job_id, person.id, lease, what, *args)
        if end is None:
            raise LeaseLostError(
                f"{person.id} does not hold {job_id} under lease {lease}: claim again"
            )
        return end

    def _mine(self, person: Person, job_id: str, lease: int) -> Entry:
        self._held(job_id, person, lease, "check")
        entry = self.queue.entry(job_id)
        if entry is None:
            raise LeaseLostError(f"the job {job_id} was closed meanwhile: claim another one")
        return entry

    def _touchable(self, person: Person, job_id: str, lease: int | None) -> Entry:
        if lease is not None:
            return self._mine(person, job_id, lease)
        if not person.lead:
            raise RefusedError("claim the job first; only a lead may touch what they do not hold")
        entry = self.queue.entry(job_id)
        if entry is None:
            raise RefusedError(f"there is no open job {job_id}")
        if not self.leads(person, entry.queue, entry.policies):
            sealed = "sealed" if self.sealed(entry.queue) else "another lead's"
            raise RefusedError(f"the queue {entry.queue}, or this job of it, is {sealed}")
        return entry

    def _record(
        self,
        person: Person,
        entry: Entry,
        kind: str,
        lease: int | None,
        **more: str | float | tuple[str, ...] | None,
    ) -> None:
        event = ReviewEvent.model_validate(
            {
                "event_id": str(uuid4()),
                "kind": kind,
                "job_id": entry.job_id,
                "decision_id": entry.decision_id,
                "by": person.id,
                "at": self.clock(),
                "lease": lease,
                **more,
            }
        )
        self._write(event, _ticket(entry).decision.content_id)

    def _golden(self, only: str | None) -> str:
        mixed_in = only is None and random.random() < self.rules.golden  # noqa: S311 -- no secret
        # It looks like the id of a decision, after which all other jobs are named.
        return str(uuid5(uuid4(), "golden")) if mixed_in else ""

    def _write(self, event: ReviewEvent, about: str) -> None:
        [(place, offset)] = self.log.place([review_record(event, about)])
        try:
            self.queue.apply_review(
                place.topic,
                place.number,
                offset,
                event,
                budget=self.rules.budget,
                early=True,
                content=about,
            )
        except ProjectionLostError:
            # It is on the log, and the rebuild that is due applies it.
            return

    def _check(self, person: Person, ticket: Ticket, verdict: Verdict) -> None:
        policies = self.policies()
        if verdict.escalate is not None and verdict.escalate not in ESCALATIONS:
            raise RefusedError(
                f"{verdict.escalate!r} is no reason: choose of {', '.join(ESCALATIONS)}"
            )
        if verdict.action is not None and not (person.lead and verdict.note.strip()):
            raise RefusedError("another action than follows is a lead's to choose, with a note")
        _check_answers(verdict.answers, policies)
        if left := missing(ticket.decision, verdict, policies):
            raise RefusedError(f"these questions have no answer: {', '.join(left)}")
        unsure = any(a.answer == "cannot_tell" for a in by_question(verdict, policies).values())
        if unsure and verdict.part == "adjudication" and verdict.action is None:
            raise RefusedError("nobody looks after you: say what is to happen, with a note")


def open_desk(settings: Settings, rules: Rules | None = None) -> Desk:
    """Return the desk of a configuration.

    Raises:
        PolicyError: the policies cannot be read.
    """
    folder = PolicyFolder(settings.policies, telemetry.policy_error)
    queues = read_queues(settings.policies)
    queue = ReviewQueue(settings.redis.url.get_secret_value())
    return Desk(
        queue=queue,
        log=LateLog(settings.kafka),
        policies=folder.current,
        queues=queues,
        rules=rules or Rules(),
        lookback=Lookback(settings.kafka),
    )


def _check_answers(answers: Sequence[VerdictAnswer], policies: PolicySet) -> None:
    for answer in answers:
        policy = policies.by_name.get(answer.policy)
        if policy is None:
            raise RefusedError(f"there is no policy {answer.policy}")
        if question_of(answer, policies) is None:
            raise RefusedError(f"{answer.policy} has no clause {answer.clause}")
        if answer.answer == "violates" and answer.clause is None:
            raise RefusedError(f"name the clause of {answer.policy} that is violated")
        if answer.carve_out is not None and answer.carve_out not in policy.allowed:
            raise RefusedError(f"{answer.policy} has no carve-out {answer.carve_out}")


def _ticket(entry: Entry) -> Ticket:
    if entry.ticket is None:
        raise LeaseLostError(f"the job {entry.job_id} was closed meanwhile: claim another one")
    return entry.ticket


def _media(entry: Entry) -> tuple[str, ...]:
    return _ticket(entry).decision.content.media


def _ms(span: timedelta) -> int:
    return int(span.total_seconds() * 1000)
