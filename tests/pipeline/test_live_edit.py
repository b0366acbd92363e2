"""A policy file that changes while uploads flow: each decision is made under one whole set, and names it."""

import json
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.embedded import broker
from pipeline import telemetry
from pipeline.calibration import Calibrations
from pipeline.config import Kafka, environment
from pipeline.decide import Origin, decide
from pipeline.kafka import Member, Producer, ends, read
from pipeline.messages import DECISIONS, POLICIES, RESCORE, UPLOADS, Decision, Source, UploadEvent
from pipeline.records import Outgoing
from pipeline.stream import Limits, Stream
from pipeline.stub import StubPool
from pipeline.watchdog import Watchdog
from policies.errors import PolicyError
from policies.folder import read_policies
from policies.question import Question
from policies.reload import PolicyFolder
from policies.schema import PolicySet
from workers.classifier import Item
from workers.spec import ClassifierSpec
from workers.stub import StubClassifier
from workers.upload import Judged, Upload

HOUSE = Path(__file__).parents[2] / "policies"
UPLOADS_IN_ALL = 5_000
MODEL = StubClassifier(ClassifierSpec(name="stub", model="stub", kind="stub"))


def judge(upload: Upload, questions: Sequence[Question]) -> Judged:
    """Return the stub classifier's answers: the same for the same caption."""
    found = MODEL.classify([Item(caption=upload.caption)], questions)[0]
    return Judged(
        key=upload.key,
        classifications=tuple(found),
        answered_by={c.question: MODEL.digest for c in found},
    )


def caption(number: int) -> str:
    """Return the caption of an upload."""
    return f"caption {number}"


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Kafka]:
    """Return settings of an embedded broker of the test's own."""
    part, servers = broker.start(logs=tmp_path, env=environment())
    try:
        yield Kafka(servers=servers, transactions=False)
    finally:
        part.stop(grace_s=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with one policy: the embedded broker keeps a few megabytes."""
    made = tmp_path / "policies"
    made.mkdir()
    for name in ("weapons.yaml", "queues.yaml", "context.yaml"):
        shutil.copy(HOUSE / name, made)
    text = (made / "weapons.yaml").read_text()
    (made / "weapons.yaml").write_text(text.replace("status: draft", "status: live"))
    return made


@dataclass(slots=True, kw_only=True)
class Consumer:
    """An upload consumer in a thread."""

    settings: Kafka
    folder: Path
    errors: list[tuple[float, PolicyError]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    digest: str = ""
    #: Whether all uploads were sent, and how many are behind the committed positions since.
    all_sent: bool = False
    done: int = 0

    def run(self) -> None:
        """Work until told to stop."""
        watched = PolicyFolder(self.folder, self.report)
        dog = Watchdog(limit_s=60)
        link = Member(self.settings, [UPLOADS, RESCORE], group="weir", instance="one")
        limits = Limits(rationale_wait_s=0)
        stream = Stream(link, StubPool(judge), watched.current, Calibrations, dog, limits=limits)
        try:
            while not self.stop.is_set():
                stream.turn()
                self.digest = watched.current().digest
                if self.all_sent and not stream.in_flight():
                    self.done = sum(mark.offset for mark in link.committed(link.held()).values())
        finally:
            link.close()
            dog.close()

    def report(self, error: PolicyError) -> None:
        """Report a wrong folder as the pipeline does, and keep when."""
        telemetry.policy_error(error)
        self.errors.append((time.monotonic(), error))


def send(producer: Producer, numbers: range) -> None:
    """Send uploads evenly, some 1,500 a second."""
    for first in numbers[::50]:
        producer.send(
            [
                Outgoing(
                    topic=UPLOADS,
                    key=f"c{n}".encode(),
                    value=json.dumps(
                        {"event_id": f"e{n}", "content_id": f"c{n}", "text": caption(n)}
                    ).encode(),
                )
                for n in range(first, min(first + 50, numbers.stop))
            ]
        )
        time.sleep(0.03)


def until(condition: object, consumer: Consumer) -> None:
    """Wait until a condition holds, at most two minutes."""
    assert callable(condition)
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, consumer
        time.sleep(0.2)


def edit(folder: Path, old: str, new: str) -> None:
    """Edit the policy the way editors do: a new file takes the place of the old."""
    path = folder / "weapons.yaml"
    beside = folder / ".weapons.yaml.swp"
    text = path.read_text()
    assert old in text
    beside.write_text(text.replace(old, new))
    beside.replace(path)


def decided(settings: Kafka) -> dict[str, Decision]:
    """Return the decisions by content id; without transactions one may stand there twice, under the same id."""
    found: dict[str, Decision] = {}
    for record in read(settings, [DECISIONS]):
        decision = Decision.model_validate_json(record.value or b"")
        found.setdefault(decision.content_id, decision)
        assert found[decision.content_id].decision_id == decision.decision_id
    return found


def again(decision: Decision, policies: PolicySet) -> tuple[object, ...]:
    """Return what `decide` makes of the same upload under one set."""
    number = int(decision.content_id.removeprefix("c"))
    answers = [
        Calibrations().answer(
            next(q for q in policies.questions if q.id == c.question), c, MODEL.digest, now=NOW
        )
        for c in MODEL.classify([Item(caption=caption(number))], policies.questions)[0]
    ]
    event = UploadEvent(event_id=f"e{number}", content_id=f"c{number}", text=caption(number))
    origin = Origin(source=Source(topic=UPLOADS, partition=0, offset=0), decision_id="d")
    return told(decide(event, answers, policies, origin=origin, now=NOW))


def told(decision: Decision) -> tuple[object, ...]:
    """Return what a decision says that its policies decide."""
    review = decision.review
    return (
        decision.action,
        decision.labels,
        None if review is None else (review.queue, review.reason, review.questions),
        [(f.question, f.outcome) for f in decision.findings],
    )


NOW = datetime(2026, 11, 28, tzinfo=UTC)


def test_a_band_changes_while_uploads_flow(settings: Kafka, folder: Path) -> None:
    """Each of 5,000 decisions follows from exactly the set that it names; a broken file changes nothing."""
    old = read_policies(folder)
    consumer = Consumer(settings=settings, folder=folder)
    thread = threading.Thread(target=consumer.run)
    thread.start()
    producer = Producer(settings)
    try:
        send(producer, range(1_000))
        # Some are decided under the old set, and many are still to come.
        until(lambda: sum(ends(settings, [DECISIONS]).values()) >= 200, consumer)
        edit(folder, "act: 0.9\n", "act: 0.6\n")
        new = read_policies(folder)
        send(producer, range(1_000, 4_000))
        until(lambda: consumer.digest == new.digest, consumer)
        broken_s = time.monotonic()
        edit(folder, "severity: high\n", "severity: hihg\n")
        send(producer, range(4_000, UPLOADS_IN_ALL))
        until(lambda: consumer.errors, consumer)
        consumer.all_sent = True
        until(lambda: consumer.done >= UPLOADS_IN_ALL, consumer)
    finally:
        consumer.stop.set()
        thread.join()
        producer.close()
    found = decided(settings)

    sets = {old.digest: old, new.digest: new}
    assert old.digest != new.digest
    # Each was decided under one set, and the sets differ on many of them.
    expected = {c: {name: again(d, s) for name, s in sets.items()} for c, d in found.items()}
    wrong = [c for c, d in found.items() if told(d) != expected[c][d.policy_set]]
    telling = [c for c, both in expected.items() if both[old.digest] != both[new.digest]]
    assert wrong == []
    assert {found[c].policy_set for c in telling} == sets.keys()
    # The last ones came after the file was broken.
    assert found[f"c{UPLOADS_IN_ALL - 1}"].policy_set == new.digest
    # Reported once, in time, with the place.
    (at_s, error), *more = consumer.errors
    assert not more
    assert at_s - broken_s < 5
    assert [(p.field, p.file) for p in error.problems] == [
        ("severity", str(folder / "weapons.yaml"))
    ]
    assert {record.key for record in read(settings, [POLICIES])} == {n.encode() for n in sets}
