"""The review queue on a real Kafka, with Redis lost in the middle: what the topics say in the end is counted.

Reviewers claim and resolve through the desk without waiting, escalate makes decisions of their verdicts, new tickets
keep the number of open jobs. Half way Redis is killed and started again empty; escalate rebuilds it from the log. In
the end the verdicts are weighed once more, one after the other as they stand on their topic, and the decisions must be
the same.
"""

import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event
from typing import Final
from uuid import uuid4

from pipeline import telemetry
from pipeline.bench_crowd import BUDGET, Load, Uploads, people_of, policies_of, queues_of
from pipeline.bench_queue import Advance, ms, received
from pipeline.bench_redis import OwnRedis
from pipeline.config import Kafka
from pipeline.desk import Answers, Desk, Rules
from pipeline.errors import KafkaError, LeaseLostError
from pipeline.escalate import assemble
from pipeline.kafka import Producer, Topics, ends, read
from pipeline.messages import DECISIONS, TICKETS, VERDICTS, Decision, Ticket, Verdict, VerdictAnswer
from pipeline.records import Outgoing
from pipeline.redis import Entry, ReviewQueue, Unavailable
from pipeline.review import Person
from pipeline.topics import plan
from pipeline.verdicts import Decides, Progress, weigh
from pipeline.watchdog import Watchdog

#: How long what was begun may take to come to its end.
_PATIENCE_S: Final = 600.0
#: Of two who look at the same job, one in so many says something else.
_DISAGREE_OF: Final = 40
#: How long a reviewer waits where Redis or Kafka is away, or the queue is rebuilt.
_AWAY_S: Final = 0.05
_RULES: Final = Rules(budget=BUDGET, lease=timedelta(minutes=30))


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What came of it, as the topics have it."""

    open: int
    tickets: int
    claims: int
    claims_per_s: float
    p50_ms: float
    p99_ms: float
    restarts: int  # of escalate: it ends itself where a commit hangs
    empty: int  # claims that were told that nothing is open, though the queue never was empty
    failed: int  # claims that met no Redis
    unanswered: int  # jobs whose answer met no Redis, no Kafka, or a forgotten lease
    verdicts: int
    decided: int
    decisions_per_s: float
    rebuilt_s: float  # from the kill until jobs were handed out again
    overtaken: int  # verdicts on a job that another verdict had answered before Redis was lost
    handed_to_two: int  # jobs handed to two people for the same part while Redis lived
    vanished: int  # answers that were taken and left no verdict on the topic
    decided_twice: int
    decided_otherwise: int  # jobs whose verdicts on the topic say that they are decided, and are not, or the other way
    lost: int  # jobs neither decided nor open

    @property
    def broken(self) -> int:
        """Return how many promises were broken."""
        kept = self.decided_otherwise + self.vanished + self.lost
        return self.empty + self.handed_to_two + self.decided_twice + kept


@dataclass(slots=True, kw_only=True)
class _Share:
    """What some reviewers did."""

    claims: list[tuple[float, str, str]] = field(default_factory=list)  # when, job, part
    latencies_s: list[float] = field(default_factory=list)
    empty: int = 0
    failed: int = 0
    unanswered: int = 0


def measure(
    settings: Kafka, redis: OwnRedis, load: Load, *, advance: Advance = lambda *_: None
) -> Figures:
    """Run it on topics of its own, which are deleted afterwards."""
    kafka = settings.model_copy(update={"topic_prefix": f"bench-{uuid4().hex[:8]}."})
    topics = Topics(kafka)
    wanted = {topic.name: topic for topic in plan(kafka)}
    topics.create(
        {name: t.options for name, t in wanted.items()},
        partitions={name: t.partitions for name, t in wanted.items()},
    )
    try:
        return _run(kafka, redis, load, advance)
    finally:
        topics.delete(list(wanted))
        topics.close()


def _run(kafka: Kafka, redis: OwnRedis, load: Load, advance: Advance) -> Figures:
    escalate = _Kept(kafka, redis.url, load)
    queue = ReviewQueue(redis.url)
    producer = Producer(kafka)
    uploads = Uploads(queues_of(load.queues), load.seed)
    try:
        _arrive(producer, uploads, 0, load.open)
        _await_open(queue, load, escalate, advance)
        shift = _shift(kafka, redis, queue, producer, uploads, load, escalate)
        _await_verdicts(kafka, queue, load, escalate, advance)
        unclosed = _unclosed(queue, load)
    finally:
        escalate.stop()
        producer.close()
        queue.close()
    return _reckon(kafka, load, shift, unclosed, escalate.restarts)


class _Kept:
    """An escalate in a process of its own, which is started again where it ends, as whatever keeps services does."""

    def __init__(self, kafka: Kafka, url: str, load: Load) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._stop = self._context.Event()
        self._args = (kafka, url, load, self._stop)
        self.restarts = 0
        self._process = self._started()

    def keep(self) -> None:
        """Start it again if it ended."""
        if not self._process.is_alive():
            self.restarts += 1
            self._process = self._started()

    def stop(self) -> None:
        """Let it come to its end."""
        self._stop.set()
        self._process.join()

    def _started(self) -> SpawnProcess:
        process = self._context.Process(target=_escalate, args=self._args)
        process.start()
        return process


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shift:
    """What happened while people worked."""

    shares: Sequence[_Share]
    made: int
    killed_s: float
    rebuilt_s: float


def _arrive(producer: Producer, uploads: Uploads, first: int, count: int) -> None:
    """Write tickets as the pipeline does."""
    for ticket in uploads.tickets(first, count):
        producer.post(
            Outgoing(
                topic=TICKETS,
                key=ticket.decision.content_id.encode(),
                value=ticket.model_dump_json().encode(),
            )
        )
    producer.flush()


def _unclosed(queue: ReviewQueue, load: Load) -> int:
    return sum(d.open + d.leased + d.waiting for d in queue.depths(queues_of(load.queues)))


def _await_open(queue: ReviewQueue, load: Load, escalate: _Kept, advance: Advance) -> None:
    """Wait until all jobs are open."""
    until_s = time.monotonic() + _PATIENCE_S
    while (found := _unclosed(queue, load)) < load.open:
        advance("jobs", found, load.open)
        escalate.keep()
        if time.monotonic() > until_s:
            raise KafkaError(f"only {found} of {load.open} jobs were opened: does escalate run?")
        time.sleep(0.2)


def _shift(
    kafka: Kafka,
    redis: OwnRedis,
    queue: ReviewQueue,
    producer: Producer,
    uploads: Uploads,
    load: Load,
    escalate: _Kept,
) -> _Shift:
    """Let the reviewers work, keep the number of open jobs, and lose Redis half way."""
    context = multiprocessing.get_context("spawn")
    people = people_of(load, queues_of(load.queues))
    workers, pipes = [], []
    for number in range(load.processes):
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(
            target=_review, args=(kafka, redis.url, people[number :: load.processes], load, theirs)
        )
        worker.start()
        theirs.close()
        workers.append(worker)
        pipes.append(ours)
    shares: list[_Share] = []
    made = load.open
    half_s = time.monotonic() + load.seconds / 2
    killed_s = rebuilt_s = 0.0
    # People may go home before the queue is back: how long that takes is measured to its end.
    while len(shares) < len(pipes) or not rebuilt_s:
        escalate.keep()
        time.sleep(0.01)
        if killed_s and not rebuilt_s and time.monotonic() > killed_s + _PATIENCE_S:
            raise KafkaError("the queue was not rebuilt: does escalate run?")
        shares += [share for pipe in pipes if (share := received(pipe, 0.05)) is not None]
        if not killed_s and time.monotonic() >= half_s:
            redis.kill()
            killed_s = time.monotonic()
            redis.start()
        with suppress(Unavailable):
            missing = load.open - sum(d.open for d in queue.depths(queues_of(load.queues)))
            if killed_s and not rebuilt_s:
                # What was lost is on the log, and is not to be replaced by new jobs.
                if queue.offsets() and not queue.behind():
                    rebuilt_s = time.monotonic()
            elif missing > 0 and len(shares) < len(pipes):
                new = min(missing, 1_000)
                _arrive(producer, uploads, made, new)
                made += new
                _await_projected(queue, load)
    for worker in workers:
        worker.join()
    return _Shift(shares=shares, made=made, killed_s=killed_s, rebuilt_s=rebuilt_s)


def _await_projected(queue: ReviewQueue, load: Load) -> None:
    """Wait until tickets that were just written are jobs, so that none is missed twice."""
    until_s = time.monotonic() + 1.0
    while time.monotonic() < until_s:
        time.sleep(0.1)
        if sum(d.open for d in queue.depths(queues_of(load.queues))) >= load.open * 0.98:
            return


def _await_verdicts(
    kafka: Kafka, queue: ReviewQueue, load: Load, escalate: _Kept, advance: Advance
) -> None:
    """Wait until every verdict on the topic has been weighed, and nothing changes any more."""
    until_s = time.monotonic() + _PATIENCE_S
    goal = ends(kafka, [VERDICTS])
    unclosed, quiet = -1, 0
    while quiet < 5:  # noqa: PLR2004 -- looks in a row
        escalate.keep()
        with suppress(Unavailable):
            stands = queue.offsets()
            left = sum(
                max(0, end - stands.get((place.topic, place.number), 0))
                for place, end in goal.items()
            )
            before, unclosed = unclosed, _unclosed(queue, load)
            quiet = quiet + 1 if left == 0 and before == unclosed else 0
            advance("verdicts left", left, max(1, left))
        if time.monotonic() > until_s:
            raise KafkaError("verdicts were left unread: does escalate run?")
        time.sleep(0.2)


def _escalate(kafka: Kafka, url: str, load: Load, stop: Event) -> None:
    telemetry.configure(level="error")
    policies = policies_of()
    watchdog = Watchdog(limit_s=kafka.commit_timeout_s)
    escalate = assemble(
        kafka,
        url,
        lambda: policies,
        queues_of(load.queues),
        instance="bench",
        watchdog=watchdog,
    )
    while not stop.is_set():
        escalate.turn()
    escalate.close()
    watchdog.close()


def _review(kafka: Kafka, url: str, people: Sequence[Person], load: Load, out: Connection) -> None:
    """Be these reviewers, several of them in the same moment, through one desk."""
    policies = policies_of()
    desk = Desk(
        queue=ReviewQueue(url),
        log=Producer(kafka),
        policies=lambda: policies,
        queues=queues_of(load.queues),
        rules=_RULES,
    )
    share = _Share()
    stop_s = time.monotonic() + load.seconds
    threads = [
        threading.Thread(
            target=_take_turns, args=(desk, people[at :: load.at_once] or people[:1], stop_s, share)
        )
        for at in range(load.at_once)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    desk.close()
    out.send(share)
    out.close()


def _take_turns(desk: Desk, people: Sequence[Person], stop_s: float, share: _Share) -> None:
    turn = 0
    while (began_s := time.monotonic()) < stop_s:
        person = people[turn % len(people)]
        turn += 1
        try:
            handed = desk.claim(person)
        except Unavailable:
            share.failed += 1
            time.sleep(_AWAY_S)
            continue
        if handed.reason == "rebuild":
            time.sleep(_AWAY_S)
            continue
        share.latencies_s.append(time.monotonic() - began_s)
        share.empty += not handed.entries
        for entry in handed.entries:
            share.claims.append((began_s, entry.job_id, entry.part))
            try:
                desk.resolve(person, entry.job_id, entry.lease, _says(person, entry), at_once=True)
            except (Unavailable, LeaseLostError, KafkaError):
                share.unanswered += 1
                time.sleep(_AWAY_S)


def _says(person: Person, entry: Entry) -> Answers:
    """Return what this person answers: mostly what everybody would."""
    job, who = int(entry.job_id.partition("-")[2]), int(person.id[1:])
    violates = (job % 3 == 0) != ((job + who) % _DISAGREE_OF == 0)
    review = entry.ticket.decision.review if entry.ticket is not None else None
    return Answers(
        answers=tuple(
            VerdictAnswer(
                policy=question,
                answer="violates" if violates else "allowed",
                clause="C1" if violates else None,
            )
            for question in (review.questions if review is not None else ())
        )
    )


def _reckon(
    kafka: Kafka,
    load: Load,
    shift: _Shift,
    unclosed: int,
    restarts: int,
) -> Figures:
    tickets = {
        ticket.decision.decision_id: ticket.decision
        for record in read(kafka, [TICKETS])
        if (ticket := Ticket.model_validate_json(record.value or b"")).decision.decided_by
        == "pipeline"
    }
    expected, verdicts, overtaken = _weighed(kafka, tickets)
    decided: Counter[str] = Counter()
    times_s = []
    for record in read(kafka, [DECISIONS]):
        decided[Decision.model_validate_json(record.value or b"").supersedes or ""] += 1
        times_s.append(record.timestamp_s)
    claims: Counter[tuple[bool, str, str]] = Counter()
    latencies_s: list[float] = []
    for share in shift.shares:
        claims.update((at_s < shift.killed_s, job, part) for at_s, job, part in share.claims)
        latencies_s += share.latencies_s
    unanswered = sum(share.unanswered for share in shift.shares)
    latencies_s.sort()
    took_s = max(times_s, default=1.0) - min(times_s, default=0.0)
    return Figures(
        open=load.open,
        tickets=shift.made,
        claims=claims.total(),
        claims_per_s=round(claims.total() / load.seconds, 1),
        p50_ms=ms(latencies_s, 0.50),
        p99_ms=ms(latencies_s, 0.99),
        empty=sum(share.empty for share in shift.shares),
        failed=sum(share.failed for share in shift.shares),
        unanswered=unanswered,
        verdicts=verdicts,
        decided=len(decided),
        decisions_per_s=round(len(decided) / took_s, 1) if took_s else 0.0,
        rebuilt_s=round(shift.rebuilt_s - shift.killed_s, 1),
        restarts=restarts,
        overtaken=overtaken,
        handed_to_two=sum(1 for count in claims.values() if count > 1),
        vanished=max(0, claims.total() - unanswered - verdicts),
        decided_twice=sum(1 for count in decided.values() if count > 1),
        decided_otherwise=len(expected ^ set(decided)),
        lost=len(tickets) - len(decided) - unclosed,
    )


def _weighed(kafka: Kafka, tickets: dict[str, Decision]) -> tuple[set[str], int, int]:
    """Return the jobs that the verdicts on the topic decide, how many verdicts there are, and how many came late."""
    policies = policies_of()
    saw: dict[str, tuple[tuple[Verdict, ...], str]] = {}
    decided: set[str] = set()
    count = overtaken = 0
    for record in read(kafka, [VERDICTS]):
        verdict = Verdict.model_validate_json(record.value or b"")
        count += 1
        job = verdict.job_id
        if job in decided:
            overtaken += 1
            continue
        before, part = saw.get(job, ((), "first"))
        decision = tickets[job]
        reviewers = decision.review.reviewers if decision.review is not None else 1
        result = weigh(decision, verdict, policies, part=part, saw=before, reviewers=reviewers)
        if isinstance(result, Decides):
            decided.add(job)
        elif isinstance(result, Progress):
            saw[job] = (result.saw, result.part)
        else:
            overtaken += 1
    return decided, count, overtaken
