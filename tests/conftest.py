"""Services that tests of several rooms share."""

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.embedded import real_kafka
from infra.embedded.ports import free_port, wait_for
from infra.embedded.redis_server import program
from pipeline.config import Kafka
from pipeline.kafka import Topics
from pipeline.topics import plan

#: A real Kafka that starts by one script, where it lies beside the checkout.
SHARED_KAFKA = Path(__file__).resolve().parents[2] / "shared" / "kafka" / "cluster.py"

#: Files that take longest: begun first, so that at the end no process waits for another. The third needs no Ray:
#: three that start at once would wait for each other.
LONGEST = ("test_kill.py", "test_readme.py", "test_two_hundred_items.py", "test_end_to_end.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; all others stay where they are."""
    places = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Return the port of a real Redis that nobody else uses."""
    folder: Path = tmp_path_factory.mktemp("redis")
    port = free_port()
    command = [
        program(),
        *("--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)),
        *("--save", "", "--appendonly", "no"),
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log) as process:
        try:
            assert wait_for("127.0.0.1", port, timeout_s=60), (folder / "log").read_text()
            yield port
        finally:
            process.terminate()


def redis_says(port: int, command: str) -> bytes:
    """Return the server's first answer to an inline command."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(command.encode() + b"\r\n")
        return connection.recv(1000)


@pytest.fixture
def redis_url(redis_server: int) -> str:
    """Return the address of an empty Redis."""
    assert redis_says(redis_server, "FLUSHALL").startswith(b"+OK")
    return f"redis://127.0.0.1:{redis_server}/0"


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the bootstrap servers of a real Kafka, one for the whole run.

    The first of these that is there: `WEIR_TEST_KAFKA` (a running one), `KAFKA_HOME` (an unpacked release, with Java),
    the shared script beside the checkout.
    """
    running = os.environ.get("WEIR_TEST_KAFKA")  # noqa: TID251 -- tests are told here where Kafka is
    home = os.environ.get("KAFKA_HOME")  # noqa: TID251 -- the same
    folder = tmp_path_factory.mktemp("kafka")
    if running:
        yield running
    elif home and shutil.which("java"):
        part, servers = real_kafka.start(
            Path(home),
            folder,
            logs=folder,
            env=os.environ,  # noqa: TID251 -- handed on
        )
        host, port = servers.split(":")
        try:
            assert wait_for(host, int(port), timeout_s=120), part.tail()
            yield servers
        finally:
            part.stop(grace_s=5)
    elif SHARED_KAFKA.exists() and shutil.which("java"):
        if "PYTEST_XDIST_WORKER" in os.environ:  # noqa: TID251 -- pytest says here that it runs in several processes
            yield _one_kafka_for_all(tmp_path_factory.getbasetemp().parent)
            return
        with _shared_kafka(folder / "cluster", owner=os.getpid()) as servers:
            yield servers
    else:
        pytest.skip(
            "no Kafka: set WEIR_TEST_KAFKA or KAFKA_HOME, or lay ../shared beside the checkout"
        )


def _one_kafka_for_all(folder: Path) -> str:
    """Return the one Kafka of all processes of this run; the first that needs it starts it, and it ends with the run.

    Topics and groups have names of their own in every test, and a broker takes seconds of CPU before it is warm.
    """
    with (folder / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = folder / "kafka.servers"
        if not told.exists():
            # The process that hands out the tests outlives those that run them.
            told.write_text(_start_shared_kafka(folder / "cluster", owner=os.getppid()))
        return told.read_text()


@contextmanager
def _shared_kafka(folder: Path, *, owner: int) -> Iterator[str]:
    try:
        yield _start_shared_kafka(folder, owner=owner)
    finally:
        subprocess.run([sys.executable, str(SHARED_KAFKA), "kill", str(folder)], check=False)


def _start_shared_kafka(folder: Path, *, owner: int) -> str:
    """Start it, and return where; it ends at the latest with its owner."""
    command = [sys.executable, str(SHARED_KAFKA), "start", str(folder)]
    started = subprocess.run(
        # Its controller takes the port after it, so the two are looked for together.
        [*command, "--port", str(free_port(following=1)), "--owner", str(owner)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 0, started.stderr + started.stdout
    return started.stdout.strip().splitlines()[-1]


@pytest.fixture
def kafka_settings(kafka: str) -> Kafka:
    """Return settings for topics and groups that no other test has."""
    settings = Kafka(
        servers=kafka,
        topic_prefix=f"t{uuid.uuid4().hex[:10]}.",
        partitions=2,
        session_s=6.0,
    )
    topics = Topics(settings)
    wanted = plan(settings)
    topics.create(
        {t.name: t.options for t in wanted}, partitions={t.name: t.partitions for t in wanted}
    )
    topics.close()
    return settings
