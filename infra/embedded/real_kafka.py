"""A real Apache Kafka of one node, from an unpacked release, on a folder that survives."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from infra.embedded.ports import free_port
from pipeline import processes


def start(
    home: Path, data: Path, *, logs: Path, env: Mapping[str, str]
) -> tuple[processes.Part, str]:
    """Start the node on its folder, made at the first time, and return it with its bootstrap server."""
    data.mkdir(parents=True, exist_ok=True)
    port, controller = free_port(), free_port()
    java = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-cp", f"{home}/libs/*"]
    settings = data / "server.properties"
    settings.write_text(_settings(data / "log", port, controller), encoding="utf-8")
    if not (data / "log" / "meta.properties").exists():
        tool = [*java, "kafka.tools.StorageTool"]
        identity = _run([*tool, "random-uuid"], env).strip()
        _run([*tool, "format", "-t", identity, "-c", str(settings)], env)
    part = processes.start("broker", [*java, "kafka.Kafka", str(settings)], logs=logs, env=env)
    return part, f"127.0.0.1:{port}"


def _run(command: list[str], env: Mapping[str, str]) -> str:
    done = subprocess.run(command, env=dict(env), capture_output=True, text=True, check=False)
    if done.returncode:
        raise processes.failed("broker", "Kafka's own tool failed", done.stderr or done.stdout)
    return done.stdout


def _settings(log: Path, port: int, controller: int) -> str:
    return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={log}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
"""
