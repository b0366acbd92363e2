"""The queue in Redis agrees with a plain model of it, whatever people and time do in whatever order."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pipeline.care import Budget, Reveal, borne
from pipeline.messages import (
    Decision,
    Review,
    ReviewEvent,
    Source,
    Ticket,
    UploadEvent,
    Verdict,
    VerdictAnswer,
)
from pipeline.redis import Projected, ReviewQueue
from pipeline.review import (
    AGEING_PER_HOUR,
    NEAR,
    RAISED,
    Bucket,
    Job,
    Need,
    Person,
    differ,
    key,
    open_to,
)
from policies.queues import Queue
from policies.schema import Action

QUEUES = {
    "threats": Queue(lane="urgent"),
    "minor_safety": Queue(lane="urgent", sealed=True),
    "weapons": Queue(),
    "graphic": Queue(skills=("graphic",)),
    "slow": Queue(overdue="escalate", escalate_to="weapons"),
}
PEOPLE = [
    Person(id="ann", languages=("en",)),
    Person(id="bob", languages=("de",), skills=("graphic",), opt_outs=("hate",)),
    Person(id="cy,|%", languages=("en", "de"), roles=frozenset({"lead"}), sealed=("minor_safety",)),
    Person(id="dee", policies=("weapons",), queues=("weapons", "threats")),
]
TOPIC = "moderation.tickets"
LONG = timedelta(hours=1)
DEAD = timedelta(0)
START = datetime.now(UTC).replace(microsecond=0)
#: Perceptual hashes: two that differ in four bits, and one that is like neither.
LOOK, LIKE_IT, FAR = "00ff13ff00ff5cff", "80ff13ff04ff5cfc", "ff0013ffa5a55c00"
#: Small enough that people use their day up, and that some need a break.
BUDGET = Budget(a_day=30, in_a_row=100, mild=3)


@dataclass
class Known:
    """One unclosed job as the model knows it."""

    id: str
    job: Job
    key: float
    members: set[str] = field(default_factory=set)
    state: str = "open"
    holder: str = ""
    lease: int = 0
    dead: bool = False  # its lease ends at once
    late: bool = False
    raised: bool = False
    part: str = "first"
    saw: tuple[Verdict, ...] = ()
    gave: set[str] = field(default_factory=set)  # who gave it away, and may have it again one day
    lifts: bool = False  # that day has come

    @property
    def bucket(self) -> Bucket:
        """Return what decides who may take it."""
        job = self.job
        return Bucket(
            queue=job.queue,
            language=job.language,
            policies=job.policies,
            weight=job.weight,
            need=job.need,
            barred=job.barred,
        )


def ticket(job: Job, *, supersedes: str | None = None, person: str = "") -> Ticket:
    """Return a ticket that says as little as it may."""
    decision = Decision(
        decision_id=job.decision_id,
        source=Source(topic="media.uploads", partition=0, offset=1),
        event_id=job.decision_id,
        content_id=f"c-{job.decision_id}",
        action=Action.HOLD,
        review=Review(queue=job.queue, priority=job.harm, due_at=None, reason="band"),
        policy_set="sha256:x",
        decided_by="person" if person else "pipeline",
        reviewer=person or None,
        verdict_id=f"v-{job.decision_id}" if person else None,
        decided_at=START,
        supersedes=supersedes,
    )
    return Ticket(
        decision=decision,
        event=UploadEvent(event_id=job.decision_id, content_id=f"c-{job.decision_id}"),
    )


jobs = st.builds(
    Job,
    decision_id=st.just(""),
    queue=st.sampled_from(sorted(QUEUES)),
    language=st.sampled_from(["", "en", "de", "fr"]),
    policies=st.sets(st.sampled_from(["weapons", "hate", "adult"]), min_size=1, max_size=2).map(
        lambda names: tuple(sorted(names))
    ),
    weight=st.sampled_from([1, 3, 10, 30]),
    harm=st.floats(0, 200).map(lambda x: round(x, 4)),
    reason=st.just("band"),
    born=st.integers(0, 50).map(lambda h: START - timedelta(hours=h)),
    due=st.just(START),
    reviewers=st.just(1),
    need=st.sampled_from(["reviewer", "reviewer", "reviewer", "lead"]),
    barred=st.sets(st.sampled_from([p.id for p in PEOPLE]), max_size=2).map(
        lambda names: tuple(sorted(names))
    ),
    print=st.sampled_from(["", "", "", "same"]),
    hashes=st.sampled_from([(), (LOOK,), (LIKE_IT,), (FAR, LIKE_IT), (FAR,)]),
)
#: A job falls due an hour before now, or in two days; half its time is over, or not.
dues = st.sampled_from([-1, 48])


class Machine(RuleBasedStateMachine):
    """Does the same to Redis and to the model."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.queue = ReviewQueue(self.url)
        self.queue.forget()
        self.queue.configure(QUEUES)
        self.queue.begin(TOPIC, 0, 0)
        self.queue.begin("moderation.verdicts", 0, 0)
        self.queue.begin("moderation.reviews", 0, 0)
        self.open: dict[str, Known] = {}
        self.job_ids: dict[str, str] = {}
        self.closed: dict[str, str] = {}
        self.prints: dict[str, str] = {}
        self.offset = 0
        self.verdicts = 0
        self.reviews = 0
        self.made = 0
        self.sent: list[Projected] = []
        self.seen: dict[str, list[Reveal]] = {person.id: [] for person in PEOPLE}
        self.noted: dict[str, list[str]] = {}
        self.answered: dict[str, tuple[str, Job]] = {}
        self.knew: dict[str, set[str]] = {}
        self.goldens: dict[str, Bucket] = {}
        self.met: set[tuple[str, str]] = set()
        self.paused: dict[str, str] = {}
        self.resting: set[str] = set()
        self.sealed: dict[str, str] = {}

    def teardown(self) -> None:
        """Let go of the connection."""
        self.queue.close()

    # What the model does.

    def pass_time(self) -> None:
        """Do what time alone does."""
        for known in self.open.values():
            if known.state == "leased" and known.dead:
                self.reopen(known)
            if known.lifts:
                known.lifts = False
                left = tuple(who for who in known.job.barred if who not in known.gave)
                known.job = replace(known.job, barred=left)
            job = known.job
            if job.language and not job.language.startswith("*"):
                widens = job.born + (known.job.due - job.born) / 2
                if widens <= datetime.now(UTC):
                    known.job = replace(job, language="*" + job.language)
            if known.job.due <= datetime.now(UTC) and not known.late:
                known.late = True
                target = QUEUES[known.job.queue].escalate_to
                if target:
                    known.job = replace(known.job, queue=target)
                elif not known.raised:
                    known.raised = True
                    known.key -= RAISED

    def reopen(self, known: Known) -> None:
        """Return a job to its queue."""
        known.state, known.holder, known.dead = "open", "", False

    def ceiling(self, person: Person) -> float:
        """Return the heaviest weight that this person may be handed."""
        if person.id in self.resting:
            return 0
        return borne(self.seen[person.id], BUDGET).ceiling(BUDGET, datetime.now(UTC))

    def open_to(self, person: Person) -> set[str]:
        """Return the queues of which this person may be handed something now."""
        return set(open_to(person, QUEUES)) - self.paused.keys()

    def best(self, person: Person, only: str | None = None) -> Known | None:
        """Return the job that this person should get."""
        queues = self.open_to(person)
        ceiling = self.ceiling(person)
        waiting = [
            k
            for k in self.open.values()
            if k.state == "open"
            and only in {None, k.id}
            and k.bucket.admits(person, queues, int(min(ceiling, 10**9)))
        ]
        return min(
            waiting,
            key=lambda k: (QUEUES[k.job.queue].lane != "urgent", k.key, str(k.bucket), k.id),
            default=None,
        )

    def project(self, job: Job, *, supersedes: str | None = None, person: str = "") -> None:
        """Send a ticket through the real projection."""
        item = Projected(
            offset=self.offset,
            ticket=ticket(job, supersedes=supersedes, person=person),
            job=job if not person else None,
        )
        self.sent.append(item)
        self.queue.project(TOPIC, 0, start=self.offset, end=self.offset + 1, tickets=[item])
        self.offset += 1

    # What happens.

    @initialize(some=st.lists(st.tuples(jobs, dues), min_size=6, max_size=12))
    def arrive(self, some: list[tuple[Job, int]]) -> None:
        """There are jobs from the beginning."""
        for job, due in some:
            self.arrives(job, due)

    @rule(some=st.lists(st.tuples(jobs, dues), min_size=1, max_size=3))
    def arrive_more(self, some: list[tuple[Job, int]]) -> None:
        """More jobs come."""
        for job, due in some:
            self.arrives(job, due)

    def arrives(self, job: Job, due: int) -> None:
        """A new ticket opens a job, or joins the one of the same fingerprint."""
        self.made += 1
        job = replace(job, decision_id=f"d{self.made}", due=START + timedelta(hours=due))
        self.project(job)
        self.seals(job.queue, job.decision_id)
        shared = self.prints.get(job.print)
        if job.print and shared in self.open:
            self.open[shared].members.add(job.decision_id)
            self.job_ids[job.decision_id] = shared
            return
        self.open[job.decision_id] = Known(
            id=job.decision_id,
            job=job,
            key=key(job.harm, job.born),
            members={job.decision_id},
        )
        self.job_ids[job.decision_id] = job.decision_id
        if job.print:
            self.prints[job.print] = job.decision_id

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def comes_again(self, data: st.DataObject) -> None:
        """A ticket that was projected before changes nothing, at its old offset or at a new one."""
        old = data.draw(st.sampled_from(self.sent))
        if old.ticket.decision.decided_by == "person" or old.ticket.decision.supersedes:
            return
        self.queue.project(
            TOPIC,
            0,
            start=self.offset,
            end=self.offset + 1,
            tickets=[replace(old, offset=self.offset)],
        )
        self.offset += 1

    @precondition(lambda self: self.open)
    @rule(data=st.data(), job=jobs, needed=st.booleans())
    def is_superseded(self, data: st.DataObject, job: Job, needed: bool) -> None:  # noqa: FBT001
        """A newer decision takes its predecessor's place, or closes a job that nobody needs or holds."""
        self.pass_time()
        known = self.open[data.draw(st.sampled_from(sorted(self.open)))]
        old = data.draw(st.sampled_from(sorted(known.members)))
        self.made += 1
        job = replace(job, decision_id=f"d{self.made}", queue=known.job.queue, due=START, print="")
        self.queue.tick()
        item = Projected(
            offset=self.offset,
            ticket=ticket(job, supersedes=old),
            job=job if needed else None,
        )
        self.queue.project(TOPIC, 0, start=self.offset, end=self.offset + 1, tickets=[item])
        self.offset += 1
        if needed:
            self.seals(known.job.queue, job.decision_id)
        if needed or known.state != "open":
            known.members.remove(old)
            known.members.add(job.decision_id)
            if needed:
                known.job = replace(known.job, hashes=job.hashes)
            self.job_ids[job.decision_id] = known.id
            if needed and known.state == "open":
                known.job = replace(
                    known.job, policies=job.policies, weight=job.weight, harm=job.harm
                )
                known.key = key(job.harm, known.job.born) - (RAISED if known.raised else 0)
        elif len(known.members) > 1:
            known.members.remove(old)
        else:
            self.end(known)

    def seals(self, queue: str, decision: str) -> None:
        """Let what comes into a sealed queue be sealed in the model."""
        if QUEUES[queue].sealed:
            self.sealed[f"c-{decision}"] = queue

    def gives_away(self, known: Known, person: str, *, ago: bool = False) -> None:
        """Pass somebody over in the model; long ago: it is lifted already, for whoever gave it away."""
        if person in known.job.barred and person not in known.gave:
            return
        barred = tuple(sorted({*known.job.barred, person}))
        known.job = replace(known.job, barred=barred)
        known.gave.add(person)
        known.lifts = ago

    def end(self, known: Known) -> None:
        """Close a job in the model."""
        del self.open[known.id]
        self.closed[known.id] = known.job.queue

    @rule(
        data=st.data(),
        person=st.sampled_from(PEOPLE),
        count=st.integers(1, 3),
        dead=st.booleans(),
        at_most=st.sampled_from([2, 1000]),
        named=st.sampled_from([False, False, False, True]),
    )
    def claims(
        self,
        data: st.DataObject,
        person: Person,
        count: int,
        dead: bool,  # noqa: FBT001
        at_most: int,
        named: bool,  # noqa: FBT001
    ) -> None:
        """A claim hands out exactly what stands first among what the person may take and bear."""
        self.pass_time()
        only = data.draw(st.sampled_from(sorted(self.open))) if named and self.open else None
        handed = self.queue.claim(
            person,
            QUEUES,
            count=count,
            lease=DEAD if dead else LONG,
            budget=BUDGET,
            at_most=at_most,
            only=only or "",
        )
        holding = {"leased", "pending", "sending"}
        holds = sum(k.holder == person.id and k.state in holding for k in self.open.values())
        ceiling = self.ceiling(person)
        reason = "budget" if ceiling == BUDGET.mild else "empty"
        wanted: list[Known] = []
        while len(wanted) < count:
            if ceiling == 0:
                reason = "break"
                break
            if holds + len(wanted) >= at_most:
                reason = "holds"
                break
            best = self.best(person, only)
            if best is None:
                break
            best.state, best.holder, best.dead = "leased", person.id, dead
            wanted.append(best)
        got = {e.job_id for e in handed.entries}
        assert [e.job_id for e in handed.entries] == [k.id for k in wanted], got
        assert handed.reason == ("" if len(wanted) == count else reason)
        leases = [e.lease for e in handed.entries]
        assert leases == sorted(set(leases))
        for entry, known in zip(handed.entries, wanted, strict=True):
            assert entry.holder == person.id
            assert entry.ticket is not None
            assert entry.ticket.decision.decision_id in known.members
            assert entry.part == known.part
            assert [v.verdict_id for v in entry.saw] == [v.verdict_id for v in known.saw]
            known.lease = entry.lease

    @rule(
        person=st.sampled_from(PEOPLE),
        seconds=st.sampled_from([5.0, 60.0]),
        weight=st.sampled_from([1, 10, 30]),
        early=st.booleans(),
    )
    def is_seen(self, person: Person, seconds: float, weight: int, early: bool) -> None:  # noqa: FBT001
        """What people see clearly adds up, once, be it early or from the log."""
        at = datetime.now(UTC).replace(microsecond=0)
        event = ReviewEvent(
            event_id=f"e{self.reviews}",
            kind="revealed",
            job_id="any",
            decision_id="any",
            by=person.id,
            at=at,
            seconds=seconds,
            weight=weight,
        )
        for turn in (True, False) if early else (False,):
            self.queue.apply_review(
                "moderation.reviews", 0, self.reviews, event, budget=BUDGET, early=turn
            )
        self.reviews += 1
        self.seen[person.id].append(Reveal(at=at, seconds=seconds, weight=weight))
        known, found = borne(self.seen[person.id], BUDGET), self.queue.exposure(person.id)
        assert float(found["points"]) == pytest.approx(known.points)
        assert float(found["run"]) == pytest.approx(known.run)
        assert ("rest" in found) == (known.rest_until is not None)

    @precondition(lambda self: self.answered)
    @rule(data=st.data(), weight=st.sampled_from([1, 10]))
    def becomes_known(self, data: st.DataObject, weight: int) -> None:
        """A lead says which answers to a closed job are right."""
        job_id = data.draw(st.sampled_from(sorted(self.answered)))
        decision, job = self.answered[job_id]
        event = ReviewEvent(
            event_id=f"e{self.reviews}",
            kind="golden",
            job_id=job_id,
            decision_id=decision,
            by="cy,|%",
            at=datetime.now(UTC),
            queue=job.queue,
            weight=weight,
            answers=tuple(VerdictAnswer(policy=p, answer="allowed") for p in job.policies),
        )
        self.queue.apply_review(
            "moderation.reviews", 0, self.reviews, event, budget=BUDGET, early=False
        )
        self.reviews += 1
        self.goldens[decision] = Bucket(
            queue=job.queue,
            policies=job.policies,
            weight=weight,
            barred=tuple(sorted(self.knew[job_id])),
        )

    @precondition(lambda self: self.goldens)
    @rule(person=st.sampled_from(PEOPLE), released=st.booleans())
    def meets_a_known_one(self, person: Person, released: bool) -> None:  # noqa: FBT001
        """A known item comes to each person once, to nobody who may not have it, and goes without a trace."""
        self.pass_time()
        queues, ceiling = self.open_to(person), self.ceiling(person)
        fit = {
            decision
            for decision, bucket in self.goldens.items()
            if bucket.admits(person, queues, int(min(ceiling, 10**9)))
            and (person.id, decision) not in self.met
        }
        if not fit or ceiling == 0:
            return
        self.made += 1
        golden = f"g{self.made}"
        handed = self.queue.claim(
            person, QUEUES, lease=LONG, budget=BUDGET, at_most=1000, golden=golden
        )
        [entry] = handed.entries
        assert (entry.job_id, entry.part) == (golden, "golden")
        assert entry.decision_id in fit
        self.met.add((person.id, entry.decision_id))
        what = "release" if released else "sent"
        assert self.queue.hold(golden, person.id, entry.lease, what) is not None
        if not released:
            self.queue.apply_nothing("moderation.verdicts", 0, self.verdicts, golden)
            self.verdicts += 1
        assert self.queue.entry(golden) is None

    @precondition(lambda self: self.open)
    @rule(data=st.data(), reopen=st.booleans())
    def verdict_counts_not(self, data: st.DataObject, reopen: bool) -> None:  # noqa: FBT001
        """A verdict that does not count leaves its job, or returns it to the queue if it waited for it."""
        self.pass_time()
        known = self.open[data.draw(st.sampled_from(sorted(self.open)))]
        self.queue.tick()
        self.queue.apply_nothing("moderation.verdicts", 0, self.verdicts, known.id, reopen=reopen)
        # Read once more, it changes nothing.
        self.queue.apply_nothing("moderation.verdicts", 0, self.verdicts, known.id, reopen=True)
        self.verdicts += 1
        if reopen and known.state in {"sent", "sending"}:
            self.reopen(known)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def can_be_taken_back(self, data: st.DataObject) -> None:
        """A verdict that waits can be read until it is on its way, and afterwards, until it has arrived."""
        self.pass_time()
        known = self.open[data.draw(st.sampled_from(sorted(self.open)))]
        waits = known.state in {"pending", "sending"}
        assert (self.queue.pending(known.id) is not None) == waits

    def held(self, data: st.DataObject) -> Known | None:
        """Return some job that somebody holds."""
        held = [k for k in self.open.values() if k.state == "leased"]
        return data.draw(st.sampled_from(held)) if held else None

    @rule(
        data=st.data(), what=st.sampled_from(["check", "renew", "release", "pend", "undo", "sent"])
    )
    def holds(self, data: st.DataObject, what: str) -> None:
        """Only the holder of the living lease can do something with it, and only what its state allows."""
        if not self.open:
            return
        known = self.open[data.draw(st.sampled_from(sorted(self.open)))]
        mine = data.draw(st.booleans())
        self.pass_time()
        args: dict[str, tuple[str | int, ...]] = {
            "renew": (3_600_000,),
            "pend": (
                Verdict(
                    verdict_id="v", job_id=known.id, decision_id="d", reviewer="r", lease=1,
                    decided_at=START,
                ).model_dump_json(),
                0,
            ),
            "undo": (3_600_000,),
        }  # fmt: skip
        lease = known.lease if mine else known.lease + 1_000_000
        end = self.queue.hold(known.id, known.holder or "ann", lease, what, *args.get(what, ()))
        allowed = {
            "check": {"leased"}, "renew": {"leased"}, "release": {"leased"}, "pend": {"leased"},
            "undo": {"pending"}, "sent": {"leased", "sending"},
        }  # fmt: skip
        if not mine or known.state not in allowed[what]:
            assert end is None
            return
        assert end is not None
        if what == "release":
            self.reopen(known)
        elif what == "pend":
            known.state, known.dead = "pending", False
        elif what == "undo":
            known.state = "leased"
        elif what == "sent":
            known.state = "sent"
        elif what == "renew":
            known.dead = False

    @rule()
    def verdicts_ripen(self) -> None:
        """A verdict whose time is over goes out and cannot be undone any more."""
        self.pass_time()
        ripe = {v.job_id for v in self.queue.ripe(again=timedelta(hours=1))}
        assert ripe == {k.id for k in self.open.values() if k.state == "pending"}
        for known in self.open.values():
            if known.state == "pending":
                known.state = "sending"

    @precondition(lambda self: self.open)
    @rule(
        data=st.data(),
        kind=st.sampled_from(["skipped", "moved", "escalated", "released", "noted"]),
        to=st.sampled_from(sorted(QUEUES)),
        early=st.booleans(),
        ago=st.booleans(),
    )
    def people_act(self, data: st.DataObject, kind: str, to: str, early: bool, ago: bool) -> None:  # noqa: FBT001
        """What people do is applied once, be it early by its writer or later from the log."""
        self.pass_time()
        held = [name for name, one in self.open.items() if one.state == "leased"]
        names = st.sampled_from(sorted(self.open))
        known = self.open[data.draw(st.sampled_from(held) | names if held else names)]
        self.queue.tick()
        person = known.holder or "ann"
        leased = known.state == "leased"
        ago = ago and kind == "skipped"
        event = ReviewEvent(
            event_id=f"e{self.reviews}",
            kind=kind,
            job_id=known.id,
            decision_id=known.id,
            by=person,
            at=datetime.now(UTC) - timedelta(days=3 if ago else 0),
            lease=known.lease if leased else None,
            queue=to,
            note="seen" if kind == "noted" else "",
        )
        for _ in range(2 if early else 1):
            applied = self.queue.apply_review(
                "moderation.reviews", 0, self.reviews, event,
                budget=Budget(), early=early, content=f"c-{known.id}",
            )  # fmt: skip
            assert applied == (_ == 0)
        if early:
            assert not self.queue.apply_review(
                "moderation.reviews", 0, self.reviews, event, budget=Budget(), early=False
            )
        self.reviews += 1
        if kind in {"noted", "moved", "escalated", "skipped"}:
            self.noted.setdefault(known.id, []).append(kind)
        if kind != "noted" and leased:
            self.reopen(known)
        if kind in {"moved", "escalated"}:
            known.job = replace(known.job, queue=to)
            self.seals(to, known.id)
        if kind == "skipped" or (kind in {"moved", "escalated"} and leased):
            self.gives_away(known, person, ago=ago)

    @rule(
        queue=st.sampled_from(sorted(QUEUES)),
        kind=st.sampled_from(["paused", "resumed", "resumed"]),
        early=st.booleans(),
    )
    def is_paused(self, queue: str, kind: str, early: bool) -> None:  # noqa: FBT001
        """A queue is paused, or goes on: nothing of it is handed out meanwhile."""
        event = ReviewEvent(event_id="e", kind=kind, by="cy,|%", at=datetime.now(UTC), queue=queue)
        self.alone(event, early=early)
        self.paused.pop(queue, None)
        if kind == "paused":
            self.paused[queue] = "cy,|%"
        assert self.queue.paused() == self.paused

    @rule(
        person=st.sampled_from(PEOPLE),
        kind=st.sampled_from(["rested", "returned", "returned"]),
        over=st.booleans(),
        early=st.booleans(),
    )
    def takes_a_break(self, person: Person, kind: str, over: bool, early: bool) -> None:  # noqa: FBT001
        """Somebody rests, or goes on: nothing is handed to them until they do, or the time is over."""
        at = datetime.now(UTC) - timedelta(hours=2 if over else 0)
        event = ReviewEvent(event_id="e", kind=kind, by=person.id, at=at, seconds=3600)
        self.alone(event, early=early)
        self.resting.discard(person.id)
        if kind == "rested" and not over:
            self.resting.add(person.id)
        handed = self.queue.claim(person, {}, budget=BUDGET)
        assert (handed.reason == "break") == (self.ceiling(person) == 0)

    def alone(self, event: ReviewEvent, *, early: bool) -> None:
        """Apply what is about no job, also early by whoever wrote it."""
        for turn in (True, False) if early else (False,):
            applied = self.queue.apply_review(
                "moderation.reviews", 0, self.reviews, event, budget=BUDGET, early=turn
            )
            assert applied == (turn == early)
        self.reviews += 1

    @precondition(lambda self: self.open)
    @rule(data=st.data(), differ=st.booleans())
    def verdict_counts(self, data: st.DataObject, differ: bool) -> None:  # noqa: FBT001
        """A verdict that does not decide lets the job wait for somebody else, or for a lead."""
        self.pass_time()
        known = self.open[data.draw(st.sampled_from(sorted(self.open)))]
        self.queue.tick()
        barred = tuple(sorted({*known.job.barred, "ann"}))
        part = "adjudication" if differ else "second"
        need: Need = "lead" if differ else "reviewer"
        said = Verdict(
            verdict_id=f"v{self.verdicts}", job_id=known.id, decision_id=known.id, reviewer="ann",
            lease=1, decided_at=START,
        )  # fmt: skip
        saw = (*known.saw, said)
        self.queue.apply_progress(
            "moderation.verdicts", 0, self.verdicts, known.id,
            part=part, need=need, barred=barred, saw=saw,
        )  # fmt: skip
        self.verdicts += 1
        self.reopen(known)
        known.part, known.saw = part, saw
        known.job = replace(known.job, barred=barred, need=need)
        known.gave.discard("ann")

    @precondition(lambda self: self.open)
    @rule(data=st.data(), by_log=st.booleans(), some=st.booleans())
    def is_answered(self, data: st.DataObject, by_log: bool, some: bool) -> None:  # noqa: FBT001
        """A verdict closes its job, except for members that it does not answer."""
        self.pass_time()
        known = self.open[data.draw(st.sampled_from(sorted(self.open)))]
        self.queue.tick()
        answered = sorted(known.members)
        if some and len(answered) > 1:
            answered = answered[:1]
        if by_log:
            for member in answered:
                self.project(
                    replace(known.job, decision_id=f"p-{member}"), supersedes=member, person="ann"
                )
        else:
            self.queue.apply_close(
                "moderation.verdicts", 0, self.verdicts, known.id,
                verdict_id="v", by="ann", made=[(m, f"p-{m}") for m in answered],
            )  # fmt: skip
            self.verdicts += 1
        known.members -= set(answered)
        if not known.members:
            self.answered[known.id] = (answered[-1], known.job)
            self.knew[known.id] = {*known.job.barred, *known.gave, "ann"}
            self.end(known)
        elif not by_log:
            self.reopen(known)
            known.part, known.saw = "first", ()
            known.job = replace(known.job, need="reviewer")

    @precondition(lambda self: self.answered)
    @rule(data=st.data(), again=st.booleans())
    def is_withdrawn(self, data: st.DataObject, again: bool) -> None:  # noqa: FBT001
        """A verdict in the place of the one that closed a job leaves it closed, and is what its marker names."""
        job_id = data.draw(st.sampled_from(sorted(self.answered)))
        member, job = self.answered[job_id]
        verdict = f"w{self.verdicts}"
        before = [d.closed for d in self.queue.depths(QUEUES)]
        # Its members' decisions come one by one, and what is read again changes nothing.
        made = [(f"p-{member}", f"{verdict}-1"), (f"p-{member}", f"{verdict}-2")]
        for pairs in (made, made) if again else (made,):
            self.queue.apply_close(
                "moderation.verdicts", 0, self.verdicts, job_id,
                verdict_id=verdict, by="bob", made=pairs,
            )  # fmt: skip
        self.verdicts += 1
        marker = self.queue.marker(job_id)
        assert marker is not None
        assert (marker.how, marker.verdict_id, marker.by) == ("verdict", verdict, "bob")
        assert marker.made == (f"{verdict}-1", f"{verdict}-2")
        self.knew[job_id].add("bob")
        assert set(marker.knew) == self.knew[job_id]
        assert marker.queue == job.queue
        assert self.queue.marker(f"{verdict}-1") == marker
        assert [d.closed for d in self.queue.depths(QUEUES)] == before
        self.project(
            replace(job, decision_id=f"{verdict}-1"), supersedes=f"p-{member}", person="bob"
        )
        assert self.queue.entry(job_id) is None

    # What must always hold.

    @invariant()
    def counts_agree(self) -> None:
        """Every queue counts what the model counts, and time has passed for both."""
        self.pass_time()
        for depth in self.queue.depths(QUEUES):
            here = [k for k in self.open.values() if k.job.queue == depth.queue]
            assert depth.open == sum(k.state == "open" for k in here)
            assert depth.leased == sum(k.state == "leased" for k in here)
            assert depth.waiting == sum(k.state in {"pending", "sending", "sent"} for k in here)
            assert depth.late == sum(k.late for k in here)

    @invariant()
    def order_agrees(self) -> None:
        """What can be seen without taking it stands in the model's order, urgent jobs first."""
        seen = [e.job_id for e in self.queue.peek(count=1000)]
        for name in QUEUES:
            few = [e.job_id for e in self.queue.peek(name, count=2)]
            assert few == [i for i in seen if self.open[i].job.queue == name][:2]
        waiting = [k for k in self.open.values() if k.state == "open"]
        waiting.sort(key=lambda k: (QUEUES[k.job.queue].lane != "urgent", k.key, k.id))
        assert seen == [k.id for k in waiting]

    @invariant()
    def nobody_is_barred_for_nothing(self) -> None:
        """Who must not have a job, or not yet, and what is sealed, is so in both."""
        self.pass_time()
        self.queue.tick()
        for known in self.open.values():
            entry = self.queue.entry(known.id, ticket=False)
            assert entry is not None
            assert set(entry.barred) == set(known.job.barred)
            assert self.queue.sealed(ticket(known.job)) == self.sealed.get(f"c-{known.id}")

    @rule()
    def nothing_is_lost(self) -> None:
        """Every decision leads to its unclosed job, and every closed job has its marker."""
        for known in self.open.values():
            entry = self.queue.entry(known.id)
            assert entry is not None
            assert entry.state == known.state
            assert {t.decision.decision_id for t in self.queue.members(known.id)} == known.members
            assert [n["kind"] for n in self.queue.notes(known.id)] == self.noted.get(known.id, [])
            assert {e.job_id for e in self.queue.alike(entry)} == {
                other.id
                for other in self.open.values()
                if other.id != known.id
                and other.state == "open"
                and other.job.queue == known.job.queue
                and differ(other.job.hashes, known.job.hashes) <= NEAR
            }
        for closed, queue in self.closed.items():
            assert self.queue.entry(closed) is None
            marker = self.queue.marker(closed)
            assert marker is not None
            assert marker.queue == queue


@pytest.fixture
def machine(redis_url: str) -> type[Machine]:
    """Return the machine, bound to an empty Redis."""
    Machine.url = redis_url
    return Machine


def test_few_that_stand_first_are_the_first_of_all(redis_url: str) -> None:
    """Where many stand equally high, those that are asked for are the same ones however many that are."""
    queue = ReviewQueue(redis_url)
    queue.configure(QUEUES)
    queue.begin(TOPIC, 0, 0)
    some = [
        Job(
            decision_id=f"d{number}",
            queue="weapons",
            language=("", "en", "de")[number % 3],
            policies=(("hate", "weapons")[number % 2],),
            weight=(30, 10, 3, 1)[number % 4],
            harm=1.0,
            reason="band",
            born=START,
            due=START + timedelta(hours=9),
        )
        for number in (3, 1, 4, 9, 5, 2, 6, 8, 7)
    ]
    tickets = [Projected(offset=i, ticket=ticket(job), job=job) for i, job in enumerate(some)]
    queue.project(TOPIC, 0, start=0, end=len(some), tickets=tickets)

    found = [[e.job_id for e in queue.peek("weapons", count=n)] for n in range(len(some) + 1)]

    assert found == [[f"d{number}" for number in range(1, n + 1)] for n in range(len(some) + 1)]
    assert [e.job_id for e in queue.peek("slow", count=3)] == []
    queue.close()


def test_a_job_is_shown_by_what_it_still_answers(redis_url: str) -> None:
    """Where the first of several decisions of one job needs nobody any more, it is handed out with another."""
    queue = ReviewQueue(redis_url)
    queue.configure(QUEUES)
    queue.begin(TOPIC, 0, 0)
    shared = Job(
        decision_id="",
        queue="weapons",
        language="",
        policies=("weapons",),
        weight=1,
        harm=1.0,
        reason="band",
        born=START,
        due=START + timedelta(hours=9),
        print="same",
    )
    one, two, three = (replace(shared, decision_id=f"d{n}") for n in (1, 2, 3))
    told = (
        Projected(offset=0, ticket=ticket(one), job=one),
        Projected(offset=1, ticket=ticket(two), job=two),
        Projected(offset=2, ticket=ticket(three, supersedes="d1"), job=None),
    )
    queue.project(TOPIC, 0, start=0, end=3, tickets=told)

    [entry] = queue.claim(PEOPLE[0], QUEUES, budget=BUDGET).entries

    assert entry.ticket is not None
    assert entry.ticket.decision.decision_id == entry.decision_id == "d2"
    queue.close()


def test_queue_agrees_with_model(machine: type[Machine]) -> None:
    """Whatever happens in whatever order, the queue in Redis is what the plain model says."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=20,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert AGEING_PER_HOUR > 0
