"""Redis: the review queue as a view of the log. The only file that imports the client.

What the keys mean stands at the head of `queue.lua`; each command is one script, so it happens whole or not at all.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any, Final, Literal
from urllib.parse import quote, unquote

from redis import Redis
from redis.exceptions import NoScriptError, RedisError

from pipeline.care import Budget
from pipeline.errors import ProjectionLostError
from pipeline.messages import ReviewEvent, Ticket, Verdict
from pipeline.review import (
    AGEING_PER_HOUR,
    LANES,
    NEAR,
    Bucket,
    Job,
    Lane,
    Person,
    bands,
    differ,
    open_to,
)
from policies.queues import Queue

PREFIX: Final = "weir:{review}:"
#: What the console keeps beside the queue; a rebuild of the queue leaves it alone.
_SHELF: Final = "weir:console:"
#: How long a closed job's marker is kept: longer than the log, so that no redelivery reopens it.
KEEP: Final = timedelta(days=180)
#: How long a closed job's ticket is kept, so that its verdict can be withdrawn.
WITHDRAWABLE: Final = timedelta(days=7)
#: How many tickets one script call projects; a claim waits no longer than such a call.
RUN: Final = 16
#: How many jobs that agree in one band of a perceptual hash are looked at.
_CANDIDATES: Final = 64
#: How many keys are deleted at once.
_BATCH: Final = 1000

#: The fields of a job that an entry is made of; `queue_claim.lua` wants the first two to be these.
_FIELDS: Final = (
    *("decision", "part", "queue", "lane", "language", "widened", "policies", "weight", "need"),
    *("barred", "born", "due", "reviewers", "reason", "state", "lease", "holder", "until"),
    *("opened", "late", "raised", "saw", "hashes"),
)

#: What another file may catch without importing the client.
Unavailable = RedisError

State = Literal["open", "leased", "pending", "sending", "sent"]


def safe(person: str) -> str:
    """Return the person's id as it stands in keys and buckets."""
    return quote(person, safe="@.-_")


def pack(ticket: Ticket) -> bytes:
    """Return a ticket as Redis keeps it."""
    return zlib.compress(ticket.model_dump_json(exclude_defaults=True).encode(), 1)


def member_of(ticket: Ticket) -> str | None:
    """Return what a ticket answers in a job: an appeal, or the decision that it supersedes."""
    return ticket.appeal.appeal_id if ticket.appeal is not None else ticket.decision.supersedes


def unpack(blob: bytes) -> Ticket:
    """Return the ticket that `pack` packed."""
    return Ticket.model_validate_json(zlib.decompress(blob))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One unclosed job as it stands in Redis."""

    job_id: str
    decision_id: str
    queue: str
    lane: str
    language: str
    widened: bool
    policies: tuple[str, ...]
    weight: int
    need: str
    barred: tuple[str, ...]
    born: datetime
    due: datetime
    reviewers: int
    part: str
    reason: str
    state: State
    lease: int
    holder: str | None
    until: datetime | None
    opened: datetime | None
    late: bool
    raised: bool
    saw: tuple[Verdict, ...] = ()
    hashes: tuple[str, ...] = ()
    ticket: Ticket | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """What a closed job left behind."""

    how: str  # verdict, superseded
    queue: str  # in which it was closed
    verdict_id: str
    by: str
    made: tuple[str, ...]
    knew: tuple[str, ...]  # who closed it, and whoever was barred from it before
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """What a claim got, and why it is not more: empty, budget, break, holds, rebuild, or nothing."""

    entries: tuple[Entry, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """One queue in numbers."""

    queue: str
    open: int = 0
    leased: int = 0
    waiting: int = 0  # verdicts on their way
    late: int = 0
    oldest_s: float = 0.0
    arrived: int = 0  # in the last full hour and the running one
    closed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Projected:
    """One ticket of the log, with the job that it opens."""

    offset: int
    ticket: Ticket
    job: Job | None


@dataclass(slots=True)
class ReviewQueue:
    """The review queue in Redis."""

    url: str
    _redis: Any = field(init=False, repr=False)
    _scripts: dict[str, str] = field(init=False, repr=False, default_factory=dict)
    _digests: dict[str, str] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._redis = Redis.from_url(
            self.url, socket_timeout=30, socket_connect_timeout=5, health_check_interval=30
        )
        folder = files("pipeline")
        head = (folder / "queue.lua").read_text()
        for name in ("begin", "project", "claim", "hold", "ripe", "verdict", "review", "tick"):
            body = (folder / f"queue_{name}.lua").read_text()
            self._scripts[name] = head + body
            self._digests[name] = hashlib.sha1(self._scripts[name].encode()).hexdigest()  # noqa: S324 -- Redis names scripts so

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def configure(self, queues: Mapping[str, Queue]) -> None:
        """Tell Redis each queue's lane, due time, where its overdue jobs go, and whether it is sealed."""
        rows = {
            name: f"{q.lane}|{_ms(q.due)}|{(q.escalate_to or '') if q.overdue == 'escalate' else ''}"
            f"|{int(q.sealed)}"
            for name, q in queues.items()
        }
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(f"{PREFIX}queues")
            pipe.hset(f"{PREFIX}queues", mapping=rows)
            pipe.execute()

    # The projection.

    def offsets(self) -> dict[tuple[str, int], int]:
        """Return the next offset to project of every partition that the projection knows."""
        found = {}
        for name, offset in self._redis.hgetall(f"{PREFIX}offsets").items():
            topic, _, partition = name.decode().rpartition("/")
            found[topic, int(partition)] = int(offset)
        return found

    def begin(self, topic: str, partition: int, offset: int, *, end: int = 0) -> int:
        """Let the projection of a partition begin at `offset` if it never began; return where it stands.

        Where it begins and the log goes on to `end`, nothing is handed out until `catch_up`.
        """
        return int(self._run("begin", f"{topic}/{partition}", offset, end)[0])

    def begin_all(self, ends: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
        """Let every partition begin with its first record, whose log ends there; return where each stands.

        It happens in one, so that no claim meets a queue of which one half has begun.
        """
        rows: list[str | int] = []
        for (topic, partition), end in ends.items():
            rows += [f"{topic}/{partition}", 0, end]
        return dict(zip(ends, map(int, self._run("begin", *rows)), strict=True))

    def behind(self) -> frozenset[tuple[str, int]]:
        """Return the partitions whose past has not been applied since Redis was emptied."""
        found = set()
        for name in self._redis.smembers(f"{PREFIX}behind"):
            topic, _, partition = name.decode().rpartition("/")
            found.add((topic, int(partition)))
        return frozenset(found)

    def catch_up(self, topic: str, partition: int) -> None:
        """Let the past of a partition be applied: once it is so for all, jobs are handed out again."""
        self._redis.srem(f"{PREFIX}behind", f"{topic}/{partition}")

    def stand(self, topic: str, partition: int, offset: int) -> None:
        """Let the projection of a partition stand at `offset`: what lies before it has been applied."""
        self._redis.hset(f"{PREFIX}offsets", f"{topic}/{partition}", offset)

    def project(
        self, topic: str, partition: int, *, start: int, end: int, tickets: Sequence[Projected]
    ) -> int:
        """Project tickets; afterwards the partition stands at `end`. Return how many jobs were opened.

        Raises:
            ProjectionLostError: Redis does not stand at `start`: it was emptied.
        """
        opened = 0
        runs = [tickets[i : i + RUN] for i in range(0, len(tickets), RUN)] or [()]
        at = start
        for run in runs:
            to = end if run is runs[-1] else run[-1].offset + 1
            rows: list[Any] = []
            for item in run:
                rows += [item.offset, json.dumps(_projection(item)), pack(item.ticket)]
            done = self._run(
                "project",
                f"{topic}/{partition}",
                at,
                to,
                _ms(KEEP),
                _ms(WITHDRAWABLE),
                AGEING_PER_HOUR,
                *rows,
            )
            opened += int(done)
            at = to
        return opened

    def apply_nothing(
        self,
        topic: str,
        partition: int,
        offset: int,
        job_id: str,
        *,
        reopen: bool = False,
        met: tuple[str, str] | None = None,
    ) -> None:
        """Pass over a verdict of the log that does not count; `reopen` returns its job to the queue.

        `met` is who answered an item of known answers, and its decision: they do not get it again.
        """
        person, decision = met or ("", "")
        rest = (int(reopen), safe(person), decision)
        self._verdict(topic, partition, offset, job_id, "ignore", *rest)

    def apply_progress(
        self,
        topic: str,
        partition: int,
        offset: int,
        job_id: str,
        *,
        part: str,
        need: str,
        barred: Iterable[str],
        saw: Iterable[Verdict],
    ) -> None:
        """Apply a verdict of the log after which somebody else has to look."""
        named = ",".join(safe(person) for person in barred)
        seen = list(saw)
        verdicts = json.dumps([v.model_dump(mode="json", exclude_defaults=True) for v in seen])
        by = ",".join(safe(v.reviewer) for v in seen)
        what = ("progress", part, need, named, verdicts, by)
        self._verdict(topic, partition, offset, job_id, *what)

    def apply_close(
        self,
        topic: str,
        partition: int,
        offset: int,
        job_id: str,
        *,
        verdict_id: str,
        by: str,
        made: Iterable[tuple[str, str]],
    ) -> None:
        """Apply a verdict of the log that answers a job: `made` are its decisions and those that follow."""
        pairs = json.dumps([list(pair) for pair in made])
        self._verdict(topic, partition, offset, job_id, "close", verdict_id, safe(by), pairs)

    def apply_review(
        self,
        topic: str,
        partition: int,
        offset: int,
        event: ReviewEvent,
        *,
        budget: Budget,
        early: bool,
        content: str = "",
    ) -> bool:
        """Apply what a person did, from the log or, early, by the one who wrote it; return whether it was its turn.

        `content` is what the job is about: a sealed queue seals it.
        """
        rest = {
            "queue": event.queue or "",
            "decision": event.decision_id,
            "bucket": str(self._golden_bucket(event)) if event.kind == "golden" else "",
            "ms": _stamp(event.at),
            "seconds": event.seconds or 0,
            "weight": event.weight or 0,
            "names": [content, *event.media],
            "keep_ms": _ms(KEEP),
            "day": event.at.astimezone(UTC).date().isoformat(),
            "in_a_row": budget.in_a_row,
            "rest_ms": _ms(budget.rest),
            "note": json.dumps(
                {"by": event.by, "at": event.at.isoformat(), "kind": event.kind,
                 "reason": event.reason, "note": event.note}
            ) if event.note or event.kind in {"skipped", "moved", "escalated"} else "",
        }  # fmt: skip
        return bool(
            self._run(
                "review",
                f"{topic}/{partition}",
                offset,
                int(early),
                event.kind,
                event.job_id,
                safe(event.by),
                "" if event.lease is None else event.lease,
                json.dumps(rest),
            )
        )

    def _golden_bucket(self, event: ReviewEvent) -> Bucket | None:
        """Return where a job like this one would wait; nobody who answered it is asked again."""
        ticket, marker = self.ticket(event.decision_id), self.marker(event.job_id)
        if ticket is None:
            return None
        decision = ticket.decision
        return Bucket(
            queue=event.queue or "",
            language=(decision.content.language or "") if ticket.event.text else "",
            policies=tuple(dict.fromkeys(answer.policy for answer in event.answers)),
            weight=event.weight or 1,
            barred=() if marker is None else marker.knew,
        )

    def forget(self) -> None:
        """Delete everything of the queue, to be made again from the log."""
        batch: list[bytes] = []
        for name in self._redis.scan_iter(match=f"{PREFIX}*", count=_BATCH):
            batch.append(name)
            if len(batch) == _BATCH:
                self._redis.unlink(*batch)
                batch.clear()
        if batch:
            self._redis.unlink(*batch)

    # What people do.

    def claim(
        self,
        person: Person,
        queues: Mapping[str, Queue],
        *,
        count: int = 1,
        lease: timedelta = timedelta(minutes=2),
        budget: Budget,
        at_most: int = 20,
        only: str = "",
        golden: str = "",
    ) -> Handed:
        """Hand out the jobs that stand first among those that this person may take.

        With `golden`, the id for it, one job of known answers is mixed in, where there is one that they have not met.
        """
        who = {
            "id": safe(person.id),
            "lead": person.lead,
            "queues": open_to(person, queues),
            "languages": person.languages,
            "opt_outs": person.opt_outs,
            "policies": False if person.policies is None else person.policies,
        }
        care = {
            "day": datetime.now(UTC).date().isoformat(),
            "points": budget.a_day,
            "mild": budget.mild,
        }
        reason, rows = self._run(
            "claim",
            json.dumps(who),
            count,
            _ms(lease),
            json.dumps(care),
            at_most,
            only,
            golden,
            *_FIELDS,
        )
        return Handed(
            entries=tuple(_entry(row[0].decode(), row[1], row[2]) for row in rows),
            reason=reason.decode(),
        )

    def hold(
        self, job_id: str, person: str, lease: int | None, what: str, *args: str | int
    ) -> datetime | None:
        """Do something with a lease (`queue_hold.lua` says what); return its end, or None where it is lost."""
        answer = self._run(
            "hold", job_id, safe(person), "" if lease is None else lease, what, *args
        )
        if answer[0] != b"OK":
            return None
        return _time(answer[1]) or datetime.now(UTC)

    def drop(self, entry: Entry) -> None:
        """Close a job that somebody holds, for nobody to answer; an item of known answers is mixed in no more."""
        self.hold(
            entry.job_id, entry.holder or "", entry.lease, "drop", _ms(KEEP), _ms(WITHDRAWABLE)
        )
        if entry.part == "golden":
            self._redis.hdel(f"{PREFIX}goldens:{entry.queue}", entry.decision_id)
            self._redis.delete(f"{PREFIX}golden:{entry.decision_id}")

    def ripe(self, count: int = 100, again: timedelta = timedelta(seconds=30)) -> list[Verdict]:
        """Return the verdicts whose time to be undone is over."""
        rows = self._run("ripe", count, _ms(again))
        return [Verdict.model_validate_json(row[3]) for row in rows]

    def pending(self, job_id: str) -> Verdict | None:
        """Return the verdict of this job that can still be undone."""
        body = self._redis.get(f"{PREFIX}verdict:{job_id}")
        return None if body is None else Verdict.model_validate_json(body)

    def tick(self) -> int:
        """Do what time alone does to jobs: leases that end, languages that widen, jobs that fall overdue."""
        return int(self._run("tick"))

    # Looking.

    def entry(self, name: str, *, ticket: bool = True) -> Entry | None:
        """Return an unclosed job by its id or by one of its decisions."""
        for job_id in dict.fromkeys((name, self.job_id(name))):
            fields = self._redis.hmget(f"{PREFIX}job:{job_id}", _FIELDS)
            if fields[0] is not None:
                kind = "golden" if fields[1] == b"golden" else "ticket"
                blob_key = f"{PREFIX}{kind}:{fields[0].decode()}"
                blob = self._redis.get(blob_key) if ticket else None
                return _entry(job_id, fields, blob)
        return None

    def job_id(self, decision_id: str) -> str:
        """Return the id of the job that answers a decision."""
        found = self._redis.get(f"{PREFIX}of:{decision_id}")
        return decision_id if found is None else found.decode()

    def marker(self, name: str) -> Marker | None:
        """Return what a closed job left behind, by its id or one of its decisions."""
        for job_id in dict.fromkeys((name, self.job_id(name))):
            body = self._redis.get(f"{PREFIX}closed:{job_id}")
            if body is not None:
                said = json.loads(body)
                return Marker(
                    how=said["how"],
                    queue=said["queue"],
                    verdict_id=said["verdict"],
                    by=unquote(said["by"]),
                    made=tuple(said["made"] or ()),
                    knew=tuple(unquote(person) for person in said["knew"].split(",") if person),
                    at=datetime.fromtimestamp(said["at"] / 1000, UTC),
                )
        return None

    def members(self, job_id: str) -> list[Ticket]:
        """Return the tickets of all decisions that a job answers."""
        names = sorted(self._redis.smembers(f"{PREFIX}members:{job_id}"))
        return [t for name in names if (t := self.ticket(name.decode())) is not None]

    def ticket(self, decision_id: str) -> Ticket | None:
        """Return the ticket of a decision, as long as it is kept."""
        blob = self._redis.get(f"{PREFIX}ticket:{decision_id}")
        return None if blob is None else unpack(blob)

    def notes(self, job_id: str) -> list[dict[str, Any]]:
        """Return what people noted on a job, the oldest first."""
        return [json.loads(note) for note in self._redis.lrange(f"{PREFIX}notes:{job_id}", 0, -1)]

    def held(self, person: str) -> list[Entry]:
        """Return the jobs that this person holds, the first that they took first, without their tickets.

        They are no more than a claim lets one person hold.
        """
        names = [name.decode() for name in self._redis.smembers(f"{PREFIX}held:{safe(person)}")]
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hmget(f"{PREFIX}job:{name}", _FIELDS)
            rows = zip(names, pipe.execute(), strict=True)
        found = [_entry(name, row, None) for name, row in rows if row[0] is not None]
        return sorted(found, key=lambda entry: entry.lease)

    def alike(self, entry: Entry, *, within: int = NEAR) -> list[Entry]:
        """Return open jobs of the same queue whose media look like those of this one, the most alike first.

        They come without their tickets. Where very many look alike, these are some of them.
        """
        keys = [f"{PREFIX}alike:{entry.queue}:{band}" for band in bands(entry.hashes)]
        with self._redis.pipeline(transaction=False) as pipe:
            for name in keys:
                pipe.srandmember(name, _CANDIDATES)
            names = {name.decode() for found in pipe.execute() for name in found}
        ordered = sorted(names - {entry.job_id})
        with self._redis.pipeline(transaction=False) as pipe:
            for name in ordered:
                pipe.hmget(f"{PREFIX}job:{name}", _FIELDS)
            rows = zip(ordered, pipe.execute(), strict=True)
        others = [_entry(name, row, None) for name, row in rows if row[0] is not None]
        found = [
            (differ(entry.hashes, other.hashes), other.born, other.job_id, other)
            for other in others
            if other.state == "open"
        ]
        return [other for apart, *_, other in sorted(found) if apart <= within]

    def sealed(self, ticket: Ticket) -> str | None:
        """Return the sealed queue in which this content, or a medium of it, lies or lay; None: in none."""
        names = (f"{PREFIX}sealed:{name}" for name in _names(ticket))
        found = next((queue for queue in self._redis.mget(list(names)) if queue is not None), None)
        return None if found is None else str(found.decode())

    def paused(self) -> dict[str, str]:
        """Return the queues of which nothing is handed out, and who said so."""
        found = self._redis.hgetall(f"{PREFIX}paused").items()
        said = {queue.decode(): by.decode().partition("|")[2] for queue, by in found}
        return {queue: unquote(by) for queue, by in said.items() if by}

    def exposure(self, person: str) -> dict[str, str]:
        """Return what this person has borne, and until when they rest: day, points, run, last, rest, own."""
        found = self._redis.hgetall(f"{PREFIX}care:{safe(person)}")
        return {name.decode(): value.decode() for name, value in found.items()}

    def peek(self, queue: str | None = None, *, count: int = 20) -> list[Entry]:
        """Return the open jobs that stand first, without taking them."""
        found: list[Entry] = []
        for lane in LANES:
            wanted = count - len(found)
            names = self._heads(lane, queue, wanted)
            with self._redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.zrange(f"{PREFIX}bucket:{name}", 0, wanted - 1, withscores=True)
                rows = [(score, job.decode()) for run in pipe.execute() for job, score in run]
            for _, job_id in sorted(rows)[:wanted]:
                if (entry := self.entry(job_id)) is not None:
                    found.append(entry)
        return found

    def buckets(self, lane: Lane) -> list[Bucket]:
        """Return what waits in a lane, by who may take it, the first job's bucket first."""
        return [Bucket.parse(name) for name in self._heads(lane, None, None)]

    def memory_bytes(self) -> int:
        """Return how much memory Redis uses."""
        return int(self._redis.info("memory")["used_memory"])

    def depths(self, queues: Iterable[str]) -> list[Depth]:
        """Return every queue in numbers."""
        self.tick()
        seconds, micros = self._redis.time()
        now = seconds + micros / 1e6
        hour = int(now // 3600)
        counts = _counts(self._redis.hgetall(f"{PREFIX}counts"))
        flows = [_counts(self._redis.hgetall(f"{PREFIX}flow:{h}")) for h in (hour - 1, hour)]
        names = list(queues)
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.zrange(f"{PREFIX}queue:{name}", 0, 0, withscores=True)
            firsts = pipe.execute()
        found = []
        for name, first in zip(names, firsts, strict=True):
            found.append(
                Depth(
                    queue=name,
                    open=counts.get(f"{name}|open", 0),
                    leased=counts.get(f"{name}|leased", 0),
                    waiting=sum(
                        counts.get(f"{name}|{s}", 0) for s in ("pending", "sending", "sent")
                    ),
                    late=counts.get(f"{name}|late", 0),
                    oldest_s=round(now - first[0][1] / 1000, 1) if first else 0.0,
                    arrived=sum(f.get(f"{name}|arrived", 0) for f in flows),
                    closed=sum(f.get(f"{name}|closed", 0) for f in flows),
                )
            )
        return found

    def _heads(self, lane: Lane, queue: str | None, count: int | None) -> list[str]:
        """Return the buckets that stand first, and all that stand where the last of them does; without a count all."""
        found = self._redis.zrange(f"{PREFIX}tops:{lane}", 0, -1, withscores=True)
        tops = [
            (name, key)
            for group, key in found
            if queue in {None, (name := group.decode()).partition("|")[0]}
        ]
        # The first so many jobs lie in the first so many buckets of the first so many groups, or where these stand.
        names = [f"{PREFIX}heads:{lane}:{group}" for group, _ in _first(tops, count)]
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.zrange(name, 0, -1 if count is None else count - 1, withscores=True)
            rows = [row for run in pipe.execute() for row in run]
        if count is not None and len(rows) >= count > 0:
            last = sorted(score for _, score in rows)[count - 1]
            with self._redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.zrangebyscore(name, last, last, withscores=True)
                rows = list(dict.fromkeys((*rows, *(row for run in pipe.execute() for row in run))))
        ordered = sorted(((name.decode(), key) for name, key in rows), key=lambda row: row[::-1])
        return [name for name, _ in _first(ordered, count)]

    def _verdict(
        self, topic: str, partition: int, offset: int, job_id: str, *what: str | int
    ) -> None:
        place = f"{topic}/{partition}"
        self._run("verdict", place, offset, job_id, _ms(KEEP), _ms(WITHDRAWABLE), *what)

    def _run(self, name: str, *args: Any) -> Any:
        try:
            answer = self._redis.evalsha(self._digests[name], 1, f"{PREFIX}offsets", *args)
        except NoScriptError:
            # A Redis that was emptied has forgotten the scripts, too.
            answer = self._redis.eval(self._scripts[name], 1, f"{PREFIX}offsets", *args)
        if answer == b"LOST":
            raise ProjectionLostError
        return answer


def _projection(item: Projected) -> dict[str, Any]:
    decision = item.ticket.decision
    appeal = member_of(item.ticket)
    opens_appeal = decision.review is not None and decision.review.reason == "appeal"
    return {
        # An appeal's job is its own: that of the decision was closed long ago.
        "decision": appeal if opens_appeal else decision.decision_id,
        "names": _names(item.ticket),
        "supersedes": None if opens_appeal else appeal,
        "person": decision.decided_by == "person" and not opens_appeal,
        "verdict": decision.verdict_id or "",
        "by": safe(decision.reviewer or ""),
        "job": None if item.job is None else _fields(item.job),
    }


def _names(ticket: Ticket) -> list[str]:
    """Return by what it is known that something of this lies in a sealed queue."""
    return [ticket.decision.content_id, *ticket.decision.content.media]


def _fields(job: Job) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "queue": job.queue,
        "language": job.language,
        "policies": ",".join(job.policies),
        "weight": job.weight,
        "need": job.need,
        "barred": ",".join(safe(person) for person in job.barred),
        "harm": job.harm,
        "born": _stamp(job.born),
        "due": _stamp(job.due),
        "reviewers": job.reviewers,
        "part": job.part,
        "reason": job.reason,
        "print": job.print,
        "hashes": ",".join(job.hashes),
    }
    if job.widens is not None:
        fields["widens"] = _stamp(job.widens)
    return fields


def _entry(job_id: str, raw: Sequence[bytes], blob: bytes | None) -> Entry:
    said = dict(zip(_FIELDS, [value.decode() for value in raw], strict=True))
    return Entry(
        job_id=job_id,
        decision_id=said["decision"],
        queue=said["queue"],
        lane=said["lane"],
        language=said["language"].lstrip("*"),
        widened=said["widened"] == "1",
        policies=tuple(filter(None, said["policies"].split(","))),
        weight=int(said["weight"]),
        need=said["need"],
        barred=tuple(unquote(person) for person in said["barred"].split(",") if person),
        born=_moment(said["born"]),
        due=_moment(said["due"]),
        reviewers=int(said["reviewers"]),
        part=said["part"],
        reason=said["reason"],
        state=said["state"],  # type: ignore[arg-type]  # the scripts write no other
        lease=int(said["lease"]),
        holder=unquote(said["holder"]) or None,
        until=_time(said["until"]),
        opened=_time(said["opened"]),
        late=said["late"] == "1",
        raised=said["raised"] == "1",
        saw=tuple(Verdict.model_validate(v) for v in json.loads(said["saw"])),
        hashes=tuple(filter(None, said["hashes"].split(","))),
        ticket=None if blob is None else unpack(blob),
    )


def bucket_of(entry: Entry) -> Bucket:
    """Return what decides who may take a job."""
    language = f"*{entry.language}" if entry.widened else entry.language
    return Bucket(
        queue=entry.queue,
        language=language,
        policies=entry.policies,
        weight=entry.weight,
        need="lead" if entry.need == "lead" else "reviewer",
        barred=entry.barred,
    )


def _first(ordered: Sequence[tuple[str, float]], count: int | None) -> list[tuple[str, float]]:
    """Return the first so many names with their keys, and all that have the key of the last of them."""
    if count is None or len(ordered) <= count:
        return list(ordered)
    return [row for row in ordered if count > 0 and row[1] <= ordered[count - 1][1]]


def _counts(raw: Mapping[bytes, bytes]) -> dict[str, int]:
    return {name.decode(): int(value) for name, value in raw.items()}


def _ms(span: timedelta) -> int:
    return int(span.total_seconds() * 1000)


def _stamp(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _time(text: str | bytes) -> datetime | None:
    return _moment(text) if text else None


def _moment(text: str | bytes) -> datetime:
    return datetime.fromtimestamp(float(text) / 1000, UTC)


def server(url: str) -> dict[str, str]:
    """Return what a Redis says about itself (version, eviction policy, …), or in `error` why it does not.

    For `weir doctor`, which must say what is wrong before anything else uses the connection.
    """
    client = Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5)
    try:
        found = client.info()
    except RedisError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        client.close()
    return {str(name): str(value) for name, value in dict(found).items()}


@dataclass(slots=True)
class Shelf:
    """Small texts that live for a time, for the console: sessions, limits, what people set for themselves."""

    url: str
    _redis: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._redis = Redis.from_url(self.url, socket_timeout=5, socket_connect_timeout=5)

    def put(self, name: str, value: str, *, for_s: int | None = None) -> None:
        """Keep a text under a name, for so long or for good."""
        self._redis.set(_SHELF + name, value, ex=for_s)

    def put_first(self, name: str, value: str) -> str:
        """Keep a text where there is none under this name; return the one that is there afterwards."""
        self._redis.set(_SHELF + name, value, nx=True)
        return self.get(name) or value

    def get(self, name: str) -> str | None:
        """Return the text of this name."""
        found = self._redis.get(_SHELF + name)
        return None if found is None else str(found.decode())

    def take(self, name: str) -> str | None:
        """Return the text of this name and forget it, for one of all who ask."""
        found = self._redis.getdel(_SHELF + name)
        return None if found is None else str(found.decode())

    def drop(self, name: str) -> None:
        """Forget a text."""
        self._redis.delete(_SHELF + name)

    def count(self, name: str, *, within_s: int) -> int:
        """Count one more under this name; return how many there are since the first within this time."""
        with self._redis.pipeline(transaction=True) as pipe:
            # EXPIRE takes NX only from Redis 7 on; SET takes it always.
            pipe.set(_SHELF + name, 0, ex=within_s, nx=True)
            pipe.incr(_SHELF + name)
            return int(pipe.execute()[1])

    def tally(self, name: str, more: int, *, for_s: int) -> int | None:
        """Add to the count of this name and return it; None: Redis is away, and nothing was added."""
        try:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.incrby(_SHELF + name, more)
                pipe.expire(_SHELF + name, for_s)
                return int(pipe.execute()[0])
        except RedisError:
            return None

    def several(self, prefix: str, names: Iterable[str]) -> dict[str, str]:
        """Return the texts of these names, as far as there are any, by what follows the prefix."""
        wanted = list(names)
        values = self._redis.mget([f"{_SHELF}{prefix}{n}" for n in wanted]) if wanted else []
        found = zip(wanted, values, strict=True)
        return {name: value.decode() for name, value in found if value is not None}

    def file(self, drawer: str, name: str, value: str) -> None:
        """Keep a text in a drawer, whose whole content can be looked through."""
        self._redis.hset(_SHELF + drawer, name, value)

    def push(self, names: Iterable[str], value: str, *, keep: int, for_s: int) -> None:
        """Put a text before the others of each of these names; the oldest beyond so many are forgotten."""
        with self._redis.pipeline(transaction=True) as pipe:
            for name in names:
                pipe.lrem(_SHELF + name, 0, value)
                pipe.lpush(_SHELF + name, value)
                pipe.ltrim(_SHELF + name, 0, keep - 1)
                pipe.expire(_SHELF + name, for_s)
            pipe.execute()

    def pushed(self, names: Iterable[str]) -> list[str]:
        """Return the texts that were put under these names, each once, the newest of each name first."""
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.lrange(_SHELF + name, 0, -1)
            found = [value.decode() for values in pipe.execute() for value in values]
        return list(dict.fromkeys(found))

    def drawer(self, drawer: str) -> dict[str, str]:
        """Return everything in a drawer."""
        found = self._redis.hgetall(_SHELF + drawer)
        return {name.decode(): value.decode() for name, value in found.items()}

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
