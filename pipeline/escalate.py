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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from pipeline import telemetry
from pipeline.appeals import Appeals
from pipeline.config import Kafka, Settings
from pipeline.errors import AbortedError, KafkaError, ProjectionLostError
from pipeline.kafka import Follower, Member, Producer
from pipeline.messages import APPEALS, VERDICTS
from pipeline.projection import Projection, read_queues
from pipeline.records import Link, Mark, Partition, Record
from pipeline.redis import ReviewQueue, Unavailable, member_of
from pipeline.verdicts import Decides, Ignored, Progress, decision_records, verdict_record
from pipeline.watchdog import Watchdog
from pipeline.weighing import Weighing, Work, content_key
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


@dataclass(slots=True, kw_only=True)
class Escalate:
    """Projects the people's topics into the queue, and verdicts into decisions."""

    link: Link
    replay: Follower
    producer: Producer
    queue: ReviewQueue
    projection: Projection
    weighing: Weighing
    queues: Mapping[str, Queue]
    watchdog: Watchdog
    _waiting: deque[Record] = field(default_factory=deque)
    _stepped: set[Partition] = field(default_factory=set)
    _applied: dict[Partition, int] = field(default_factory=dict)
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
                self.catch_up()
            self.tick()
        except AbortedError as error:
            self._must_rewind = True
            self._aborts += 1
            telemetry.log.warning("nothing was committed, trying again", error=str(error))
            time.sleep(min(0.1 * 2**self._aborts, _MAX_BACKOFF_S))
        except ProjectionLostError:
            # What was weighed meanwhile is weighed again, once the queue is made anew.
            self._must_rewind = True
            self.projection.align()
        except Unavailable as error:
            # What was committed and not applied is applied again from the log, once Redis is back.
            self._must_rewind = True
            self._stepped.clear()
            self.projection.doubt()
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
            self._applied[place] = 0 if mark is None else mark.offset
            self._catch_up(place, self._applied[place])
            self._stepped.add(place)

    def decide(self) -> None:
        """Weigh verdicts, commit what follows, and only then change their jobs."""
        works = self._batch() if self.link.may_commit() else []
        if not works:
            return
        tickets = [ticket for work in works for ticket in work.tickets]
        outgoing = [record for ticket in tickets for record in decision_records(ticket)]
        marks = {w.record.place: Mark(offset=w.record.offset + 1) for w in works}
        with self.watchdog.guard("commit"):
            self.link.commit(outgoing, marks)
        self._aborts = 0
        # Until all of it is applied, Redis is behind the log.
        self._stepped -= marks.keys()
        for work in works:
            self._apply(work)
        self._stepped |= marks.keys()
        self._applied |= {place: mark.offset for place, mark in marks.items()}
        for ticket in tickets:
            telemetry.decided(ticket.decision)

    def catch_up(self) -> None:
        """Let jobs be handed out again once the verdicts that an emptied Redis forgot are applied."""
        for place, goal in list(self.projection.behind.items()):
            if place in self._stepped and self._applied.get(place, 0) >= goal:
                self.queue.catch_up(place.topic, place.number)
                del self.projection.behind[place]

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

    def _batch(self) -> list[Work]:
        works: list[Work] = []
        touched: set[str] = set()
        while self._waiting and self._waiting[0].place in self._stepped:
            work = self.weighing.weigh(self._waiting[0])
            # Two verdicts on one job: the second meets what the first left.
            if work.job_id in touched:
                break
            touched.add(work.job_id)
            works.append(work)
            self._waiting.popleft()
        return works

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

    def _apply(self, work: Work) -> None:
        place, offset = work.record.place, work.record.offset
        if work.verdict is None or isinstance(work.result, Ignored):
            reason = work.result.reason if isinstance(work.result, Ignored) else "unreadable"
            telemetry.log.info("a verdict does not count", reason=reason, job_id=work.job_id)
            # What it was sent for waits for another one.
            again = reason in {"incomplete", "same_reviewer"}
            met = None
            if work.verdict is not None and work.verdict.part == "golden":
                met = (work.verdict.reviewer, work.verdict.decision_id)
            self.queue.apply_nothing(
                place.topic, place.number, offset, work.job_id, reopen=again, met=met
            )
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
                made=[(member_of(t) or "", t.decision.decision_id) for t in work.tickets],
            )

    def _catch_up(self, place: Partition, committed: int) -> None:
        """Apply again what was committed before Redis forgot it, or before it could be told."""
        stands = self.queue.begin(place.topic, place.number, 0, end=committed)
        if stands >= committed:
            return
        self.replay.follow({place: stands})
        while self.replay.position(place) < committed:
            for record in self.replay.poll(timeout_s=0.2, max_records=_MOST):
                if record.offset >= committed:
                    break
                work = self.weighing.weigh(record)
                if isinstance(work.result, Decides):
                    # Its decisions are on the log, and their tickets have closed the job.
                    work = Work(record=record, job_id=work.job_id, result=Ignored(reason="closed"))
                self._apply(work)
        self.queue.stand(place.topic, place.number, committed)


def assemble(
    settings: Kafka,
    url: str,
    policies: Callable[[], PolicySet],
    queues: Mapping[str, Queue],
    *,
    instance: str,
    watchdog: Watchdog,
) -> Escalate:
    """Return an escalate with connections of its own.

    Raises:
        PipelineError: Kafka cannot be reached or a topic is missing.
    """
    queue = ReviewQueue(url)
    projection = Projection(settings, queue, policies, queues)
    return Escalate(
        link=Member(settings, [VERDICTS], group=f"{settings.group}-{GROUP}", instance=instance),
        replay=Follower(settings),
        producer=Producer(settings),
        queue=queue,
        projection=projection,
        weighing=Weighing(queue=queue, projection=projection, policies=policies, clock=time.time),
        queues=queues,
        watchdog=watchdog,
    )


def run_escalate(settings: Settings, stop: threading.Event) -> None:
    """Run until told to stop; appeals are taken in by a thread of their own.

    Raises:
        PipelineError: it cannot run as configured.
        PolicyError: the policies cannot be read.
    """
    folder = PolicyFolder(settings.policies, telemetry.policy_error)
    url = settings.redis.url.get_secret_value()
    watchdog, beside = (Watchdog(limit_s=settings.kafka.commit_timeout_s) for _ in range(2))
    escalate = assemble(
        settings.kafka,
        url,
        folder.current,
        read_queues(settings.policies),
        instance=settings.instance,
        watchdog=watchdog,
    )
    appeals = Appeals(
        link=Member(
            settings.kafka,
            [APPEALS],
            group=f"{settings.kafka.group}-appeals",
            instance=settings.instance,
        ),
        reader=Follower(settings.kafka),
        queue=ReviewQueue(url),
        policies=folder.current,
        watchdog=beside,
    )
    telemetry.log.info("running")
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="appeals") as threads:
        taken_in = threads.submit(appeals.run, stop)
        try:
            while not stop.is_set() and not taken_in.done():
                escalate.turn()
        finally:
            stop.set()
            escalate.close()
            watchdog.close()
        # What ended the thread ends the process.
        taken_in.result()
    appeals.close()
    beside.close()
    telemetry.log.info("stopped")
