"""`bash infra/demo.sh`, whole and as a user runs it: what it prints, how long it takes, and that it leaves nothing.

It installs into the checkout's own `.venv`, which it finds installed, unless pins or requirements changed.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.config import environment
from pipeline.processes import descendants

pytestmark = [
    pytest.mark.skipif(not environment().get("WEIR_TEST_LONG"), reason="two minutes of two cores"),
    pytest.mark.timeout(900),
]

HOUSE = Path(__file__).parent.parent.parent
#: What is promised for two cores, once everything is installed.
PROMISED_S = 90
#: How long anything may take on a machine that does other things as well.
PATIENCE_S = 300


@dataclass(slots=True)
class Demo:
    """A demo that runs, or has run."""

    process: subprocess.Popen[bytes]
    folder: Path
    began_s: float = field(default_factory=time.monotonic)
    #: Every process that was ever seen below it.
    family: set[int] = field(default_factory=set)

    def text(self, name: str) -> str:
        """Return what stands in one of its files so far."""
        return (self.folder / name).read_text()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait, with an eye on all processes below it."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, self.text("err")
            self.family.update(descendants(self.process.pid))
            time.sleep(0.1)

    def ended(self) -> int:
        """Wait until it has ended and return its status."""
        self.until(lambda: self.process.poll() is not None)
        return self.process.wait()

    def left(self) -> list[int]:
        """Return which of its processes stay; the last of them end on their own, so that takes a while."""
        deadline = time.monotonic() + 60
        while found := [pid for pid in _processes() if self._is_ours(pid)]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return found

    def _is_ours(self, pid: int) -> bool:
        # What came into being in the last moment was never seen, but has its environment from us.
        with contextlib.suppress(OSError):
            return pid in self.family or self.mark in Path(f"/proc/{pid}/environ").read_bytes()
        return False

    @property
    def mark(self) -> bytes:
        """Return what stands in the environment of all that it starts."""
        return f"DEMO_OF={self.folder}".encode()


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Return what starts a demo in a session of its own, as a terminal does, with no settings but its own."""
    started = []

    def start(*arguments: str) -> Demo:
        base = {
            k: v for k, v in environment().items() if not k.startswith(("WEIR_", "RAY_", "KAF"))
        }
        # Reasons are waited for longer than usual: others have the machine as well.
        base["WEIR_STREAM_RATIONALE_WAIT_S"] = "60"
        base["DEMO_OF"] = str(tmp_path)
        with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
            process = subprocess.Popen(
                ["bash", "infra/demo.sh", "--data", str(tmp_path / "weir"), *arguments],
                cwd=HOUSE,
                env=base,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        started.append(process)
        return Demo(process=process, folder=tmp_path)

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(PATIENCE_S)


def rows(printed: str) -> list[list[str]]:
    """Return the cells of each row of a table; a cell that took several lines has them joined."""
    found: list[list[str]] = []
    begins = True
    for line in printed.splitlines():
        if not line.startswith("│"):
            begins = True
            continue
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        if begins:
            found.append(cells)
        else:
            found[-1] = [
                f"{one} {more}".strip() for one, more in zip(found[-1], cells, strict=True)
            ]
        begins = False
    return found


def test_the_demo_shows_its_decisions_and_ends(start: Callable[..., Demo]) -> None:
    """With `--exit` it ends by itself in time, with status 0, its table printed and no process left behind.

    In the table is every sample, at least twelve; at least three actions; at least two under review; and wherever a
    policy acts or asks for a person, the reason.
    """
    demo = start("--exit")

    status = demo.ended()
    took_s = time.monotonic() - demo.began_s

    assert status == 0, demo.text("err")
    assert len(demo.family) > 5
    assert demo.left() == []
    shown = rows(demo.text("out"))
    samples = {path.stem for path in (demo.folder / "weir" / "samples").iterdir()}
    assert {content for content, *_ in shown} == samples
    assert len(shown) >= 12
    assert len({action.split()[0] for _, action, *_ in shown}) >= 3
    assert len([queue for *_, queue in shown if queue]) >= 2
    unexplained = [
        (content, policy)
        for content, _, policy, _, reason, _ in shown
        if policy and not policy.startswith("(") and not reason
    ]
    assert unexplained == []
    print(f"the demo took {took_s:.0f} s")  # noqa: T201 -- the figure is of interest
    assert took_s <= PROMISED_S


def test_ctrl_c_ends_a_demo_that_is_up(start: Callable[..., Demo]) -> None:
    """Without `--exit` it stays up; Ctrl-C, which a terminal sends to all in front, ends it with status 0."""
    demo = start()
    demo.until(lambda: "Stop: Ctrl-C" in demo.text("err") or demo.process.poll() is not None)
    assert demo.process.poll() is None, demo.text("err")

    os.killpg(demo.process.pid, signal.SIGINT)

    assert demo.ended() == 0, demo.text("err")
    assert len(demo.family) > 5
    assert demo.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_demo_that_is_ended_while_it_starts_leaves_nothing(
    start: Callable[..., Demo], number: signal.Signals
) -> None:
    """Ctrl-C, a closed terminal and a kill leave no process, also while half of the parts run and others start."""
    demo = start("--exit")
    log = demo.folder / "weir" / "logs" / "pipeline.log"
    demo.until(lambda: log.exists() or demo.process.poll() is not None)
    assert demo.process.poll() is None, demo.text("err")
    demo.until(lambda: len(demo.family) > 5)

    os.killpg(demo.process.pid, number)

    demo.ended()
    assert demo.left() == []
