"""The embedded stack: broker, Redis, media folder, Ray, pipeline and console in one process tree.

    python -m infra.stack DATA

`weir up` starts this and reads its standard output: one JSON object a line, `{"part": …, "state": …,
"detail": …}`, and in the end `{"ready": true, "environment": {…}, …}`. It stops everything on SIGTERM,
on Ctrl-C, and when its parent dies.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from infra.embedded import broker, ray_head, real_kafka, redis_server, trial_policies
from infra.embedded.ports import free_port, wait_for
from pipeline import processes
from pipeline.beside import PARTS
from pipeline.config import SHIPPED_POLICIES, Settings, environment
from pipeline.errors import PipelineError
from pipeline.processes import Part

#: How long one part may take until it serves; a model may have to be loaded from a slow disk.
_PATIENCE_S: Final = 180.0
#: How long the pipeline may take to finish what it has in hand.
_GRACE_S: Final = 15.0


class Stack:
    """The parts that run, in the order of their start, and the variables that lead others to them."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.logs = data / "logs"
        # Ray listens on every interface, and whoever reaches it may run programs: so it asks for a token.
        self.variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.base = environment() | self.variables
        self._parts: list[Part] = []
        self._ray_folders: list[Path] = []

    def up(self) -> None:
        """Start every part; those that need nothing of each other start at the same time."""
        home = self.base.get("KAFKA_HOME")
        ray, ray_address = self._start_ray()
        if home:
            kafka, servers = self._add(
                *real_kafka.start(Path(home), self.data / "kafka", logs=self.logs, env=self.base)
            )
        else:
            kafka, servers = self._add(*broker.start(logs=self.logs, env=self.base))
        redis, redis_port = self._add(
            *redis_server.start(
                self._folder("redis", survives=bool(home)), logs=self.logs, env=self.base
            )
        )
        self._try_policies()
        media = self.data / "media"
        media.mkdir(exist_ok=True)
        self.variables |= {
            "WEIR_KAFKA_SERVERS": servers,
            "WEIR_KAFKA_TRANSACTIONS": "true" if home else "false",
            "WEIR_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
            "WEIR_STORE_FOLDER": str(media),
            "WEIR_CONSOLE_PEOPLE": str(self.data / "people.yaml"),
            "WEIR_ARCHIVE": str(self._folder("archive", survives=bool(home))),
            # Whoever tries it out wants to see what was just decided.
            "WEIR_ARCHIVE_WAIT_S": "20",
        }
        _say(part="media store", state="ready", detail=str(media))
        self._await(kafka, servers)
        self._await(redis, f"127.0.0.1:{redis_port}")
        self._await_ray(ray, ray_address)
        if home:
            self._create_topics()
        # Each process of the pipeline has numbers, and so a port, of its own.
        metrics = free_port(following=len(PARTS))
        self._add(
            self._weir("pipeline", "run", extra={"WEIR_TELEMETRY_METRICS_PORT": str(metrics)})
        )
        pipeline = self._parts[-1]
        console, port, url = self._start_console()
        self._await(pipeline, f"127.0.0.1:{metrics}")
        self._await(console, f"127.0.0.1:{port}")
        self._write_environment()
        _say(
            ready=True,
            environment=self.variables,
            file=str(self.data / "env"),
            console=url,
            logs=str(self.logs),
        )

    def watch(self) -> None:
        """Return never, unless a part ends: then raise."""
        while True:
            for part in self._parts:
                if not part.running:
                    raise processes.failed(
                        part.name, f"it ended with status {part.process.returncode}", part.tail()
                    )
            time.sleep(0.2)

    def down(self) -> None:
        """Stop every part in the reverse order of its start, then whatever else is left of them."""
        (self.data / "env").unlink(missing_ok=True)
        for part in reversed(self._parts):
            _say(part=part.name, state="stopping", detail="")
            part.stop(grace_s=_GRACE_S)
        processes.end_descendants()
        for folder in self._ray_folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _add(self, part: Part, *rest: Any) -> Any:
        self._parts.append(part)
        _say(part=part.name, state="starting", detail="")
        return (part, *rest) if rest else part

    def _await(self, part: Part, address: str) -> None:
        host, port = address.split(",", maxsplit=1)[0].rsplit(":", 1)
        if not wait_for(host, int(port), timeout_s=_PATIENCE_S, while_true=lambda: part.running):
            raise processes.failed(part.name, f"nobody answers at {address}", part.tail())
        _say(part=part.name, state="ready", detail=address)

    def _try_policies(self) -> None:
        """Have the stack work with a copy of the shipped policies, unless it was told of others."""
        settings = Settings()
        if settings.policies != SHIPPED_POLICIES:
            return
        folder = self.data / "policies"
        raised = trial_policies.copy(SHIPPED_POLICIES, settings.calibrations, folder)
        self.variables["WEIR_POLICIES"] = str(folder)
        tried = f"; live here though they ship as drafts: {', '.join(raised)}" if raised else ""
        _say(part="policies", state="ready", detail=f"{folder}{tried}")

    def _start_ray(self) -> tuple[Part, str]:
        cpus = max(4, os.cpu_count() or 1)
        part, address, folder = self._add(*ray_head.start(cpus=cpus, logs=self.logs, env=self.base))
        self._ray_folders.append(folder)
        return part, address

    def _await_ray(self, ray: Part, address: str) -> None:
        """Wait until Ray serves; on a busy machine its own patience may end first."""
        for last in (False, True):
            while ray.running and ray_head.STARTED not in ray.log.read_text(errors="replace"):
                time.sleep(0.1)
            if ray.running:
                break
            if last:
                raise processes.failed("ray", "it did not start", ray.tail())
            self._parts.remove(ray)
            ray, address = self._start_ray()
        self.variables["WEIR_POOL_ADDRESS"] = address
        _say(part="ray", state="ready", detail=address)

    def _weir(self, name: str, *arguments: str, extra: dict[str, str] | None = None) -> Part:
        command = [sys.executable, "-m", "pipeline", *arguments]
        env = self.base | self.variables | (extra or {})
        return processes.start(name, command, logs=self.logs, env=env)

    def _create_topics(self) -> None:
        part = self._weir("topics", "topics", "create")
        if part.process.wait(_PATIENCE_S):
            raise processes.failed("topics", "they could not be created", part.tail())

    def _start_console(self) -> tuple[Part, int, str]:
        port = free_port()
        # Whoever can read this terminal may look at everything: it is a stack for trying out, on this machine only.
        token = secrets.token_urlsafe(24)
        command = [sys.executable, "-m", "dashboards.console", "--port", str(port)]
        env = self.base | self.variables | {"WEIR_CONSOLE_INVITATION": token}
        part = self._add(processes.start("console", command, logs=self.logs, env=env))
        return part, port, f"http://127.0.0.1:{port}/welcome?token={token}"

    def _folder(self, name: str, *, survives: bool) -> Path:
        # What is known of a broker that forgets everything must be forgotten with it: its offsets begin anew.
        folder = self.data / (name if survives else f"{name}-embedded")
        if not survives:
            shutil.rmtree(folder, ignore_errors=True)
        return folder

    def _write_environment(self) -> None:
        lines = [f"export {name}={shlex.quote(value)}" for name, value in self.variables.items()]
        file = self.data / "env"
        file.touch(mode=0o600)
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(data: Path) -> int:
    """Run the stack on a folder until a signal, and return the exit status."""
    processes.die_with_parent(signal.SIGTERM)
    processes.adopt_orphans()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    data.mkdir(parents=True, exist_ok=True)
    with _only_one(data / "lock"):
        stack = Stack(data.resolve())
        try:
            stack.up()
            stack.watch()
        except (PipelineError, subprocess.TimeoutExpired) as error:
            _say(failed=str(error))
            return 1
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            stack.down()
    return 0


@contextlib.contextmanager
def _only_one(lock: Path) -> Iterator[IO[str]]:
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(failed=f"another stack runs on {lock.parent}: stop it, or name another folder")
            sys.exit(1)
        yield file


def _say(**fields: Any) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(fields) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".weir")))
