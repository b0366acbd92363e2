"""How many uploads' pictures there are at once: a window for those under way, a bound for those that are kept."""

from collections import OrderedDict
from typing import Any

from workers.actors import Place
from workers.passage import Passage


class Window:
    """Keeps the object store small: uploads are let in one by one, and kept pictures go, the oldest first.

    Pictures are kept after the judgement because a reason may want them; where they have gone they are fetched again.
    So whatever waits for its turn never waits for somebody who waits for its release.
    """

    def __init__(self, *, uploads: int, size_bytes: int) -> None:
        self._uploads = uploads
        self._size_bytes = size_bytes
        self._inside = 0
        self._bytes = 0
        self._kept: OrderedDict[Passage, None] = OrderedDict()
        #: How many uploads are left whose pictures lie in an object of the store; with the last one it goes.
        self._sharing: dict[Any, int] = {}

    @property
    def inside(self) -> int:
        """Return how many uploads are being prepared, or are prepared and not judged."""
        return self._inside

    @property
    def room(self) -> int:
        """Return how many more uploads may be prepared now."""
        # What is under way may need as much again as what is kept, and pictures are only known once they are there.
        return 0 if self._bytes > 2 * self._size_bytes else self._uploads - self._inside

    def enter(self, passage: Passage) -> None:
        """Let an upload in."""
        if not passage.in_window:
            passage.in_window = True
            self._inside += 1

    def leave(self, passage: Passage) -> None:
        """Let an upload out; its pictures stay as they are."""
        if passage.in_window:
            passage.in_window = False
            self._inside -= 1

    def fill(self, passage: Passage, pictures: Place | None) -> None:
        """Note the pictures of an upload."""
        self.drop(passage)
        if pictures is None:
            return
        passage.pictures = pictures
        sharing = self._sharing.get(pictures.reference, 0)
        self._sharing[pictures.reference] = sharing + 1
        if not sharing:
            self._bytes += pictures.bytes

    def keep(self, passage: Passage) -> None:
        """Keep the pictures of an upload that is judged, for as long as there is room."""
        if passage.pictures is not None:
            self._kept[passage] = None
        while self._bytes > self._size_bytes and self._kept:
            oldest, _ = self._kept.popitem(last=False)
            self.drop(oldest)

    def hold(self, passage: Passage) -> None:
        """Keep the pictures of an upload whatever room there is, because a reason is being written."""
        self._kept.pop(passage, None)

    def drop(self, passage: Passage) -> None:
        """Let go of the pictures of an upload."""
        self._kept.pop(passage, None)
        pictures, passage.pictures = passage.pictures, None
        if pictures is None:
            return
        left = self._sharing[pictures.reference] - 1
        if left:
            self._sharing[pictures.reference] = left
        else:
            del self._sharing[pictures.reference]
            self._bytes -= pictures.bytes
