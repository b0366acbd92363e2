"""Ray of one node, that pipeline processes and commands join by its address."""

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from infra.embedded.ports import free_port
from pipeline import processes
from pipeline.config import environment

#: Enough for some hundred decoded pictures; Ray would take a third of all memory.
_OBJECT_STORE_BYTES = 300_000_000

#: What its log says when it serves; its port is open long before.
STARTED = "Ray runtime started"


def start(*, cpus: int, logs: Path, env: Mapping[str, str]) -> tuple[processes.Part, str, Path]:
    """Start the head and return it with its address and its folder, which goes when it goes."""
    # Sockets lie in that folder and their paths must be short, so it is not among our data.
    folder = Path(tempfile.mkdtemp(prefix="weir-"))
    port = free_port()
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *("--node-ip-address=127.0.0.1", f"--port={port}", f"--num-cpus={cpus}"),
        *("--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"),
        # Nobody reads what these two would write, and each takes seconds to start.
        *("--no-monitor", "--include-log-monitor=false"),
        f"--object-store-memory={_OBJECT_STORE_BYTES}",
    ]
    part = processes.start("ray", command, logs=logs, env=env)
    return part, f"127.0.0.1:{port}", folder


def main() -> None:
    """Print the address, then serve until a signal."""
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    with tempfile.TemporaryDirectory(prefix="weir-") as logs:
        part, address, folder = start(
            cpus=max(4, os.cpu_count() or 1), logs=Path(logs), env=environment()
        )
        try:
            while part.running and STARTED not in part.log.read_text(errors="replace"):
                time.sleep(0.1)
            if not part.running:
                raise SystemExit(part.tail())
            sys.stdout.write(f"{address}\n")
            sys.stdout.flush()
            while part.running and not done.wait(0.5):
                pass
        finally:
            part.stop(grace_s=5)
            processes.end_descendants()
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
