"""The embedded broker: librdkafka's in-process cluster, kept alive as a program of its own.

It keeps about 5 MB a partition in memory and nothing on disk, and it has no transactions; a decision
may come twice there, under the same id. With `KAFKA_HOME` the stack starts a real Apache Kafka
instead (`real_kafka`).
"""

import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from subprocess import PIPE

from confluent_kafka import Producer

from pipeline import processes, topics
from pipeline.config import Kafka


def start(*, logs: Path, env: Mapping[str, str]) -> tuple[processes.Part, str]:
    """Start the broker and return it with its bootstrap servers."""
    command = [sys.executable, "-m", "infra.embedded.broker"]
    part = processes.start("broker", command, logs=logs, env=env, stdout=PIPE)
    if part.process.stdout is None or not (line := part.process.stdout.readline()):
        raise processes.failed("broker", "it ended at its start", part.tail())
    return part, line.decode().strip()


def main() -> None:
    """Print the bootstrap servers, then serve until a signal."""
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    owner = Producer({"bootstrap.servers": "embedded", "test.mock.num.brokers": 1})
    for topic in topics.plan(Kafka()):  # asked for, a topic is made; our clients never make any
        owner.list_topics(topic.name, timeout=10)
    brokers = owner.list_topics(timeout=10).brokers.values()
    sys.stdout.write(",".join(f"{b.host}:{b.port}" for b in brokers) + "\n")
    sys.stdout.flush()
    done.wait()


if __name__ == "__main__":
    main()
