"""What a client leaves behind: threads, connections, tasks; and a server in the same process that is told apart."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any

import psutil
import pytest

#: How long threads may take to end that nobody waits for.
_END_S = 5.0


class LocalServer(ThreadingHTTPServer):
    """Knows its own threads, for they run beside those of the client."""

    daemon_threads = True

    def __init__(self, handler: Any) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.own: set[threading.Thread] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection."""
        self.own.add(threading.current_thread())
        super().process_request_thread(request, client_address)


@contextmanager
def nothing_left(server: LocalServer) -> Iterator[None]:
    """Fail if what happens within leaves a thread, a connection to the server, or a task in a loop that ends."""
    before = set(threading.enumerate())
    unfinished: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        cancel_all: Any = asyncio.runners._cancel_all_tasks  # type: ignore[attr-defined]

        def told(loop: asyncio.AbstractEventLoop) -> None:
            unfinished.extend(repr(task) for task in asyncio.all_tasks(loop))
            cancel_all(loop)

        patch.setattr(asyncio.runners, "_cancel_all_tasks", told)
        yield
    assert _open(server.port) == []
    until_s = time.monotonic() + _END_S
    while (left := set(threading.enumerate()) - before - server.own) and time.monotonic() < until_s:
        time.sleep(0.02)
    assert left == set()
    assert unfinished == []


def _open(port: int) -> list[Any]:
    return [
        held
        for held in psutil.Process().net_connections("tcp")
        if held.raddr and held.raddr.port == port and held.status != psutil.CONN_TIME_WAIT
    ]
