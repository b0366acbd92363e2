"""What a policy author needs runs on a laptop: no model, no broker, no Redis."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.archive import Archive
from pipeline.config import Store, environment
from pipeline.synthetic_archive import NEW, OLD, fill, write_calibrations, write_policies
from tests.pipeline.test_reworded import World

#: Runs `weir` where no such library can be imported and no connection can be made.
ALONE = """
import socket, sys

AWAY = {"torch", "transformers", "ray", "kafka", "redis", "boto3", "confluent_kafka"}

class Away:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in AWAY:
            raise ImportError(f"{name} is away")

def refuse(self, address):
    raise ConnectionRefusedError(f"{address} is away")

sys.meta_path.insert(0, Away())
socket.socket.connect = socket.socket.connect_ex = refuse
from pipeline.cli import main
main(sys.argv[1:])
"""

CASES = """\
policy: beer
cases:
  one: {text: a bottle of beer, expect: violates}
  two: {text: a glass of water, expect: allowed, unlike: one}
"""


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """Return a folder with two policy sets, golden cases and a small archive."""
    old = write_policies(tmp_path / "old", OLD)
    new = write_policies(tmp_path / "new", NEW)
    (tmp_path / "new" / "cases").mkdir()
    (tmp_path / "new" / "cases" / "beer.yaml").write_text(CASES)
    now = datetime.now(UTC)
    write_calibrations(tmp_path / "calibrations", new, now=now)
    fill(Archive(str(tmp_path / "archive"), Store()), old, 300, now=now)
    return tmp_path


def weir(room: Path, *arguments: str, alone: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    env = {
        **environment(),
        "WEIR_ARCHIVE": str(room / "archive"),
        "WEIR_CALIBRATIONS": str(room / "calibrations"),
        "WEIR_CLASSIFIERS": json.dumps([{"name": "stub", "model": "stub", "kind": "stub"}]),
    }
    run = ["-c", ALONE] if alone else ["-m", "pipeline"]
    return subprocess.run(
        [sys.executable, *run, "policy", *arguments],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_golden_cases_offline(room: Path) -> None:
    """`weir policy test --offline` says of recorded cases what the classifier's own run said."""
    folder = ("--folder", str(room / "new"))
    before = weir(room, "test", "beer", *folder, "--record", "--json", alone=False)
    after = weir(room, "test", "beer", *folder, "--offline", "--json")

    assert after.returncode == before.returncode, after.stderr
    assert [(c["case"], c["status"]) for c in json.loads(after.stdout)] == [
        (c["case"], c["status"]) for c in json.loads(before.stdout)
    ]
    assert len(json.loads(after.stdout)) == 2


def test_diff_offline(room: Path) -> None:
    """`weir policy diff` compares two folders."""
    done = weir(room, "diff", str(room / "old"), str(room / "new"))

    assert done.returncode == 0, done.stderr
    assert "arms" in done.stdout


def test_backtest_offline(room: Path) -> None:
    """`weir policy backtest` decides the archive again."""
    done = weir(room, "backtest", str(room / "new"), "--since", "9d", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["decisions"] == 300


def test_new_words_offline(tmp_path: Path) -> None:
    """Captions are scored again, and calibrations fitted, with nothing but the archive and a classifier."""
    World(tmp_path)

    done = weir(tmp_path, "backtest", str(tmp_path / "new"), "--sample", "20", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["estimates"]["anew"]["fitted"] == ["arms"]
