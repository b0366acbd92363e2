"""Dead letters: what they say, and the original record that a replay writes. Pure."""

from dataclasses import dataclass
from typing import Final

from pipeline.messages import UPLOADS
from pipeline.records import Headers, Outgoing, Partition, Record

#: Headers that a dead letter adds to those of the original record.
ADDED: Final = frozenset({"weir_reason", "weir_detail", "weir_source"})
#: A header that a replayed record bears: the dead letter that it was replayed from.
REPLAYED: Final = "weir_replay_of"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One event that was set aside, with the reason."""

    record: Record
    reason: str
    detail: str
    source: str

    @property
    def place(self) -> str:
        """Return `partition/offset` in the topic of dead letters, as `replay` takes it."""
        return f"{self.record.partition}/{self.record.offset}"


def read_letter(record: Record) -> DeadLetter:
    """Return what a record of the topic of dead letters says."""

    def header(name: str) -> str:
        return (record.header(name) or b"").decode("utf-8", "replace")

    return DeadLetter(
        record=record,
        reason=header("weir_reason"),
        detail=header("weir_detail"),
        source=header("weir_source"),
    )


def original(letter: DeadLetter) -> Outgoing:
    """Return the record that a replay writes: key, value and headers as they came, and where it was replayed from."""
    kept: Headers = tuple(
        (name, value) for name, value in letter.record.headers if name not in ADDED
    )
    return Outgoing(
        topic=UPLOADS,
        key=letter.record.key,
        value=letter.record.value,
        headers=(*kept, (REPLAYED, letter.place.encode())),
    )


def parse_place(text: str) -> tuple[int, int]:
    """Return partition and offset of `partition/offset`.

    Raises:
        ValueError: it is none.
    """
    partition, _, offset = text.partition("/")
    if not partition.isdigit() or not offset.isdigit():
        raise ValueError(f"{text!r} is no place: write partition/offset, like 0/17")
    return int(partition), int(offset)


def parse_source(text: str) -> tuple[Partition, int] | None:
    """Return the partition and offset of `topic/partition/offset`, or None where it is no such thing."""
    topic, _, rest = text.partition("/")
    partition, _, offset = rest.partition("/")
    if not topic or not partition.isdigit() or not offset.isdigit():
        return None
    return Partition(topic, int(partition)), int(offset)
