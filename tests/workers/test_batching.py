"""The waiting line before workers."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workers.simulated import QUESTIONS, text
from workers.batching import Line
from workers.passage import Passage


def passage(key: int, *, alone: bool = False, since_s: float = 0.0) -> Passage:
    """Return an upload that waits."""
    return Passage(upload=text(key), questions=QUESTIONS, alone=alone, since_s=since_s)


def keys(line: Line, limit: int, *, suspects: bool = True) -> list[int]:
    """Return who is taken next."""
    taken = line.take(limit, suspects=suspects)
    return [one.upload.key for one in taken[1]] if taken else []


def test_first_come_first_served() -> None:
    """Uploads leave in the order of their coming, as many as fit."""
    line = Line()
    for key in range(5):
        line.put(passage(key))
    assert [keys(line, 2) for _ in range(4)] == [[0, 1], [2, 3], [4], []]


def test_kinds_do_not_mix() -> None:
    """Uploads that are asked different questions do not share a call; who waits longest goes first."""
    line = Line()
    line.put(passage(1, since_s=2.0), "a")
    line.put(passage(2, since_s=1.0), "b")
    line.put(passage(3, since_s=3.0), "a")
    assert [keys(line, 9), keys(line, 9)] == [[2], [1, 3]]


def test_suspects_stay_together() -> None:
    """Suspects leave as the group they came as, and not to a worker that has other work."""
    line = Line()
    line.put(passage(1))
    line.put_suspects([passage(2), passage(3)])
    assert keys(line, 9, suspects=False) == [1]
    assert keys(line, 1) == [2, 3]


def test_put_back_is_first() -> None:
    """Uploads that were sent back through no fault of theirs go before everybody."""
    line = Line()
    line.put(passage(1))
    line.put_back([passage(2), passage(3)])
    assert keys(line, 9) == [2, 3, 1]


def test_late_ones_leave() -> None:
    """Those who have waited too long leave the line, and only they."""
    line = Line()
    for key in range(4):
        line.put(passage(key, since_s=float(key), alone=key == 0))
    assert sorted(one.upload.key for one in line.leave(2.0)) == [0, 1]
    assert (len(line), keys(line, 9)) == (2, [2, 3])


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["put", "alone", "back", "suspect", "take"]), st.booleans()))
)
def test_nobody_is_lost_or_doubled(steps: list[tuple[str, bool]]) -> None:
    """Whoever is put into the line is taken once, unless gone; its length counts who waits."""
    line = Line()
    came: list[Passage] = []
    left: list[int] = []
    for number, (step, gone) in enumerate(steps):
        one = passage(number, alone=step == "alone")
        if step == "take":
            left += keys(line, 3, suspects=gone)
            continue
        came.append(one)
        if step == "back":
            line.put_back([one])
        elif step == "suspect":
            line.put_suspects([one])
        else:
            line.put(one)
        one.gone = gone
    while taken := keys(line, 2):
        left += taken
    assert sorted(left) == [p.upload.key for p in came if not p.gone]
    assert len(set(left)) == len(left)
    assert len(line) == 0
