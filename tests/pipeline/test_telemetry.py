"""What operators see: log lines that machines read, and metrics that dashboards draw."""

import json
import subprocess
import sys
import urllib.request
from datetime import UTC, datetime

import pytest

from infra.embedded.ports import free_port
from pipeline import telemetry
from pipeline.messages import Decision, Fault, Finding, Review, Source, Stage
from policies.schema import Action, Severity, Status

DECISION = Decision(
    decision_id="d",
    source=Source(topic="media.uploads", partition=0, offset=7),
    event_id="e-1",
    content_id="c-1",
    action=Action.HOLD,
    policy_set="sha256:0",
    decided_at=datetime(2026, 1, 1, tzinfo=UTC),
    review=Review(queue="weapons", priority=1.0, due_at=None, reason="band"),
    stages=(Stage(name="fetch", ms=3.0),),
    findings=(
        Finding(
            policy="weapons",
            policy_version=1,
            status=Status.LIVE,
            severity=Severity.HIGH,
            question="weapons",
            question_digest="q",
            score=1.0,
            probability=0.7,
            calibration="fresh",
            answered_by="m",
            outcome="review",
        ),
    ),
)


def value(name: str, **labels: str) -> float:
    """Return a metric's present value, 0 where it was never set."""
    return telemetry.REGISTRY.get_sample_value(name, labels) or 0.0


def logged(code: str) -> list[dict[str, object]]:
    """Return the log lines of a program of its own, because logging is configured once a process."""
    done = subprocess.run(
        [sys.executable, "-c", f"from pipeline import telemetry\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_a_decision_is_counted_by_action_policy_queue_and_stage() -> None:
    """One committed decision moves every counter that it concerns, each by one."""
    counters = [
        ("weir_decisions_total", {"action": "hold", "decided_by": "pipeline"}),
        ("weir_findings_total", {"policy": "weapons", "outcome": "review", "action": "hold"}),
        ("weir_reviews_total", {"queue": "weapons", "reason": "band"}),
        ("weir_stage_seconds_count", {"stage": "fetch"}),
        ("weir_latency_seconds_count", {}),
    ]
    before = [value(name, **labels) for name, labels in counters]

    telemetry.decided(DECISION, latency_s=0.2)

    after = [value(name, **labels) for name, labels in counters]
    assert [a - b for a, b in zip(after, before, strict=True)] == [1, 1, 1, 1, 1]


def test_a_fault_is_counted_by_its_reason() -> None:
    """An upload that could not be judged is counted by the stable word that says why."""
    before = value("weir_faults_total", reason="truncated")

    telemetry.decided(DECISION.model_copy(update={"fault": Fault(reason="truncated")}))

    assert value("weir_faults_total", reason="truncated") == before + 1


def test_senders_cannot_flood_the_metrics_with_names() -> None:
    """Of ten thousand unknown field names few become labels, and none goes uncounted."""
    telemetry.unknown(f"field-{n}" for n in range(10_000))

    family = next(m for m in telemetry.REGISTRY.collect() if m.name == "weir_unknown_fields")
    totals = [s for s in family.samples if s.name == "weir_unknown_fields_total"]
    assert len(totals) <= 51
    assert sum(s.value for s in totals) >= 10_000


def test_restarts_are_taken_over_from_the_pool_once() -> None:
    """The pool's running total is never added twice."""
    before = value("weir_actor_restarts_total")

    for total in (0, 2, 2, 3):
        telemetry.actor_restarts(total)

    assert value("weir_actor_restarts_total") == before + 3


def test_a_queue_that_is_gone_leaves_the_metrics() -> None:
    """Depths are replaced as a whole, so that a renamed queue does not stay at its last depth."""
    telemetry.queues({"weapons": (3, 60.0)})
    telemetry.queues({"drugs": (1, 5.0)})

    assert telemetry.REGISTRY.get_sample_value("weir_queue_depth", {"queue": "weapons"}) is None
    assert value("weir_queue_oldest_seconds", queue="drugs") == 5.0


def test_logs_are_json_with_event_stage_and_duration() -> None:
    """Each line is one JSON object; a timed stage names its event and says how long it took."""
    lines = logged(
        "telemetry.configure(level='debug', process='pipeline-1')\n"
        "with telemetry.stage('fetch', event_id='e-1'): pass\n"
        "import logging; logging.getLogger('some.library').warning('careful %s', 1)\n"
    )

    stage, library = lines
    assert stage["event_id"] == "e-1"
    assert stage["stage"] == "fetch"
    assert isinstance(stage["duration_ms"], float)
    assert stage["process"] == "pipeline-1"
    assert library["event"] == "careful 1"


@pytest.mark.parametrize(("action", "lines"), [("hold", 1), ("allow", 0)])
def test_what_simply_passes_is_not_logged_at_level_info(action: str, lines: int) -> None:
    """At level info a decision is logged when it does something, not for every upload."""
    plain = DECISION.model_copy(update={"action": Action(action), "review": None})
    found = logged(
        "from pipeline.messages import Decision\n"
        "telemetry.configure()\n"
        f"telemetry.decided(Decision.model_validate_json({plain.model_dump_json()!r}))\n"
    )

    assert len(found) == lines


def test_metrics_are_served_over_http() -> None:
    """Prometheus finds our metrics, and nobody else's, under the configured port."""
    port = free_port()
    telemetry.serve(port)

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()

    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert names
    assert all(name.startswith("weir_") for name in names)


def test_a_shadow_counts_under_names_of_its_own() -> None:
    """What a process that decides in the shadow counts is never taken for what is in force."""
    port = free_port()
    telemetry.decided(DECISION.model_copy(update={"fault": Fault(reason="too_large")}))
    telemetry.backlog({"media.uploads": 7})
    telemetry.serve_shadow(port)

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()

    written = [line for line in lines if not line.startswith("#")]
    assert all(line.startswith("weir_shadow_") for line in written)
    counted = next(
        line for line in written if line.startswith('weir_shadow_decisions_total{action="hold"')
    )
    assert float(counted.rpartition(" ")[2]) >= 1
    assert 'weir_shadow_faults_total{reason="too_large"} 1.0' in written
    assert 'weir_shadow_backlog_records{topic="media.uploads"} 7.0' in written
