"""The command line answers at once and loads only what a command needs."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import COMMANDS, main

HOUSE = Path(__file__).parent.parent.parent


def test_the_command_line_loads_no_model_library() -> None:
    """`import pipeline.cli`, and even `weir --help`, loads neither torch nor transformers nor ray."""
    code = (
        "import sys, contextlib, pipeline.cli\n"
        "with contextlib.suppress(SystemExit): pipeline.cli.main(['--help'])\n"
        "print(sorted({'torch', 'transformers', 'ray', 'kafka', 'redis', 'boto3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_threads_that_wait_for_each_other_sleep_soon() -> None:
    """Whatever a command computes, no thread spins for long while it waits: torch's own say so when they start."""
    code = (
        "import contextlib, pipeline.cli\n"
        "with contextlib.suppress(SystemExit): pipeline.cli.main(['policy', '--help'])\n"
        "import torch"
    )
    done = subprocess.run(
        ["env", "-u", "OMP_WAIT_POLICY", "OMP_DISPLAY_ENV=VERBOSE", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
    assert "GOMP_SPINCOUNT = '10000'" in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    """Each command that help lists can be loaded and has a help of its own."""
    done = CliRunner().invoke(main, [name, "--help"])

    assert done.exit_code == 0, done.output
    assert "Usage:" in done.output


def test_linting_the_policies_takes_less_than_half_a_second() -> None:
    """`weir policy lint policies` is quick enough for an editor; the best of several counts."""
    command = [sys.executable, "-m", "pipeline", "policy", "lint", str(HOUSE / "policies")]
    best_s = 1e9
    for _ in range(8):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stdout + done.stderr
        # It waits for nobody, so what the processor spent is what it takes on a machine with nothing else to do.
        spent_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        best_s = min(best_s, spent_s)
        if best_s < 0.5:
            break

    assert best_s < 0.5


def test_an_unknown_command_is_wrong_use() -> None:
    """A typo ends with status 2 and a hint at the help."""
    done = CliRunner().invoke(main, ["polcy"])

    assert done.exit_code == 2
