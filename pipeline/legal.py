"""Legal holds and erasures: what the events on `moderation.legal` say at a moment, and how they are written.

What is under a hold is not erased. An erasure names its contents, so that it can be applied again to an archive that is
made anew, and covers what was decided until then.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pydantic import ValidationError

from pipeline.config import Kafka
from pipeline.kafka import Producer, read
from pipeline.messages import LEGAL, LegalEvent, headers
from pipeline.records import Outgoing, Record

#: Contents named by one event, so that it fits into a record.
_MOST_CONTENTS: Final = 3_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasures:
    """What is erased: contents and authors, each with the latest moment up to which."""

    contents: Mapping[str, datetime] = field(default_factory=dict)
    authors: Mapping[str, datetime] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.contents or self.authors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Legal:
    """Every event, in the order in which the broker has them."""

    events: tuple[LegalEvent, ...] = ()

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Legal":
        """Return what these records say; what cannot be read says nothing."""
        found = []
        for record in records:
            try:
                event = LegalEvent.model_validate_json(record.value or b"")
            except ValidationError:
                continue
            # Partitions are read one after another: across them the broker's clock gives the order.
            found.append((record.timestamp_s, record.partition, record.offset, event))
        return cls(events=tuple(event for *_, event in sorted(found, key=lambda f: f[:3])))

    def held(self, now: datetime) -> dict[str, LegalEvent]:
        """Return the contents under a hold at this moment, each with its hold."""
        found: dict[str, LegalEvent] = {}
        for event in self.events:
            for content in event.content_ids:
                if event.kind == "hold":
                    found[content] = event
                elif event.kind == "release":
                    found.pop(content, None)
        return {c: e for c, e in found.items() if e.until is None or e.until > now}

    def erasures(self) -> Erasures:
        """Return everything that is erased."""
        contents: dict[str, datetime] = {}
        authors: dict[str, datetime] = {}
        for event in self.events:
            if event.kind != "erase":
                continue
            for content in event.content_ids:
                contents[content] = max(event.at, contents.get(content, event.at))
            if event.author_id is not None:
                name = event.author_id
                authors[name] = max(event.at, authors.get(name, event.at))
        return Erasures(contents=contents, authors=authors)


def known(settings: Kafka) -> Legal:
    """Return every legal event.

    Raises:
        KafkaError: Kafka is out of reach, or the topic does not exist.
    """
    return Legal.of(read(settings, [LEGAL]))


def write(settings: Kafka, events: Sequence[LegalEvent]) -> None:
    """Write events; when this returns the broker has them.

    Raises:
        KafkaError: one could not be written.
    """
    producer = Producer(settings)
    try:
        producer.send([_record(event) for event in events])
    finally:
        producer.close()


def erasing(
    contents: Sequence[str], *, author: str | None, reason: str, by: str, now: datetime
) -> Iterator[LegalEvent]:
    """Yield the events of one erasure: one, or several where there are too many contents for one."""
    for first in range(0, max(len(contents), 1), _MOST_CONTENTS):
        yield LegalEvent(
            event_id=str(uuid.uuid4()),
            kind="erase",
            author_id=author,
            content_ids=tuple(contents[first : first + _MOST_CONTENTS]),
            reason=reason,
            by=by,
            at=now,
        )


def _record(event: LegalEvent) -> Outgoing:
    key = event.author_id or event.content_ids[0]
    return Outgoing(
        topic=LEGAL,
        key=key.encode(),
        value=event.model_dump_json().encode(),
        headers=tuple(headers("legal", event.event_id)),
    )
