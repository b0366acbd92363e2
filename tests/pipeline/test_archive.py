"""The archive: nothing lost, nothing twice, and readable in SQL."""

import csv
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipeline.archive import Archive
from pipeline.archive_query import ask, connect
from pipeline.archiving import Archiving, rebuild, write_batch
from pipeline.cli import main
from pipeline.config import Store
from pipeline.errors import AbortedError, RefusedError
from pipeline.messages import DECISIONS, VERDICTS, Decision, Finding, Review, Source, Verdict
from pipeline.records import Outgoing, Partition, Record
from pipeline.stub import StubBroker, StubLink
from policies.schema import Action, Severity, Status

PLACE = Partition(DECISIONS, 0)
DAY = datetime(2026, 11, 20, 12, tzinfo=UTC)


def decision(number: int, at: datetime = DAY) -> Decision:
    """Return a decision with one finding and a review ticket."""
    return Decision(
        decision_id=f"d{number}",
        source=Source(topic="media.uploads", partition=0, offset=number),
        event_id=f"e{number}",
        content_id=f"c{number}",
        author_id="a",
        context={"surface": "feed", "regions": ("DE",), "reach": 3.0, "tier": "press"},
        action=Action.HOLD,
        regional={"GB": Action.REMOVE},
        review=Review(queue="weapons", priority=2.0, due_at=None, reason="band"),
        findings=(
            Finding(
                policy="weapons",
                policy_version=1,
                status=Status.LIVE,
                severity=Severity.HIGH,
                question="weapons",
                question_digest="sha256:q",
                score=0.25,
                probability=0.5,
                interval=(0.4, 0.6),
                whole=0.3,
                calibration="fresh",
                answered_by="sha256:x",
                outcome="review",
            ),
        ),
        policy_set="sha256:p",
        decided_at=at,
    )


def verdict(number: int) -> Verdict:
    """Return a verdict with a field that this version does not know."""
    return Verdict.model_validate(
        {
            "verdict_id": f"v{number}",
            "job_id": f"j{number}",
            "decision_id": f"d{number}",
            "reviewer": "r",
            "lease": 1,
            "answers": [{"policy": "weapons", "answer": "violates", "mood": "sure"}],
            "decided_at": DAY,
            "weather": "rain",
        }
    )


def record(number: int, at: datetime = DAY) -> Record:
    """Return a decision's record at this offset."""
    value = decision(number, at).model_dump_json().encode()
    return Record(topic=DECISIONS, partition=0, offset=number, timestamp_s=0, key=b"c", value=value)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Return an empty archive in a folder."""
    return Archive(str(tmp_path / "archive"), Store())


@pytest.fixture
def broker() -> StubBroker:
    """Return a broker with seven decisions and two verdicts."""
    broker = StubBroker()
    for number in range(7):
        value = decision(number).model_dump_json().encode()
        broker.write(Outgoing(topic=DECISIONS, key=b"c", value=value))
    for number in range(2):
        value = verdict(number).model_dump_json().encode()
        broker.write(Outgoing(topic=VERDICTS, key=b"c", value=value))
    return broker


def rows(archive: Archive, sql: str) -> list[dict[str, Any]]:
    """Return what the SQL gives."""
    found: list[dict[str, Any]] = ask(connect(archive), sql).read_all().to_pylist()
    return found


def offsets(archive: Archive) -> list[int]:
    """Return the offsets of all archived decisions."""
    return [r["offset"] for r in rows(archive, 'SELECT "offset" FROM decisions ORDER BY 1')]


def archiving(broker: StubBroker, archive: Archive, **options: Any) -> Archiving:
    """Return a consumer of all that the broker has."""
    link = StubLink(broker, *broker.records)
    return Archiving(link=link, archive=archive, **options)


def test_decisions_and_verdicts_stand_in_the_archive(broker: StubBroker, archive: Archive) -> None:
    """Raw scores, context and answers can be asked for; unknown fields of a verdict do no harm."""
    consumer = archiving(broker, archive, wait_s=0.0)
    consumer.turn()

    assert rows(
        archive,
        "SELECT count(*) AS n, any_value(surface) AS surface, any_value(findings[1].score) AS score,"
        " any_value(findings[1].whole) AS whole,"
        " any_value(context) AS context, any_value(regional) AS regional FROM decisions",
    ) == [
        {
            "n": 7,
            "surface": "feed",
            "score": 0.25,
            "whole": 0.3,
            "context": '{"reach": 3.0, "regions": ["DE"], "surface": "feed", "tier": "press"}',
            "regional": '{"GB": "remove"}',
        }
    ]
    assert rows(archive, "SELECT verdict_id, answers[1].answer AS a FROM verdicts ORDER BY 1") == [
        {"verdict_id": "v0", "a": "violates"},
        {"verdict_id": "v1", "a": "violates"},
    ]
    assert broker.marks[PLACE].offset == 7


def test_a_batch_that_was_not_committed_is_not_there_twice(
    broker: StubBroker, archive: Archive
) -> None:
    """A process that died between writing and committing leaves files; its successor's take their place."""
    first = archiving(broker, archive, wait_s=0.0)
    assert isinstance(first.link, StubLink)
    first.link.faults.append(AbortedError("the process dies here"))
    first.turn()
    assert PLACE not in broker.marks
    assert offsets(archive) == list(range(7))

    value = decision(7).model_dump_json().encode()
    broker.write(Outgoing(topic=DECISIONS, key=b"c", value=value))
    archiving(broker, archive, wait_s=0.0).turn()

    assert offsets(archive) == list(range(8))
    assert [(f.first, f.last) for f in archive.files(DECISIONS)] == [(0, 7)]


def test_a_partition_that_is_taken_away_is_written_by_its_next_owner(
    broker: StubBroker, archive: Archive
) -> None:
    """Records in memory are forgotten with their partition, and come once, from whoever has it now."""
    first = archiving(broker, archive, wait_s=1000.0)
    first.turn()
    second = archiving(broker, archive, wait_s=0.0)
    second.turn()
    first.turn()
    first.flush()

    assert offsets(archive) == list(range(7))


def test_overlapping_files_give_each_record_once(archive: Archive) -> None:
    """Batches cut otherwise, and a compaction that died before it removed its sources, double nothing."""
    write_batch(archive, [record(n) for n in range(5)])
    write_batch(archive, [record(n) for n in range(3, 9)])

    assert offsets(archive) == list(range(9))
    assert archive.compact(DECISIONS, before_day="2026-11-21") == 1
    assert [(f.first, f.last) for f in archive.files(DECISIONS)] == [(0, 8)]
    assert offsets(archive) == list(range(9))


def test_a_day_that_is_not_over_is_not_compacted(archive: Archive) -> None:
    """More of it comes still."""
    write_batch(archive, [record(0)])
    write_batch(archive, [record(1)])

    assert archive.compact(DECISIONS, before_day="2026-11-20") == 0
    assert len(archive.files(DECISIONS)) == 2


def test_each_day_has_its_folder(archive: Archive) -> None:
    """A batch that spans midnight is two files, by the decisions' own time."""
    late = datetime(2026, 11, 20, 23, 59, tzinfo=UTC)
    early = datetime(2026, 11, 21, tzinfo=UTC)
    write_batch(archive, [record(0, late), record(1, early), record(2, late)])

    assert [f.day for f in archive.files(DECISIONS)] == ["2026-11-20", "2026-11-21"]
    assert [f.day for f in archive.files(DECISIONS, since_day="2026-11-21")] == ["2026-11-21"]
    assert offsets(archive) == [0, 1, 2]


def test_what_cannot_be_read_holds_nothing_up(archive: Archive) -> None:
    """A record that is no decision is left out; those beside it are there."""
    broken = Record(
        topic=DECISIONS, partition=0, offset=1, timestamp_s=0, key=b"c", value=b"\xff no JSON"
    )
    write_batch(archive, [record(0), broken, record(2)])

    assert offsets(archive) == [0, 2]


def test_half_a_file_is_swept_away(tmp_path: Path, archive: Archive) -> None:
    """What a writer left beside its place is never read, and removed at the next start."""
    write_batch(archive, [record(0)])
    file = archive.files(DECISIONS)[0]
    half = tmp_path / "archive" / f"{file.path}.writing"
    half.write_bytes(b"PAR1")

    assert offsets(archive) == [0]
    archive.sweep()
    assert not half.exists()


def test_a_rebuild_replaces_what_kafka_has_and_keeps_what_it_forgot(archive: Archive) -> None:
    """Older files stay, files of the same offsets go, and files behind the end stay."""
    write_batch(archive, [record(n) for n in range(3)])
    write_batch(archive, [record(n) for n in range(3, 6)])
    write_batch(archive, [record(n) for n in range(6, 10)])
    write_batch(archive, [record(n) for n in range(10, 12)])

    assert rebuild(archive, [record(n) for n in range(3, 10)], most=4) == 7

    ranges = [(f.first, f.last) for f in archive.files(DECISIONS)]
    assert ranges == [(0, 2), (3, 6), (7, 9), (10, 11)]
    assert offsets(archive) == list(range(12))


def test_a_query_reaches_nothing_but_the_archive(tmp_path: Path, archive: Archive) -> None:
    """Files of the machine cannot be read by SQL, and a mistake says which views there are."""
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    with pytest.raises(RefusedError, match="disabled"):
        rows(archive, f"SELECT * FROM read_csv('{secret}')")  # noqa: S608 -- what is refused
    with pytest.raises(RefusedError, match="views decisions, verdicts, uploads"):
        rows(archive, "SELECT * FROM decision")


def test_an_empty_archive_has_its_columns(archive: Archive) -> None:
    """Before the first decision the views are empty, not missing."""
    assert rows(archive, "SELECT action FROM decisions") == []


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """Return a shell whose archive holds 300 decisions."""
    root = tmp_path / "archive"
    write_batch(Archive(str(root), Store()), [record(n) for n in range(300)])
    monkeypatch.setenv("WEIR_ARCHIVE", str(root))
    return CliRunner()


def test_query_prints_a_table_or_everything(shell: CliRunner) -> None:
    """The table for people ends at 200 rows and says so; JSON and CSV have all."""
    sql = 'SELECT content_id, regions FROM decisions ORDER BY "offset"'
    table = shell.invoke(main, ["archive", "query", sql])
    lines = shell.invoke(main, ["archive", "query", sql, "--json"]).stdout.splitlines()
    sheet = list(csv.reader(shell.invoke(main, ["archive", "query", sql, "--csv"]).stdout.split()))

    assert "200 of 300 rows" in table.stdout
    assert json.loads(lines[299]) == {"content_id": "c299", "regions": ["DE"]}
    assert sheet[0] == ["content_id", "regions"]
    assert (len(sheet), sheet[300]) == (301, ["c299", '["DE"]'])


def test_export_has_no_cap(shell: CliRunner, tmp_path: Path) -> None:
    """Parquet and CSV hold every row; another ending is refused with what to write."""
    for name in ("all.parquet", "all.csv"):
        done = shell.invoke(main, ["archive", "export", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
        assert "300 rows" in done.stdout
    refused = shell.invoke(main, ["archive", "export", str(tmp_path / "all.xls")])

    assert pq.read_metadata(tmp_path / "all.parquet").num_rows == 300
    with (tmp_path / "all.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 300
    assert refused.exit_code == 2
    assert ".parquet or .csv" in refused.output
