"""The upload consumer's rules, on a broker and a pool inside the test's process."""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from pipeline.calibration import Calibrations
from pipeline.checkpoint import Note
from pipeline.errors import AbortedError, PipelineError
from pipeline.messages import (
    DEAD_LETTERS,
    DECISIONS,
    POLICIES,
    RESCORE,
    TICKETS,
    UPLOADS,
    Decision,
    Ticket,
    UploadEvent,
)
from pipeline.records import Headers, Mark, Outgoing, Partition, Polled, Record
from pipeline.stream import Limits, Stream
from pipeline.stub import StubBroker, StubLink, StubPool, constant
from pipeline.watchdog import Watchdog
from policies.question import Question
from policies.schema import Policy, PolicySet
from workers.classifier import Rationale
from workers.errors import (
    ClassifierUnavailableError,
    MediaRefusedError,
    MediaUnavailableError,
    PoisonError,
    WorkerError,
)
from workers.upload import Explained, Judged, Upload

P = Partition(UPLOADS, 0)
Q = Partition(UPLOADS, 1)
R = Partition(RESCORE, 0)
Judge = Callable[[Upload, Sequence[Question]], Judged]


def policy(name: str = "weapons", **fields: Any) -> Policy:
    """Return a live policy that acts on what is not calibrated."""
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
            "bands": {"review": 0.3, "act": 0.9, "uncalibrated": "act"},
            "review": {"queue": name, "meanwhile": "hold", "due": "4h"},
            "when_unavailable": {"after": "15m", "action": "hold"},
            **fields,
        }
    )


class House:
    """A stream with everything around it, and a clock that the test moves."""

    def __init__(
        self,
        judge: Judge | None = None,
        *,
        broker: StubBroker | None = None,
        limits: Limits | None = None,
        policies: PolicySet | None = None,
        partitions: Sequence[Partition] = (P, R),
    ) -> None:
        self.now = 1_000_000.0
        self.broker = broker or StubBroker()
        self.broker.clock = lambda: self.now
        self.link = StubLink(self.broker, *partitions)
        self.pool = StubPool(judge or constant(-3.0))
        self.policies = policies or PolicySet((policy(),))
        self.limits = limits or Limits(max_in_flight=50)
        self.use(self.link)

    def use(self, link: StubLink) -> None:
        """Begin anew with another link."""
        self.link = link
        self.stream = Stream(
            self.link,
            self.pool,
            lambda: self.policies,
            Calibrations,
            WATCHDOG,
            limits=self.limits,
            clock=lambda: self.now,
        )

    def upload(
        self, name: str = "1", *, to: Partition = P, headers: Headers = (), **fields: Any
    ) -> Record:
        """Write an upload event."""
        event = {
            "event_id": f"e{name}",
            "content_id": f"c{name}",
            "text": f"caption {name}",
            **fields,
        }
        return self.raw(json.dumps(event).encode(), key=f"c{name}".encode(), to=to, headers=headers)

    def raw(
        self,
        value: bytes | None,
        *,
        key: bytes | None = None,
        to: Partition = P,
        headers: Headers = (),
    ) -> Record:
        """Write any record."""
        return self.broker.write(
            Outgoing(topic=to.topic, key=key, value=value, headers=headers), number=to.number
        )

    def turn(self, times: int = 3) -> None:
        """Let the stream go through its steps."""
        for _ in range(times):
            self.stream.turn()

    def decisions(self) -> list[Decision]:
        """Return every decision that was written."""
        return [
            Decision.model_validate_json(r.value or b"") for r in self.broker.written(DECISIONS)
        ]

    def tickets(self) -> list[Ticket]:
        """Return every ticket that was written."""
        return [Ticket.model_validate_json(r.value or b"") for r in self.broker.written(TICKETS)]

    def rescores(self) -> list[UploadEvent]:
        """Return every event that is to be scored again."""
        return [
            UploadEvent.model_validate_json(r.value or b"") for r in self.broker.written(RESCORE)
        ]

    @property
    def committed(self) -> int:
        """Return the committed offset of the first partition."""
        return self.broker.marks.get(P, Mark(offset=0)).offset


WATCHDOG = Watchdog(limit_s=60)


def nothing(key: int, questions: Sequence[Question]) -> None:
    """Never give a reason."""


def failing(error: WorkerError, *, by: str = "classifier-0") -> Judge:
    """Return a judge that fails every upload with this error of these workers."""
    return lambda upload, _: Judged(key=upload.key, fault=error, fault_by=by)


def test_an_upload_becomes_a_decision() -> None:
    """The decision carries source, ids, headers, and its offset is committed."""
    house = House()
    house.upload(headers=(("traceparent", b"00-abc-def-01"),))
    house.turn()
    (decision,) = house.decisions()
    assert (decision.event_id, decision.content_id) == ("e1", "c1")
    assert (decision.source.topic, decision.source.partition, decision.source.offset) == (
        UPLOADS,
        0,
        0,
    )
    (record,) = house.broker.written(DECISIONS)
    assert record.key == b"c1"
    assert record.header("ce_id") == decision.decision_id.encode()
    assert record.header("ce_type") == b"org.weir.decision.v1"
    assert record.header("weir_source") == b"media.uploads/0/0"
    assert record.header("traceparent") == b"00-abc-def-01"
    assert house.committed == 1


def test_results_leave_in_offset_order() -> None:
    """A record that is judged last holds back those behind it, and they leave in order."""
    house = House()
    house.pool.holding = True
    for name in "123":
        house.upload(name)
    house.turn()
    house.pool.let_go(count=2, last_first=True)
    house.turn()
    assert house.decisions() == []
    assert house.committed == 0
    house.pool.let_go()
    house.turn()
    assert [d.event_id for d in house.decisions()] == ["e1", "e2", "e3"]


def test_one_partition_does_not_wait_for_another() -> None:
    """A waiting record holds only its own partition."""
    house = House(partitions=(P, Q))
    house.pool.holding = True
    house.upload("1")
    house.upload("2", to=Q)
    house.turn()
    house.pool.let_go(count=1, last_first=True)
    house.turn()
    assert len(house.decisions()) == 1


def test_work_in_flight_is_bounded() -> None:
    """No more records are read than may be in work."""
    house = House(limits=Limits(max_in_flight=7))
    house.pool.holding = True
    for name in range(20):
        house.upload(str(name))
    house.turn(5)
    assert house.stream.in_flight() == 7
    house.pool.holding = False
    house.pool.let_go()
    house.turn(10)
    assert len(house.decisions()) == 20


def test_a_revoked_partition_is_dropped() -> None:
    """Unfinished work on a partition that was taken away is never committed, and its uploads are released."""
    house = House()
    house.pool.holding = True
    house.upload()
    house.turn()
    other = StubLink(house.broker)
    other.move(P)
    house.turn()
    house.pool.let_go()
    house.turn()
    assert house.decisions() == []
    assert house.pool.released == [1]


def test_finished_work_on_a_revoked_partition_is_dropped_too() -> None:
    """Judged but uncommitted work goes with its partition."""
    house = House()
    house.link.settled = True
    house.upload()
    house.stream.turn()
    house.link.settled = False
    house.upload("2")
    house.turn()
    assert len(house.decisions()) == 1
    StubLink(house.broker).move(P)
    house.link.settled = True
    house.turn()
    assert len(house.decisions()) == 1


def test_nothing_is_committed_while_the_group_settles() -> None:
    """Without a settled membership no transaction begins."""
    house = House()
    house.upload()
    house.link.settled = False
    house.turn()
    assert house.decisions() == []
    house.link.settled = True
    house.turn()
    assert len(house.decisions()) == 1


def test_an_abort_rewinds_and_decides_once() -> None:
    """After an aborted transaction everything is read again and decided exactly once."""
    house = House()
    for name in "12":
        house.upload(name)
    house.stream.turn()
    house.upload("3")
    house.link.faults.append(AbortedError("told to"))
    house.turn(6)
    assert [d.event_id for d in house.decisions()] == ["e1", "e2", "e3"]


def test_a_fenced_process_stops() -> None:
    """Another process of the same name is no reason to go on."""
    house = House()
    house.upload()
    house.link.faults.append(PipelineError("told to"))
    with pytest.raises(PipelineError):
        house.turn()
    assert house.decisions() == []


def test_an_unknown_error_stops_uncommitted() -> None:
    """A fault of our own ends the process with nothing committed; it is never skipped."""

    def broken(upload: Upload, questions: Sequence[Question]) -> Judged:
        raise ZeroDivisionError

    house = House(broken)
    house.upload()
    with pytest.raises(ZeroDivisionError):
        house.turn()
    assert house.committed == 0


def test_what_is_no_json_is_a_dead_letter_with_a_hold() -> None:
    """The record is kept whole with its reason, and a hold goes beside it under the id from its key."""
    house = House()
    record = house.raw(b'{"event_id":', key=b"c9", headers=(("x", b"\x00\xff"),))
    house.turn()
    (letter,) = house.broker.written(DEAD_LETTERS)
    assert (letter.key, letter.value) == (record.key, record.value)
    assert letter.headers[:1] == record.headers
    assert letter.header("weir_reason") == b"undecodable"
    assert letter.header("weir_source") == b"media.uploads/0/0"
    (decision,) = house.decisions()
    assert decision.action == "hold"
    assert decision.content_id == "c9"
    assert decision.review is not None
    assert decision.review.queue == "intake"
    assert len(house.tickets()) == 1
    assert house.committed == 1


@pytest.mark.parametrize(
    ("value", "key", "reason", "held"),
    [
        (b"\xff\xfe", None, b"undecodable", False),
        (b"\xff\xfe", b"c1", b"undecodable", True),
        (b"\xff\xfe", b"\xff", b"undecodable", False),
        (None, b"c1", b"undecodable", True),
        (b'{"event_id": "e"}', None, b"invalid", False),
        (b'{"event_id": "e"}', b"c1", b"invalid", True),
        (b'{"content_id": "c1"}', None, b"invalid", True),
        (b'{"content_id": "c1", "event_id": ""}', None, b"invalid", True),
        (b"[1]", b"c1", b"invalid", True),
        (b"[" * 5000, b"c1", b"undecodable", True),
        (b'{"event_id": "e", "content_id": "c", "media": [{}]}', None, b"invalid", True),
    ],
)
def test_unreadable_events(
    value: bytes | None, key: bytes | None, reason: bytes, *, held: bool
) -> None:
    """Each is a dead letter, with a hold exactly where its content id can be read, and holds up nobody."""
    house = House()
    house.raw(value, key=key)
    house.upload("2")
    house.turn()
    (letter,) = house.broker.written(DEAD_LETTERS)
    assert letter.header("weir_reason") == reason
    assert letter.value == value
    held_ids = [d.content_id for d in house.decisions() if d.action == "hold"]
    assert held_ids == (["c" if key is None and b'"c"' in (value or b"") else "c1"] if held else [])
    assert [d.event_id for d in house.decisions() if d.action == "allow"] == ["e2"]
    assert house.committed == 2


def test_refused_media_are_a_decision() -> None:
    """Media that cannot be read are held with the reason, for a person in intake; no dead letter."""
    house = House(failing(MediaRefusedError("truncated", "ends early", media=0)))
    house.upload(media=[{"uri": "a.jpg"}])
    house.turn()
    (decision,) = house.decisions()
    assert decision.action == "hold"
    assert decision.fault is not None
    assert (decision.fault.reason, decision.fault.media) == ("truncated", 0)
    assert decision.review is not None
    assert decision.review.queue == "intake"
    assert house.broker.written(DEAD_LETTERS) == []


def test_poison_is_a_dead_letter_with_a_hold() -> None:
    """An upload that killed its worker twice alone is set aside, and held."""
    house = House(failing(PoisonError("poison", "killed its worker")))
    record = house.upload()
    house.turn()
    (letter,) = house.broker.written(DEAD_LETTERS)
    assert letter.value == record.value
    assert letter.header("weir_reason") == b"poison"
    (decision,) = house.decisions()
    assert (decision.action, decision.event_id) == ("hold", "e1")


def test_an_unavailable_store_is_tried_again() -> None:
    """While the deadline lasts the upload is fetched again; once it can be, it is decided normally."""
    tries: list[int] = []

    def judge(upload: Upload, questions: Sequence[Question]) -> Judged:
        tries.append(upload.key)
        if len(tries) < 2:
            return Judged(key=upload.key, fault=MediaUnavailableError("timeout"))
        return constant(-3.0)(upload, questions)

    house = House(judge)
    house.upload(media=[{"uri": "a.jpg"}])
    house.turn()
    assert house.decisions() == []
    time.sleep(1.1)
    house.turn()
    (decision,) = house.decisions()
    assert decision.action == "allow"


def test_media_that_stay_away_are_scored_again_later() -> None:
    """Past the deadline the upload is held, its event goes to be scored again in the same transaction, no job opens."""
    house = House(
        failing(MediaUnavailableError("timeout")),
        limits=Limits(fetch_deadline_s=0),
        partitions=(P,),
    )
    record = house.upload(media=[{"uri": "a.jpg"}])
    house.turn()
    (decision,) = house.decisions()
    assert decision.action == "hold"
    assert decision.review is None
    (again,) = house.rescores()
    assert again.rescore is not None
    assert again.rescore.number == 1
    assert again.rescore.supersedes == decision.decision_id
    assert again.rescore.source.offset == record.offset
    assert again.reason == "rescore"


def test_after_the_last_try_a_person_looks() -> None:
    """An upload whose media stay away is scored again so often and no more; then it is a job in intake."""
    house = House(
        failing(MediaUnavailableError("timeout")), limits=Limits(fetch_deadline_s=0, max_rescores=2)
    )
    house.upload(media=[{"uri": "a.jpg"}])
    house.turn(10)
    assert [d.review is None for d in house.decisions()] == [True, True, False]
    last = house.decisions()[-1]
    assert last.review is not None
    assert last.review.queue == "intake"
    assert len({d.decision_id for d in house.decisions()}) == 3
    assert [d.supersedes for d in house.decisions()[1:]] == [
        d.decision_id for d in house.decisions()[:-1]
    ]


def test_a_short_absence_of_the_classifier_only_waits() -> None:
    """While the policies' `after` lasts nothing is decided; then it is judged normally."""
    house = House(failing(ClassifierUnavailableError("away")))
    house.upload()
    house.now += 60
    house.turn()
    assert house.decisions() == []
    house.pool.judge = constant(3.0)
    time.sleep(1.1)
    house.turn()
    (decision,) = house.decisions()
    assert decision.unjudged == ()
    assert decision.action == "remove"


def test_a_long_absence_is_decided_by_the_policy_and_scored_again() -> None:
    """After `after` the upload takes the action written in the policy, says so, and is scored again."""
    house = House(failing(ClassifierUnavailableError("away")), partitions=(P,))
    house.upload()
    house.turn()
    house.now += 15 * 60
    house.turn()
    (decision,) = house.decisions()
    assert decision.action == "hold"
    assert decision.unjudged == ("weapons",)
    assert len(house.rescores()) == 1


def test_an_old_backlog_is_scored_once_the_classifier_answers() -> None:
    """Records that are older than `after` are not waved through while the classifier answers."""
    house = House(failing(ClassifierUnavailableError("busy")))
    house.upload()
    house.now += 3600
    house.pool.answered_at["classifier-0"] = house.now - 10
    house.turn()
    assert house.decisions() == []


def test_a_healthy_first_pass_hides_no_classifier_that_is_away() -> None:
    """Where the second of two classifiers has been away for `after`, the first one's answers do not count."""
    house = House(failing(ClassifierUnavailableError("away"), by="classifier-1"), partitions=(P,))
    house.upload()
    house.turn()
    house.now += 15 * 60
    house.pool.answered_at["classifier-0"] = house.now - 1
    house.turn()
    (decision,) = house.decisions()
    assert (decision.action, decision.unjudged) == ("hold", ("weapons",))


def test_rescores_are_not_read_while_the_classifier_is_away() -> None:
    """While anything waits for the classifier, what is to be scored again stays where it is."""
    house = House(failing(ClassifierUnavailableError("away")))
    house.upload("1")
    house.turn()
    house.upload("2", to=R, rescore=RESCORED)
    house.turn()
    assert [key for key, _ in house.pool.submitted] == [1]


RESCORED = {
    "number": 1,
    "supersedes": "d0",
    "source": {"topic": UPLOADS, "partition": 0, "offset": 0},
}


def test_rescores_take_at_most_a_fifth() -> None:
    """Of the work in flight a fifth may be rescores, so that they never hold up new uploads."""
    house = House(limits=Limits(max_in_flight=50))
    house.pool.holding = True
    for name in range(40):
        house.upload(str(name), to=R, rescore=RESCORED)
    house.turn(5)
    assert len(house.pool.submitted) == 10
    house.pool.holding = False
    house.pool.let_go()
    house.turn(20)
    assert len(house.decisions()) == 40


def test_a_rescored_decision_supersedes_and_has_a_ticket() -> None:
    """The new decision names the old one and itself, and goes to the projection even if it simply allows."""
    house = House()
    house.upload(to=R, rescore=RESCORED)
    house.turn()
    (decision,) = house.decisions()
    assert decision.supersedes == "d0"
    assert decision.source.topic == RESCORE
    assert decision.action == "allow"
    assert len(house.tickets()) == 1


def test_decisions_for_people_carry_rationales() -> None:
    """A decision that acts or is reviewed waits for its reason; the reason and its place stand in the finding."""
    house = House(constant(3.0))
    house.pool.reason = lambda key, questions: Explained(
        key=key,
        rationales=tuple(
            Rationale(question=q.id, clause="W1", text="It sells one.", supported=True, media=0)
            for q in questions
        ),
        stages_ms=(("explain", 12.0),),
    )
    house.upload()
    house.turn()
    (decision,) = house.decisions()
    (finding,) = decision.findings
    assert finding.rationale is not None
    assert (finding.rationale.clause, finding.rationale.text) == ("W1", "It sells one.")
    assert finding.evidence[0].media == 0
    assert "explain" in [stage.name for stage in decision.stages]


def test_a_rationale_is_not_waited_for_for_ever() -> None:
    """Past the bound the decision goes without."""
    house = House(constant(3.0), limits=Limits(rationale_wait_s=1.0))
    house.pool.reason = nothing
    house.upload()
    house.turn()
    assert house.decisions() == []
    time.sleep(1.0)
    house.turn()
    (decision,) = house.decisions()
    assert decision.findings[0].rationale is None


def test_no_rationale_is_asked_for_what_simply_passes() -> None:
    """Nobody reads why something was allowed."""
    house = House(constant(-3.0))
    asked: list[int] = []

    def reason(key: int, questions: Sequence[Question]) -> None:
        asked.append(key)

    house.pool.reason = reason
    house.upload()
    house.turn()
    assert len(house.decisions()) == 1
    assert asked == []


def test_every_policy_set_is_published_once() -> None:
    """Each set that was ever live is written whole under its digest, before or with its first decision."""
    house = House()
    house.upload("1")
    house.turn()
    house.upload("2")
    house.turn()
    assert [r.key for r in house.broker.written(POLICIES)] == [house.policies.digest.encode()]
    first = house.policies
    house.policies = PolicySet((policy(version=2),))
    house.upload("3")
    house.turn()
    keys = [r.key for r in house.broker.written(POLICIES)]
    assert keys == [first.digest.encode(), house.policies.digest.encode()]


def test_the_set_of_a_decision_is_published_though_it_was_replaced_meanwhile() -> None:
    """A set that changes while an upload is in work is still published with that upload's decision."""
    house = House()
    house.pool.holding = True
    house.upload()
    house.turn()
    first = house.policies
    house.policies = PolicySet((policy(version=2),))
    house.pool.let_go()
    house.turn()
    assert house.decisions()[0].policy_set == first.digest
    assert first.digest.encode() in [r.key for r in house.broker.written(POLICIES)]


def test_a_repeated_record_gets_the_same_decision_id() -> None:
    """The same event twice: two decisions, one for each record, under one id."""
    house = House()
    house.upload()
    house.upload()
    house.turn()
    one, two = house.decisions()
    assert one.decision_id == two.decision_id
    assert one.source != two.source


def test_a_reused_event_id_with_other_content_gets_a_new_decision_id() -> None:
    """An event id does not make two different uploads one."""
    house = House()
    house.upload(text="one")
    house.upload(text="two")
    house.turn()
    assert len({d.decision_id for d in house.decisions()}) == 2


def test_restarts_at_one_offset_are_counted_and_progress_clears_them() -> None:
    """Each process that starts at an offset notes it before it works; a commit clears it."""
    broker = StubBroker()
    for count in (0, 1, 2):
        house = House(broker=broker)
        house.pool.holding = True
        if count == 0:
            house.upload()
        house.turn()
        assert Note.parse(broker.marks[P].note).restarts == count
    house.pool.let_go()
    house.turn()
    assert Note.parse(broker.marks[P].note) == Note()


def test_an_abort_is_no_restart() -> None:
    """Reading again after aborted transactions never makes a healthy partition crawl."""
    house = House()
    house.pool.holding = True
    house.upload()
    house.turn()
    house.pool.let_go()
    house.link.faults.extend(AbortedError("told to") for _ in range(5))
    for _ in range(12):
        house.pool.let_go()
        house.turn(1)
    assert len(house.decisions()) == 1
    assert not any(alone for _, alone in house.pool.submitted)


def test_after_three_restarts_records_are_worked_one_at_a_time() -> None:
    """The fourth process at one offset takes a single record into work, alone in its call."""
    broker = StubBroker()
    broker.marks[P] = Mark(offset=0, note=str(Note(restarts=3)))
    house = House(broker=broker)
    house.pool.holding = True
    for name in "123":
        house.upload(name)
    house.turn()
    assert house.pool.submitted == [(1, True)]
    house.pool.let_go()
    house.turn()
    assert house.pool.submitted == [(1, True), (2, True)]


def test_a_record_that_kills_the_process_is_set_aside() -> None:
    """The record that was alone in work at two deaths becomes a dead letter with a hold, and the rest goes on."""
    broker = StubBroker()
    broker.marks[P] = Mark(offset=0, note=str(Note(restarts=5, alone_until=50, deaths=2)))
    house = House(broker=broker)
    house.upload("1")
    house.upload("2")
    house.turn(6)
    (letter,) = house.broker.written(DEAD_LETTERS)
    assert letter.header("weir_reason") == b"poison"
    assert [(d.event_id, d.action) for d in house.decisions()] == [("e1", "hold"), ("e2", "allow")]
    assert [alone for _, alone in house.pool.submitted] == [True]


def test_an_orderly_end_takes_its_start_back() -> None:
    """Stopping in good order over unfinished work does not count as a death."""
    broker = StubBroker()
    broker.marks[P] = Mark(offset=0)
    house = House(broker=broker)
    house.pool.holding = True
    house.upload()
    house.turn()
    assert Note.parse(house.broker.marks[P].note).restarts == 1
    stop = threading.Event()
    stop.set()
    house.stream.run(stop)
    assert Note.parse(house.broker.marks[P].note).restarts == 0


def test_an_upload_with_nothing_to_read_is_decided_at_once() -> None:
    """Without media and text no question applies, and the pool is not asked."""
    house = House()
    house.upload(text="")
    house.turn()
    assert len(house.decisions()) == 1
    assert house.pool.submitted == []


def test_unknown_fields_and_reasons_are_no_fault() -> None:
    """What a newer sender says more is kept; an unknown reason counts as an upload."""
    house = House()
    house.upload(reason="moonshine", novelty=1)
    house.turn()
    assert len(house.decisions()) == 1
    assert house.broker.written(DEAD_LETTERS) == []


def test_uploads_of_one_poll_are_one_batch() -> None:
    """Everything that one poll brought goes to the pool in one call: calls are what costs."""
    house = House()
    for name in range(10):
        house.upload(str(name))
    calls: list[int] = []
    submit = house.pool.submit

    def counted(uploads: Sequence[Upload], questions: Sequence[Question], **how: Any) -> None:
        calls.append(len(uploads))
        submit(uploads, questions, **how)

    house.pool.submit = counted  # type: ignore[method-assign]
    house.turn()
    assert calls == [10]


class SlowLink(StubLink):
    """A broker that takes its time over the first commit of decisions: until `during` returns."""

    during: Callable[[], None] | None = None
    polls = 0

    def poll(self, *, timeout_s: float, max_records: int) -> Polled:
        """Count the polls."""
        self.polls += 1
        return super().poll(timeout_s=timeout_s, max_records=max_records)

    def commit(self, outgoing: Sequence[Outgoing], marks: Mapping[Partition, Mark]) -> None:
        """Commit once `during` has returned."""
        if outgoing and self.during is not None:
            during, self.during = self.during, None
            during()
        super().commit(outgoing, marks)


def deciding_during_a_commit(fault: Exception | None = None) -> tuple[House, list[int]]:
    """Return a house whose first commit ended, or failed, only after a second upload was decided; and its polls."""
    house = House(constant(5.0))
    link = SlowLink(house.broker, P, R)
    house.use(link)
    decided: list[int] = []

    def reason(key: int, questions: Sequence[Question]) -> Explained:
        # The stream asks for reasons as soon as it has decided.
        del questions
        decided.append(key)
        return Explained(key=key)

    polls: list[int] = []

    def during() -> None:
        polls.append(link.polls)
        house.pool.let_go()
        until_s = time.monotonic() + 60
        while len(decided) < 2:
            assert time.monotonic() < until_s
            time.sleep(0.001)
        polls.append(link.polls)
        if fault is not None:
            raise fault

    house.pool.reason = reason
    house.pool.holding = True
    house.upload("1")
    house.upload("2")
    house.turn(1)
    house.pool.let_go(count=1)
    link.during = during
    house.turn(1)
    return house, polls


def test_uploads_are_decided_while_a_commit_is_under_way() -> None:
    """What the pool answers during a commit is decided before that ends, and nothing is polled until then."""
    house, polls = deciding_during_a_commit()
    assert polls[0] == polls[1]
    assert [d.content_id for d in house.decisions()] == ["c1"]
    house.turn(1)
    assert [d.content_id for d in house.decisions()] == ["c1", "c2"]


def test_a_commit_that_fails_forgets_what_was_decided_meanwhile() -> None:
    """After an abort what was decided during the commit is read and judged again, and comes out once."""
    house, _ = deciding_during_a_commit(AbortedError("the broker is gone for a moment"))
    assert house.decisions() == []
    house.pool.holding = False
    house.turn(4)
    assert sorted(d.content_id for d in house.decisions()) == ["c1", "c2"]
