"""`weir run`: the upload consumer and what stands beside it, or one part of it alone.

The upload consumer works in the main thread of this process. Everything beside it is a child process that dies with it
(see `beside`).
"""

import signal
import threading
from typing import Literal

from pipeline import telemetry
from pipeline.beside import Beside
from pipeline.config import Settings
from pipeline.errors import PipelineError
from pipeline.uploads import run_uploads

Part = Literal["uploads", "escalate", "archive", "monitor", "shadow"]


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
    if only is not None and only != "uploads":
        return _run_beside(settings, only, stop)
    beside = None if only else Beside(settings)
    try:
        return run_uploads(settings, stop, alive=beside.alive if beside else lambda: True)
    finally:
        if beside:
            beside.end()


def _run_beside(settings: Settings, part: Part, stop: threading.Event) -> int:
    # Each loads only what it needs.
    if part == "shadow":
        from pipeline.shadow import run_shadow

        if not settings.shadow.on:
            raise PipelineError(
                "nothing decides in the shadow: set WEIR_SHADOW_POLICIES or WEIR_SHADOW_CLASSIFIERS"
            )
        return run_shadow(settings, stop)
    if settings.telemetry.metrics_port is not None:
        telemetry.serve(settings.telemetry.metrics_port)
    if part == "escalate":
        from pipeline.escalate import run_escalate

        run_escalate(settings, stop)
    elif part == "archive":
        from pipeline.archiving import run_archive

        run_archive(settings, stop)
    else:
        from pipeline.watchman import run_monitor

        run_monitor(settings, stop)
    return 0
