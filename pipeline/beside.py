"""What runs beside the upload consumer: child processes of `weir run` that die with it.

Without `escalate` nothing reaches people, so when it ends, all of it ends, and whoever supervises us starts the whole
anew. The archive, the monitor and a shadow can be away for a while without harm: they start again by themselves.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pipeline import telemetry
from pipeline.config import Settings, environment
from pipeline.processes import die_with_parent

#: Those without which the pipeline does not go on.
_VITAL: Final = frozenset({"escalate"})
#: Every part that may run beside, in the order of their metrics ports.
PARTS: Final = ("escalate", "archive", "monitor", "shadow")
#: How long a child may take to finish what it has in hand.
_GRACE_S: Final = 10.0
#: How long a part that ended by itself stays away.
_PAUSE_S: Final = 15.0


def wanted(settings: Settings) -> list[str]:
    """Return the parts that run beside: archive and monitor where an archive is configured, a shadow where one is."""
    archived = "archive" in settings.model_fields_set
    optional = {"archive": archived, "monitor": archived, "shadow": settings.shadow.on}
    return [part for part in PARTS if part in _VITAL or optional[part]]


def ports(settings: Settings) -> dict[str, int]:
    """Return where each process of a pipeline serves its metrics: every one has numbers, and so a port, of its own."""
    first = settings.telemetry.metrics_port
    if first is None:
        return {}
    beside = {part: first + 1 + PARTS.index(part) for part in wanted(settings)}
    return {"uploads": first, **beside}


@dataclass(slots=True)
class _Child:
    part: str
    process: subprocess.Popen[bytes]
    ended_s: float | None = None


class Beside:
    """The children of one pipeline process."""

    def __init__(
        self,
        settings: Settings,
        *,
        pause_s: float = _PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start them."""
        self._settings = settings
        self._pause_s = pause_s
        self._clock = clock
        self._children = [_Child(part, self._start(part)) for part in wanted(settings)]

    def alive(self) -> bool:
        """Return whether the pipeline can go on, and start again what can be spared and has ended."""
        for child in self._children:
            if child.process.poll() is None:
                continue
            if child.part in _VITAL:
                return False
            if child.ended_s is None:
                child.ended_s = self._clock()
                telemetry.log.error(
                    "a part beside the upload consumer has ended; it will start again",
                    part=child.part,
                    status=child.process.returncode,
                    pause_s=self._pause_s,
                )
            elif self._clock() - child.ended_s >= self._pause_s:
                child.process, child.ended_s = self._start(child.part), None
        return True

    def processes(self) -> dict[str, int]:
        """Return the process ids of the parts."""
        return {child.part: child.process.pid for child in self._children}

    def end(self) -> None:
        """End them all, in good order where that is quick."""
        for child in self._children:
            if child.process.poll() is None:
                child.process.terminate()
        for child in self._children:
            try:
                child.process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()

    def _start(self, part: str) -> subprocess.Popen[bytes]:
        env = environment()
        if (port := ports(self._settings).get(part)) is not None:
            env = {**env, "WEIR_TELEMETRY_METRICS_PORT": str(port)}
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", "run", "--only", part],
            env=dict(env),
            preexec_fn=_leash,  # noqa: PLW1509 -- it touches nothing that a thread holds
        )


def _leash() -> None:
    # A terminal's Ctrl-C is for the parent, which tells its children in its own time.
    os.setpgrp()
    die_with_parent(signal.SIGTERM)
