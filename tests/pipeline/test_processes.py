"""Child processes end with their parent, however that ends."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux promises this")

#: A parent with a child, and a grandchild in a session of its own, that says who they are and waits.
FAMILY = """
import subprocess, sys, time
from pathlib import Path
from pipeline import processes
processes.adopt_orphans()
grandchild = "import time; print('up', flush=True); time.sleep(600)"
child = (
    "import os, subprocess, sys, time;"
    f"p = subprocess.Popen([sys.executable, '-c', {grandchild!r}], start_new_session=True);"
    "print(p.pid, flush=True); time.sleep(600)"
)
part = processes.start("child", [sys.executable, "-c", child], logs=Path(sys.argv[1]), env={})
while part.log.read_text().count("\\n") < 2:
    time.sleep(0.01)
print(part.process.pid, flush=True)
"""


def family(folder: Path, then: str) -> tuple[subprocess.Popen[str], int, int]:
    """Start the family, and return the parent and the ids of child and grandchild."""
    parent = subprocess.Popen(
        [sys.executable, "-c", FAMILY + then, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    lines = (folder / "child.log").read_text().split()
    return parent, child, int(next(line for line in lines if line != "up"))


def lives(pid: int) -> bool:
    """Return whether a process runs; one that nobody has collected yet does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def gone(pid: int) -> bool:
    """Return whether the process ends within some seconds."""
    deadline = time.monotonic() + 60
    while lives(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not lives(pid)


def test_a_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """A parent that had no chance to clean up leaves no child behind."""
    parent, child, grandchild = family(tmp_path, "time.sleep(600)")

    parent.kill()
    parent.wait()

    assert gone(child)
    with contextlib.suppress(
        ProcessLookupError
    ):  # it has a session of its own: not ours to promise
        os.kill(grandchild, signal.SIGKILL)


def test_whoever_adopts_orphans_can_end_them_all(tmp_path: Path) -> None:
    """A grandchild whose own parent was killed is found and ended too."""
    parent, child, grandchild = family(
        tmp_path, "part.process.kill(); part.process.wait(); processes.end_descendants()"
    )

    assert parent.wait(60) == 0

    assert gone(child)
    assert gone(grandchild)


def test_a_part_that_ignores_a_polite_request_is_killed(tmp_path: Path) -> None:
    """Stopping takes no longer than the grace that was given."""
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('deaf', flush=True); time.sleep(600)"
    )
    part = processes.start("deaf", [sys.executable, "-c", deaf], logs=tmp_path, env={})
    while "deaf" not in part.tail():
        time.sleep(0.01)

    part.stop(grace_s=0.2)

    assert not part.running
    assert part.process.returncode == -signal.SIGKILL


def test_the_end_of_the_log_says_why_a_part_ended(tmp_path: Path) -> None:
    """Both outputs of a part go into its log, and its last lines can be shown."""
    code = "import sys; print('first', flush=True); sys.exit('no such thing')"
    part = processes.start("part", [sys.executable, "-c", code], logs=tmp_path, env={})
    part.process.wait()

    assert part.tail(1) == "no such thing"
