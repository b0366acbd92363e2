"""How much memory all decoding of one process may take at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Room:
    """Lets in what fits beside what is inside; what is larger than all of it gets it for itself."""

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = self._free_bytes = total_bytes
        self._left = threading.Condition()
        # Whoever waits holds the door, or small ones would slip past a large one for ever.
        self._door = threading.Lock()

    @contextmanager
    def taken(self, size_bytes: int) -> Iterator[None]:
        """Wait until so many bytes are free, and hold them."""
        size_bytes = min(size_bytes, self._total_bytes)
        with self._door, self._left:
            self._left.wait_for(lambda: self._free_bytes >= size_bytes)
            self._free_bytes -= size_bytes
        try:
            yield
        finally:
            with self._left:
                self._free_bytes += size_bytes
                self._left.notify_all()
