"""Ports of this machine: which are free, and when somebody listens on one."""

import socket
import time
from collections.abc import Callable


def free_port(*, following: int = 0) -> int:
    """Return a port on which nobody listens, nor on so many after it."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if all(_is_free(port + n) for n in range(1, following + 1)):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
    return True


def wait_for(
    host: str, port: int, *, timeout_s: float, while_true: Callable[[], bool] = lambda: True
) -> bool:
    """Wait until somebody listens on the port, and return whether that came to pass."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and while_true():
        try:
            socket.create_connection((host, port), timeout=0.5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False
