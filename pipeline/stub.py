"""Stand-ins for Kafka and the pool inside one process, for tests and rehearsals: `StubBroker`, `StubLink`, `StubPool`.

They keep the promises of the real ones: transactions are all or nothing, a member that lost a partition cannot commit
for it, every submitted key comes back once.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence

from pipeline.errors import AbortedError
from pipeline.records import Mark, Outgoing, Partition, Polled, Record
from policies.question import Question
from workers.classifier import Classification
from workers.upload import Explained, Judged, Settle, Upload


class StubBroker:
    """Topics of one process's memory, with committed positions and who holds which partition."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.records: dict[Partition, list[Record]] = {}
        self.marks: dict[Partition, Mark] = {}
        self.owner: dict[Partition, StubLink] = {}

    def write(self, out: Outgoing, *, number: int = 0) -> Record:
        """Append a record to a partition of its topic."""
        place = Partition(out.topic, number)
        log = self.records.setdefault(place, [])
        record = Record(
            topic=out.topic,
            partition=number,
            offset=len(log),
            timestamp_s=self.clock(),
            key=out.key,
            value=out.value,
            headers=out.headers,
        )
        log.append(record)
        return record

    def written(self, topic: str) -> list[Record]:
        """Return every record of a topic, partition by partition."""
        return [
            r for place, log in sorted(self.records.items()) if place.topic == topic for r in log
        ]


class StubLink:
    """A `Link` to a `StubBroker`; `move` takes a partition from whoever holds it."""

    def __init__(self, broker: StubBroker, *partitions: Partition) -> None:
        self._broker = broker
        self._positions: dict[Partition, int] = {}
        self._dropped: set[Partition] = set()
        self._paused: frozenset[Partition] = frozenset()
        self.settled = True
        #: Each call of `commit` takes one of these errors, if there is any.
        self.faults: deque[Exception] = deque()
        for partition in partitions:
            self.move(partition)

    def move(self, partition: Partition) -> None:
        """Take the partition over, from its committed position on."""
        before = self._broker.owner.get(partition)
        if before is not None:
            before.lose(partition)
        self._broker.owner[partition] = self
        mark = self._broker.marks.get(partition)
        self._positions[partition] = 0 if mark is None else mark.offset

    def lose(self, partition: Partition) -> None:
        """Have the partition taken away, as the next poll will say."""
        self._positions.pop(partition, None)
        self._dropped.add(partition)

    def poll(self, *, timeout_s: float, max_records: int) -> Polled:
        """Return new records and the partitions that were taken away since the last poll."""
        del timeout_s
        dropped, self._dropped = frozenset(self._dropped), set()
        found: list[Record] = []
        for partition, position in self._positions.items():
            if partition in self._paused:
                continue
            more = self._broker.records.get(partition, [])[position:][: max_records - len(found)]
            found += more
            self._positions[partition] = position + len(more)
        return Polled(records=found, dropped=dropped)

    def may_commit(self) -> bool:
        """Return whether a transaction may begin."""
        return self.settled

    def commit(self, outgoing: Sequence[Outgoing], marks: Mapping[Partition, Mark]) -> None:
        """Write the records and the positions, or neither.

        Raises:
            AbortedError: a partition is not held any more, or a fault was asked for.
        """
        if self.faults:
            raise self.faults.popleft()
        if any(self._broker.owner.get(partition) is not self for partition in marks):
            raise AbortedError("a partition was taken away")
        for out in outgoing:
            self._broker.write(out)
        self._broker.marks.update(marks)

    def rewind(self) -> None:
        """Go back to the committed positions."""
        for partition in self._positions:
            mark = self._broker.marks.get(partition)
            self._positions[partition] = 0 if mark is None else mark.offset

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, Mark]:
        """Return the committed positions of these partitions."""
        return {p: self._broker.marks[p] for p in partitions if p in self._broker.marks}

    def pause(self, partitions: Collection[Partition]) -> None:
        """Read nothing from these partitions until they are resumed, and from all others again."""
        self._paused = frozenset(partitions)

    def held(self) -> frozenset[Partition]:
        """Return the partitions that this member holds."""
        return frozenset(self._positions)

    def backlog(self) -> Mapping[str, int]:
        """Return how many records of each topic wait to be read."""
        waiting: dict[str, int] = {}
        for partition, position in self._positions.items():
            left = len(self._broker.records.get(partition, [])) - position
            waiting[partition.topic] = waiting.get(partition.topic, 0) + left
        return waiting

    def close(self) -> None:
        """Let go of everything."""
        for partition in list(self._positions):
            self._broker.owner.pop(partition, None)
        self._positions.clear()


class StubPool:
    """A `Pool` in the same process: `judge` says what comes of one upload, at once or when `hold` ends."""

    def __init__(self, judge: Callable[[Upload, Sequence[Question]], Judged]) -> None:
        self.judge = judge
        self._done: deque[Judged] = deque()
        self._explained: deque[Explained] = deque()
        self._held: dict[int, tuple[Upload, tuple[Question, ...]]] = {}
        self.holding = False
        #: When workers last answered, by the name that a fault has for them.
        self.answered_at: dict[str, float] = {}
        #: Every submitted key, with whether it was to be alone in its call.
        self.submitted: list[tuple[int, bool]] = []
        self.released: list[int] = []
        #: Says what is explained; None: never comes back.
        self.reason: Callable[[int, Sequence[Question]], Explained | None] = lambda key, _: (
            Explained(key=key)
        )

    def covers(self, question: Question) -> bool:
        """Return that every question can be judged."""
        del question
        return True

    def submit(
        self,
        uploads: Sequence[Upload],
        questions: Sequence[Question],
        *,
        alone: bool = False,
        settle: Settle | None = None,
    ) -> None:
        """Judge uploads at once, or keep them while `holding`; one classifier's answer is always enough."""
        del settle
        for upload in uploads:
            self.submitted.append((upload.key, alone))
            self._held[upload.key] = (upload, tuple(questions))
        if not self.holding:
            self.let_go()

    def let_go(self, *, count: int | None = None, last_first: bool = False) -> None:
        """Judge what is kept: all of it, or so many."""
        keys = sorted(self._held, reverse=last_first)[:count]
        for key in keys:
            upload, questions = self._held.pop(key)
            self._done.append(self.judge(upload, questions))

    def finished(self, *, timeout_s: float = 0.0) -> list[Judged]:
        """Return what was judged since the last call."""
        del timeout_s
        done = list(self._done)
        self._done.clear()
        return done

    def explain(self, key: int, questions: Sequence[Question]) -> None:
        """Give the reasons that `reason` says."""
        found = self.reason(key, questions)
        if found is not None:
            self._explained.append(found)

    def explained(self, *, timeout_s: float = 0.0) -> list[Explained]:
        """Return the reasons since the last call."""
        del timeout_s
        done = list(self._explained)
        self._explained.clear()
        return done

    def release(self, keys: Sequence[int]) -> None:
        """Forget uploads; unfinished work on them never comes back."""
        self.released += keys
        for key in keys:
            self._held.pop(key, None)
        self._done = deque(judged for judged in self._done if judged.key not in set(keys))

    def last_answer_at(self, fault_by: str) -> float | None:
        """Return when these workers last answered."""
        return self.answered_at.get(fault_by)

    def close(self) -> None:
        """Forget everything."""
        self._held.clear()


def constant(
    score: float, *, digest: str = "sha256:stub"
) -> Callable[[Upload, Sequence[Question]], Judged]:
    """Return a judge that gives every question the same score."""

    def judge(upload: Upload, questions: Sequence[Question]) -> Judged:
        return Judged(
            key=upload.key,
            classifications=tuple(Classification(question=q.id, score=score) for q in questions),
            answered_by={q.id: digest for q in questions},
        )

    return judge


class StubLog:
    """A `pipeline.desk.Log` that writes to a `StubBroker`."""

    def __init__(self, broker: StubBroker) -> None:
        self._broker = broker

    def place(self, records: Sequence[Outgoing]) -> list[tuple[Partition, int]]:
        """Write the records and return the partition and the offset of each."""
        written = [self._broker.write(record) for record in records]
        return [(record.place, record.offset) for record in written]

    def close(self) -> None:
        """There is nothing to let go of."""
