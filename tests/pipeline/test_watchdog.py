"""The watchdog."""

import subprocess
import sys
import threading
import time

from pipeline.watchdog import EXIT_STUCK, Watchdog


def test_a_call_that_takes_too_long_ends_the_process() -> None:
    """The process ends with a status of its own, even though the call never returns."""
    program = (
        "import threading\n"
        "from pipeline.watchdog import Watchdog\n"
        "with Watchdog(limit_s=0.2).guard('test'):\n"
        "    threading.Event().wait()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=60, check=False
    )
    assert ended.returncode == EXIT_STUCK
    assert b"stuck" in ended.stderr + ended.stdout


def test_a_call_in_time_is_left_alone() -> None:
    """What returns in time is never ended, however often it is called."""
    ends: list[int] = []
    dog = Watchdog(limit_s=1.0, end=lambda: ends.append(1))
    for _ in range(3):
        with dog.guard("quick"):
            time.sleep(0.01)
    # Long enough for it to have looked behind the limit.
    time.sleep(1.3)
    dog.close()
    assert ends == []
    assert "watchdog" not in [
        thread.name for thread in threading.enumerate() if not thread.is_alive()
    ]
