"""Child processes that never outlive the process that started them.

On Linux the kernel signals a child whose parent died, and orphans of children come back to whoever adopts
orphans, which ends them. Elsewhere only an orderly end is promised.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from pipeline.errors import PipelineError

_SET_PDEATHSIG: Final = 1
_SET_CHILD_SUBREAPER: Final = 36
_LINUX: Final = sys.platform == "linux"
#: How long what is killed may take to be gone.
_KILLING_S: Final = 5.0
_libc: Final = ctypes.CDLL(None, use_errno=True) if _LINUX else None


def die_with_parent(number: signal.Signals) -> None:
    """Ask the kernel to send this process a signal when its parent dies."""
    if _libc is not None:
        _libc.prctl(_SET_PDEATHSIG, int(number), 0, 0, 0)


def adopt_orphans() -> None:
    """Become the new parent of every descendant that loses its own."""
    if _libc is not None:
        _libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def failed(part: str, reason: str, tail: str = "") -> PipelineError:
    """Return the error that a part of the stack cannot be started or has ended; `tail` is the end of its log."""
    return PipelineError(f"{part}: {reason}" + (f"\n{tail}" if tail else ""))


@dataclass(slots=True)
class Part:
    """One program of ours: it runs in a session of its own, with its output in a log file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    began_at: float = field(default_factory=time.monotonic)

    @property
    def running(self) -> bool:
        """Return whether the program still runs."""
        return self.process.poll() is None

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, *, grace_s: float) -> None:
        """Ask the program to end, and end it when it does not in time."""
        if not self.running:
            return
        self.process.terminate()
        try:
            self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(
    name: str,
    command: Sequence[str],
    *,
    logs: Path,
    env: Mapping[str, str],
    stdout: IO[bytes] | int | None = None,
    orphaned: signal.Signals = signal.SIGKILL,
) -> Part:
    """Start one part; it gets the signal `orphaned` when this process dies.

    Without a place for its standard output, that goes into the log too.
    """
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{name}.log"
    parent = os.getpid()

    def leash() -> None:
        die_with_parent(orphaned)
        if os.getppid() != parent:  # it died before the leash was on
            os._exit(1)

    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file if stdout is None else stdout,
            stderr=file,
            env=dict(env),
            start_new_session=True,
            preexec_fn=leash if _LINUX else None,  # noqa: PLW1509 -- parts start from one thread
        )
    return Part(name=name, process=process, log=log)


def end_descendants(*, grace_s: float = 3.0) -> list[int]:
    """End every process that descends from this one, and return those that had to be killed."""
    deadline = time.monotonic() + grace_s
    asked, killed = set[int](), set[int]()
    nobody = 0
    # Twice in a row: whose parent dies while one looks is below nobody in that look, and below us in the next.
    while nobody < 2 and time.monotonic() < deadline + _KILLING_S:  # noqa: PLR2004 -- said above
        late = time.monotonic() > deadline
        left = descendants(os.getpid())
        for pid in left:
            if late or pid not in asked:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        (killed if late else asked).update(left)
        nobody = 0 if left else nobody + 1
        reap()
        time.sleep(0.05)
    return sorted(killed)


def reap() -> None:
    """Collect the exit status of every child that has ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def descendants(root: int) -> list[int]:
    """Return the ids of all living processes below one, from `/proc`; empty where there is none."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            # The name in parentheses may hold anything, so read what follows the last one.
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(stat.parent.name))
    found, todo = list[int](), [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found
