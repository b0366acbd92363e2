"""`weir pool`."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("command", ["status", "stop"])
def test_no_ray_is_a_problem_that_is_named(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no Ray answers, the command says at which address, and ends with status 1."""
    monkeypatch.setenv("WEIR_POOL_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("WEIR_CONFIG", "none")
    # In a process of its own: here another test may have joined a Ray already.
    result = subprocess.run(
        [sys.executable, "-m", "pipeline", "pool", command],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert result.returncode == 1
    assert "no Ray answers at 127.0.0.1:1" in result.stdout + result.stderr
