"""What lies or ever lay in a sealed queue is archived no more and leaves the archive by no way, nor do its media."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipeline.answered import answers_in, look, stored_scores
from pipeline.archive import Archive
from pipeline.archive_query import ask, connect
from pipeline.archiving import Archiving, rebuild, write_batch
from pipeline.cli import main
from pipeline.comparing import compare
from pipeline.config import Store
from pipeline.contents import uploads_of
from pipeline.erasing import contents_of
from pipeline.messages import (
    DECISIONS,
    REVIEWS,
    SHADOWS,
    UPLOADS,
    VERDICTS,
    Content,
    Decision,
    Finding,
    MediaRef,
    Review,
    ReviewEvent,
    Source,
    UploadEvent,
    Verdict,
    text_digest,
)
from pipeline.records import Outgoing, Record
from pipeline.stored import selected
from pipeline.stub import StubBroker, StubLink
from policies.schema import Action, Severity, Status

NOW = datetime.now(UTC)
SEALED = {"minor_safety"}
#: Contents: nobody's business, what somebody moved into a sealed queue, and the same picture elsewhere.
OPEN, MOVED, SAME = "c0", "c1", "c2"
MEDIA = {OPEN: "sha256:" + "a" * 64, MOVED: "sha256:" + "b" * 64, SAME: "sha256:" + "b" * 64}


def decision(content: str, *, queue: str = "weapons", by: str = "pipeline") -> Decision:
    """Return a decision that sends a content to a queue."""
    found = Finding(
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
        outcome="review",
    )
    review = Review(queue=queue, priority=1.0, due_at=None, reason="band", questions=("weapons",))
    return Decision(
        decision_id=f"d-{content}",
        source=Source(topic=UPLOADS, partition=0, offset=int(content[1:])),
        event_id=f"e-{content}",
        content_id=content,
        author_id="jane",
        content=Content(media=(MEDIA[content],), text=text_digest("x")),
        action=Action.HOLD,
        review=review,
        findings=(found,),
        policy_set="sha256:p",
        decided_by=by,
        decided_at=NOW - timedelta(hours=2),
    )


def verdict(content: str, **more: Any) -> Verdict:
    """Return what somebody said of a content."""
    said = {
        "verdict_id": f"v-{content}",
        "job_id": f"d-{content}",
        "decision_id": f"d-{content}",
        "reviewer": "ann",
        "lease": 1,
        "answers": [{"policy": "weapons", "answer": "allowed"}],
        "decided_at": NOW - timedelta(hours=1),
        **more,
    }
    return Verdict.model_validate(said)


def upload(content: str) -> UploadEvent:
    """Return the upload of a content."""
    media = (MediaRef(uri=f"file:///{content}.jpg"),)
    return UploadEvent(event_id=f"e-{content}", content_id=content, media=media, text="x")


def move(content: str, *, kind: str = "escalated", queue: str = "minor_safety") -> ReviewEvent:
    """Return that somebody put a job into a queue."""
    return ReviewEvent(
        event_id="r",
        kind=kind,
        job_id=f"d-{content}",
        decision_id=f"d-{content}",
        by="ann",
        at=NOW,
        lease=1,
        queue=queue,
        media=(MEDIA[content],),
    )


def records(topic: str, *said: tuple[str, Any], first: int = 0) -> list[Record]:
    """Return records of one partition, each about a content."""
    return [
        Record(
            topic=topic,
            partition=0,
            offset=first + number,
            timestamp_s=(NOW - timedelta(hours=3)).timestamp(),
            key=content.encode(),
            value=what.model_dump_json().encode(),
        )
        for number, (content, what) in enumerate(said)
    ]


def rows(archive: Archive, sql: str) -> list[dict[str, Any]]:
    """Return what the SQL gives."""
    found: list[dict[str, Any]] = ask(connect(archive), sql).read_all().to_pylist()
    return found


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an archive of three contents, each with all that is said of it, of which none is sealed yet."""
    archive = Archive(str(tmp_path / "archive"), Store())
    contents = (OPEN, MOVED, SAME)
    write_batch(archive, records(UPLOADS, *((c, upload(c)) for c in contents)), sealed=SEALED)
    for topic, by in ((DECISIONS, "pipeline"), (SHADOWS, "shadow")):
        made = [(c, decision(c, by=by)) for c in contents]
        write_batch(archive, records(topic, *made), sealed=SEALED)
    write_batch(archive, records(VERDICTS, *((c, verdict(c)) for c in contents)), sealed=SEALED)
    return archive


def seal(archive: Archive) -> None:
    """Let the archive hear that somebody moved a job into a sealed queue."""
    write_batch(archive, records(REVIEWS, (MOVED, move(MOVED))), sealed=SEALED)


def _view(name: str) -> Callable[[Archive], set[str]]:
    return lambda archive: {r["content_id"] for r in rows(archive, f"SELECT * FROM {name}")}  # noqa: S608 -- our own words


def _pairs(archive: Archive) -> set[str]:
    pairs = compare(archive, since=NOW - timedelta(days=1)).pairs
    return {content for pair in pairs for content in pair.examples}


def _decided(archive: Archive) -> set[str]:
    tables = selected(archive, since=NOW - timedelta(days=1))
    return {name for table in tables for name in table["content_id"].to_pylist()}


def _labels(archive: Archive) -> set[str]:
    return {a.content_id for a in answers_in(archive, since=NOW - timedelta(days=1))}


def _uploads(archive: Archive) -> set[str]:
    found = uploads_of(archive, [f"d-{content}" for content in MEDIA])
    return {name.removeprefix("d-") for name in found}


def _exported(archive: Archive) -> set[str]:
    target = Path(archive.name) / "out.parquet"
    environment = {"WEIR_ARCHIVE": archive.name}
    done = CliRunner().invoke(main, ["archive", "export", str(target)], env=environment)
    assert done.exit_code == 0, done.output
    return set(pq.read_table(target)["content_id"].to_pylist())


#: Every way on which something leaves the archive -> the contents that do.
WAYS: dict[str, Callable[[Archive], set[str]]] = {
    "archive query, decisions": _view("decisions"),
    "archive query, verdicts": _view("verdicts"),
    "archive query, uploads": _view("uploads"),
    "archive query, shadows": _view("shadows"),
    "archive query, the files behind a view": _view("decisions_files"),
    "archive export": _exported,
    "backtest": _decided,
    "backtest of new words, training": _uploads,
    "labels for calibration and monitor": _labels,
    "report shadow": _pairs,
}


@pytest.mark.parametrize("way", WAYS)
def test_what_was_archived_before_it_was_sealed_comes_out_no_more(
    archive: Archive, way: str
) -> None:
    """Once a job is moved into a sealed queue, its content and its picture, wherever that is, stay in."""
    assert WAYS[way](archive) == {OPEN, MOVED, SAME}

    seal(archive)

    assert WAYS[way](archive) == {OPEN}


def test_sealed_contents_count_in_no_figure(archive: Archive) -> None:
    """Quality is estimated, and stored scores are looked at, without them."""
    since = NOW - timedelta(days=1)
    seal(archive)

    looked = look(archive, since=since)
    scores, _, _ = stored_scores(archive, since=since)["weapons", "sha256:q", "sha256:x"]

    assert sum(looked.counts.values()) == len(looked.answers) == 1
    assert len(scores) == 1


def test_a_move_to_another_queue_seals_nothing(archive: Archive) -> None:
    """Neither does a note, nor a skip, in whichever queue."""
    some = [move(MOVED, queue="graphic"), move(MOVED, kind="noted")]
    write_batch(archive, records(REVIEWS, *((MOVED, event) for event in some)), sealed=SEALED)

    assert _view("decisions")(archive) == {OPEN, MOVED, SAME}


@pytest.mark.parametrize(
    "said",
    [
        (DECISIONS, decision(MOVED, queue="minor_safety")),
        (VERDICTS, verdict(MOVED, sealed=True)),
        (VERDICTS, verdict(MOVED, escalate="minor_safety")),
        (REVIEWS, move(MOVED)),
        (REVIEWS, move(MOVED, kind="moved")),
    ],
    ids=["decided so", "answered there", "escalated in the answer", "escalated", "moved"],
)
def test_whatever_leads_into_a_sealed_queue_seals(archive: Archive, said: tuple[str, Any]) -> None:
    """A policy, an answer, an escalation or a move: the content is out of sight by each of them."""
    topic, what = said
    write_batch(archive, records(topic, (MOVED, what), first=10), sealed=SEALED)

    for view in ("decisions", "verdicts", "uploads"):
        assert MOVED not in _view(view)(archive)


def test_compaction_and_rebuild_keep_the_seal(archive: Archive) -> None:
    """The files of a compacted day hold nothing of it any more; an archive made anew is as the one before."""
    seal(archive)
    again = [(c, decision(c)) for c in (OPEN, MOVED)]
    write_batch(archive, records(DECISIONS, *again, first=3), sealed=SEALED)
    tomorrow = (NOW + timedelta(days=1)).strftime("%Y-%m-%d")

    assert archive.compact(DECISIONS, before_day=tomorrow) == 1

    [file] = archive.files(DECISIONS)
    held = archive.dataset([file], DECISIONS, without=()).to_table()["content_id"].to_pylist()
    assert held == [OPEN, OPEN]
    log = records(REVIEWS, (MOVED, move(MOVED)))
    log += records(DECISIONS, *((c, decision(c)) for c in (OPEN, MOVED, SAME)))
    assert rebuild(archive, log, sealed=SEALED) == 4
    assert _view("decisions")(archive) == {OPEN}
    assert _view("verdicts")(archive) == {OPEN}


def test_an_erasure_reaches_what_is_sealed(archive: Archive) -> None:
    """Whoever erases still finds an author's sealed contents, and erases in them."""
    seal(archive)

    assert contents_of(archive, "jane") == [OPEN, MOVED, SAME]


def test_the_consumer_reads_what_seals(tmp_path: Path) -> None:
    """It writes a seal beside what it archives, and commits both topics."""
    broker = StubBroker()
    for content in (OPEN, MOVED):
        value = decision(content).model_dump_json().encode()
        broker.write(Outgoing(topic=DECISIONS, key=content.encode(), value=value))
    value = move(MOVED).model_dump_json().encode()
    broker.write(Outgoing(topic=REVIEWS, key=MOVED.encode(), value=value))
    archive = Archive(str(tmp_path / "archive"), Store())
    link = StubLink(broker, *broker.records)
    Archiving(link=link, archive=archive, wait_s=0.0, sealed=SEALED).turn()

    assert _view("decisions")(archive) == {OPEN}
    assert {place.topic: mark.offset for place, mark in broker.marks.items()} == {
        DECISIONS: 2,
        REVIEWS: 1,
    }
    assert "minor_safety" not in json.dumps(rows(archive, "SELECT * FROM decisions"), default=str)
