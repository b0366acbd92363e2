"""Offset bookkeeping: which records of each partition are finished, and what may be committed. Pure.

Results leave in offset order: a transaction carries the longest finished run of each partition. The note beside a
committed offset says how often a process was started anew at that offset, so that a record that kills its process can
be found and set aside.
"""

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from pipeline.records import Mark, Partition

#: More restarts than this at one offset, and the partition is worked one record at a time.
MAX_RESTARTS: Final = 3
#: A record that was alone in work at this many deaths of its process is set aside.
MAX_DEATHS_ALONE: Final = 2

R = TypeVar("R")

_NOTE: Final = re.compile(r"restarts=(\d{1,9}) alone=(\d{1,18}) deaths=(\d{1,9})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is kept beside a committed offset.

    `restarts` counts starts at this very offset. Below the offset `alone_until` records are worked one at a time;
    `deaths` counts processes that ended while the record at this offset was alone in their hands.
    """

    restarts: int = 0
    alone_until: int = 0
    deaths: int = 0

    def __str__(self) -> str:
        return f"restarts={self.restarts} alone={self.alone_until} deaths={self.deaths}"

    @classmethod
    def parse(cls, text: str) -> "Note":
        """Return the note that `str` made; anything else counts as no note."""
        found = _NOTE.fullmatch(text)
        if found is None:
            return cls()
        restarts, alone, deaths = (int(number) for number in found.groups())
        return cls(restarts=restarts, alone_until=alone, deaths=deaths)

    def alone(self, offset: int) -> bool:
        """Return whether the record at this offset is worked alone."""
        return offset < self.alone_until

    def poisonous(self, offset: int) -> bool:
        """Return whether the record at this offset, the first one, has killed its process too often."""
        return self.alone(offset) and self.deaths > MAX_DEATHS_ALONE

    def started(self, offset: int, *, window: int) -> "Note":
        """Return the note to commit before work at this offset starts in a new process.

        `window` is how many records a process may have had in work: one of them was to blame.
        """
        restarts = self.restarts + 1
        until = max(self.alone_until, offset + window if restarts > MAX_RESTARTS else 0)
        # The count goes up before the work: whoever reads it knows that this many did not live to commit.
        deaths = self.deaths + 1 if offset < until else 0
        return Note(restarts=restarts, alone_until=until, deaths=deaths)

    def undone(self) -> "Note":
        """Return the note to commit when work at this offset ended in good order, before any progress."""
        return Note(
            restarts=max(0, self.restarts - 1),
            alone_until=self.alone_until,
            deaths=max(0, self.deaths - 1),
        )

    def advanced(self, offset: int) -> "Note":
        """Return the note to commit with progress to this offset."""
        if offset < self.alone_until:
            return Note(restarts=0, alone_until=self.alone_until, deaths=1)
        return Note()


class Run(Generic[R]):
    """The records of one partition that were read and not yet committed, in offset order."""

    __slots__ = ("_open", "_results")

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._results: dict[int, R] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, offset: int) -> None:
        """Take a record into work.

        Raises:
            ValueError: offsets do not rise.
        """
        if self._open and offset <= self._open[-1]:
            raise ValueError(
                f"offset {offset} comes after {self._open[-1]}: a partition is read in order"
            )
        self._open.append(offset)

    def finish(self, offset: int, result: R) -> None:
        """Note the result of a record that is in work; one that is not (any more) is of no interest."""
        self._results[offset] = result

    def finished(self, *, at_most: int) -> list[R]:
        """Return the results of the longest finished run from the beginning, in order."""
        found: list[R] = []
        for offset in self._open:
            if offset not in self._results or len(found) == at_most:
                break
            found.append(self._results[offset])
        return found

    def position(self, count: int) -> int:
        """Return the offset to commit once the first `count` records are done."""
        return self._open[count - 1] + 1

    def settle(self, count: int) -> None:
        """Forget the first `count` records: they are committed."""
        for _ in range(count):
            del self._results[self._open.popleft()]

    def first(self) -> int:
        """Return the first offset in work."""
        return self._open[0]

    def last(self) -> int:
        """Return the last offset in work."""
        return self._open[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Due(Generic[R]):
    """What one transaction carries: results in order, and how many records of each partition they end."""

    results: tuple[R, ...]
    counts: Mapping[Partition, int]
    marks: Mapping[Partition, Mark]


class Checkpoint(Generic[R]):
    """The open runs of all partitions that a member holds."""

    def __init__(self) -> None:
        self._runs: dict[Partition, Run[R]] = {}
        self._notes: dict[Partition, Note] = {}

    def __len__(self) -> int:
        return sum(len(run) for run in self._runs.values())

    def known(self, partition: Partition) -> bool:
        """Return whether work on the partition has begun."""
        return partition in self._notes

    def note(self, partition: Partition) -> Note:
        """Return the note that holds for the partition."""
        return self._notes.get(partition, Note())

    def start(self, partition: Partition, note: Note) -> None:
        """Begin to work on a partition, under this note."""
        self._notes[partition] = note
        self._runs[partition] = Run()

    def begin(self, partition: Partition, offset: int) -> None:
        """Take a record into work."""
        self._runs[partition].begin(offset)

    def finish(self, partition: Partition, offset: int, result: R) -> None:
        """Note the result of a record in work."""
        self._runs[partition].finish(offset, result)

    def open(self, partition: Partition) -> int:
        """Return how many records of the partition are in work."""
        run = self._runs.get(partition)
        return 0 if run is None else len(run)

    def first(self, partition: Partition) -> int | None:
        """Return the offset of the first record of the partition that is in work, or None."""
        run = self._runs.get(partition)
        return run.first() if run is not None and len(run) else None

    def last(self, partition: Partition) -> int:
        """Return the offset of the last record of the partition that is in work."""
        return self._runs[partition].last()

    def partitions(self) -> tuple[Partition, ...]:
        """Return the partitions on which work has begun."""
        return tuple(self._notes)

    def due(self, *, at_most: int) -> Due[R]:
        """Return what can be committed now: the longest finished run of each partition, `at_most` records in all."""
        results: list[R] = []
        counts, marks = {}, {}
        for partition, run in self._runs.items():
            found = run.finished(at_most=at_most - len(results))
            if found:
                results += found
                counts[partition] = len(found)
                offset = run.position(len(found))
                marks[partition] = Mark(
                    offset=offset, note=str(self._notes[partition].advanced(offset))
                )
        return Due(results=tuple(results), counts=counts, marks=marks)

    def settle(self, due: Due[R]) -> None:
        """Forget what was committed."""
        for partition, count in due.counts.items():
            self._runs[partition].settle(count)
            self._notes[partition] = self._notes[partition].advanced(due.marks[partition].offset)

    def drop(self, partition: Partition) -> None:
        """Forget a partition: it was taken away, or is read again from its committed position."""
        self._runs.pop(partition, None)
        self._notes.pop(partition, None)
