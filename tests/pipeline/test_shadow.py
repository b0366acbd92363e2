"""What decides in the shadow is recorded and never acts; a report holds it against what is in force."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline import doctor
from pipeline.archive import Archive
from pipeline.archiving import Archiving
from pipeline.calibration import Calibrations
from pipeline.cli import main
from pipeline.config import Kafka, Settings, Store
from pipeline.kafka import Member, Producer, read
from pipeline.messages import DECISIONS, SHADOWS, TICKETS, UPLOADS, Decision
from pipeline.records import Link, Outgoing, Partition
from pipeline.shadow import ShadowLink, shadowed
from pipeline.stream import Stream
from pipeline.stub import StubBroker, StubLink, StubPool, constant
from pipeline.watchdog import Watchdog
from policies.question import Question
from policies.schema import Policy, PolicySet
from tests.pipeline.test_decide import policy
from workers.classifier import Classification
from workers.upload import Judged, Upload

P = Partition(UPLOADS, 0)
WATCHDOG = Watchdog(limit_s=60.0)
ACTS: Policy = policy(bands={"review": 0.3, "act": 0.9, "uncalibrated": "act"})
#: It takes less for sure, so that it removes what a person would have seen.
BOLDER: Policy = policy(bands={"review": 0.2, "act": 0.5, "uncalibrated": "act"})


def uploads(count: int) -> list[Outgoing]:
    """Return uploads of a few words, and one that nobody can read."""
    events = [
        {"event_id": f"e{n}", "content_id": f"c{n}", "text": f"caption {n}"} for n in range(count)
    ]
    records = [
        Outgoing(topic=UPLOADS, key=event["content_id"].encode(), value=json.dumps(event).encode())
        for event in events
    ]
    return [*records, Outgoing(topic=UPLOADS, key=b"broken", value=b"no JSON")]


def graded(upload: Upload, questions: Sequence[Question]) -> Judged:
    """Judge one upload after the other as surely, probably, and hardly a violation."""
    score = (4.0, 1.0, -4.0)[int(upload.caption.rpartition(" ")[2]) % 3]
    return Judged(
        key=upload.key,
        classifications=tuple(Classification(question=q.id, score=score) for q in questions),
        answered_by={q.id: "sha256:stub" for q in questions},
    )


def work(link: Link, policies: PolicySet, *, turns: int = 8) -> None:
    """Have a stream of the stub decide what there is."""
    stream = Stream(link, StubPool(graded), lambda: policies, Calibrations, WATCHDOG)
    for _ in range(turns):
        stream.turn()


def shadows(broker: StubBroker, share: float, *, since_s: float = 0.0) -> dict[str, Decision]:
    """Run a shadow with bolder policies over a broker's uploads, and return its decisions by content."""
    broker.marks.clear()
    broker.records = {place: log for place, log in broker.records.items() if place == P}
    link = ShadowLink(link=StubLink(broker, P), share=share, since_s=since_s)
    work(link, PolicySet((BOLDER,)))
    found = [Decision.model_validate_json(r.value or b"") for r in broker.written(SHADOWS)]
    return {decision.content_id: decision for decision in found}


@pytest.fixture
def broker() -> StubBroker:
    """Return a broker with 300 uploads and one that cannot be read."""
    broker = StubBroker()
    for out in uploads(300):
        broker.write(out)
    return broker


def test_a_shadow_writes_its_decisions_and_nothing_else(broker: StubBroker) -> None:
    """Neither a decision in force, nor a job, a rescoring, a dead letter or a policy set comes of it."""
    found = shadows(broker, 1.0)

    assert {place.topic for place in broker.records} == {UPLOADS, SHADOWS}
    assert len(found) == 300
    assert {decision.decided_by for decision in found.values()} == {"shadow"}
    # It records what it would have done.
    assert {decision.action.value for decision in found.values()} == {"remove", "allow"}
    assert broker.marks[P].offset >= 300


def test_a_shadow_tells_how_far_behind_it_is(broker: StubBroker) -> None:
    """What it still has to read is known, so that its lag can be watched."""
    link = ShadowLink(link=StubLink(broker, P), share=1.0, since_s=0.0)

    before = link.backlog()
    link.poll(timeout_s=0.0, max_records=100)

    assert (before, link.backlog()) == ({UPLOADS: 301}, {UPLOADS: 201})


def test_a_shadow_looks_at_the_same_share_of_contents_always(broker: StubBroker) -> None:
    """About the share that is written; a larger share adds to it."""
    fifth, again, half = shadows(broker, 0.2), shadows(broker, 0.2), shadows(broker, 0.5)

    assert fifth.keys() == again.keys()
    assert fifth.keys() < half.keys()
    # Of 300 fair lots a fifth is between 35 and 90 but once in a million.
    assert 35 < len(fifth) < 90


def test_a_shadow_begins_with_what_arrives(broker: StubBroker) -> None:
    """It does not go through all that was uploaded in the days before it was started."""
    assert shadows(broker, 1.0, since_s=broker.clock() + 10) == {}


def test_the_report_tells_where_a_shadow_differs(
    broker: StubBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pair of what is in force and what the shadow would do is counted, with examples, and by question."""
    kept = shadows(broker, 0.5)
    broker.marks.clear()
    work(StubLink(broker, P), PolicySet((ACTS,)))
    link = StubLink(broker, Partition(DECISIONS, 0), Partition(SHADOWS, 0))
    archive = Archive(str(tmp_path / "archive"), Store())
    Archiving(link=link, archive=archive, wait_s=0.0).turn()
    monkeypatch.setenv("WEIR_ARCHIVE", str(tmp_path / "archive"))

    done = CliRunner().invoke(main, ["report", "shadow", "--json"])
    shown = CliRunner().invoke(main, ["report", "shadow"])

    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["decisions"] == len(kept)
    pairs = {(pair["live"], pair["shadow"]): pair for pair in told["pairs"]}
    kinds = [int(name[1:]) % 3 for name in kept]
    counts = {names: pair["count"] for names, pair in pairs.items()}
    assert counts == {
        ("remove", "remove"): kinds.count(0),
        ("hold + review", "remove"): kinds.count(1),
        ("allow", "allow"): kinds.count(2),
    }
    assert set(pairs["hold + review", "remove"]["examples"]) <= kept.keys()
    assert told["differing"]["low"] < kinds.count(1) / len(kinds) < told["differing"]["high"]
    by_question = {one["question"]: one for one in told["questions"]}
    assert by_question["weapons"]["differing"] == kinds.count(1)
    assert by_question["weapons"]["apart"] == 0
    assert "hold + review" in shown.stdout


def test_without_a_shadow_the_report_says_how_to_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive with nothing to compare names the settings."""
    monkeypatch.setenv("WEIR_ARCHIVE", str(tmp_path / "archive"))

    done = CliRunner().invoke(main, ["report", "shadow"])

    assert done.exit_code == 1
    assert "WEIR_SHADOW_POLICIES" in done.output


def test_a_shadow_decides_by_its_own_policies_and_classifiers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What it does not name is that in force, and it explains nothing."""
    assert not Settings().shadow.on
    monkeypatch.setenv("WEIR_SHADOW_POLICIES", str(tmp_path))
    monkeypatch.setenv("WEIR_SHADOW_ROLLOUT", "5%")
    settings = Settings()

    own = shadowed(settings)

    assert settings.shadow.on
    assert settings.shadow.rollout == 0.05
    assert own.policies == tmp_path
    assert own.classifiers == settings.classifiers
    assert own.stream.rationale_wait_s == 0.0


def test_the_doctor_looks_at_the_shadow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder that is not there is a warning, as nothing stands or falls with it; keys are masked."""
    stub: dict[str, Any] = {"name": "next", "kind": "stub", "model": "stub"}
    secret = {**stub, "options": {"api_key": "hush"}}
    monkeypatch.setenv("WEIR_SHADOW_CLASSIFIERS", json.dumps([secret]))
    monkeypatch.setenv("WEIR_SHADOW_POLICIES", str(tmp_path / "gone"))
    monkeypatch.setenv("WEIR_KAFKA_SERVERS", "127.0.0.1:9")

    [found] = [d for d in doctor.examine(Settings(), models=False) if d.of.startswith("shadow")]

    assert found.state == "warning"
    assert "WEIR_SHADOW_POLICIES" in found.remedy
    assert "hush" not in json.dumps(doctor.masked(Settings()))
    monkeypatch.delenv("WEIR_SHADOW_POLICIES")
    monkeypatch.setenv("WEIR_SHADOW_CLASSIFIERS", json.dumps([stub]))
    [well] = [d for d in doctor.examine(Settings(), models=False) if d.of == "shadow"]
    assert (well.state, "next" in well.says, "never acts" in well.says) == ("well", True, True)


def test_on_a_real_kafka(kafka_settings: Kafka) -> None:
    """The shadow's group reads beside the pipeline's, and writes to its own topic in transactions."""
    began_s = time.time() - 60
    producer = Producer(kafka_settings)
    producer.send(uploads(20)[:20])
    producer.close()
    member = Member(kafka_settings, [UPLOADS], group="weir-shadow", instance="one")
    link = ShadowLink(link=member, share=1.0, since_s=began_s)
    policies = PolicySet((BOLDER,))
    stream = Stream(link, StubPool(constant(4.0)), lambda: policies, Calibrations, WATCHDOG)
    deadline = time.monotonic() + 120
    try:
        while (
            len(found := list(read(kafka_settings, [SHADOWS]))) < 20 and time.monotonic() < deadline
        ):
            for _ in range(4):
                stream.turn()
    finally:
        link.close()

    assert {record.key for record in found} == {f"c{n}".encode() for n in range(20)}
    assert list(read(kafka_settings, [DECISIONS, TICKETS])) == []
