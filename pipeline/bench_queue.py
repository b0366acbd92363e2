"""The review queue under load: simulated reviewers claim and resolve as fast as they can, and every promise is counted.

`measure` works on Redis alone: each reviewer claims one job, sees that they may have it, and closes it by the script
that closes it when its verdict comes from the log. New jobs keep the number of open ones. `pipeline.bench_rebuild` goes
by way of Kafka and loses Redis meanwhile. Both need a Redis of their own and empty it.
"""

import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from typing import Any, Final

import numpy as np

from pipeline.bench_crowd import (
    BUDGET,
    Load,
    Uploads,
    ceiling,
    people_of,
    queues_of,
    reveal,
    used_up,
)
from pipeline.errors import RefusedError
from pipeline.messages import REVIEWS, TICKETS, Verdict
from pipeline.redis import RUN, Entry, Projected, ReviewQueue, bucket_of
from pipeline.review import Bucket, Person, job_of, open_to
from policies.queues import Queue
from policies.schema import PolicySet

_VERDICTS: Final = "bench.verdicts"
#: How many people are asked, before and after, whether an urgent job is kept from them.
_ASKED: Final = 200
#: From so many jobs on several processes open them.
_MANY: Final = 50_000

#: What is told of how much is done: what, how much, of how much.
Advance = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What came of it."""

    open: int
    filled_per_s: float
    claims: int  # that got a job
    claims_per_s: float
    p50_ms: float  # of all claims
    p99_ms: float
    max_ms: float
    resolved: int
    empty: int  # claims of people for whom nothing was open
    handed_to_two: int
    resolved_twice: int
    barred: int  # jobs that reached somebody who was barred from them
    both: int  # jobs on which one person gave both verdicts
    urgent_passed_over: (
        int  # normal jobs handed out while an urgent one was open to the same person
    )
    lost: int
    memory_mb: float

    @property
    def broken(self) -> int:
        """Return how many promises were broken."""
        doubled = self.handed_to_two + self.resolved_twice
        return doubled + self.barred + self.both + self.urgent_passed_over + self.lost


@dataclass(frozen=True, slots=True)
class Claim:
    """One job handed to one person."""

    person: str
    began_s: float
    ended_s: float
    job_id: str
    part: str
    urgent: bool


@dataclass(slots=True, kw_only=True)
class Share:
    """What one reviewer, or several, did."""

    claims: list[Claim] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    resolved: list[str] = field(default_factory=list)
    empty: int = 0
    barred: int = 0
    both: int = 0


@dataclass(slots=True, kw_only=True)
class _Filling:
    """Puts new jobs into the queue, and remembers since when urgent ones are open."""

    queue: ReviewQueue
    queues: Mapping[str, Queue]
    uploads: Uploads
    partition: int = 0
    made: int = 0
    urgent: dict[str, tuple[Bucket, float]] = field(default_factory=dict)

    def fill(self, count: int, advance: Advance = lambda *_: None) -> None:
        """Project so many new tickets."""
        none = PolicySet(())
        stop = self.made + count
        while self.made < stop:
            run = min(RUN * 4, stop - self.made)
            now = datetime.now(UTC)
            # What is open has come over the last half hour.
            items = [
                Projected(
                    offset=ticket.decision.source.offset,
                    ticket=ticket,
                    job=job_of(
                        ticket,
                        none,
                        self.queues,
                        recorded_at=now - timedelta(seconds=ticket.decision.source.offset % 1800),
                    ),
                )
                for ticket in self.uploads.tickets(self.made, run)
            ]
            end = self.made + run
            self.queue.project(TICKETS, self.partition, start=self.made, end=end, tickets=items)
            open_s = time.monotonic()
            for item in items:
                job = item.job
                if job is not None and self.queues[job.queue].lane == "urgent":
                    bucket = Bucket(
                        queue=job.queue,
                        language=job.language,
                        policies=job.policies,
                        weight=job.weight,
                    )
                    self.urgent[job.decision_id] = (bucket, open_s)
            self.made = end
            advance("jobs", self.made, stop)


def measure(url: str, load: Load, *, advance: Advance = lambda *_: None) -> Figures:
    """Fill the queue, let the reviewers work on it, and count."""
    queue = ReviewQueue(url)
    queue.forget()
    queues = queues_of(load.queues)
    queue.configure(queues)
    people = people_of(load, queues)
    queue.begin(TICKETS, 0, 0)
    queue.begin(REVIEWS, 0, 0)
    for number in range(load.processes * load.at_once):
        queue.begin(_VERDICTS, number, 0)
    for offset, person in enumerate(filter(used_up, people)):
        queue.apply_review(REVIEWS, 0, offset, reveal(person), budget=BUDGET, early=False)
    filling = _Filling(queue=queue, queues=queues, uploads=Uploads(queues, load.seed))
    began_s = time.monotonic()
    _fill(url, filling, load, advance)
    filled_s = time.monotonic() - began_s
    memory_mb = queue.memory_bytes() / 1e6
    asked = people[:_ASKED]
    passed_over = _look_for_urgent(queue, queues, asked)
    made = load.open - filling.made
    share = _shift(url, filling, people, load)
    made += filling.made
    passed_over += _look_for_urgent(queue, queues, asked)
    passed_over += urgent_passed_over(share.claims, filling.urgent, people, queues)
    unclosed = sum(d.open + d.leased + d.waiting for d in queue.depths(queues))
    queue.close()
    resolved = Counter(share.resolved)
    latencies = sorted(share.latencies_s)
    return Figures(
        open=load.open,
        filled_per_s=round(load.open / filled_s, 1),
        claims=len(share.claims),
        claims_per_s=round(len(share.claims) / load.seconds, 1),
        p50_ms=ms(latencies, 0.50),
        p99_ms=ms(latencies, 0.99),
        max_ms=ms(latencies, 1.0),
        resolved=len(share.resolved),
        empty=share.empty,
        handed_to_two=handed_to_two(share.claims),
        resolved_twice=sum(1 for times in resolved.values() if times > 1),
        barred=share.barred,
        both=share.both,
        urgent_passed_over=passed_over,
        lost=made - len(resolved) - unclosed,
        memory_mb=round(memory_mb, 1),
    )


def _fill(url: str, filling: _Filling, load: Load, advance: Advance) -> None:
    """Open the first jobs; many of them by several processes, each with a partition of its own."""
    if load.open < _MANY:
        filling.fill(load.open, advance)
        return
    context = multiprocessing.get_context("spawn")
    workers, ends = [], []
    for number in range(1, load.processes + 1):
        count = load.open // load.processes + (number <= load.open % load.processes)
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(
            target=_fill_part, args=(url, dict(filling.queues), load.seed, number, count, theirs)
        )
        worker.start()
        theirs.close()
        workers.append(worker)
        ends.append(ours)
    parts: list[dict[str, tuple[Bucket, float]]] = []
    while len(parts) < len(ends):
        parts += [part for end in ends if (part := received(end, 0.5)) is not None]
        advance("jobs", sum(d.open for d in filling.queue.depths(filling.queues)), load.open)
    for worker, part in zip(workers, parts, strict=True):
        worker.join()
        filling.urgent |= part


def _fill_part(
    url: str, queues: Mapping[str, Queue], seed: int, partition: int, count: int, out: Connection
) -> None:
    queue = ReviewQueue(url)
    # The numbers of one partition are no other's.
    first = partition * 1_000_000_000
    queue.begin(TICKETS, partition, first)
    filling = _Filling(
        queue=queue,
        queues=queues,
        uploads=Uploads(queues, seed + partition),
        partition=partition,
        made=first,
    )
    filling.fill(count)
    queue.close()
    out.send(filling.urgent)
    out.close()


def handed_to_two(claims: Iterable[Claim]) -> int:
    """Return how many jobs were handed out more than once for the same part; no lease has ended meanwhile."""
    times = Counter((claim.job_id, claim.part) for claim in claims)
    return sum(1 for count in times.values() if count > 1)


def urgent_passed_over(
    claims: Sequence[Claim],
    urgent: Mapping[str, tuple[Bucket, float]],
    people: Sequence[Person],
    queues: Mapping[str, Queue],
) -> int:
    """Return how many claims got a normal job though, all the time they took, an urgent one was open to that person."""
    taken_s: dict[str, float] = {}
    for claim in sorted(claims, key=lambda claim: claim.began_s):
        taken_s.setdefault(claim.job_id, claim.began_s)
    buckets = list(dict.fromkeys(bucket for bucket, _ in urgent.values()))
    place = {bucket: number for number, bucket in enumerate(buckets)}
    of = np.array([place[bucket] for bucket, _ in urgent.values()], dtype=np.int64)
    since = np.array([open_s for _, open_s in urgent.values()])
    until = np.array([taken_s.get(job_id, np.inf) for job_id in urgent])
    passed_over = 0
    by_person: dict[str, list[Claim]] = {}
    for claim in claims:
        if not claim.urgent:
            by_person.setdefault(claim.person, []).append(claim)
    for person in people:
        opens = open_to(person, queues)
        admitted = [bucket.admits(person, opens, ceiling(person)) for bucket in buckets]
        here = np.array(admitted, dtype=bool)[of] if buckets else np.zeros(0, dtype=bool)
        from_s, to_s = since[here], until[here]
        passed_over += sum(
            bool(((from_s <= claim.began_s) & (to_s >= claim.ended_s)).any())
            for claim in by_person.get(person.id, ())
        )
    return passed_over


def ms(latencies_s: Sequence[float], share: float) -> float:
    """Return the latency below which this share of the sorted ones lies."""
    if not latencies_s:
        return 0.0
    index = min(len(latencies_s) - 1, int(share * len(latencies_s)))
    return round(latencies_s[index] * 1000, 2)


def received(end: Connection, timeout_s: float) -> Any:
    """Return what a process of reviewers sends in the end, or None while it works.

    Raises:
        RefusedError: it died.
    """
    if end.closed or not end.poll(timeout_s):
        return None
    try:
        found = end.recv()
    except EOFError as error:
        raise RefusedError("a process of reviewers died: look at what it wrote") from error
    end.close()
    return found


def summed(shares: Iterable[Share]) -> Share:
    """Return what all of them did."""
    whole = Share()
    for share in shares:
        whole.claims += share.claims
        whole.latencies_s += share.latencies_s
        whole.resolved += share.resolved
        whole.empty += share.empty
        whole.barred += share.barred
        whole.both += share.both
    return whole


def _shift(url: str, filling: _Filling, people: Sequence[Person], load: Load) -> Share:
    """Let all reviewers work for the time, and keep the number of open jobs meanwhile."""
    context = multiprocessing.get_context("spawn")
    workers, ends = [], []
    for number in range(load.processes):
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(
            target=_work,
            args=(
                url,
                dict(filling.queues),
                people[number :: load.processes],
                number,
                load,
                theirs,
            ),
        )
        worker.start()
        theirs.close()
        workers.append(worker)
        ends.append(ours)
    shares: list[Share] = []
    while len(shares) < len(ends):
        missing = load.open - sum(d.open for d in filling.queue.depths(filling.queues))
        if missing > 0:
            filling.fill(min(missing, 2_000))
        shares += [share for end in ends if (share := received(end, 0.02)) is not None]
    for worker in workers:
        worker.join()
    return summed(shares)


def _work(
    url: str,
    queues: Mapping[str, Queue],
    people: Sequence[Person],
    number: int,
    load: Load,
    out: Connection,
) -> None:
    """Be these reviewers, several of them in the same moment."""
    queue = ReviewQueue(url)
    shares = [Share() for _ in range(load.at_once)]
    # What it takes to begin is nobody's latency.
    queue.claim(replace(people[0], queues=()), queues, budget=BUDGET)
    stop_s = time.monotonic() + load.seconds
    threads = [
        threading.Thread(
            target=_take_turns,
            args=(queue, queues, people[at :: load.at_once] or people[:1]),
            kwargs={"partition": number * load.at_once + at, "stop_s": stop_s, "share": share},
        )
        for at, share in enumerate(shares)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue.close()
    out.send(summed(shares))
    out.close()


def _take_turns(
    queue: ReviewQueue,
    queues: Mapping[str, Queue],
    people: Sequence[Person],
    *,
    partition: int,
    stop_s: float,
    share: Share,
) -> None:
    """Be these reviewers in turn: claim one job, see that it is one's to have, close it."""
    opens = {person.id: set(open_to(person, queues)) for person in people}
    offset = turn = 0
    while (began_s := time.monotonic()) < stop_s:
        person = people[turn % len(people)]
        turn += 1
        handed = queue.claim(person, queues, budget=BUDGET)
        ended_s = time.monotonic()
        share.latencies_s.append(ended_s - began_s)
        if not handed.entries:
            share.empty += 1
            continue
        [entry] = handed.entries
        share.claims.append(
            Claim(person.id, began_s, ended_s, entry.job_id, entry.part, entry.lane == "urgent")
        )
        if not bucket_of(entry).admits(person, opens[person.id], ceiling(person)):
            share.barred += 1
        _close(queue, entry, person, partition, offset, share)
        offset += 1


def _close(
    queue: ReviewQueue,
    entry: Entry,
    person: Person,
    partition: int,
    offset: int,
    share: Share,
) -> None:
    verdict = Verdict(
        verdict_id=f"v-{entry.job_id}-{entry.part}",
        job_id=entry.job_id,
        decision_id=entry.decision_id,
        reviewer=person.id,
        lease=entry.lease,
        part=entry.part,
        decided_at=datetime.now(UTC),
    )
    share.both += person.id in {before.reviewer for before in entry.saw}
    if entry.reviewers > 1 and not entry.saw:
        queue.apply_progress(
            _VERDICTS,
            partition,
            offset,
            entry.job_id,
            part="second",
            need="reviewer",
            barred=(person.id,),
            saw=(verdict,),
        )
        return
    queue.apply_close(
        _VERDICTS,
        partition,
        offset,
        entry.job_id,
        verdict_id=verdict.verdict_id,
        by=person.id,
        made=[(entry.decision_id, f"made-{entry.decision_id}")],
    )
    share.resolved.append(entry.job_id)


def _look_for_urgent(
    queue: ReviewQueue, queues: Mapping[str, Queue], people: Sequence[Person]
) -> int:
    """Count the normal jobs that are handed out while an urgent one is open to the same person."""
    passed_over = 0
    for person in people:
        opens = open_to(person, queues)
        waiting = queue.buckets("urgent")
        urgent = any(bucket.admits(person, opens, ceiling(person)) for bucket in waiting)
        for entry in queue.claim(person, queues, budget=BUDGET).entries:
            passed_over += urgent and entry.lane != "urgent"
            queue.hold(entry.job_id, person.id, entry.lease, "release")
    return passed_over
