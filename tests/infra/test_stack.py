"""The embedded stack starts, says what it needs to say, and leaves nothing behind."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.config import environment
from pipeline.processes import descendants

#: A classifier that needs no model.
STUB = '[{"name": "stub", "model": "stub", "kind": "stub"}]'


def up(data: Path) -> subprocess.Popen[str]:
    """Start `weir up` in a session of its own, as a terminal does."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "up", "--data", str(data), "--no-samples"],
        env=environment() | {"WEIR_CLASSIFIERS": STUB},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def until_up(process: subprocess.Popen[str]) -> list[int]:
    """Wait until the stack is up, and return all processes below."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if "Stop: Ctrl-C" in line:
            return descendants(process.pid)
    pytest.fail("".join(said))


def test_ctrl_c_ends_all_of_it(tmp_path: Path) -> None:
    """Ctrl-C ends with status 0, no process stays, and the file with the way to the stack is gone.

    While it is up, that file is for its owner only, because the token of Ray stands in it; a second stack on the same
    folder is refused; and Redis never evicts.
    """
    process = up(tmp_path)
    try:
        family = until_up(process)
        exported = (tmp_path / "env").read_text()
        assert stat.S_IMODE((tmp_path / "env").stat().st_mode) == 0o600
        assert {"WEIR_KAFKA_SERVERS", "WEIR_REDIS_URL", "WEIR_STORE_FOLDER"} <= {
            line.removeprefix("export ").split("=")[0] for line in exported.splitlines()
        }
        second = up(tmp_path)
        assert second.stdout is not None
        assert "another stack runs on" in second.stdout.read()
        assert second.wait(120) == 1
    finally:
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read() if process.stdout else ""
        status = process.wait(120)

    assert status == 0, rest
    assert left(family) == []
    assert not (tmp_path / "env").exists()


def left(family: list[int], within_s: float = 60) -> list[int]:
    """Return which of these processes are still there after a while: the last of them end on their own."""
    deadline = time.monotonic() + within_s
    while alive := [pid for pid in family if Path(f"/proc/{pid}").exists()]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return alive


def test_a_part_that_dies_ends_the_stack_with_its_last_words(tmp_path: Path) -> None:
    """When Redis is killed, the stack stops the rest, and says which part ended."""
    process = up(tmp_path)
    family = until_up(process)
    redis = next(
        pid for pid in family if "redis-server" in Path(f"/proc/{pid}/cmdline").read_text()
    )

    os.kill(redis, signal.SIGKILL)

    assert process.stdout is not None
    said = process.stdout.read()
    assert process.wait(120) == 1
    assert "redis: it ended" in said
    assert left(family) == []


def test_the_stack_speaks_json(tmp_path: Path) -> None:
    """What `weir up` reads from the stack is one JSON object a line, also when something is wrong."""
    (tmp_path / "logs").write_text("a file where a folder must be")

    done = subprocess.run(
        [sys.executable, "-m", "infra.stack", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    for line in done.stdout.splitlines():
        json.loads(line)
