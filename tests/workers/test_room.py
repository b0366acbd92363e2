import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from workers.room import Room


def test_no_more_than_fits() -> None:
    """What is inside never exceeds the room, and everybody gets in."""
    room, lock = Room(10), threading.Lock()
    inside, most = 0, 0

    def enter(size: int) -> int:
        nonlocal inside, most
        with room.taken(size):
            with lock:
                inside += size
                most = max(most, inside)
            with lock:
                inside -= size
        return size

    sizes = [1, 7, 3, 10, 2] * 100
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(enter, sizes)) == sizes
    assert most <= 10


def test_a_giant_is_alone() -> None:
    """What is larger than the room waits until it is empty, and has it for itself."""
    room, order = Room(10), list[str]()

    def giant() -> None:
        with room.taken(1000):
            order.append("giant")

    with room.taken(1):
        thread = threading.Thread(target=giant)
        thread.start()
        thread.join(timeout=0.1)
        order.append("small")
    thread.join(timeout=60)
    assert order == ["small", "giant"]


def test_a_fault_inside_frees_the_room() -> None:
    """The room is free again after an error inside."""
    room = Room(10)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), room.taken(10):
            1 / 0  # noqa: B018 -- wanted for its error
    with room.taken(10):
        pass
