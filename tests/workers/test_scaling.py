"""How many workers there should be."""

import pytest

from workers.scaling import Scale


def wanted(scale: Scale, waiting: int, *, working: int = 0, now_s: float) -> int:
    """Return how many workers are wanted for batches of ten."""
    return scale.wanted(waiting=waiting, working=working, batch=10, now_s=now_s)


def test_grows_when_much_waits_for_a_while() -> None:
    """A long backlog adds one worker after another, up to the maximum; a short peak adds none."""
    scale = Scale(least=1, most=3, up_after_s=1.0)
    assert wanted(scale, 500, now_s=0.0) == 1
    assert wanted(scale, 0, now_s=0.5) == 1
    assert wanted(scale, 500, now_s=1.0) == 1
    assert [wanted(scale, 500, now_s=float(s)) for s in range(2, 8)] == [2, 2, 3, 3, 3, 3]


def test_shrinks_late() -> None:
    """Workers go only after little was to do for long, and never below the minimum."""
    scale = Scale(least=1, most=3, up_after_s=0.0, down_after_s=10.0)
    for now_s in (0.0, 1.0, 2.0):
        wanted(scale, 500, now_s=now_s)
    assert wanted(scale, 0, now_s=3.0) == 3
    assert wanted(scale, 0, now_s=12.9) == 3
    assert [wanted(scale, 0, now_s=13.0 + s) for s in (0, 1, 12, 30, 60)] == [2, 2, 1, 1, 1]


def test_what_is_worked_on_keeps_workers() -> None:
    """A crew that is busy does not shrink, though nothing waits."""
    scale = Scale(least=1, most=2, up_after_s=0.0, down_after_s=1.0)
    wanted(scale, 500, now_s=0.0)
    assert [wanted(scale, 0, working=20, now_s=s) for s in (1.0, 2.0, 9.0)] == [2, 2, 2]


def test_a_steady_load_does_not_swing() -> None:
    """Between growing and shrinking lies a wide band in which nothing changes."""
    scale = Scale(least=1, most=8, up_after_s=0.0, down_after_s=0.0)
    for s in range(4):
        wanted(scale, 60, now_s=float(s))
    assert {wanted(scale, 40, working=20, now_s=10.0 + s) for s in range(100)} == {3}


@pytest.mark.parametrize(("least", "most"), [(0, 1), (2, 1)])
def test_impossible_bounds(least: int, most: int) -> None:
    """A minimum below one or above the maximum is refused."""
    with pytest.raises(ValueError, match="least"):
        Scale(least=least, most=most)
