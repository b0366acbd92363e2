"""`weir run`: the upload consumer and what stands beside it, put together and kept together.

The upload consumer works in the main thread of this process. Everything beside it (`escalate`) is a child process that
dies with it; when a child ends by itself, all of it ends, so that whoever supervises us starts the whole anew.
"""

import gc
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pipeline import telemetry
from pipeline.calibration_folder import CalibrationFolder
from pipeline.caps import Caps
from pipeline.config import Settings, environment
from pipeline.errors import PipelineError
from pipeline.kafka import Member, Topics
from pipeline.messages import RESCORE, UPLOADS
from pipeline.pooling import open_pool
from pipeline.processes import die_with_parent
from pipeline.records import Link
from pipeline.redis import Shelf
from pipeline.stream import Limits, Stream
from pipeline.topics import plan
from pipeline.watchdog import Watchdog
from policies.reload import PolicyFolder
from workers.pool import RayPool
from workers.upload import Pool

Part = Literal["uploads", "escalate", "archive"]
#: What runs beside the upload consumer, and the module that holds it.
BESIDE: Final[Mapping[Part, str]] = {"escalate": "pipeline.escalate"}
#: How long a child may take to finish what it has in hand.
_GRACE_S: Final = 10.0
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the upload consumer is made of; the parts that ship, unless others are given."""

    link: Callable[[Settings], Link] = join_group
    pool: Callable[[Settings], Pool] = open_pool
    stream: type[Stream] = Stream


def run(settings: Settings, *, only: Part | None = None) -> int:
    """Run until a signal says stop; return the exit status.

    Raises:
        PipelineError: it cannot run as configured.
    """
    settings_log = settings.telemetry
    telemetry.configure(
        level=settings_log.log_level,
        layout=settings_log.log_format,
        instance=settings.instance,
        part=only or "uploads",
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if only == "escalate":
        from pipeline.escalate import run_escalate

        if settings_log.metrics_port is not None:
            telemetry.serve(settings_log.metrics_port)
        run_escalate(settings, stop)
        return 0
    if only == "archive":
        from pipeline.archiving import run_archive

        if settings_log.metrics_port is not None:
            telemetry.serve(settings_log.metrics_port)
        run_archive(settings, stop)
        return 0
    children = [] if only else _start_beside(settings)
    try:
        return run_uploads(settings, stop, alive=lambda: _all_alive(children))
    finally:
        for child in children:
            _end(child)


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
        caps=Caps(counts=Shelf(settings.redis.url.get_secret_value())),
    )
    if settings.telemetry.metrics_port is not None:
        telemetry.serve(settings.telemetry.metrics_port)
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
            if isinstance(link, Member):
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


def _start_beside(settings: Settings) -> list[subprocess.Popen[bytes]]:
    children = []
    for number, (part, module) in enumerate(BESIDE.items(), start=1):
        if importlib.util.find_spec(module) is None:
            continue
        env = environment()
        port = settings.telemetry.metrics_port
        if port is not None:
            # Every process has numbers of its own.
            env = {**env, "WEIR_TELEMETRY_METRICS_PORT": str(port + number)}
        children.append(
            subprocess.Popen(
                [sys.executable, "-m", "pipeline", "run", "--only", part],
                env=dict(env),
                preexec_fn=_leash,  # noqa: PLW1509 -- no thread has been started yet
            )
        )
    return children


def _leash() -> None:
    # A terminal's Ctrl-C is for the parent, which tells its children in its own time.
    os.setpgrp()
    die_with_parent(signal.SIGTERM)


def _all_alive(children: list[subprocess.Popen[bytes]]) -> bool:
    return all(child.poll() is None for child in children)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
    try:
        child.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
