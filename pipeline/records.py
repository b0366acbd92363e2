"""Records of Kafka in our own words, and what the stream needs of a connection to it; no client library here."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Headers = tuple[tuple[str, bytes], ...]


class Partition(NamedTuple):
    """One partition of a topic; the configured topic prefix is left out."""

    topic: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record as it was read; `timestamp_s` is the broker's, in seconds since the epoch."""

    topic: str
    partition: int
    offset: int
    timestamp_s: float
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    @property
    def place(self) -> Partition:
        """Return the partition that the record lies in."""
        return Partition(self.topic, self.partition)

    def header(self, name: str) -> bytes | None:
        """Return the last header of that name, or None."""
        return next((value for key, value in reversed(self.headers) if key == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One record to be written."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    @property
    def size_bytes(self) -> int:
        """Return what the record takes at most on the broker, framing included."""
        named = sum(len(name.encode()) + len(value) + 10 for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + named + 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A committed position: the next offset to read, and a note for whoever reads on from there."""

    offset: int
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    """What one poll brought; work on `dropped` partitions must be forgotten before the records are looked at."""

    records: Sequence[Record] = ()
    dropped: frozenset[Partition] = frozenset()


class Link(Protocol):
    """A group member that reads records and commits what follows from them together with their offsets.

    One call ends before the next begins; `commit` may come from another thread than the rest. `pipeline.kafka.Member`
    is the real one, `pipeline.stub.StubLink` another.
    """

    def poll(self, *, timeout_s: float, max_records: int) -> Polled:
        """Return new records and the partitions that were taken away since the last poll."""
        ...

    def may_commit(self) -> bool:
        """Return whether a transaction may begin: the group has settled and its partitions are known."""
        ...

    def commit(self, outgoing: Sequence[Outgoing], marks: Mapping[Partition, Mark]) -> None:
        """Write the records and commit the positions, all or nothing where the broker has transactions.

        Raises:
            AbortedError: nothing was committed; `rewind` before the next poll.
            PipelineError: another process goes by this one's name.
        """
        ...

    def rewind(self) -> None:
        """Go back to the committed position of every partition that is held."""
        ...

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, Mark]:
        """Return the committed positions of these partitions; those without one are left out."""
        ...

    def pause(self, partitions: Collection[Partition]) -> None:
        """Read nothing from these partitions until they are resumed, and from all others again."""
        ...

    def held(self) -> frozenset[Partition]:
        """Return the partitions that this member holds."""
        ...

    def backlog(self) -> Mapping[str, int]:
        """Return how many records of each topic wait to be read."""
        ...

    def close(self) -> None:
        """Let go of the connection; what was not committed is read again by whoever comes next."""
        ...
