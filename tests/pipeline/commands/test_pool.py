"""`weir pool`."""

import pytest
from click.testing import CliRunner

from pipeline.cli import main


@pytest.mark.parametrize("command", ["status", "stop"])
def test_no_ray_is_a_problem_that_is_named(command: str) -> None:
    """Where no Ray answers, the command says at which address, and ends with status 1."""
    result = CliRunner().invoke(
        main, ["pool", command], env={"WEIR_POOL_ADDRESS": "127.0.0.1:1", "WEIR_CONFIG": "none"}
    )
    assert result.exit_code == 1
    assert "no Ray answers at 127.0.0.1:1" in result.output
