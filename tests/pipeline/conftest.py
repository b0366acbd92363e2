"""A Ray for tests of whole pipelines."""

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil
import pytest

from infra.embedded import ray_head
from infra.embedded.ports import wait_for
from pipeline.config import environment

_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RayHead:
    """A Ray that outlives the pipeline processes that join it."""

    address: str
    pid: int

    def workers(self, name: str = "") -> list[psutil.Process]:
        """Return its processes whose command line names this."""
        found = []
        for process in psutil.Process(self.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if any(name in word for word in process.cmdline()):
                    found.append(process)
        return found


@pytest.fixture(scope="module")
def ray_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHead]:
    """Run a Ray of the test file's own."""
    part, address, folder = ray_head.start(
        cpus=4,
        logs=tmp_path_factory.mktemp("ray"),
        # Ray would give its workers the lowest priority, and this machine may be busy.
        env=environment() | {"RAY_worker_niceness": "0", "RAY_agent_register_timeout_ms": "120000"},
    )
    try:
        host, port = address.split(":")
        assert wait_for(host, int(port), timeout_s=_PATIENCE_S), part.tail()
        deadline = time.monotonic() + _PATIENCE_S
        while ray_head.STARTED not in part.log.read_text(errors="replace"):
            assert time.monotonic() < deadline, part.tail()
            time.sleep(0.1)
        yield RayHead(address=address, pid=part.process.pid)
    finally:
        for child in psutil.Process(part.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        part.stop(grace_s=2)
        shutil.rmtree(folder, ignore_errors=True)
