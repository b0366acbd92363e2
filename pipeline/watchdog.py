"""A watchdog for calls that may never return: it ends the process, and the successor finds out what became of them."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from pipeline.telemetry import log

#: EX_SOFTWARE of sysexits.h.
EXIT_STUCK: Final = 70


def _end() -> None:
    # Not sys.exit: the thread that is stuck would never see it.
    os._exit(EXIT_STUCK)


class Watchdog:
    """Ends the process when a guarded call takes longer than it may."""

    def __init__(self, *, limit_s: float, end: Callable[[], None] = _end) -> None:
        self._limit_s = limit_s
        self._end = end
        self._deadline: float | None = None
        self._what = ""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    @contextmanager
    def guard(self, what: str) -> Iterator[None]:
        """Give the body so long and no longer."""
        self._what = what
        self._deadline = time.monotonic() + self._limit_s
        try:
            yield
        finally:
            self._deadline = None

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(min(1.0, self._limit_s / 4)):
            deadline = self._deadline
            if deadline is not None and time.monotonic() > deadline:
                log.error("stuck, ending the process", what=self._what, limit_s=self._limit_s)
                self._deadline = None
                self._end()
