"""What runs beside the upload consumer: what can be spared comes back, what cannot ends all of it."""

import os
import signal
from pathlib import Path

import pytest

from pipeline.beside import Beside, wanted
from pipeline.config import Settings


def test_an_archive_that_is_configured_is_written_and_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By itself the pipeline keeps the queue; with WEIR_ARCHIVE it also archives, and watches what was promised."""
    monkeypatch.delenv("WEIR_ARCHIVE", raising=False)
    assert wanted(Settings()) == ["escalate"]

    monkeypatch.setenv("WEIR_ARCHIVE", "somewhere")
    assert wanted(Settings()) == ["escalate", "archive", "monitor"]


def test_the_monitor_comes_back_and_escalate_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed monitor is started again after its pause; without escalate the pipeline does not go on."""
    monkeypatch.setenv("WEIR_ARCHIVE", str(tmp_path / "archive"))
    now_s = 0.0
    beside = Beside(Settings(), pause_s=15.0, clock=lambda: now_s)
    try:
        first = beside.processes()
        os.kill(first["monitor"], signal.SIGKILL)
        os.waitid(os.P_PID, first["monitor"], os.WEXITED | os.WNOWAIT)

        assert beside.alive()
        now_s = 14.0
        assert beside.alive()
        assert beside.processes()["monitor"] == first["monitor"]
        now_s = 15.0
        assert beside.alive()
        assert beside.processes()["monitor"] != first["monitor"]

        os.kill(first["escalate"], signal.SIGKILL)
        os.waitid(os.P_PID, first["escalate"], os.WEXITED | os.WNOWAIT)
        assert not beside.alive()
    finally:
        family = beside.processes().values()
        beside.end()
    assert not any(Path(f"/proc/{pid}").exists() for pid in family)
