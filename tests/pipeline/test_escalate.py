"""The people's side on a real Kafka and a real Redis: tickets become jobs, verdicts become decisions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline import kafka
from pipeline.appeals import Appeals
from pipeline.care import Budget
from pipeline.config import Kafka
from pipeline.desk import Answers, Desk, Rules
from pipeline.errors import LeaseLostError, RefusedError
from pipeline.escalate import Escalate, assemble
from pipeline.lookback import Lookback
from pipeline.messages import (
    APPEALS,
    DECISIONS,
    REVIEWS,
    TICKETS,
    VERDICTS,
    Appeal,
    AppealOutcome,
    Content,
    Decision,
    Finding,
    Review,
    Source,
    Ticket,
    UploadEvent,
    Verdict,
    VerdictAnswer,
)
from pipeline.overturned import offers, take
from pipeline.records import Mark, Outgoing, Partition
from pipeline.redis import Entry, ReviewQueue
from pipeline.review import Person, in_force
from pipeline.verdicts import verdict_record
from pipeline.watchdog import Watchdog
from policies.cases import read_cases
from policies.queues import Queue
from policies.schema import Action, Policy, PolicySet, Severity, Status
from workers.folder import FolderStore

QUEUES = {
    "weapons": Queue(due=timedelta(hours=4)),
    "graphic": Queue(skills=("graphic",)),
    "other": Queue(),
    "appeals": Queue(),
    "threat_to_life": Queue(lane="urgent"),
    "minor_safety": Queue(lane="urgent", sealed=True),
}
ANN = Person(id="ann", languages=("en",))
BOB = Person(id="bob", languages=("en",))
LEA = Person(id="lea", languages=("en",), roles=frozenset({"reviewer", "lead"}))
#: Named for the sealed queue.
NIA = replace(LEA, id="nia", sealed=("minor_safety",))


def policy(name: str, **fields: Any) -> Policy:
    """Return a live policy of one clause."""
    return Policy.model_validate(
        {
            "policy": name,
            "title": name.title(),
            "version": 1,
            "status": "live",
            "question": "Does it break the rule?",
            "clauses": {"W1": {"text": "Sells one."}},
            "severity": "high",
            "action": "remove",
            "bands": {"review": 0.3, "act": 0.9},
            "review": {"queue": "weapons", "meanwhile": "hold"},
            **fields,
        }
    )


POLICIES = PolicySet(
    (
        policy("weapons"),
        policy("picture", reads=["image"], label="picture"),
        policy("severe", review={"queue": "weapons", "meanwhile": "hold", "approval": True}),
    )
)


def ticket(
    name: str,
    *,
    asked: str = "weapons",
    supersedes: str | None = None,
    needed: bool = True,
    **review: Any,
) -> Ticket:
    """Return the ticket of an upload that some policy wants a person to see."""
    event = UploadEvent.model_validate(
        {"event_id": name, "content_id": f"c-{name}", "media": [{"uri": "a.jpg"}], "text": "x"}
    )
    found = Finding(
        policy=asked,
        policy_version=1,
        status=Status.LIVE,
        severity=Severity.HIGH,
        question=asked,
        question_digest="sha256:q",
        score=0.8,
        probability=0.7,
        calibration="fresh",
        answered_by="sha256:m",
        outcome="review",
    )
    others = [
        found.model_copy(
            update={"policy": p.policy, "question": p.policy, "probability": 0.1, "outcome": "none"}
        )
        for p in POLICIES
        if p.policy != asked
    ]
    said = {
        "queue": "weapons",
        "priority": 7.0,
        "due_at": None,
        "reason": "band",
        "questions": (asked,),
        **review,
    }
    decision = Decision(
        decision_id=name,
        source=Source(topic="media.uploads", partition=0, offset=1),
        event_id=name,
        content_id=f"c-{name}",
        content=Content(media=("sha256:same",), text="sha256:t", language="en"),
        action=Action.HOLD,
        review=Review(**said) if needed else None,
        findings=(found, *others),
        policy_set=POLICIES.digest,
        decided_at=datetime.now(UTC),
        supersedes=supersedes,
    )
    return Ticket(decision=decision, event=event)


def says(answer: str, policy: str = "weapons") -> Answers:
    """Return a person's answer to one question."""
    clause = "W1" if answer == "violates" else None
    said = VerdictAnswer(policy=policy, clause=clause, answer=answer)
    return Answers(answers=(said,))


@dataclass
class House:
    """All parts of the people's side, and what stands on the topics."""

    settings: Kafka
    url: str
    open: list[Callable[[], None]] = field(default_factory=list)
    producer: kafka.Producer = field(init=False)
    queue: ReviewQueue = field(init=False)
    desk: Desk = field(init=False)
    escalate: Escalate = field(init=False)

    def __post_init__(self) -> None:
        self.producer = kafka.Producer(self.settings)
        self.queue = ReviewQueue(self.url)
        self.desk = Desk(
            queue=self.queue,
            log=self.producer,
            policies=lambda: POLICIES,
            queues=QUEUES,
            rules=Rules(undo_for=timedelta(0), budget=Budget(a_day=20, in_a_row=1000)),
        )
        self.escalate = self.start("one")
        self.open += [self.producer.close, self.queue.close]

    def start(self, instance: str) -> Escalate:
        """Start an escalate."""
        watchdog = Watchdog(limit_s=60)
        escalate = assemble(
            self.settings,
            self.url,
            lambda: POLICIES,
            QUEUES,
            instance=instance,
            watchdog=watchdog,
        )
        self.open += [escalate.close, watchdog.close]
        return escalate

    def appeals(self) -> Appeals:
        """Start the taking in of appeals."""
        watchdog = Watchdog(limit_s=60)
        appeals = Appeals(
            link=kafka.Member(self.settings, [APPEALS], group="appeals", instance="one"),
            reader=kafka.Follower(self.settings),
            queue=ReviewQueue(self.url),
            policies=lambda: POLICIES,
            watchdog=watchdog,
        )
        self.open += [appeals.close, watchdog.close]
        return appeals

    def appeal(self, name: str, about: Decision) -> None:
        """Let an author object, and the objection become a job."""
        # Its upload is on no topic here.
        self.until(lambda: self.queue.ticket(about.decision_id))
        said = Appeal(
            appeal_id=name,
            decision_id=about.decision_id,
            content_id=about.content_id,
            text="It is a toy.",
        )
        key = about.content_id.encode()
        self.producer.place(
            [Outgoing(topic=APPEALS, key=key, value=said.model_dump_json().encode())]
        )
        appeals = self.appeals()
        while self.queue.entry(name) is None:
            appeals.turn()
            self.escalate.turn()
        self.opened(name)

    def arrive(self, *tickets: Ticket) -> None:
        """Write tickets as the pipeline does."""
        self.producer.place(
            [
                Outgoing(
                    topic=TICKETS,
                    key=t.decision.content_id.encode(),
                    value=t.model_dump_json().encode(),
                )
                for t in tickets
            ]
        )

    def until(self, done: Callable[[], Any]) -> Any:
        """Let escalate work until something is so."""
        deadline = datetime.now(UTC) + timedelta(seconds=120)
        while not (found := done()):
            self.escalate.turn()
            assert datetime.now(UTC) < deadline
        return found

    def opened(self, name: str) -> Entry:
        """Let escalate work until this job is open."""

        def is_open() -> Entry | None:
            entry = self.queue.entry(name)
            return entry if entry is not None and entry.state == "open" else None

        found: Entry = self.until(is_open)
        return found

    def closed(self, name: str) -> None:
        """Let escalate work until this job is closed."""
        self.until(lambda: self.queue.entry(name) is None and self.queue.marker(name))

    def answer(self, person: Person, name: str, said: Answers) -> Verdict:
        """Claim a job and answer it."""
        [entry] = self.desk.claim(person, only=name).entries
        return self.desk.resolve(person, entry.job_id, entry.lease, said, at_once=True)

    def made(self, count: int, content_id: str | None = None) -> list[Decision]:
        """Let escalate work until there are so many decisions by people, and return them."""
        found = self.until(lambda: d if len(d := self.decisions(content_id)) >= count else None)
        assert len(found) == count
        return list(found)

    def decisions(self, content_id: str | None = None) -> list[Decision]:
        """Return the decisions by people that can be seen on the log; a commit may need a moment to be seen."""
        found = [
            Decision.model_validate_json(record.value or b"")
            for record in kafka.read(self.settings, [DECISIONS])
        ]
        return [d for d in found if content_id in {None, d.content_id}]

    def lose_redis(self) -> None:
        """Empty Redis."""
        self.queue.forget()


@pytest.fixture
def house(kafka_settings: Kafka, redis_url: str) -> Iterator[House]:
    """Return all parts, put together."""
    built = House(kafka_settings, redis_url)
    yield built
    for close in built.open:
        close()


def test_verdict_becomes_the_decision_in_force(house: House) -> None:
    """A person's answer goes through the policy file, supersedes the pipeline's decision and closes the job."""
    first = ticket("d1")
    house.arrive(first)
    entry = house.opened("d1")
    assert entry.due - entry.born == timedelta(hours=4)

    verdict = house.answer(ANN, "d1", says("violates"))
    house.closed("d1")

    [decision] = house.made(1, "c-d1")
    assert decision.action is Action.REMOVE
    assert decision.decided_by == "person"
    assert decision.reviewer == "ann"
    assert decision.verdict_id == verdict.verdict_id
    assert decision.supersedes == "d1"
    assert decision.labels == ("weapons",)
    assert in_force([first.decision, decision]) == decision
    newer = first.decision.model_copy(update={"decision_id": "d9", "content": Content()})
    assert in_force([first.decision, decision, newer]) == newer


def test_first_verdict_on_the_log_wins(house: House) -> None:
    """Of two verdicts on one job only the first makes a decision, even when escalate dies between commit and Redis."""
    house.arrive(ticket("d1"))
    entry = house.opened("d1")
    verdicts = [
        Verdict(
            verdict_id=f"v{n}",
            job_id="d1",
            decision_id="d1",
            reviewer=f"r{n}",
            lease=entry.lease,
            answers=says(answer).answers,
            decided_at=datetime.now(UTC),
        )
        for n, answer in enumerate(["allowed", "violates"])
    ]
    house.producer.place([verdict_record(v, "c-d1") for v in verdicts])
    house.closed("d1")
    end = kafka.ends(house.settings, [VERDICTS])
    house.until(
        lambda: all(house.queue.offsets()[p.topic, p.number] == at for p, at in end.items())
    )

    assert [d.verdict_id for d in house.made(1)] == ["v0"]


def test_pending_verdict_waits_and_can_be_undone(house: House) -> None:
    """A verdict waits under its lease, is taken back by undo, and goes out by itself otherwise."""
    house.arrive(ticket("d1"))
    house.opened("d1")
    patient = Desk(
        queue=house.queue,
        log=house.producer,
        policies=lambda: POLICIES,
        queues=QUEUES,
        rules=Rules(undo_for=timedelta(hours=1), lease=timedelta(milliseconds=1)),
    )
    [entry] = house.desk.claim(ANN).entries
    patient.resolve(ANN, "d1", entry.lease, says("violates"))
    house.queue.tick()
    waiting = house.queue.entry("d1")
    assert waiting is not None
    assert waiting.state == "pending"
    house.desk.undo(ANN, "d1", entry.lease)
    with pytest.raises(LeaseLostError):
        house.desk.undo(ANN, "d1", entry.lease)

    house.desk.resolve(ANN, "d1", entry.lease, says("allowed"))
    house.closed("d1")

    assert [d.action for d in house.made(1)] == [Action.ALLOW]


def test_two_who_disagree_are_adjudicated(house: House) -> None:
    """Two reviewers who disagree leave the job to a lead who is neither of them; nobody answers twice."""
    house.arrive(ticket("d1", reviewers=2))
    house.opened("d1")
    house.answer(ANN, "d1", says("violates"))
    second = house.until(lambda: (e := house.queue.entry("d1")) and e.part == "second" and e)
    assert second.saw[0].reviewer == "ann"
    assert not house.desk.claim(ANN).entries
    house.answer(BOB, "d1", says("allowed"))
    house.until(lambda: (e := house.queue.entry("d1")) and e.part == "adjudication")
    assert not house.desk.claim(BOB).entries
    assert house.decisions() == []

    house.answer(LEA, "d1", says("violates"))
    house.closed("d1")

    assert [d.reviewer for d in house.made(1)] == ["lea"]


def test_two_who_agree_decide(house: House) -> None:
    """Two reviewers who say the same make one decision."""
    house.arrive(ticket("d1", reviewers=2))
    house.opened("d1")
    house.answer(ANN, "d1", says("allowed"))
    house.until(lambda: (e := house.queue.entry("d1")) and e.part == "second")
    house.answer(BOB, "d1", says("allowed"))
    house.closed("d1")

    assert [d.action for d in house.made(1)] == [Action.ALLOW]


def test_severe_action_waits_for_approval(house: House) -> None:
    """Where a policy wants approval, a violation acts only after a lead has said so too."""
    house.arrive(ticket("d1", asked="severe"))
    house.opened("d1")
    house.answer(ANN, "d1", says("violates", "severe"))
    house.until(lambda: (e := house.queue.entry("d1")) and e.part == "approval")
    assert not house.desk.claim(BOB).entries
    house.answer(LEA, "d1", says("violates", "severe"))
    house.closed("d1")

    assert [(d.action, d.reviewer) for d in house.made(1)] == [(Action.REMOVE, "lea")]


def test_same_bytes_are_one_job(house: House) -> None:
    """Uploads of the same bytes under a policy that reads media alone share a job, and each gets its decision."""
    house.arrive(*(ticket(f"d{n}", asked="picture") for n in range(3)), ticket("other"))
    house.until(lambda: len(house.queue.peek()) == 2)
    house.until(lambda: len({house.queue.job_id(f"d{n}") for n in range(3)}) == 1)
    job = house.queue.job_id("d0")
    house.answer(ANN, job, says("violates", "picture"))
    house.closed("d0")

    found = house.made(3)
    assert sorted(str(d.supersedes) for d in found) == ["d0", "d1", "d2"]
    assert len({d.decision_id for d in found}) == 3
    assert {d.action for d in found} == {Action.REMOVE}


def test_superseding_decision_updates_or_closes_its_job(house: House) -> None:
    """A decision that supersedes closes an unclaimed job that nobody needs, and leaves a claimed one."""
    house.arrive(ticket("a1"), ticket("b1"))
    house.opened("a1")
    house.opened("b1")
    [held] = house.desk.claim(ANN, only="b1").entries
    house.arrive(
        ticket("a2", supersedes="a1", needed=False), ticket("b2", supersedes="b1", needed=False)
    )
    house.closed("a1")
    house.until(lambda: (e := house.queue.entry("b1")) and e.decision_id == "b2")
    house.desk.resolve(ANN, "b1", held.lease, says("allowed"), at_once=True)
    house.closed("b1")

    assert [d.supersedes for d in house.made(1)] == ["b2"]


def test_redis_is_rebuilt(house: House) -> None:
    """After a lost Redis a moved job is where it was moved, a first verdict counts, skips and exposure are known."""
    house.arrive(
        ticket("moved"), ticket("first", reviewers=2), ticket("skipped"), ticket("gone"),
        ticket("seen"),
    )  # fmt: skip
    for name in ("moved", "first", "skipped", "gone", "seen"):
        house.opened(name)
    house.desk.move(LEA, "moved", "graphic", "it is")
    house.answer(ANN, "first", says("violates"))
    [skipped] = house.desk.claim(ANN, only="skipped").entries
    house.desk.skip(ANN, "skipped", skipped.lease, "I know the author")
    house.answer(BOB, "gone", says("allowed"))
    house.closed("gone")
    [seen] = house.desk.claim(BOB, only="seen").entries
    house.desk.reveal(BOB, "seen", seen.lease, 30)
    house.desk.note(BOB, "seen", "look at the left", lease=seen.lease)
    house.until(lambda: (e := house.queue.entry("first")) and e.part == "second")
    points = house.desk.exposure(BOB)["points"]
    assert float(points) == 5.0

    house.lose_redis()
    house.until(lambda: (e := house.queue.entry("first")) and e.part == "second")
    house.until(lambda: len(house.queue.peek()) == 4 and house.desk.exposure(BOB))

    entries = {e.job_id: e for e in house.queue.peek()}
    assert entries["moved"].queue == "graphic"
    assert entries["first"].barred == ("ann",)
    assert entries["skipped"].barred == ("ann",)
    assert house.desk.exposure(BOB)["points"] == points
    assert [n["note"] for n in house.desk.notes("seen")] == ["look at the left"]
    assert house.queue.marker("gone") is not None
    house.answer(BOB, "first", says("violates"))
    house.closed("first")
    house.made(1, "c-first")
    house.made(1, "c-gone")


def test_a_rebuilt_queue_knows_what_people_did(house: House) -> None:
    """After a lost Redis nothing is handed out until moves, first verdicts, appeals, exposure, breaks are known again.

    So are the queues that are paused.
    """
    house.arrive(ticket("moved"), ticket("first", reviewers=2), ticket("judged"))
    for name in ("moved", "first", "judged"):
        house.opened(name)
    house.desk.move(LEA, "moved", "other", "not about weapons")
    house.answer(ANN, "judged", says("violates"))
    house.closed("judged")
    [removed] = house.made(1)
    house.appeal("a1", removed)
    [entry] = house.desk.claim(ANN, only="first").entries
    house.desk.reveal(ANN, "first", entry.lease, 30)
    house.desk.resolve(ANN, "first", entry.lease, says("violates"), at_once=True)
    house.until(lambda: (e := house.queue.entry("first")) and e.part == "second")
    points = house.desk.exposure(ANN)["points"]
    for queue in ("appeals", "other", "weapons"):
        house.desk.pause(LEA, queue)
    house.desk.resume(LEA, "other")
    house.desk.resume(LEA, "weapons")
    ends = house.desk.rest(NIA, timedelta(hours=1))
    house.desk.rest(BOB, timedelta(hours=1))
    house.desk.go_on(BOB)

    house.lose_redis()
    # Nobody has noticed yet, and nobody is told that the queue is empty.
    reasons = {house.desk.claim(BOB).reason}
    assert reasons == {"rebuild"}
    house.escalate.projection.align()
    while house.queue.behind():
        house.escalate.turn()
        reasons.add(house.desk.claim(LEA, queue="graphic").reason)

    assert reasons == {"rebuild", "empty"}
    assert float(house.desk.exposure(ANN)["points"]) == float(points) > 0
    entries = {e.job_id: e for e in house.queue.peek()}
    assert set(entries) == {"moved", "first", "a1"}
    assert entries["moved"].queue == "other"
    assert (entries["first"].part, entries["first"].barred) == ("second", ("ann",))
    assert (entries["a1"].part, entries["a1"].barred) == ("appeal", ("ann",))
    assert {e.job_id for e in house.desk.claim(ANN, count=3).entries} == {"moved"}
    assert house.desk.paused() == {"appeals"}
    assert house.desk.claim(BOB, only="a1").reason == "empty"
    assert house.desk.claim(NIA).reason == "break"
    rests = house.desk.own_break_until(NIA)
    assert rests is not None
    assert abs(rests - ends) < timedelta(milliseconds=2)
    assert house.desk.own_break_until(BOB) is None
    house.answer(BOB, "first", says("violates"))
    house.closed("first")
    house.made(1, "c-first")


def test_a_verdict_that_meets_an_emptied_redis_is_not_lost(house: House) -> None:
    """Before anybody has noticed that Redis knows of no job, a verdict on one waits until it does again."""
    house.arrive(ticket("d1"))
    house.opened("d1")
    house.answer(ANN, "d1", says("violates"))
    # Now nobody looks after Redis again for a second.
    house.escalate.projection.look(at_once=True)

    house.lose_redis()

    house.made(1)
    house.closed("d1")


def test_a_lead_hands_a_job_to_somebody_else(house: House) -> None:
    """A lead takes a job from its holder and hands it to another, unless that person may not have it."""
    house.arrive(ticket("d1"))
    house.opened("d1")
    [held] = house.desk.claim(ANN).entries
    with pytest.raises(RefusedError, match="only a lead"):
        house.desk.reassign(BOB, "d1", BOB, "I want it")
    averse = replace(BOB, opt_outs=("weapons",))
    with pytest.raises(RefusedError, match="cannot take this job"):
        house.desk.reassign(LEA, "d1", averse, "try")
    assert house.desk.renew(ANN, "d1", held.lease)

    entry = house.desk.reassign(LEA, "d1", BOB, "Ann is ill")

    assert entry.holder == "bob"
    with pytest.raises(LeaseLostError):
        house.desk.renew(ANN, "d1", held.lease)
    house.desk.resolve(BOB, "d1", entry.lease, says("allowed"), at_once=True)
    with pytest.raises(RefusedError, match="answered already"):
        house.desk.reassign(LEA, "d1", ANN, "too late")
    house.closed("d1")


def test_figures_and_golden_cases_come_from_the_log(house: House, tmp_path: Path) -> None:
    """Agreement is read from the log, and an overturned appeal becomes a golden case that lint accepts."""
    house.arrive(ticket("two", reviewers=2), ticket("d1"))
    house.opened("two")
    house.opened("d1")
    house.answer(ANN, "two", says("violates"))
    house.until(lambda: (e := house.queue.entry("two")) and e.part == "second")
    house.answer(BOB, "two", says("violates"))
    house.answer(ANN, "d1", says("violates"))
    house.closed("d1")
    [removed] = house.made(1, "c-d1")
    house.appeal("A/1", removed)
    house.answer(BOB, "A/1", says("allowed"))
    house.closed("A/1")
    house.made(2, "c-d1")
    desk = replace(house.desk, lookback=Lookback(house.settings))

    figures = desk.figures()
    [offer] = house.until(lambda: offers(house.settings, QUEUES))
    (tmp_path / "a.jpg").write_bytes(b"a picture")
    store = FolderStore(tmp_path)
    file = take(offer, tmp_path, store)

    assert figures.agreement["weapons"].percent == 100
    assert figures.verdicts == 4
    assert desk.figures() is figures
    assert offer.said == "It is a toy."
    [case] = read_cases(POLICIES, tmp_path)["weapons"].cases.values()
    assert (case.expect, case.text, case.media) == ("allowed", "x", ("media/appeal-a-1-0.jpg",))
    assert (file.parent / case.media[0]).read_bytes() == b"a picture"
    with pytest.raises(RefusedError, match="already"):
        take(offer, tmp_path, store)
    assert offers(house.settings, {"appeals": Queue(sealed=True)}) == []
    assert desk.lookback is not None
    desk.lookback.close()


def test_a_successor_applies_what_was_committed(house: House) -> None:
    """A verdict that was committed but not applied, because its escalate died, is applied by the next one."""
    house.arrive(ticket("d1", reviewers=2))
    house.opened("d1")
    verdict = house.answer(ANN, "d1", says("violates"))
    [record] = list(kafka.read(house.settings, [VERDICTS]))
    house.until(house.escalate.link.may_commit)
    house.escalate.link.commit([], {record.place: Mark(offset=record.offset + 1)})
    house.escalate.close()
    house.escalate = house.start("one")

    entry = house.until(lambda: (e := house.queue.entry("d1")) and e.part == "second" and e)

    assert entry.saw[0].verdict_id == verdict.verdict_id


def test_withdrawn_verdict_is_superseded(house: House) -> None:
    """A verdict that names an earlier one by the same reviewer takes its place; somebody else's may not."""
    house.arrive(ticket("d1"))
    house.opened("d1")
    house.answer(ANN, "d1", says("violates"))
    house.closed("d1")
    with pytest.raises(RefusedError, match="only its author or a lead"):
        house.desk.withdraw(BOB, "d1", says("allowed"))
    house.until(lambda: (m := house.queue.marker("d1")) and house.queue.ticket(m.made[0]))
    house.desk.withdraw(ANN, "d1", says("allowed"))

    first, second = house.made(2, "c-d1")
    assert second.supersedes == first.decision_id
    assert (first.action, second.action) == (Action.REMOVE, Action.ALLOW)
    assert in_force([ticket("d1").decision, first, second]) == second


def test_escalating_answer_opens_a_second_job(house: House) -> None:
    """An answer that escalates decides, and opens a job of its own in the queue of its reason."""
    house.arrive(ticket("d1"))
    house.opened("d1")
    said = Answers(answers=says("violates").answers, escalate="threat_to_life")
    house.answer(ANN, "d1", said)
    house.closed("d1")
    [decision] = house.made(1)
    entry = house.opened(decision.decision_id)

    assert entry.queue == "threat_to_life"
    assert entry.lane == "urgent"
    assert decision.action is Action.REMOVE


@pytest.mark.parametrize("fresh", [True, False])
def test_appeal_goes_to_somebody_else(house: House, fresh: bool) -> None:  # noqa: FBT001
    """An appeal opens a job for another person, is found even after Redis was lost, and says how it ended."""
    house.arrive(ticket("d1"))
    house.opened("d1")
    house.answer(ANN, "d1", says("violates"))
    house.closed("d1")
    [removed] = house.made(1)
    if not fresh:
        house.lose_redis()
    appeal = Appeal(
        appeal_id="a1", decision_id=removed.decision_id, content_id="c-d1", text="It is a toy."
    )
    house.producer.place(
        [Outgoing(topic=APPEALS, key=b"c-d1", value=appeal.model_dump_json().encode())]
    )
    appeals = house.appeals()
    while house.queue.entry("a1") is None:
        appeals.turn()
        house.escalate.turn()
    entry = house.opened("a1")
    assert (entry.queue, entry.part, entry.barred) == ("appeals", "appeal", ("ann",))
    assert entry.ticket is not None
    assert entry.ticket.appeal == appeal
    assert entry.ticket.decision.decision_id == removed.decision_id
    assert not house.desk.claim(ANN).entries
    house.answer(BOB, "a1", says("allowed"))
    house.closed("a1")

    ended = house.made(2)[-1]
    assert ended.supersedes == removed.decision_id
    assert ended.action is Action.ALLOW
    assert ended.appeal == AppealOutcome(appeal_id="a1", outcome="overturned")
    house.lose_redis()
    house.closed("a1")
    house.closed("d1")


def test_known_answers_are_mixed_in(house: House) -> None:
    """An item of known answers comes like any other job, once a person, decides nothing, and survives a lost Redis."""
    house.arrive(ticket("d1"))
    house.opened("d1")
    house.answer(ANN, "d1", says("violates"))
    house.closed("d1")
    house.made(1)
    right = says("violates").answers
    with pytest.raises(RefusedError, match="only a lead"):
        house.desk.golden(ANN, "d1", "d1", right)
    house.desk.golden(LEA, "d1", "d1", right)
    house.lose_redis()
    mixing = replace(house.desk, rules=replace(house.desk.rules, golden=1.0))

    handed = house.until(lambda: mixing.claim(BOB).entries)

    [entry] = handed
    assert entry.part == "golden"
    assert entry.job_id not in {"d1", entry.decision_id}
    assert entry.ticket is not None
    assert entry.ticket.decision.decision_id == "d1"
    assert not mixing.claim(ANN).entries
    verdict = mixing.resolve(BOB, entry.job_id, entry.lease, says("allowed"), at_once=True)
    assert verdict.part == "golden"
    house.until(lambda: house.queue.entry(entry.job_id) is None)
    assert not mixing.claim(BOB).entries
    house.lose_redis()
    house.until(lambda: mixing.claim(BOB).reason == "empty")
    house.made(1)
    assert all(d.open + d.leased + d.waiting == 0 for d in house.desk.stats())


def test_whoever_had_to_do_with_an_item_is_not_asked_what_is_known_of_it(house: House) -> None:
    """Who skipped it, who answered it and who replaced that answer do not get it as an item of known answers."""
    house.arrive(ticket("d1"))
    house.opened("d1")
    cid = Person(id="cid", languages=("en",))
    [skipped] = house.desk.claim(cid).entries
    house.desk.skip(cid, "d1", skipped.lease, "I know the author")
    house.answer(ANN, "d1", says("violates"))
    house.closed("d1")
    house.until(lambda: (m := house.queue.marker("d1")) and house.queue.ticket(m.made[0]))
    house.desk.withdraw(LEA, "d1", says("allowed"))
    house.made(2)
    house.until(lambda: (m := house.queue.marker("d1")) and m.by == "lea")
    house.desk.golden(LEA, "d1", "d1", says("allowed").answers)
    mixing = replace(house.desk, rules=replace(house.desk.rules, golden=1.0))

    found = {p.id: len(mixing.claim(p).entries) for p in (cid, ANN, LEA, BOB)}

    assert found == {"cid": 0, "ann": 0, "lea": 0, "bob": 1}


def test_a_lead_leads_their_own_queues(house: House) -> None:
    """Who leads one queue touches no job of another, hands none out, and says nothing of what is known there."""
    house.arrive(ticket("d1"), ticket("d2"))
    house.opened("d1")
    house.opened("d2")
    elsewhere = replace(LEA, queues=("graphic",))
    drugs_only = replace(LEA, policies=("drugs",))
    for lead in (elsewhere, drugs_only):
        with pytest.raises(RefusedError, match="another lead's"):
            house.desk.move(lead, "d1", "graphic", "mine now")
        with pytest.raises(RefusedError, match="another lead's"):
            house.desk.reassign(lead, "d1", BOB, "for him")
    house.answer(ANN, "d1", says("violates"))
    house.closed("d1")
    house.until(lambda: (m := house.queue.marker("d1")) and house.queue.ticket(m.made[0]))
    right = says("violates").answers
    with pytest.raises(RefusedError, match="another lead's"):
        house.desk.golden(elsewhere, "d1", "d1", right)
    with pytest.raises(RefusedError, match="only its author or a lead"):
        house.desk.withdraw(elsewhere, "d1", says("allowed"))
    with pytest.raises(RefusedError, match="was not reviewed in the job"):
        house.desk.golden(LEA, "d1", "d2", right)
    sealed = replace(house.desk, queues={**QUEUES, "weapons": Queue(sealed=True)})
    named = replace(LEA, sealed=("weapons",))
    with pytest.raises(RefusedError, match="is sealed"):
        sealed.golden(named, "d1", "d1", right)
    with pytest.raises(RefusedError, match="only its author or a lead"):
        sealed.withdraw(LEA, "d1", says("allowed"))
    with pytest.raises(RefusedError, match="is sealed"):
        sealed.move(LEA, "d2", "graphic", "mine now")


def test_desk_refuses_what_is_not_said_or_not_allowed(house: House) -> None:
    """The desk says what is missing: an answer, a clause, a reason, a right, a lease."""
    house.arrive(ticket("d1"))
    house.opened("d1")
    [entry] = house.desk.claim(ANN).entries
    lease = entry.lease
    unnamed = Answers(answers=(VerdictAnswer(policy="weapons", answer="violates"),))
    bold = Answers(answers=says("allowed").answers, action=Action.REMOVE, note="because")
    for said, why in (
        (Answers(), "no answer: weapons"),
        (unnamed, "name the clause"),
        (says("allowed", "weapon"), "no policy weapon"),
        (bold, "a lead's to choose"),
    ):
        with pytest.raises(RefusedError, match=why):
            house.desk.resolve(ANN, "d1", lease, said)
    with pytest.raises(RefusedError, match="say why"):
        house.desk.skip(ANN, "d1", lease, " ")
    with pytest.raises(RefusedError, match="only a lead"):
        house.desk.move(BOB, "d1", "graphic", "x")
    with pytest.raises(LeaseLostError):
        house.desk.resolve(BOB, "d1", lease, says("allowed"))
    with pytest.raises(LeaseLostError):
        house.desk.renew(ANN, "d1", lease + 1)
    assert house.desk.renew(ANN, "d1", lease) > datetime.now(UTC)
    terms = house.desk.terms(entry)
    assert terms.harm == 7.0
    assert terms.standing >= terms.harm


def test_exposure_is_enforced(house: House) -> None:
    """Whoever has used up the day is handed nothing heavy, on the word of the server alone."""
    house.arrive(ticket("d1"), ticket("d2"))
    house.opened("d1")
    house.opened("d2")
    [entry] = house.desk.claim(ANN).entries
    house.desk.reveal(ANN, entry.job_id, entry.lease, 180)

    assert house.desk.claim(ANN).reason == "budget"
    assert house.desk.claim(BOB).entries
    assert list(kafka.read(house.settings, [REVIEWS]))
    assert Partition(REVIEWS, 0) in kafka.ends(house.settings, [REVIEWS])


def give_away(desk: Desk, how: str, entry: Entry, person: Person) -> None:
    """Give a job to others, in one of the ways that there are."""
    if how == "skip":
        desk.skip(person, entry.job_id, entry.lease, "I know the author")
    elif how == "move":
        desk.move(person, entry.job_id, "other", "not about weapons", lease=entry.lease)
    else:
        desk.escalate(person, entry.job_id, entry.lease, "threat_to_life")


@pytest.mark.parametrize("how", ["skip", "move", "escalate"])
def test_who_gives_a_job_away_is_passed_over_for_a_while(house: House, how: str) -> None:
    """Others get it first; half of its time later it may come back, so that nobody's only reviewer loses it."""
    house.arrive(ticket("d1"), ticket("d2"))
    house.opened("d1")
    house.opened("d2")
    long_ago = replace(house.desk, clock=lambda: datetime.now(UTC) - timedelta(days=2))
    for desk, name in ((house.desk, "d1"), (long_ago, "d2")):
        [entry] = desk.claim(ANN, only=name).entries
        give_away(desk, how, entry, ANN)

    assert [e.job_id for e in house.desk.claim(ANN, count=2).entries] == ["d2"]
    assert [e.job_id for e in house.desk.claim(BOB, count=2).entries] == ["d1"]


def test_an_escalating_answer_does_not_come_back_to_whoever_gave_it(house: House) -> None:
    """The second job that it opens is for others first."""
    house.arrive(ticket("d1"))
    house.opened("d1")
    said = Answers(answers=says("violates").answers, escalate="threat_to_life")
    house.answer(ANN, "d1", said)
    house.closed("d1")
    [decision] = house.made(1)
    house.opened(decision.decision_id)

    assert house.desk.claim(ANN).reason == "empty"
    assert [e.job_id for e in house.desk.claim(BOB).entries] == [decision.decision_id]


def test_what_ever_lay_in_a_sealed_queue_stays_sealed(house: House) -> None:
    """Moved out again, sent anew, appealed against, after a lost Redis: nothing of it is learned, measured or shown."""
    house.arrive(ticket("d1"))
    house.opened("d1")
    [entry] = house.desk.claim(ANN, only="d1").entries
    house.desk.escalate(ANN, "d1", entry.lease, "minor_safety")
    [entry] = house.desk.claim(NIA, only="d1").entries
    house.desk.move(NIA, "d1", "weapons", "an adult", lease=entry.lease)
    # The same picture comes again; once it is drawn for an audit.
    house.arrive(ticket("again"), ticket("audited", reason="audit"))
    house.opened("again")

    for name in ("d1", "again"):
        assert house.answer(BOB, name, says("violates")).sealed
        house.closed(name)
    removed = house.made(2)[0]
    house.until(lambda: (m := house.queue.marker("d1")) and house.queue.ticket(m.made[0]))
    house.until(lambda: (m := house.queue.marker("again")) and house.queue.ticket(m.made[0]))
    with pytest.raises(RefusedError, match="lay in the sealed queue minor_safety"):
        house.desk.golden(LEA, "d1", "d1", says("allowed").answers)
    assert house.desk.withdraw(BOB, "again", says("allowed")).sealed
    house.lose_redis()
    house.until(lambda: house.queue.marker("d1") and not house.queue.behind())
    house.appeal("a1", removed)
    appealed = house.queue.entry("a1")

    assert appealed is not None
    assert appealed.queue == "minor_safety"
    assert house.desk.hides(appealed)
    assert not house.desk.claim(LEA).entries
    assert house.answer(NIA, "a1", says("allowed")).sealed
    house.closed("a1")
    house.made(4)
    assert offers(house.settings, QUEUES) == []
    lookback = Lookback(house.settings)
    assert lookback.figures().verdicts == 0
    lookback.close()


def test_a_known_item_that_is_sealed_later_is_mixed_in_no_more(house: House) -> None:
    """Once its picture lies in a sealed queue, an item of known answers is nobody's to be tried with."""
    house.arrive(ticket("d1"))
    house.opened("d1")
    house.answer(ANN, "d1", says("violates"))
    house.closed("d1")
    house.desk.golden(LEA, "d1", "d1", says("violates").answers)
    house.arrive(ticket("d2"))
    house.opened("d2")
    [entry] = house.desk.claim(ANN, only="d2").entries
    house.desk.escalate(ANN, "d2", entry.lease, "minor_safety")
    mixing = replace(house.desk, rules=replace(house.desk.rules, golden=1.0))

    assert [len(mixing.claim(BOB).entries) for _ in range(2)] == [0, 0]
    assert house.desk.held(BOB) == []
