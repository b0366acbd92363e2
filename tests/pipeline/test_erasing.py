"""Erasures and legal holds: personal fields go for good, what is under a hold stays, a rebuild erases again."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner, Result
from moto.server import ThreadedMotoServer

from pipeline.archive import Archive
from pipeline.archive_query import ask, connect
from pipeline.archived_rows import ERASED
from pipeline.archiving import Archiving, run_archive, write_batch
from pipeline.cli import main
from pipeline.config import Kafka, Settings, Store
from pipeline.erasing import apply, contents_of
from pipeline.kafka import Producer
from pipeline.legal import Erasures, Legal
from pipeline.messages import (
    DECISIONS,
    LEGAL,
    UPLOADS,
    VERDICTS,
    Content,
    Decision,
    Evidence,
    Finding,
    LegalEvent,
    MediaRef,
    Rationale,
    Source,
    UploadEvent,
    Verdict,
)
from pipeline.records import Outgoing, Record
from pipeline.stub import StubBroker, StubLink
from policies.schema import Action, Severity, Status

NOW = datetime.now(UTC)


def decision(number: int, author: str) -> bytes:
    """Return a decision on a content of this author, with everything personal that one may hold."""
    finding = Finding(
        policy="weapons",
        policy_version=1,
        status=Status.LIVE,
        severity=Severity.HIGH,
        question="weapons",
        question_digest="sha256:q",
        score=0.25,
        probability=0.5,
        calibration="fresh",
        answered_by="sha256:x",
        rationale=Rationale(clause="W1", text="Jane Doe holds a knife.", supported=True),
        evidence=(Evidence(media=0, time_s=3.5),),
        outcome="acted",
    )
    made = Decision(
        decision_id=f"d{number}",
        source=Source(topic="media.uploads", partition=0, offset=number),
        event_id=f"e{number}",
        content_id=f"c{number}",
        author_id=author,
        content=Content(media=("sha256:m",), text="sha256:t", language="en"),
        context={"surface": "feed", "regions": ("DE",), "author_age": "minor"},
        action=Action.REMOVE,
        findings=(finding,),
        policy_set="sha256:p",
        decided_at=NOW - timedelta(hours=1),
    )
    return made.model_dump_json().encode()


def verdict(number: int) -> bytes:
    """Return a verdict with a note on a person."""
    said = Verdict.model_validate(
        {
            "verdict_id": f"v{number}",
            "job_id": f"j{number}",
            "decision_id": f"d{number}",
            "reviewer": "r",
            "lease": 1,
            "answers": [{"policy": "weapons", "answer": "violates"}],
            "note": "This is Jane Doe.",
            "decided_at": NOW - timedelta(minutes=30),
        }
    )
    return said.model_dump_json().encode()


def upload(number: int, author: str) -> bytes:
    """Return the upload that a decision was about."""
    said = UploadEvent(
        event_id=f"e{number}",
        content_id=f"c{number}",
        author_id=author,
        media=(MediaRef(uri="s3://uploads/jane.jpg"),),
        text="I am Jane Doe.",
    )
    return said.model_dump_json().encode()


def outgoing() -> list[Outgoing]:
    """Return four uploads of two authors, each with its decision and a verdict."""
    found = []
    for number in range(4):
        key = f"c{number}".encode()
        author = "jane" if number % 2 else "john"
        found.append(Outgoing(topic=UPLOADS, key=key, value=upload(number, author)))
        found.append(Outgoing(topic=DECISIONS, key=key, value=decision(number, author)))
        found.append(Outgoing(topic=VERDICTS, key=key, value=verdict(number)))
    return found


#: What rows of a view are put in order by.
ORDERS = {"decisions": "decision_id", "verdicts": "decision_id", "uploads": "event_id"}


def rows(archive: Archive, view: str, by: str = "decision_id") -> list[dict[str, Any]]:
    """Return all rows of a view, in order."""
    found: list[dict[str, Any]] = (
        ask(connect(archive), f"SELECT * FROM {view} ORDER BY {by}")  # noqa: S608 -- our own words
        .read_all()
        .to_pylist()
    )
    return found


def event(kind: str, *contents: str, at: datetime = NOW, **fields: Any) -> LegalEvent:
    """Return a legal event."""
    return LegalEvent(
        event_id=kind, kind=kind, content_ids=contents, reason="r", by="b", at=at, **fields
    )


def legal(*events: LegalEvent) -> Legal:
    """Return what these events say, the last one first in its partition."""
    return Legal.of(
        Record(
            topic=LEGAL,
            partition=9 - n,
            offset=0,
            timestamp_s=n,
            key=b"k",
            value=event.model_dump_json().encode(),
        )
        for n, event in enumerate(events)
    )


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an archive of the decisions and verdicts."""
    archive = Archive(str(tmp_path / "archive"), Store())
    for topic in (DECISIONS, VERDICTS):
        values = [out for out in outgoing() if out.topic == topic]
        write_batch(
            archive,
            [
                Record(
                    topic=topic, partition=0, offset=n, timestamp_s=0, key=out.key, value=out.value
                )
                for n, out in enumerate(values)
            ],
        )
    return archive


def test_a_hold_lasts_until_it_is_released_or_over() -> None:
    """The broker's order counts, and a hold ends by itself."""
    tomorrow = NOW + timedelta(days=1)
    state = legal(
        event("hold", "a", "b", "c", until=tomorrow),
        event("release", "b"),
        event("hold", "d", until=NOW - timedelta(days=1)),
        event("something new", "a"),
    )

    assert state.held(NOW).keys() == {"a", "c"}
    assert state.held(tomorrow) == {}


def test_personal_fields_go_and_the_chain_stays(archive: Archive) -> None:
    """An author's decisions and the verdicts on them lose what is personal; others' are as they were."""
    before = rows(archive, "decisions")
    erasures = legal(event("erase", *contents_of(archive, "jane"), author_id="jane")).erasures()

    assert apply(archive, erasures) == 4
    assert apply(archive, erasures) == 0

    after = rows(archive, "decisions")
    assert after[0::2] == before[0::2]
    for row, was in zip(after[1::2], before[1::2], strict=True):
        assert "Jane" not in json.dumps(row, default=str)
        assert (row["author_id"], row["media"], row["text"]) == (None, [ERASED], ERASED)
        assert json.loads(row["context"]) == {"regions": ["DE"], "surface": "feed"}
        assert [f["time_s"] for f in row["findings"]] == [None]
        for kept in ("decision_id", "content_id", "action", "policy_set", "decided_at"):
            assert row[kept] == was[kept]
        assert row["findings"][0]["score"] == was["findings"][0]["score"]
    assert [row["note"] for row in rows(archive, "verdicts")] == [
        "This is Jane Doe.",
        None,
        "This is Jane Doe.",
        None,
    ]


def test_an_uploads_own_words_go_too(archive: Archive) -> None:
    """Of an erased upload neither its author, its caption nor the place of its media is left."""
    received = (NOW - timedelta(hours=2)).timestamp()
    write_batch(
        archive,
        [
            Record(
                topic=UPLOADS,
                partition=0,
                offset=number,
                timestamp_s=received,
                key=b"c",
                value=upload(number, author),
            )
            for number, author in enumerate(("john", "jane"))
        ],
    )

    apply(archive, Erasures(authors={"jane": NOW}))

    kept, gone = rows(archive, "uploads", by="event_id")
    assert (kept["author_id"], kept["caption"]) == ("john", "I am Jane Doe.")
    assert kept["uris"] == ["s3://uploads/jane.jpg"]
    assert (gone["event_id"], gone["content_id"]) == ("e1", "c1")
    assert [gone[name] for name in ("author_id", "caption", "uris", "content_types")] == [None] * 4


def test_what_is_decided_later_is_not_erased(archive: Archive) -> None:
    """An erasure covers what was decided until then."""
    early = Erasures(contents={"c1": NOW - timedelta(hours=2)})

    assert apply(archive, early) == 0


def test_what_waits_in_memory_is_erased_when_it_is_written(tmp_path: Path) -> None:
    """A consumer erases in its own files before it commits."""
    broker = StubBroker()
    for out in outgoing():
        broker.write(out)
    archive = Archive(str(tmp_path / "archive"), Store())
    link = StubLink(broker, *broker.records)
    erasures = Erasures(contents={"c1": NOW})
    Archiving(link=link, archive=archive, wait_s=0.0, erasures=lambda: erasures).turn()

    assert [row["author_id"] for row in rows(archive, "decisions")] == [
        "john",
        None,
        "john",
        "jane",
    ]


@pytest.fixture
def bucket() -> Iterator[dict[str, str]]:
    """Return the settings of an S3 with an empty bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket="archive")
    yield {
        "WEIR_ARCHIVE": "s3://archive/weir",
        "WEIR_STORE_ENDPOINT": endpoint,
        "WEIR_STORE_ACCESS_KEY": "key",
        "WEIR_STORE_SECRET_KEY": "secret",
    }
    server.stop()


def weir(*arguments: str) -> Result:
    """Run a command."""
    return CliRunner().invoke(main, arguments)


def archived(settings: Settings, count: int) -> Archive:
    """Run the archive's consumer until so much of everything is there, and return the archive."""
    archive = Archive(settings.archive, settings.store)
    stop = threading.Event()
    thread = threading.Thread(target=run_archive, args=(settings, stop))
    thread.start()
    deadline = time.monotonic() + 120
    try:
        while min(len(rows(archive, view, by)) for view, by in ORDERS.items()) < count:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        stop.set()
        thread.join()
    return archive


def test_on_a_real_kafka_and_s3(
    kafka_settings: Kafka, bucket: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Archived, refused under a hold, erased once that ends, and erased still after a rebuild."""
    for name, value in {
        **bucket,
        "WEIR_KAFKA_SERVERS": kafka_settings.servers,
        "WEIR_KAFKA_TOPIC_PREFIX": kafka_settings.topic_prefix,
        "WEIR_KAFKA_SESSION_S": "6",
        "WEIR_ARCHIVE_WAIT_S": "0.5",
    }.items():
        monkeypatch.setenv(name, value)
    producer = Producer(kafka_settings)
    producer.send(outgoing())
    producer.close()
    archive = archived(Settings(), 4)
    assert len(rows(archive, "decisions")) == len(rows(archive, "verdicts")) == 4
    assert len(rows(archive, "uploads", by="event_id")) == 4

    assert (
        weir("legal-hold", "add", "c1", "--reason", "order 7", "--until", "2099-01-01").exit_code
        == 0
    )
    refused = weir("archive", "erase", "--author", "jane", "--reason", "request 3")
    assert refused.exit_code == 1
    assert "c1 is under a legal hold (order 7)" in refused.output
    assert [row["author_id"] for row in rows(archive, "decisions")].count("jane") == 2

    assert weir("legal-hold", "release", "c1", "--reason", "order lifted").exit_code == 0
    assert weir("legal-hold", "release", "c1", "--reason", "again").exit_code == 1
    done = weir("archive", "erase", "--author", "jane", "--reason", "request 3")
    assert done.exit_code == 0, done.output
    assert [row["author_id"] for row in rows(archive, "decisions")] == ["john", None, "john", None]

    # Kafka still has the fields; an archive that is made anew has none of them.
    before = rows(archive, "decisions")
    again = weir("archive", "rebuild")
    assert again.exit_code == 0, again.output
    assert rows(archive, "decisions") == before
    assert all(row["note"] is None for row in rows(archive, "verdicts")[1::2])
    assert [row["caption"] for row in rows(archive, "uploads", by="event_id")] == [
        "I am Jane Doe.",
        None,
        "I am Jane Doe.",
        None,
    ]
