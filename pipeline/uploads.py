"""The upload consumer put together: link, pool, policies and calibrations, and the loop that keeps it going."""

import gc
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pipeline import telemetry
from pipeline.calibration_folder import CalibrationFolder
from pipeline.caps import Caps
from pipeline.config import Settings
from pipeline.errors import PipelineError
from pipeline.kafka import Member, Topics
from pipeline.messages import RESCORE, UPLOADS
from pipeline.pooling import open_pool
from pipeline.records import Link
from pipeline.redis import Shelf
from pipeline.stream import Limits, Stream
from pipeline.topics import plan
from pipeline.watchdog import Watchdog
from policies.reload import PolicyFolder
from workers.pool import RayPool
from workers.upload import Pool

#: So many new objects before the collector looks at the youngest of them.
_NEW_OBJECTS: Final = 50_000


def join_group(settings: Settings) -> Member:
    """Return this process's membership in the group of upload consumers."""
    return Member(
        settings.kafka,
        [UPLOADS, RESCORE],
        group=settings.kafka.group,
        instance=settings.instance,
    )


def shared_caps(settings: Settings) -> Caps:
    """Return the counts of automatic actions that all pipelines share."""
    return Caps(counts=Shelf(settings.redis.url.get_secret_value()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the upload consumer is made of; the parts that ship, unless others are given."""

    link: Callable[[Settings], Link] = join_group
    pool: Callable[[Settings], Pool] = open_pool
    #: Counts automatic actions; Redis, where pipelines share the count.
    caps: Callable[[Settings], Caps] = shared_caps
    #: Serves the metrics at this port.
    serve: Callable[[int], None] = telemetry.serve
    stream: type[Stream] = Stream


def run_uploads(
    settings: Settings,
    stop: threading.Event,
    *,
    alive: Callable[[], bool] = lambda: True,
    parts: Parts | None = None,
) -> int:
    """Run the upload consumer until told to stop, or until something beside it is gone."""
    parts = parts or Parts()
    _require_topics(settings)
    folder = PolicyFolder(settings.policies, telemetry.policy_error)
    calibrations = CalibrationFolder(settings.calibrations)
    watchdog = Watchdog(limit_s=settings.kafka.commit_timeout_s)
    pool = parts.pool(settings)
    link = parts.link(settings)
    stream = parts.stream(
        link,
        pool,
        folder.current,
        calibrations.current,
        watchdog,
        limits=Limits(
            max_in_flight=settings.kafka.max_in_flight,
            rationale_wait_s=settings.stream.rationale_wait_s,
            read_text=settings.media.read_text,
            fetch_deadline_s=settings.media.fetch_deadline_s,
            max_rescores=settings.stream.max_rescores,
        ),
        caps=parts.caps(settings),
    )
    if settings.telemetry.metrics_port is not None:
        parts.serve(settings.telemetry.metrics_port)
    telemetry.log.info("running", group=settings.kafka.group, policy_set=folder.current().digest)
    status = 0
    _spare_collections()
    try:
        while not stop.is_set():
            if not alive():
                telemetry.log.error("a part beside the upload consumer has ended; ending all")
                status = 1
                break
            stream.turn()
            if isinstance(pool, RayPool):
                telemetry.actor_restarts(sum(pool.backlog().restarts.values()))
            telemetry.backlog(link.backlog())
        stream.leave()
    finally:
        link.close()
        pool.close()
        watchdog.close()
    telemetry.log.info("stopped")
    return status


def _spare_collections() -> None:
    """Keep Python's collector from going through everything that was loaded, again and again.

    A decision is a hundred objects that live for a second and hold no circles: at the usual thresholds every eighth
    of the time goes into looking at them, and at half a million objects of the libraries beside them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 50)


def _require_topics(settings: Settings) -> None:
    topics = Topics(settings.kafka)
    try:
        missing = {topic.name for topic in plan(settings.kafka)} - topics.names()
    finally:
        topics.close()
    if missing:
        raise PipelineError(
            f"topics are missing: {', '.join(sorted(missing))}; run `weir topics create`"
        )
