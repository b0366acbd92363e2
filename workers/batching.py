"""The waiting line before the workers of one kind, and what is taken from it into one call."""

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from typing import Final

from workers.passage import Passage

_NO_KIND: Final = "any"


class Line:
    """Uploads that wait for one kind of worker, in the order of their coming.

    Only uploads of one kind (those that are asked the same questions) share a call. A group that was put back whole
    is taken whole: its members are suspects, or asked to be alone.
    """

    def __init__(self) -> None:
        self._fresh: dict[Hashable, deque[Passage]] = {}
        self._groups: deque[tuple[Hashable, list[Passage], bool]] = deque()
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def put(self, passage: Passage, kind: Hashable = _NO_KIND) -> None:
        """Let an upload wait at the end."""
        self._waiting += 1
        if passage.alone:
            self._groups.append((kind, [passage], False))
        else:
            self._fresh.setdefault(kind, deque()).append(passage)

    def put_back(self, passages: Iterable[Passage], kind: Hashable = _NO_KIND) -> None:
        """Let uploads wait again at the front, which no fault of theirs sent back."""
        for passage in reversed(list(passages)):
            self._waiting += 1
            if passage.alone:
                self._groups.appendleft((kind, [passage], False))
            else:
                self._fresh.setdefault(kind, deque()).appendleft(passage)

    def put_suspects(self, group: Sequence[Passage], kind: Hashable = _NO_KIND) -> None:
        """Let uploads wait together that shared a call in which a worker died."""
        self._waiting += len(group)
        self._groups.append((kind, list(group), True))

    def holds(self, count: int) -> bool:
        """Return whether so many uploads of one kind wait, or a group does."""
        return bool(self._groups) or any(len(line) >= count for line in self._fresh.values())

    def take(
        self, limit: int, *, suspects: bool = True
    ) -> tuple[Hashable, list[Passage], bool] | None:
        """Return the kind, the uploads of the next call, and whether they are suspects; None if nobody waits.

        Of several kinds the one whose first upload waits longest goes first; groups go before everybody, because
        their members came earlier. With `suspects=False` groups of suspects are left where they are.
        """
        for _ in range(len(self._groups)):
            kind, group, suspected = self._groups.popleft()
            if suspected and not suspects:
                self._groups.append((kind, group, suspected))
                continue
            self._waiting -= len(group)
            if left := [passage for passage in group if not passage.gone]:
                return kind, left, suspected
        while self._fresh:
            kind = min(self._fresh, key=lambda kind: self._fresh[kind][0].since_s)
            line = self._fresh[kind]
            taken: list[Passage] = []
            while line and len(taken) < limit:
                passage = line.popleft()
                self._waiting -= 1
                if not passage.gone:
                    taken.append(passage)
            if not line:
                del self._fresh[kind]
            if taken:
                return kind, taken, False
        return None

    def leave(self, before_s: float) -> list[Passage]:
        """Take out and return those that wait since before this moment; the others keep their places."""
        late: list[Passage] = []
        groups = self._groups
        self._groups = deque()
        for kind, group, suspected in groups:
            late += [passage for passage in group if passage.since_s < before_s]
            if stay := [passage for passage in group if passage.since_s >= before_s]:
                self._groups.append((kind, stay, suspected))
        fresh = self._fresh
        self._fresh = {}
        for kind, line in fresh.items():
            late += [passage for passage in line if passage.since_s < before_s]
            if kept := deque(passage for passage in line if passage.since_s >= before_s):
                self._fresh[kind] = kept
        self._waiting -= len(late)
        return [passage for passage in late if not passage.gone]
