"""`weir queue` on a real Kafka and a real Redis."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline import kafka
from pipeline.cli import main
from pipeline.config import Kafka
from pipeline.messages import (
    AUDIT,
    REVIEWS,
    TICKETS,
    VERDICTS,
    Decision,
    Finding,
    Review,
    Source,
    Ticket,
    UploadEvent,
    Verdict,
)
from pipeline.records import Outgoing
from policies.schema import Action, Severity, Status

HOUSE = Path(__file__).resolve().parents[3]


@pytest.fixture
def services(kafka_settings: Kafka, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Kafka:
    """Point the command line at services of our own."""
    monkeypatch.setenv("WEIR_KAFKA_SERVERS", kafka_settings.servers)
    monkeypatch.setenv("WEIR_KAFKA_TOPIC_PREFIX", kafka_settings.topic_prefix)
    monkeypatch.setenv("WEIR_REDIS_URL", redis_url)
    monkeypatch.setenv("WEIR_POLICIES", str(HOUSE / "policies"))
    return kafka_settings


def ticket(name: str, probability: float) -> Ticket:
    """Return a ticket of the policy on gambling."""
    finding = Finding(
        policy="gambling",
        policy_version=1,
        status=Status.LIVE,
        severity=Severity.MEDIUM,
        question="gambling",
        question_digest="sha256:q",
        score=1.0,
        probability=probability,
        calibration="fresh",
        answered_by="sha256:m",
        outcome="review",
    )
    decision = Decision(
        decision_id=name,
        source=Source(topic="media.uploads", partition=0, offset=1),
        event_id=name,
        content_id=f"c-{name}",
        action=Action.HOLD,
        review=Review(
            queue="regulated",
            priority=probability * 3,
            due_at=None,
            reason="band",
            questions=("gambling",),
        ),
        findings=(finding,),
        policy_set="sha256:p",
        decided_at=datetime.now(UTC),
    )
    return Ticket(decision=decision, event=UploadEvent(event_id=name, content_id=f"c-{name}"))


def run(*args: str, code: int = 0) -> Result:
    """Run a command that ends with this exit code."""
    done = CliRunner().invoke(main, ["queue", *args])
    assert done.exit_code == code, done.output + repr(done.exception)
    return done


def test_a_shift_on_the_command_line(services: Kafka) -> None:
    """Rebuild, stats, peek, claim, note, skip, move, resolve: each does what it says, and says it in JSON too."""
    producer = kafka.Producer(services)
    producer.place(
        [
            Outgoing(
                topic=TICKETS,
                key=t.decision.content_id.encode(),
                value=t.model_dump_json().encode(),
            )
            for t in (ticket("low", 0.4), ticket("high", 0.8))
        ]
    )
    producer.close()

    assert json.loads(run("rebuild", "--yes", "--json").stdout) == {"records": 2, "jobs": 2}
    assert [q["open"] for q in json.loads(run("stats", "--json").stdout) if q["open"]] == [2]
    assert "regulated" in run("stats").stdout
    rows = json.loads(run("peek", "regulated", "--json").stdout)
    assert [row["job"] for row in rows] == ["high", "low"]
    assert rows[0]["harm"] == pytest.approx(2.4)

    [job] = json.loads(run("claim", "--as", "ann", "--json").stdout)
    lease = str(job["lease"])
    assert job["job"] == "high"
    assert "0.40 × 3" in run("claim", "low", "--as", "bob").stdout
    run("claim", "--as", "cy", code=1)
    run("note", "high", "look left", "--lease", lease, "--as", "ann")
    assert "does not hold" in run("release", "high", "--lease", lease, "--as", "bob", code=1).output
    run("move", "high", "violence", "--lease", lease, "--as", "ann")
    assert not json.loads(run("peek", "regulated", "--json").stdout)
    [again] = json.loads(run("claim", "--as", "dee", "--skills", "graphic", "--json").stdout)
    said = ("--lease", str(again["lease"]), "--as", "dee")
    assert "no answer: gambling" in run("resolve", again["job"], *said, code=1).output
    assert "is no answer" in run("resolve", again["job"], "gambling", *said, code=2).output
    assert run("resolve", again["job"], "gambling=allowed", *said).stdout.startswith("verdict ")

    [record] = kafka.read(services, [VERDICTS])
    verdict = Verdict.model_validate_json(record.value or b"")
    assert (verdict.job_id, verdict.reviewer) == ("high", "dee")
    assert len(list(kafka.read(services, [REVIEWS]))) == 2
    assert json.loads(run("figures", "--json").stdout)["verdicts"] == 1
    assert "two who looked" in run("figures").stdout
    nothing = CliRunner().invoke(main, ["policy", "offered"])
    assert (nothing.exit_code, nothing.stderr) == (1, "no overturned appeal is on the log\n")


def test_after_the_answer_on_the_command_line(services: Kafka) -> None:
    """A closed job's answers are replaced, or said to be right; who takes a job of a sealed queue leaves a trace."""
    before = ticket("done", 0.8)
    made = before.decision.model_copy(
        update={
            "decision_id": "made",
            "supersedes": "done",
            "decided_by": "person",
            "reviewer": "ann",
            "verdict_id": "v1",
            "review": None,
        }
    )
    told = (before, before.model_copy(update={"decision": made}), ticket("open", 0.4))
    producer = kafka.Producer(services)
    producer.place(
        [Outgoing(topic=TICKETS, key=b"same", value=t.model_dump_json().encode()) for t in told]
    )
    producer.close()
    assert json.loads(run("rebuild", "--yes", "--json").stdout)["jobs"] == 1
    lea = ("--as", "lea", "--lead")

    only_author = run("withdraw", "done", "gambling=allowed", "--as", "bob", code=1).output
    replaced = run("withdraw", "done", "gambling=allowed", "--as", "ann").stdout
    not_closed = run("golden", "open", "gambling=allowed", *lea, code=1).output
    run("golden", "done", "gambling=allowed", *lea)
    run("move", "open", "minor_safety", "--reason", "a child", *lea)
    named = ("--as", "sia", "--sealed", "minor_safety", "--skills", "minor-safety")
    [job] = json.loads(run("claim", *named, "--json").stdout)

    assert "only its author or a lead" in only_author
    assert replaced.endswith("takes the place of v1\n")
    assert "not one that was reviewed lately" in not_closed
    kinds = [json.loads(r.value or b"")["kind"] for r in kafka.read(services, [REVIEWS])]
    assert sorted(kinds) == ["golden", "moved"]
    [trace] = [json.loads(r.value or b"") for r in kafka.read(services, [AUDIT])]
    assert (trace["by"], trace["what"], trace["job_id"]) == ("sia", "viewed_sealed", job["job"])
