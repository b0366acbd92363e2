"""A folder of policies that changes while it is in force."""

import shutil
from pathlib import Path

import pytest

from policies.errors import PolicyError
from policies.reload import PolicyFolder

SHIPPED = Path(__file__).parents[2] / "policies"


def no_error(error: PolicyError) -> None:
    """Fail the test: nothing may be wrong."""
    pytest.fail(str(error))


class Clock:
    """A clock that the test moves on."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the shipped policies."""
    for file in SHIPPED.glob("*.yaml"):
        shutil.copy(file, tmp_path)
    return tmp_path


def edit(folder: Path, old: str, new: str) -> None:
    """Edit the file of one policy the way editors do: a new file takes the place of the old."""
    path = folder / "weapons.yaml"
    beside = folder / ".weapons.yaml.swp"
    beside.write_text(path.read_text().replace(old, new))
    beside.replace(path)


def test_change(folder: Path) -> None:
    """A changed file is in force once it was seen at rest, and not before."""
    errors: list[PolicyError] = []
    clock = Clock()
    watched = PolicyFolder(folder, errors.append, clock=clock)
    first = watched.current()

    edit(folder, "review: 0.5\n", "review: 0.4\n")
    assert watched.current() is first
    clock.now = 1.1
    assert watched.current() is first
    clock.now = 2.2

    assert watched.current().digest != first.digest
    assert watched.current().by_name["weapons"].bands.review == 0.4
    assert errors == []


def test_files_that_change_together(folder: Path) -> None:
    """A folder that goes on changing is read when it rests: no set is made of half an edit."""
    clock = Clock()
    watched = PolicyFolder(folder, no_error, clock=clock)
    first = watched.current()

    edit(folder, "queue: threats", "queue: menaces")
    clock.now = 1.1
    assert watched.current() is first
    queues = folder / "queues.yaml"
    queues.write_text(queues.read_text().replace("  threats:", "  menaces:"))
    clock.now = 2.2
    harassment = folder / "harassment.yaml"
    assert watched.current() is first
    harassment.write_text(harassment.read_text().replace("queue: threats", "queue: menaces"))
    clock.now = 3.3
    assert watched.current() is first
    clock.now = 4.4

    assert watched.current().by_name["weapons"].rule("W3", {}).queue == "menaces"


def test_wrong_file(folder: Path) -> None:
    """A wrong file leaves the old set in force, is reported once, and once mended counts again."""
    errors: list[PolicyError] = []
    clock = Clock()
    watched = PolicyFolder(folder, errors.append, clock=clock)
    first = watched.current()

    edit(folder, "severity: high", "severity: hihg")
    for _ in range(5):
        clock.now += 2
        assert watched.current() is first
    assert [problem.field for error in errors for problem in error.problems] == ["severity"]

    edit(folder, "severity: hihg", "severity: low")
    for _ in range(2):
        clock.now += 2
        watched.current()
    assert watched.current().by_name["weapons"].severity == "low"
    assert len(errors) == 1


def test_same_meaning(folder: Path) -> None:
    """Another layout of the same words keeps the very same set."""
    clock = Clock()
    watched = PolicyFolder(folder, no_error, clock=clock)
    first = watched.current()

    edit(folder, "severity: high", "severity:    high   # bad")
    for _ in range(3):
        clock.now += 2
        assert watched.current() is first


def test_lost_folder(folder: Path) -> None:
    """A folder that vanishes leaves the old set in force."""
    errors: list[PolicyError] = []
    clock = Clock()
    watched = PolicyFolder(folder, errors.append, clock=clock)
    first = watched.current()

    shutil.rmtree(folder)
    for _ in range(3):
        clock.now += 2
        assert watched.current() is first
    assert len(errors) == 1
    assert "there is no such folder" in str(errors[0])


def test_wrong_from_the_start(tmp_path: Path) -> None:
    """Without any set that was ever right there is none to be in force."""
    with pytest.raises(PolicyError):
        PolicyFolder(tmp_path, no_error)
