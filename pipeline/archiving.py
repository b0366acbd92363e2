"""The consumer that archives uploads, decisions and verdicts, and the archive made anew from Kafka.

1. `poll`: read records and keep them until there are enough, or the oldest has waited long enough.
2. `write`: one file for each partition and day, durable before anything else happens.
3. `erase`: what was erased meanwhile. Whoever erases looks at the files after telling Kafka, we look at Kafka after
   writing the files, so that one of the two erases whatever is written at that moment.
4. `forget`: what a process that died wrote behind the committed position goes; the new files hold it.
5. `commit`: the positions. If the process dies before that, the records are read and written again.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from pipeline import telemetry
from pipeline.archive import Archive, ArchiveFile, table_of
from pipeline.archived_rows import COLUMNS, SCHEMAS, SEALS, day_of, row_of, seal_of
from pipeline.config import Settings
from pipeline.erasing import apply
from pipeline.errors import AbortedError, KafkaError, PipelineError
from pipeline.kafka import Member
from pipeline.legal import Erasures, known
from pipeline.messages import UPLOADS
from pipeline.projection import read_queues
from pipeline.records import Link, Mark, Partition, Record

#: The consumer group's name, behind that of the pipeline.
GROUP: Final = "archive"
_IDLE_S: Final = 0.5
_COMPACT_S: Final = 3600.0
_MAX_BACKOFF_S: Final = 5.0


@dataclass(slots=True, kw_only=True)
class Archiving:
    """Reads the topics and writes files; one process or several, each with its own partitions."""

    link: Link
    archive: Archive
    #: Records in memory before files are written, and how long the oldest of them waits at most.
    most: int = 20_000
    wait_s: float = 60.0
    clock: Callable[[], float] = time.time
    #: What is erased by now.
    erasures: Callable[[], Erasures] = Erasures
    #: The sealed queues.
    sealed: Collection[str] = ()
    _kept: dict[Partition, list[Record]] = field(default_factory=dict)
    _since_s: float = 0.0
    _begun: set[Partition] = field(default_factory=set)
    _compact_at_s: float = 0.0
    _must_rewind: bool = False
    _aborts: int = 0

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop; what is in memory then is written first."""
        self.archive.sweep()
        while not stop.is_set():
            self.turn()
        self.flush()

    def turn(self) -> None:
        """Read once, write what is due, and make past days compact now and then."""
        if self._must_rewind:
            try:
                self.link.rewind()
            except AbortedError as error:
                self._pause(error)
                return
            self._must_rewind = False
        try:
            polled = self.link.poll(timeout_s=_IDLE_S, max_records=2000)
        except AbortedError as error:
            self._pause(error)
            return
        for place in polled.dropped:
            self._kept.pop(place, None)
            self._begun.discard(place)
        for record in polled.records:
            if not self._kept:
                self._since_s = self.clock()
            self._kept.setdefault(record.place, []).append(record)
        count = sum(len(records) for records in self._kept.values())
        if count >= self.most or (count and self.clock() - self._since_s >= self.wait_s):
            self.flush()
        if self.clock() >= self._compact_at_s:
            self._compact_at_s = self.clock() + _COMPACT_S
            self._compact()

    def flush(self) -> None:
        """Write what is in memory, and only then commit its positions."""
        if not self._kept or not self.link.may_commit():
            return
        files = {
            place: write_batch(self.archive, records, sealed=self.sealed)
            for place, records in self._kept.items()
        }
        try:
            apply(self.archive, self.erasures(), [file for some in files.values() for file in some])
        except KafkaError as error:
            # Nothing is committed before it is known what is erased; the same files are written again.
            self._pause(error)
            return
        for place, records in self._kept.items():
            written = files[place]
            if place not in self._begun:
                self.archive.forget(place, records[0].offset, keep=written)
                self._begun.add(place)
        marks = {place: Mark(offset=kept[-1].offset + 1) for place, kept in self._kept.items()}
        self._kept = {}
        try:
            self.link.commit([], marks)
        except AbortedError as error:
            # They are read again, perhaps in other batches.
            self._begun -= marks.keys()
            self._must_rewind = True
            self._pause(error)
            return
        self._aborts = 0

    def _compact(self) -> None:
        # Whoever holds the first partition of the decisions does it, so that two never do.
        if Partition(next(iter(SCHEMAS)), 0) in self.link.held():
            today = datetime.fromtimestamp(self.clock(), UTC).strftime("%Y-%m-%d")
            made = sum(self.archive.compact(topic, before_day=today) for topic in COLUMNS)
            if made:
                # What was erased while it was read for this was read before.
                try:
                    apply(self.archive, self.erasures())
                except KafkaError as error:
                    self._compact_at_s = 0.0
                    self._pause(error)

    def _pause(self, error: PipelineError) -> None:
        self._aborts += 1
        telemetry.log.warning("the archive waits for Kafka", error=str(error))
        time.sleep(min(0.1 * 2**self._aborts, _MAX_BACKOFF_S))


def write_batch(
    archive: Archive, records: list[Record], *, sealed: Collection[str] = ()
) -> list[ArchiveFile]:
    """Write consecutive records of one partition, one file a day, and return the files.

    What a record says of a sealed queue is nobody's to learn from, to count or to take away: only that it is sealed is
    written, before all else, and readers leave out what else there is of that content (`Archive.sealed`).
    """
    place = records[0].place
    by_day: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        row = row_of(record)
        if row is None:
            telemetry.log.warning(
                "a record is not archived: it cannot be read",
                place=f"{record.topic}/{record.partition}/{record.offset}",
            )
            continue
        seal = seal_of(place.topic, row, sealed)
        day = day_of(place.topic, row)
        if seal is not None:
            by_day.setdefault((SEALS[place.topic], day), []).append(seal)
        elif place.topic in SCHEMAS:
            row.pop("sealed", None)
            by_day.setdefault((place.topic, day), []).append(row)
    written = []
    for (topic, day), rows in sorted(by_day.items(), key=lambda item: item[0][0] == place.topic):
        file = ArchiveFile(
            topic=topic,
            day=day,
            partition=place.number,
            first=records[0].offset,
            last=records[-1].offset,
        )
        archive.write(file, table_of(topic, rows))
        if topic == place.topic:
            written.append(file)
    return written


def rebuild(
    archive: Archive,
    records: Iterable[Record],
    *,
    most: int = 20_000,
    erasures: Callable[[], Erasures] = Erasures,
    sealed: Collection[str] = (),
) -> int:
    """Write the archive anew from these records, erase again what was erased, and return how many records there were.

    Files from before the first record of a partition stay: Kafka forgets by retention, the archive does not.
    """
    first: dict[Partition, int] = {}
    last: dict[Partition, int] = {}
    kept: dict[Partition, list[Record]] = {}
    written: list[ArchiveFile] = []
    count = 0
    for record in records:
        count += 1
        first.setdefault(record.place, record.offset)
        last[record.place] = record.offset
        batch = kept.setdefault(record.place, [])
        batch.append(record)
        if len(batch) >= most:
            written += write_batch(archive, kept.pop(record.place), sealed=sealed)
    for batch in kept.values():
        written += write_batch(archive, batch, sealed=sealed)
    for place, offset in first.items():
        archive.forget(place, offset, last=last[place], keep=written)
    apply(archive, erasures())
    return count


def topics_of(settings: Settings) -> list[str]:
    """Return the topics that are archived, and those that say what is sealed."""
    archived = [topic for topic in SCHEMAS if topic != UPLOADS or settings.archive_uploads]
    return list(dict.fromkeys((*archived, *SEALS)))


def sealed_queues(settings: Settings) -> frozenset[str]:
    """Return the names of the sealed queues.

    Raises:
        PolicyError: `queues.yaml` cannot be read.
    """
    return frozenset(name for name, q in read_queues(settings.policies).items() if q.sealed)


def run_archive(settings: Settings, stop: threading.Event) -> None:
    """Archive uploads, decisions and verdicts until told to stop.

    Raises:
        PipelineError: it cannot run as configured.
        PolicyError: `queues.yaml` cannot be read.
    """
    sealed = sealed_queues(settings)
    link = Member(
        settings.kafka,
        topics_of(settings),
        group=f"{settings.kafka.group}-{GROUP}",
        instance=settings.instance,
    )
    telemetry.log.info("running", archive=settings.archive)
    try:
        Archiving(
            link=link,
            archive=Archive(settings.archive, settings.store),
            wait_s=settings.archive_wait_s,
            erasures=lambda: known(settings.kafka).erasures(),
            sealed=sealed,
        ).run(stop)
    finally:
        link.close()
    telemetry.log.info("stopped")
