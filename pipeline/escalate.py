"""The consumer of the people's side: tickets, reviews and verdicts become the queue, verdicts become decisions.

A verdict goes this way:

1. `poll`: read verdicts; the queue in Redis has been brought to where the log stands.
2. `weigh`: the job in Redis and the policy file say what the verdict does: it decides, or somebody else has to look, or
   it comes too late. The first in the log for a job and part wins.
3. `commit`: the person's decisions, their tickets and the verdicts' offsets leave in one transaction.
4. `apply`: the job in Redis closes. If the process dies before that, the decision's ticket closes it, and a verdict
   that only counts is read again: where Redis stands is written in Redis.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from pydantic import ValidationError

from pipeline import telemetry
from pipeline.config import Settings
from pipeline.errors import AbortedError, KafkaError, ProjectionLostError
from pipeline.kafka import Follower, Member, Producer
from pipeline.messages import (
    VERDICTS,
    Source,
    Ticket,
    Verdict,
    decision_id,
)
from pipeline.projection import Projection, read_queues
from pipeline.records import Link, Mark, Outgoing, Partition, Record
from pipeline.redis import Entry, ReviewQueue, Unavailable
from pipeline.verdicts import (
    Decides,
    Ignored,
    Progress,
    decide_again,
    decision_records,
    missing,
    verdict_record,
    weigh,
)
from pipeline.watchdog import Watchdog
from policies.queues import Queue
from policies.reload import PolicyFolder
from policies.schema import PolicySet

#: The consumer group's name.
GROUP: Final = "escalate"
#: Verdicts in one transaction.
_MOST: Final = 200
#: How long a turn waits for verdicts when there is nothing else to do.
_IDLE_S: Final = 0.05
#: How often pending verdicts go out, and how often queues are counted for the metrics.
_RIPE_S: Final = 0.25
_COUNT_S: Final = 5.0
_MAX_BACKOFF_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One verdict of the log and what it does."""

    record: Record
    job_id: str = ""
    verdict: Verdict | None = None
    result: Progress | Decides | Ignored
    barred: tuple[str, ...] = ()
    tickets: tuple[Ticket, ...] = ()  # each with the person's decision


@dataclass(slots=True, kw_only=True)
class Escalate:
    """Projects the people's topics into the queue, and verdicts into decisions."""

    link: Link
    replay: Follower
    producer: Producer
    queue: ReviewQueue
    projection: Projection
    policies: Callable[[], PolicySet]
    queues: Mapping[str, Queue]
    watchdog: Watchdog
    clock: Callable[[], float] = time.time
    _waiting: deque[Record] = field(default_factory=deque)
    _stepped: set[Partition] = field(default_factory=set)
    _generation: int = 0
    _must_rewind: bool = False
    _aborts: int = 0
    _ripe_at_s: float = 0.0
    _count_at_s: float = 0.0

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop."""
        while not stop.is_set():
            self.turn()

    def turn(self) -> None:
        """Go through all steps once."""
        try:
            if self._must_rewind:
                self.link.rewind()
                self._waiting.clear()
                self._must_rewind = False
            busy = self.projection.turn()
            self.poll(timeout_s=0.0 if busy else _IDLE_S)
            if self.projection.caught_up():
                self.step()
                self.decide()
            self.tick()
        except AbortedError as error:
            self._must_rewind = True
            self._aborts += 1
            telemetry.log.warning("nothing was committed, trying again", error=str(error))
            time.sleep(min(0.1 * 2**self._aborts, _MAX_BACKOFF_S))
        except ProjectionLostError:
            self.projection.align()
        except Unavailable as error:
            # What was committed and not applied is applied again from the log, once Redis is back.
            self._must_rewind = True
            self._stepped.clear()
            telemetry.log.warning("Redis is away, trying again", error=str(error))
            time.sleep(1.0)

    def close(self) -> None:
        """Let go of all connections."""
        self.link.close()
        self.replay.close()
        self.producer.close()
        self.projection.close()
        self.queue.close()

    def poll(self, *, timeout_s: float) -> None:
        """Read verdicts, unless the queue is being rebuilt or verdicts are waiting."""
        rest = bool(self._waiting) or not self.projection.caught_up()
        self.link.pause(self.link.held() if rest else ())
        polled = self.link.poll(timeout_s=0.0 if rest else timeout_s, max_records=_MOST)
        if polled.dropped:
            self._stepped -= polled.dropped
            kept = [r for r in self._waiting if r.place not in polled.dropped]
            self._waiting = deque(kept)
        self._waiting.extend(polled.records)

    def step(self) -> None:
        """Bring the queue to the committed position of each partition of verdicts that is held."""
        if self._generation != self.projection.generation:
            self._generation = self.projection.generation
            self._stepped.clear()
        new = [p for p in self.link.held() if p not in self._stepped and p.topic == VERDICTS]
        if not new:
            return
        committed = self.link.committed(new)
        for place in new:
            mark = committed.get(place)
            self._catch_up(place, 0 if mark is None else mark.offset)
            self._stepped.add(place)

    def decide(self) -> None:
        """Weigh verdicts, commit what follows, and only then change their jobs."""
        if not self._waiting or not self.link.may_commit():
            return
        works: list[Work] = []
        touched: set[str] = set()
        while self._waiting:
            if self._waiting[0].place not in self._stepped:
                break
            work = self._weigh(self._waiting[0])
            # Two verdicts on one job: the second meets what the first left.
            if work.job_id in touched:
                break
            touched.add(work.job_id)
            works.append(work)
            self._waiting.popleft()
        if not works:
            return
        outgoing: list[Outgoing] = []
        for work in works:
            for ticket in work.tickets:
                outgoing += decision_records(ticket)
        marks = {w.record.place: Mark(offset=w.record.offset + 1) for w in works}
        with self.watchdog.guard("commit"):
            self.link.commit(outgoing, marks)
        self._aborts = 0
        # Until all of it is applied, Redis is behind the log.
        self._stepped -= marks.keys()
        for work in works:
            self._apply(work)
        self._stepped |= marks.keys()
        for work in works:
            for ticket in work.tickets:
                telemetry.decided(ticket.decision)

    def tick(self) -> None:
        """Do what is due: send verdicts that can no longer be undone, let time pass for jobs, count queues."""
        now_s = time.monotonic()
        if now_s >= self._ripe_at_s:
            self._ripe_at_s = now_s + _RIPE_S
            self._send_ripe()
            self.queue.tick()
        if now_s >= self._count_at_s:
            self._count_at_s = now_s + _COUNT_S
            depths = self.queue.depths(self.queues)
            telemetry.queues({d.queue: (d.open + d.leased + d.waiting, d.oldest_s) for d in depths})

    def _send_ripe(self) -> None:
        for verdict in self.queue.ripe():
            entry = self.queue.entry(verdict.job_id)
            if entry is None or entry.ticket is None:
                continue
            try:
                self.producer.place([verdict_record(verdict, content_key(entry))])
            except KafkaError as error:
                # It stays in Redis and goes out again.
                telemetry.log.warning("a verdict could not be sent yet", error=str(error))
                return
            self.queue.hold(verdict.job_id, verdict.reviewer, verdict.lease, "sent")

    def _weigh(self, record: Record) -> Work:
        try:
            verdict = Verdict.model_validate_json(record.value or b"")
        except ValidationError as error:
            telemetry.log.error(
                "a verdict cannot be read",
                partition=record.partition,
                offset=record.offset,
                error=str(error),
            )
            return Work(record=record, result=Ignored(reason="unreadable"))
        entry = self._find(verdict)
        if entry is None or entry.ticket is None:
            return self._withdraw(record, verdict)
        saw, part = entry.saw, entry.part
        if saw and verdict.withdraws == saw[-1].verdict_id and saw[-1].reviewer == verdict.reviewer:
            saw, part = saw[:-1], saw[-1].part
        result = weigh(
            entry.ticket.decision,
            verdict,
            self.policies(),
            part=part,
            saw=saw,
            reviewers=entry.reviewers,
        )
        tickets: tuple[Ticket, ...] = ()
        if isinstance(result, Decides):
            tickets = tuple(
                self._decided(record, member, result) for member in self.queue.members(entry.job_id)
            )
        return Work(
            record=record,
            job_id=entry.job_id,
            verdict=verdict,
            result=result,
            barred=tuple(sorted({*entry.barred, verdict.reviewer})),
            tickets=tickets,
        )

    def _find(self, verdict: Verdict) -> Entry | None:
        entry = self._entry(verdict)
        if entry is None and self.queue.marker(verdict.job_id) is None:
            # Its ticket may not have been projected yet.
            self.projection.complete()
            entry = self._entry(verdict)
        return entry

    def _entry(self, verdict: Verdict) -> Entry | None:
        return self.queue.entry(verdict.job_id) or self.queue.entry(verdict.decision_id)

    def _withdraw(self, record: Record, verdict: Verdict) -> Work:
        """Return what a verdict on a closed job does: nothing, unless it names the one that closed it."""
        marker = self.queue.marker(verdict.job_id) or self.queue.marker(verdict.decision_id)
        known = Work(
            record=record, job_id=verdict.job_id, verdict=verdict, result=Ignored(reason="closed")
        )
        if marker is None or not verdict.withdraws or verdict.withdraws != marker.verdict_id:
            return known
        # Only a lead gives an adjudication.
        if verdict.reviewer != marker.by and verdict.part != "adjudication":
            return known
        old = [t for made in marker.made if (t := self.queue.ticket(made)) is not None]
        if not old or missing(old[0].decision, verdict, self.policies()):
            return known
        result = Decides(verdict=verdict, escalate=verdict.escalate)
        return Work(
            record=record,
            job_id=verdict.job_id,
            verdict=verdict,
            result=result,
            tickets=tuple(self._decided(record, ticket, result) for ticket in old),
        )

    def _decided(self, record: Record, ticket: Ticket, result: Decides) -> Ticket:
        decision = decide_again(
            ticket,
            result.verdict,
            self.policies(),
            source=Source(topic=record.topic, partition=record.partition, offset=record.offset),
            decision_id=decision_id(
                ticket.decision.event_id + "\n" + ticket.decision.decision_id,
                record.value or b"",
                f"verdict:{result.verdict.verdict_id}",
            ),
            now=datetime.fromtimestamp(self.clock(), UTC),
            escalate=result.escalate,
        )
        return Ticket(decision=decision, event=ticket.event)

    def _apply(self, work: Work) -> None:
        place, offset = work.record.place, work.record.offset
        if work.verdict is None or isinstance(work.result, Ignored):
            reason = work.result.reason if isinstance(work.result, Ignored) else "unreadable"
            telemetry.log.info("a verdict does not count", reason=reason, job_id=work.job_id)
            # What it was sent for waits for another one.
            again = reason in {"incomplete", "same_reviewer"}
            self.queue.apply_nothing(place.topic, place.number, offset, work.job_id, reopen=again)
        elif isinstance(work.result, Progress):
            self.queue.apply_progress(
                place.topic,
                place.number,
                offset,
                work.job_id,
                part=work.result.part,
                need=work.result.need,
                barred=work.barred,
                saw=work.result.saw,
            )
        else:
            self.queue.apply_close(
                place.topic,
                place.number,
                offset,
                work.job_id,
                verdict_id=work.verdict.verdict_id,
                by=work.verdict.reviewer,
                made=[(t.decision.supersedes or "", t.decision.decision_id) for t in work.tickets],
            )

    def _catch_up(self, place: Partition, committed: int) -> None:
        """Apply again what was committed before Redis forgot it, or before it could be told."""
        stands = self.queue.begin(place.topic, place.number, 0)
        if stands >= committed:
            return
        self.replay.follow({place: stands})
        while self.replay.position(place) < committed:
            for record in self.replay.poll(timeout_s=0.2, max_records=_MOST):
                if record.offset >= committed:
                    break
                work = self._weigh(record)
                if isinstance(work.result, Decides):
                    # Its decisions are on the log, and their tickets have closed the job.
                    work = Work(record=record, job_id=work.job_id, result=Ignored(reason="closed"))
                self._apply(work)
        self.queue.stand(place.topic, place.number, committed)


def run_escalate(settings: Settings, stop: threading.Event) -> None:
    """Run until told to stop.

    Raises:
        PipelineError: it cannot run as configured.
        PolicyError: the policies cannot be read.
    """
    folder = PolicyFolder(settings.policies, telemetry.policy_error)
    queues = read_queues(settings.policies)
    queue = ReviewQueue(settings.redis.url.get_secret_value())
    watchdog = Watchdog(limit_s=settings.kafka.commit_timeout_s)
    escalate = Escalate(
        link=Member(
            settings.kafka,
            [VERDICTS],
            group=f"{settings.kafka.group}-{GROUP}",
            instance=settings.instance,
        ),
        replay=Follower(settings.kafka),
        producer=Producer(settings.kafka),
        queue=queue,
        projection=Projection(settings.kafka, queue, folder.current, queues),
        policies=folder.current,
        queues=queues,
        watchdog=watchdog,
    )
    telemetry.log.info("running")
    try:
        escalate.run(stop)
    finally:
        escalate.close()
        watchdog.close()
    telemetry.log.info("stopped")


def content_key(entry: Entry) -> str:
    """Return the content id by which everything about a job is keyed."""
    return entry.ticket.decision.content_id if entry.ticket is not None else entry.job_id
