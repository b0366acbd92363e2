"""Logs and metrics: what an operator sees of the pipeline from outside.

Logs are structlog lines, JSON by default, on standard error; a line about an upload carries
`event_id`, and what took time carries `stage` and `duration_ms`. Metrics are Prometheus ones in
`REGISTRY`, all named `weir_…`; those of a process that decides in the shadow are named
`weir_shadow_…`, as nothing that it counts is in force.
"""

import logging
import sys
import threading
import time
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    start_http_server,
)
from prometheus_client.registry import Collector

from pipeline.messages import Decision

#: The registry of everything below; no other library's metrics get in.
REGISTRY: Final = CollectorRegistry()

_LATENCY_S: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    120,
)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
#: Names that senders choose become labels only up to this many; the rest share `other`.
_MAX_NAMES: Final = 50

EVENTS: Final = Counter("weir_events_total", "Upload events read.", ["topic"], registry=REGISTRY)
DECISIONS: Final = Counter(
    "weir_decisions_total",
    "Decisions committed, by action in force and by who decided.",
    ["action", "decided_by"],
    registry=REGISTRY,
)
FINDINGS: Final = Counter(
    "weir_findings_total",
    "Findings of committed decisions, by policy and by what they led to.",
    ["policy", "outcome", "action"],
    registry=REGISTRY,
)
UNJUDGED: Final = Counter(
    "weir_unjudged_total",
    "Policies that a decision had to do without, by policy and action in force.",
    ["policy", "action"],
    registry=REGISTRY,
)
FAULTS: Final = Counter(
    "weir_faults_total", "Uploads that could not be judged.", ["reason"], registry=REGISTRY
)
REVIEWS: Final = Counter(
    "weir_reviews_total",
    "Decisions that a person must see, by queue and reason.",
    ["queue", "reason"],
    registry=REGISTRY,
)
DEAD_LETTERS: Final = Counter(
    "weir_dead_letters_total", "Events set aside as dead letters.", ["reason"], registry=REGISTRY
)
UNKNOWN_FIELDS: Final = Counter(
    "weir_unknown_fields_total",
    "Fields of events that this version does not know; they are kept.",
    ["field"],
    registry=REGISTRY,
)
POLICY_ERRORS: Final = Counter(
    "weir_policy_errors_total",
    "Policy files that could not be read; the old set stayed in force.",
    registry=REGISTRY,
)
POLICY_CAPPED: Final = Gauge(
    "weir_policy_capped",
    "1 for a policy that has acted as often today as its daily_cap allows.",
    ["policy"],
    registry=REGISTRY,
)
ACTOR_RESTARTS: Final = Counter(
    "weir_actor_restarts_total", "Workers that died or were replaced.", registry=REGISTRY
)
STAGE_S: Final = Histogram(
    "weir_stage_seconds",
    "How long one stage took.",
    ["stage"],
    buckets=_LATENCY_S,
    registry=REGISTRY,
)
LATENCY_S: Final = Histogram(
    "weir_latency_seconds",
    "From the broker's timestamp of an upload to its committed decision.",
    buckets=_LATENCY_S,
    registry=REGISTRY,
)
BATCH: Final = Histogram(
    "weir_batch_uploads", "Uploads in one batch.", buckets=_SIZES, registry=REGISTRY
)
BACKLOG: Final = Gauge(
    "weir_backlog_records",
    "Records that wait in Kafka for this process, by topic.",
    ["topic"],
    registry=REGISTRY,
)
IN_FLIGHT: Final = Gauge(
    "weir_in_flight_uploads", "Uploads read and not yet committed.", registry=REGISTRY
)
QUEUE_DEPTH: Final = Gauge(
    "weir_queue_depth", "Open review jobs, by queue.", ["queue"], registry=REGISTRY
)
QUEUE_OLDEST_S: Final = Gauge(
    "weir_queue_oldest_seconds", "Age of the oldest open review job.", ["queue"], registry=REGISTRY
)
PROMISES: Final = Gauge(
    "weir_promise_in_force",
    "1 where a promise of the bands is kept, 0 where it is refuted, stale, or never was proven.",
    ["question", "classifier", "promise"],
    registry=REGISTRY,
)
DRIFTING: Final = Gauge(
    "weir_scores_drifting", "1 where the drift alarm is on.", ["question"], registry=REGISTRY
)

#: The project's logger; `log.info("words", event_id=…)`.
log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger("weir")

_names: set[str] = set()
_names_lock = threading.Lock()
_restarts = 0


def configure(
    *,
    level: Literal["debug", "info", "warning", "error"] = "info",
    layout: Literal["json", "console"] = "json",
    **bound: Any,
) -> None:
    """Send logs of this level and above to standard error, each with the `bound` fields."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
        if layout == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(**bound)
    # What libraries log in their own way takes the same road; only their warnings are of use here.
    foreign = logging.StreamHandler(sys.stderr)
    foreign.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(level=max(threshold, logging.WARNING), handlers=[foreign], force=True)


def serve(port: int) -> None:
    """Serve the metrics of this process over HTTP, for Prometheus to scrape."""
    start_http_server(port, registry=REGISTRY)


def serve_shadow(port: int) -> None:
    """Serve the metrics of this process, which decides in the shadow, under names of their own."""
    registry = CollectorRegistry()
    registry.register(_Shadowed())
    start_http_server(port, registry=registry)


class _Shadowed(Collector):
    """Every metric of `REGISTRY`, `weir_…`, as `weir_shadow_…`."""

    def collect(self) -> Iterator[Metric]:
        for metric in REGISTRY.collect():
            renamed = Metric(_shadowed(metric.name), metric.documentation, metric.type)
            renamed.samples = [s._replace(name=_shadowed(s.name)) for s in metric.samples]
            yield renamed


def _shadowed(name: str) -> str:
    return "weir_shadow_" + name.removeprefix("weir_")


@contextmanager
def stage(name: str, **fields: Any) -> Iterator[None]:
    """Time one stage: its duration goes into the metrics, and into a log line at level debug."""
    began = time.perf_counter()
    try:
        yield
    finally:
        took_s = time.perf_counter() - began
        STAGE_S.labels(name).observe(took_s)
        log.debug("stage", stage=name, duration_ms=round(took_s * 1e3, 3), **fields)


def received(topic: str, count: int = 1) -> None:
    """Count records that were read from a topic."""
    EVENTS.labels(topic).inc(count)


def unknown(names: Iterable[str]) -> None:
    """Count fields that this version does not know; senders choose names, so few become labels."""
    for name in names:
        with _names_lock:
            if len(_names) < _MAX_NAMES:
                _names.add(name)
            known = name in _names
        UNKNOWN_FIELDS.labels(name[:80] if known else "other").inc()


def decided(decision: Decision, *, latency_s: float | None = None) -> None:
    """Count and log one committed decision; what simply passed is logged at level debug."""
    committed([(decision, latency_s)])


def committed(decisions: Sequence[tuple[Decision, float | None]]) -> None:
    """Count and log decisions that were committed together, each with how long it took since its upload's record."""
    _count([decision for decision, _ in decisions])
    for decision, latency_s in decisions:
        if latency_s is not None:
            LATENCY_S.observe(latency_s)
        _tell(decision, latency_s)


def _count(decisions: Sequence[Decision]) -> None:
    # Those with the same labels in one step: a decision has a dozen findings.
    findings: Tally[tuple[str, str, str]] = Tally()
    actions: Tally[tuple[str, str]] = Tally()
    for decision in decisions:
        action = decision.action.value
        actions[action, decision.decided_by] += 1
        findings.update([(f.policy, f.outcome, action) for f in decision.findings])
        for policy in decision.unjudged:
            UNJUDGED.labels(policy, action).inc()
        for took in decision.stages:
            STAGE_S.labels(took.name).observe(took.ms / 1e3)
        if decision.review is not None:
            REVIEWS.labels(decision.review.queue, decision.review.reason).inc()
        if decision.fault is not None:
            FAULTS.labels(decision.fault.reason).inc()
    for by, number in actions.items():
        DECISIONS.labels(*by).inc(number)
    for labels, number in findings.items():
        FINDINGS.labels(*labels).inc(number)


def _tell(decision: Decision, latency_s: float | None) -> None:
    action = decision.action.value
    quiet = action == "allow" and decision.review is None and not decision.unjudged
    if quiet and not log.is_enabled_for(logging.DEBUG):
        return
    say = log.debug if quiet else log.info
    say(
        "decided",
        event_id=decision.event_id,
        content_id=decision.content_id,
        decision_id=decision.decision_id,
        action=action,
        policies=[f.policy for f in decision.findings if f.outcome != "none"],
        unjudged=list(decision.unjudged),
        queue=decision.review.queue if decision.review else None,
        fault=decision.fault.reason if decision.fault else None,
        decided_by=decision.decided_by,
        stages={took.name: took.ms for took in decision.stages},
        duration_ms=None if latency_s is None else round(latency_s * 1e3, 1),
    )


def dead_letter(reason: str, **fields: Any) -> None:
    """Count and log one event that was set aside."""
    DEAD_LETTERS.labels(reason).inc()
    log.warning("dead letter", reason=reason, **fields)


def policy_error(error: Exception) -> None:
    """Count and log a policy folder that could not be read; the old set stays in force."""
    POLICY_ERRORS.inc()
    log.error("policies unreadable, the old set stays in force", error=str(error))


def capped(policy: str, cap: int) -> None:
    """Raise the alarm: a policy has acted as often today as it may, and people decide from now on."""
    POLICY_CAPPED.labels(policy).set(1)
    log.error("daily cap reached: people decide until tomorrow", policy=policy, daily_cap=cap)


def uncapped(policy: str) -> None:
    """End the alarm: a new day has begun."""
    POLICY_CAPPED.labels(policy).set(0)


def actor_restarts(total: int) -> None:
    """Take over the pool's own count of replaced workers."""
    global _restarts  # noqa: PLW0603 -- the pool counts up from 0 once a process, like a counter does
    if total > _restarts:
        ACTOR_RESTARTS.inc(total - _restarts)
        _restarts = total


def backlog(waiting: Mapping[str, int]) -> None:
    """Set how many records of each topic wait for this process."""
    for topic, records in waiting.items():
        BACKLOG.labels(topic).set(records)


def queues(depths: Mapping[str, tuple[int, float]]) -> None:
    """Set every queue's open jobs and the age of its oldest, in seconds."""
    QUEUE_DEPTH.clear()
    QUEUE_OLDEST_S.clear()
    for queue, (depth, oldest_s) in depths.items():
        QUEUE_DEPTH.labels(queue).set(depth)
        QUEUE_OLDEST_S.labels(queue).set(oldest_s)


def promises(in_force: Mapping[tuple[str, str, str], bool], drifting: Mapping[str, bool]) -> None:
    """Set which promises are in force, by question, classifier and promise, and which questions' scores drift."""
    PROMISES.clear()
    DRIFTING.clear()
    for names, kept in in_force.items():
        PROMISES.labels(*names).set(kept)
    for question, on in drifting.items():
        DRIFTING.labels(question).set(on)
