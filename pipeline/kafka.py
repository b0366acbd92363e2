"""Kafka through kafka-python: the one file that imports it.

`Member` is a group member whose reads and writes commit together; `Producer` only writes; `read` goes through a topic
from its beginning to its end; `Topics` makes and checks topics. Topic names are given and returned without the
configured prefix.

kafka-python 3.0.12 has three faults that lose or double records, and one by which a member reads no more; each is
mended here and has a test of its own (tests/pipeline/test_kafka.py):

1. Offsets that the broker refused stay in the producer's transaction manager and go out with the *next* transaction,
   for partitions that another member may own by then. So a producer never outlives a transaction that failed.
2. A member that was expelled while it was joining keeps its old partitions with their old positions, and its assignor
   goes on claiming them, so that two members get one partition. So a lost membership forgets them at once.
3. `group_metadata()` names a new generation as soon as the broker has answered the join, before the partitions of that
   generation are known, so that old work would commit under the new generation. So the snapshot is taken right after
   a poll, and only while the group is stable.
4. A join that began because the leader learned of new partitions is forgotten when a poll ends before the broker has
   answered, and the member never reads again. So a join under way counts as a join that is needed.
"""

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as client_errors
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment
from kafka.structs import ConsumerGroupMetadata, MemberState, OffsetAndMetadata

from pipeline.config import Kafka
from pipeline.errors import AbortedError, KafkaError, PipelineError
from pipeline.records import Mark, Outgoing, Partition, Polled, Record

#: The API version that librdkafka's in-process broker speaks with this client.
_EMBEDDED_API: Final = (2, 0)
#: Short, because every transaction waits for one such pause after its commit.
_RETRY_BACKOFF_MS: Final = 10
#: Longest record that we ever send, framing included; topics allow a little less.
_MAX_REQUEST_BYTES: Final = 4_000_000
#: Decisions take some 5 kB each: batches of the default 16 kB would hold three.
_BATCH_BYTES: Final = 256_000
#: How long the broker keeps an unfinished transaction of a process that died and never came back.
_TRANSACTION_TIMEOUT_S: Final = 30.0
#: How long one network call may take before trying again.
_CALL_TIMEOUT_S: Final = 15.0

# The client logs every retry as a warning of its own; what matters reaches us as an exception.
logging.getLogger("kafka").setLevel(logging.ERROR)


class Member:
    """A group member that reads committed records and commits what follows from them together with their offsets."""

    def __init__(
        self, settings: Kafka, topics: Sequence[str], *, group: str, instance: str
    ) -> None:
        self._settings = settings
        self._group = f"{settings.topic_prefix}{group}"
        self._name = f"{self._group}.{instance}"
        self._events = _Events()
        self._producer: KafkaProducer | None = self._fresh_producer()
        self._consumer = _joined_consumer(settings, topics, self._group, instance, self._events)
        self._membership: ConsumerGroupMetadata | None = None
        self._held: frozenset[Partition] = frozenset()
        self._paused: frozenset[Partition] = frozenset()
        self._read: dict[Partition, int] = {}

    def poll(self, *, timeout_s: float, max_records: int) -> Polled:
        """Return new records, and the partitions that were taken away since the last poll.

        Raises:
            AbortedError: reading failed for now.
            PipelineError: another process goes by this one's name.
            KafkaError: reading fails until somebody mends it.
        """
        # A membership that was read before this poll must not fence work that is read by it.
        self._membership = None
        try:
            found = self._consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=max_records)
        except client_errors.FencedInstanceIdError as error:
            raise PipelineError(self._two_of_a_name()) from error
        except client_errors.KafkaError as error:
            raise _trouble(error) from error
        self._membership = self._snapshot()
        held = frozenset(self._ours(tp) for tp in self._consumer.assignment())
        dropped = frozenset(self._ours(tp) for tp in self._events.take()) | (self._held - held)
        self._held = held
        if dropped and self._paused:
            self._apply_pause(self._paused & held)
        records = [self._record(raw) for tp, raws in found.items() for raw in raws]
        self._read |= {record.place: record.offset + 1 for record in records}
        return Polled(records=records, dropped=dropped)

    def backlog(self) -> dict[str, int]:
        """Return how many records of each topic wait to be read, as far as the broker has said."""
        waiting: dict[str, int] = {}
        for partition in self._held & self._read.keys():
            # A partition may be taken away at any moment by the client's own thread.
            with suppress(AssertionError, client_errors.IllegalStateError):
                end = self._consumer.highwater(self._theirs(partition))
                left = 0 if end is None else max(0, end - self._read[partition])
                waiting[partition.topic] = waiting.get(partition.topic, 0) + left
        return waiting

    def may_commit(self) -> bool:
        """Return whether a transaction may begin: the group has settled and its partitions are known."""
        return self._membership is not None

    def commit(self, outgoing: Sequence[Outgoing], marks: Mapping[Partition, Mark]) -> None:
        """Write the records and commit the positions, all or nothing where the broker has transactions.

        1. Refuse without a settled membership: the broker does not fence a generation below 1 or an empty member id.
        2. Begin; send every record.
        3. Flush; look at every record's future.
        4. Send the offsets with the membership as it was right after the last poll.
        5. Commit. A producer whose transaction failed anywhere is thrown away: closing the door on whatever it
           kept, and aborting at the broker when its successor takes over the transactional id.

        Without transactions: send, flush, look at every future, commit the offsets.

        Raises:
            AbortedError: nothing was committed (without transactions: perhaps some records, never the positions).
            PipelineError: another process goes by this one's name.
        """
        if self._membership is None:
            raise AbortedError(
                "the group is settling; nothing can be committed before the next poll"
            )
        offsets = {
            self._theirs(partition): OffsetAndMetadata(mark.offset, mark.note, -1)
            for partition, mark in marks.items()
        }
        producer = self._usable_producer()
        try:
            if self._settings.transactions:
                producer.begin_transaction()
            futures = [_send(producer, self._settings, record) for record in outgoing]
            producer.flush(timeout=self._settings.commit_timeout_s)
            for future in futures:
                future.get(timeout=0)
            self._finish(producer, offsets)
        except client_errors.KafkaError as error:
            self._producer = None
            _close_producer(producer)
            if _fenced(error, producer):
                raise PipelineError(self._two_of_a_name()) from error
            raise AbortedError(f"not committed: {type(error).__name__}: {error}") from error

    def rewind(self) -> None:
        """Go back to the committed position of every partition that is held.

        Raises:
            AbortedError: the positions could not be read.
        """
        # Its failed transaction hides what others wrote behind it until a new producer takes over, work or no work.
        self._usable_producer()
        held = [self._theirs(partition) for partition in self._held]
        marks = self.committed(self._held)
        for tp in held:
            mark = marks.get(self._ours(tp))
            # It may have been taken away meanwhile: then its next owner reads from the committed position.
            with suppress(
                AssertionError, client_errors.IllegalStateError, client_errors.KafkaError
            ):
                if mark is None:
                    self._consumer.seek_to_beginning(tp)
                else:
                    self._consumer.seek(tp, mark.offset)

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, Mark]:
        """Return the committed positions of these partitions; those without one are left out.

        Raises:
            AbortedError: they could not be read in time.
        """
        if not partitions:
            return {}
        marks = {}
        for partition in partitions:
            try:
                found = self._consumer.committed(
                    self._theirs(partition), metadata=True, timeout_ms=int(_CALL_TIMEOUT_S * 1000)
                )
            except client_errors.KafkaError as error:
                raise AbortedError(
                    f"the committed position of {partition} cannot be read: {error}"
                ) from error
            if found is not None and found.offset >= 0:
                marks[partition] = Mark(offset=found.offset, note=found.metadata or "")
        return marks

    def pause(self, partitions: Collection[Partition]) -> None:
        """Read nothing from these partitions until they are resumed, and from all others again."""
        wanted = frozenset(partitions) & self._held
        if wanted != self._paused:
            self._apply_pause(wanted)

    def held(self) -> frozenset[Partition]:
        """Return the partitions that this member holds."""
        return self._held

    def close(self) -> None:
        """Let go of the connection; what was not committed is read again by whoever comes next."""
        if self._producer is not None:
            _close_producer(self._producer)
        with suppress(client_errors.KafkaError):
            self._consumer.close(autocommit=False, timeout_ms=2000)

    def _two_of_a_name(self) -> str:
        return f"another process runs as {self._name}: give each process its own WEIR_INSTANCE"

    def _finish(
        self, producer: KafkaProducer, offsets: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> None:
        if self._settings.transactions:
            if offsets:
                producer.send_offsets_to_transaction(offsets, self._membership)
            producer.commit_transaction()
        elif offsets:
            self._consumer.commit(offsets, timeout_ms=int(self._settings.commit_timeout_s * 1000))

    def _snapshot(self) -> ConsumerGroupMetadata | None:
        metadata = self._consumer.group_metadata()
        settled = (
            metadata.state == MemberState.STABLE
            and metadata.generation_id >= 1
            and bool(metadata.member_id)
        )
        return metadata if settled else None

    def _fresh_producer(self) -> KafkaProducer:
        settings = self._settings
        options = _producer_options(settings)
        if settings.transactions:
            options |= {
                "transactional_id": self._name,
                "transaction_timeout_ms": int(_TRANSACTION_TIMEOUT_S * 1000),
            }
        producer = _reached(settings, lambda: KafkaProducer(**options))
        if settings.transactions:
            _reached(settings, producer.init_transactions)
        return producer

    def _usable_producer(self) -> KafkaProducer:
        if self._producer is None:
            try:
                self._producer = self._fresh_producer()
            except KafkaError as error:
                raise AbortedError(str(error)) from error
        return self._producer

    def _apply_pause(self, wanted: frozenset[Partition]) -> None:
        resume = [self._theirs(p) for p in (self._paused - wanted) & self._held]
        pause = [self._theirs(p) for p in wanted]
        # A partition may be taken away at any moment by the client's own thread.
        with suppress(AssertionError, KeyError, client_errors.IllegalStateError):
            if resume:
                self._consumer.resume(*resume)
            if pause:
                self._consumer.pause(*pause)
        self._paused = wanted

    def _record(self, raw: Any) -> Record:
        return _record(self._settings.topic_prefix, raw)

    def _ours(self, tp: TopicPartition) -> Partition:
        return Partition(tp.topic.removeprefix(self._settings.topic_prefix), tp.partition)

    def _theirs(self, partition: Partition) -> TopicPartition:
        return TopicPartition(self._settings.topic_prefix + partition.topic, partition.number)


class Producer:
    """Writes records without a group; each call returns when the broker has them."""

    def __init__(self, settings: Kafka) -> None:
        self._settings = settings
        self._producer = _reached(settings, lambda: KafkaProducer(**_producer_options(settings)))

    def send(self, records: Sequence[Outgoing]) -> list[Partition]:
        """Write the records and return the partition of each.

        Raises:
            KafkaError: a record could not be written.
        """
        return [partition for partition, _ in self.place(records)]

    def place(self, records: Sequence[Outgoing]) -> list[tuple[Partition, int]]:
        """Write the records and return the partition and the offset of each.

        Raises:
            KafkaError: a record could not be written.
        """
        try:
            futures = [_send(self._producer, self._settings, record) for record in records]
            self._producer.flush(timeout=self._settings.commit_timeout_s)
            placed = [future.get(timeout=0) for future in futures]
        except client_errors.KafkaError as error:
            raise KafkaError(f"the records could not be written: {error}") from error
        prefix = self._settings.topic_prefix
        return [
            (Partition(at.topic.removeprefix(prefix), at.partition), at.offset) for at in placed
        ]

    def post(self, record: Outgoing) -> None:
        """Hand over a record without waiting for the broker; `flush` waits for all of them."""
        _send(self._producer, self._settings, record)

    def flush(self) -> None:
        """Wait until the broker has every record that was posted."""
        self._producer.flush(timeout=self._settings.commit_timeout_s)

    def close(self) -> None:
        """Let go of the connection."""
        _close_producer(self._producer)


class Follower:
    """Reads partitions from positions that it is told, without a group; whoever calls keeps the positions."""

    def __init__(self, settings: Kafka) -> None:
        self._settings = settings
        self._consumer = _reached(
            settings,
            lambda: KafkaConsumer(
                isolation_level=_isolation(settings),
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_bytes=20_000_000,
                max_partition_fetch_bytes=4_000_000,
                allow_auto_create_topics=False,
                **_connection(settings),
            ),
        )

    def partitions(self, topics: Sequence[str]) -> list[Partition]:
        """Return all partitions of these topics.

        Raises:
            KafkaError: a topic does not exist.
        """
        found = _partitions(self._settings, self._consumer, topics)
        return [self._ours(tp) for tp in found]

    def follow(self, positions: Mapping[Partition, int]) -> None:
        """Read these partitions from now on, each from this offset, and no others."""
        self._consumer.assign([self._theirs(partition) for partition in positions])
        for partition, offset in positions.items():
            self._consumer.seek(self._theirs(partition), offset)

    def poll(self, *, timeout_s: float, max_records: int) -> list[Record]:
        """Return the next records, those of one partition in order.

        Raises:
            AbortedError: Kafka could not be read for now.
            KafkaError: Kafka cannot be read as configured.
        """
        try:
            found = self._consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=max_records)
        except client_errors.KafkaError as error:
            raise _trouble(error) from error
        prefix = self._settings.topic_prefix
        return [_record(prefix, raw) for raws in found.values() for raw in raws]

    def ends(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """Return the offset of each partition's next committed record.

        Raises:
            AbortedError: Kafka did not answer for now.
        """
        try:
            found = self._consumer.end_offsets([self._theirs(p) for p in partitions])
        except client_errors.KafkaError as error:
            raise _trouble(error) from error
        return {self._ours(tp): offset for tp, offset in found.items()}

    def position(self, partition: Partition) -> int:
        """Return the offset that will be read next; markers of transactions are passed over."""
        return int(self._consumer.position(self._theirs(partition)))

    def close(self) -> None:
        """Let go of the connection."""
        with suppress(client_errors.KafkaError):
            self._consumer.close(autocommit=False, timeout_ms=1000)

    def _ours(self, tp: TopicPartition) -> Partition:
        return Partition(tp.topic.removeprefix(self._settings.topic_prefix), tp.partition)

    def _theirs(self, partition: Partition) -> TopicPartition:
        return TopicPartition(self._settings.topic_prefix + partition.topic, partition.number)


def read(
    settings: Kafka,
    topics: Sequence[str],
    *,
    follow: bool = False,
    start: Mapping[Partition, int] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Record]:
    """Yield every committed record of the topics, from the beginning (or `start`) to their present ends.

    With `follow` it ends only when `stop` says so, and begins at the present ends where `start` names no offset.
    Records of one partition come in order.

    Raises:
        KafkaError: Kafka is out of reach or a topic does not exist.
    """
    consumer = _reached(
        settings,
        lambda: KafkaConsumer(
            isolation_level=_isolation(settings),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_bytes=20_000_000,
            max_partition_fetch_bytes=4_000_000,
            allow_auto_create_topics=False,
            **_connection(settings),
        ),
    )
    try:
        yield from _read(settings, consumer, topics, follow=follow, start=start or {}, stop=stop)
    except client_errors.KafkaError as error:
        raise KafkaError(f"reading {', '.join(topics)} failed: {error}") from error
    finally:
        consumer.close(autocommit=False, timeout_ms=1000)


def _read(
    settings: Kafka,
    consumer: KafkaConsumer,
    topics: Sequence[str],
    *,
    follow: bool,
    start: Mapping[Partition, int],
    stop: Callable[[], bool],
) -> Iterator[Record]:
    partitions = _partitions(settings, consumer, topics)
    consumer.assign(partitions)
    ends = consumer.end_offsets(partitions)
    for tp in partitions:
        offset = start.get(Partition(tp.topic.removeprefix(settings.topic_prefix), tp.partition))
        if offset is not None:
            consumer.seek(tp, offset)
        elif follow:
            consumer.seek(tp, ends[tp])
        else:
            consumer.seek_to_beginning(tp)
    while not stop() and (follow or any(consumer.position(tp) < ends[tp] for tp in partitions)):
        for raws in consumer.poll(timeout_ms=200, max_records=1000).values():
            for raw in raws:
                tp = TopicPartition(raw.topic, raw.partition)
                if follow or raw.offset < ends[tp]:
                    yield _record(settings.topic_prefix, raw)


def ends(settings: Kafka, topics: Sequence[str]) -> dict[Partition, int]:
    """Return the offset of each partition's next record.

    Raises:
        KafkaError: Kafka is out of reach or a topic does not exist.
    """
    consumer = _reached(settings, lambda: KafkaConsumer(**_connection(settings)))
    try:
        found = consumer.end_offsets(_partitions(settings, consumer, topics))
    except client_errors.KafkaError as error:
        raise KafkaError(f"asking for the ends of {', '.join(topics)} failed: {error}") from error
    finally:
        consumer.close(autocommit=False, timeout_ms=1000)
    prefix = settings.topic_prefix
    return {Partition(tp.topic.removeprefix(prefix), tp.partition): at for tp, at in found.items()}


def _partitions(
    settings: Kafka, consumer: KafkaConsumer, topics: Sequence[str]
) -> list[TopicPartition]:
    partitions = []
    for topic in topics:
        numbers = consumer.partitions_for_topic(settings.topic_prefix + topic)
        if not numbers:
            raise KafkaError(
                f"the topic {settings.topic_prefix}{topic} does not exist: run `weir topics create`"
            )
        partitions += [
            TopicPartition(settings.topic_prefix + topic, number) for number in sorted(numbers)
        ]
    return partitions


def bare_loop(settings: Kafka, source: str, target: str, *, value_bytes: int, count: int) -> None:
    """Answer `count` records of one topic with records of so many bytes in another, one transaction a poll.

    This is what the client itself can do at most, for the bench: no parsing, no decision, no care for faults.
    """
    options = _connection(settings)
    producer_options = _producer_options(settings)
    group = f"{settings.topic_prefix}bare"
    if settings.transactions:
        producer_options["transactional_id"] = group
    producer = KafkaProducer(**producer_options)
    consumer = KafkaConsumer(
        settings.topic_prefix + source,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level=_isolation(settings),
        **options,
    )
    value = b"x" * value_bytes
    done = 0
    if settings.transactions:
        producer.init_transactions()
    while done < count:
        found = consumer.poll(timeout_ms=200, max_records=500)
        if not found:
            continue
        if settings.transactions:
            producer.begin_transaction()
        for records in found.values():
            for record in records:
                producer.send(settings.topic_prefix + target, key=record.key, value=value)
                done += 1
        producer.flush()
        offsets = {
            tp: OffsetAndMetadata(records[-1].offset + 1, "", -1) for tp, records in found.items()
        }
        if settings.transactions:
            producer.send_offsets_to_transaction(offsets, consumer.group_metadata())
            producer.commit_transaction()
        else:
            consumer.commit(offsets)
    consumer.close(autocommit=False)
    _close_producer(producer)


class Topics:
    """Makes topics and says what they are like."""

    def __init__(self, settings: Kafka) -> None:
        self._settings = settings
        self._admin = _reached(settings, lambda: KafkaAdminClient(**_connection(settings)))

    def create(
        self, topics: Mapping[str, Mapping[str, str]], *, partitions: Mapping[str, int]
    ) -> list[str]:
        """Make those topics that do not exist, with these settings; return the names of those made.

        Raises:
            KafkaError: the broker refused.
        """
        missing = {name: options for name, options in topics.items() if name not in self.names()}
        if not missing:
            return []
        plan = {
            self._settings.topic_prefix + name: {
                "num_partitions": partitions[name],
                "replication_factor": self._settings.replication,
                "configs": dict(options) if self._settings.transactions else {},
            }
            for name, options in missing.items()
        }
        try:
            self._admin.create_topics(plan, timeout_ms=int(_CALL_TIMEOUT_S * 1000))
            self._admin.wait_for_topics(list(plan))
        except client_errors.TopicAlreadyExistsError:
            # Somebody else was faster: the others of this call were made all the same.
            return self.create(topics, partitions=partitions)
        except client_errors.KafkaError as error:
            raise KafkaError(f"topics could not be created: {error}") from error
        return list(missing)

    def delete(self, names: Collection[str]) -> None:
        """Delete topics of the configured prefix, with everything in them."""
        prefix = self._settings.topic_prefix
        self._asked(lambda: self._admin.delete_topics([prefix + name for name in names]))

    def names(self) -> frozenset[str]:
        """Return the names of the topics that exist under the configured prefix."""
        prefix = self._settings.topic_prefix
        found = self._asked(self._admin.list_topics)
        return frozenset(name.removeprefix(prefix) for name in found if name.startswith(prefix))

    def partitions(self, names: Collection[str]) -> dict[str, int]:
        """Return how many partitions each of these existing topics has."""
        prefix = self._settings.topic_prefix
        if not names:
            return {}
        found = self._asked(lambda: self._admin.describe_topics([prefix + name for name in names]))
        return {topic["name"].removeprefix(prefix): len(topic["partitions"]) for topic in found}

    def options(self, names: Collection[str]) -> dict[str, dict[str, str]]:
        """Return the settings of each of these existing topics."""
        prefix = self._settings.topic_prefix
        wanted = [ConfigResource(ConfigResourceType.TOPIC, prefix + name) for name in names]
        found = self._asked(lambda: self._admin.describe_configs(wanted)) if wanted else {}
        return _options(prefix, found)

    def close(self) -> None:
        """Let go of the connection."""
        self._admin.close()

    def _asked(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except client_errors.KafkaError as error:
            raise KafkaError(
                f"Kafka at {self._settings.servers} did not answer: {error}"
            ) from error


class _TopicByTopic(CooperativeStickyAssignor):  # type: ignore[misc]
    """Shares out each topic by itself; the client's own counts partitions of all topics alike.

    Otherwise one member may get all uploads, and another as many partitions of a topic on which nothing happens.
    """

    def assign(self, cluster: Any, members: Sequence[Any]) -> dict[str, ConsumerProtocolAssignment]:
        """Return what each member gets in this round."""
        shares: dict[str, list[tuple[str, list[int]]]] = {m.member_id: [] for m in members}
        for topic in sorted({topic for member in members for topic in member.metadata.topics}):
            interested = [_as_to(m, topic) for m in members if topic in m.metadata.topics]
            for member_id, share in super().assign(cluster, interested).items():
                shares[member_id].append((topic, [tp.partition for tp in share.partitions()]))
        return {
            member_id: ConsumerProtocolAssignment(
                self.version, [(topic, parts) for topic, parts in share if parts], b""
            )
            for member_id, share in shares.items()
        }


def _as_to(member: Any, topic: str) -> SimpleNamespace:
    owned = [tp for tp in member.metadata.owned_partitions or () if tp.topic == topic]
    metadata = SimpleNamespace(topics=[topic], owned_partitions=owned, generation_id=-1)
    return SimpleNamespace(member_id=member.member_id, metadata=metadata)


class _Events(ConsumerRebalanceListener):  # type: ignore[misc]
    """Keeps which partitions were taken away; the client calls it from a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gone: set[TopicPartition] = set()
        self.assignor = _TopicByTopic()

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        with self._lock:
            self._gone.update(revoked)

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        self.on_partitions_revoked(lost)
        # Otherwise the next join would go on claiming what another member may have by now.
        self.assignor.member_assignment = None

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        del assigned

    def take(self) -> frozenset[TopicPartition]:
        with self._lock:
            gone, self._gone = frozenset(self._gone), set()
        return gone


def _joined_consumer(
    settings: Kafka, topics: Sequence[str], group: str, instance: str, events: _Events
) -> KafkaConsumer:
    session_ms = int(settings.session_s * 1000)
    consumer = _reached(
        settings,
        lambda: KafkaConsumer(
            group_id=group,
            # The embedded broker knows no static members.
            group_instance_id=instance if settings.transactions else None,
            isolation_level=_isolation(settings),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            partition_assignment_strategy=(events.assignor,),
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=min(3000, session_ms // 3),
            # Longer than any wait between two polls: the longest is a commit, which a watchdog bounds.
            max_poll_interval_ms=int(max(2 * settings.commit_timeout_s, settings.session_s) * 1000),
            allow_auto_create_topics=False,
            **_connection(settings),
        ),
    )
    _forget_when_lost(consumer)
    _finish_joins(consumer)
    names = [settings.topic_prefix + topic for topic in topics]
    # Whoever leads the group shares out only partitions that it has heard of. A first share of none would be handed to
    # every successor of the same static name without another look.
    for name in names:
        _reached(settings, partial(consumer.partitions_for_topic, name))
    consumer.subscribe(topics=names, listener=events)
    return consumer


def _forget_when_lost(consumer: KafkaConsumer) -> None:
    """Make the client prepare its join anew when it learns in the middle of one that it was expelled.

    The client prepares (and there finds out what was lost) once a join, before it knows the broker's answer. With the
    flag put back it prepares again, sees a lost generation, forgets the partitions and tells the listener.
    """
    coordinator = consumer._coordinator  # noqa: SLF001 -- there is no other door
    reset = coordinator.reset_generation

    def reset_and_forget(*args: Any, **kwargs: Any) -> None:
        reset(*args, **kwargs)
        coordinator.rejoining = False

    coordinator.reset_generation = reset_and_forget


def _finish_joins(consumer: KafkaConsumer) -> None:
    """Make the client go on with a join that is under way, also when what it began for is no longer to be seen.

    The leader's snapshot of partitions is renewed in the middle of the join: from then on nothing says that a join is
    needed, and a poll that was too short to see its end leaves it unfinished for ever.
    """
    coordinator = consumer._coordinator  # noqa: SLF001 -- there is no other door
    needed = coordinator.need_rejoin

    def needed_or_under_way() -> bool:
        return coordinator._join_task is not None or needed()  # noqa: SLF001 -- there is no other door

    coordinator.need_rejoin = needed_or_under_way


def _connection(settings: Kafka) -> dict[str, Any]:
    options: dict[str, Any] = {
        "bootstrap_servers": settings.servers.split(","),
        "client_id": "weir",
        "security_protocol": settings.security,
        "retry_backoff_ms": _RETRY_BACKOFF_MS,
        "bootstrap_timeout_ms": int(min(_CALL_TIMEOUT_S, settings.commit_timeout_s) * 1000),
    }
    if settings.ca_file is not None:
        options["ssl_cafile"] = str(settings.ca_file)
    if settings.sasl_mechanism is not None:
        password = settings.password
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.username,
            "sasl_plain_password": None if password is None else password.get_secret_value(),
        }
    if not settings.transactions:
        options["api_version"] = _EMBEDDED_API
    return options


def _producer_options(settings: Kafka) -> dict[str, Any]:
    return _connection(settings) | {
        "acks": "all",
        "enable_idempotence": settings.transactions,
        "max_request_size": _MAX_REQUEST_BYTES,
        "batch_size": _BATCH_BYTES,
        "delivery_timeout_ms": int(settings.commit_timeout_s * 1000),
        "request_timeout_ms": int(min(_CALL_TIMEOUT_S, settings.commit_timeout_s / 2) * 1000),
        "max_block_ms": int(_CALL_TIMEOUT_S * 1000),
        "allow_auto_create_topics": False,
        "metrics_enabled": False,
    }


def _isolation(settings: Kafka) -> str:
    return "read_committed" if settings.transactions else "read_uncommitted"


def _send(producer: KafkaProducer, settings: Kafka, record: Outgoing) -> Any:
    return producer.send(
        settings.topic_prefix + record.topic,
        key=record.key,
        value=record.value,
        headers=list(record.headers),
    )


def _fenced(error: client_errors.KafkaError, producer: KafkaProducer) -> bool:
    manager = producer._transaction_manager  # noqa: SLF001 -- later errors only quote the first one
    causes = (error, manager.last_error if manager is not None else None)
    kinds = (client_errors.ProducerFencedError, client_errors.FencedInstanceIdError)
    return any(isinstance(cause, kinds) for cause in causes)


def _trouble(error: client_errors.KafkaError) -> AbortedError | KafkaError:
    if getattr(error, "retriable", False) or isinstance(error, client_errors.RetriableError):
        return AbortedError(f"not read: {type(error).__name__}: {error}")
    return KafkaError(f"Kafka refuses to be read: {type(error).__name__}: {error}")


def _close_producer(producer: KafkaProducer) -> None:
    with suppress(client_errors.KafkaError):
        producer.close(timeout=0.2)
    # Closing flushes first, and gives up on the whole when that fails.
    producer._sender.force_close()  # noqa: SLF001 -- there is no other door


def _record(prefix: str, raw: Any) -> Record:
    return Record(
        topic=raw.topic.removeprefix(prefix),
        partition=raw.partition,
        offset=raw.offset,
        timestamp_s=raw.timestamp / 1000,
        key=raw.key,
        value=raw.value,
        headers=tuple(raw.headers or ()),
    )


def _options(prefix: str, found: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    return {
        name.removeprefix(prefix): {key: str(entry["value"]) for key, entry in entries.items()}
        for entries_by_name in found.values()
        for name, entries in entries_by_name.items()
    }


def _reached(settings: Kafka, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (client_errors.KafkaError, OSError, ValueError) as error:
        hint = "is it running, and is WEIR_KAFKA_SERVERS right?"
        if settings.security != "PLAINTEXT":
            # To the client a refused password looks like a broker out of reach.
            hint += " Are WEIR_KAFKA_USERNAME, WEIR_KAFKA_PASSWORD and WEIR_KAFKA_CA_FILE right?"
        raise KafkaError(
            f"Kafka at {settings.servers} cannot be reached: {error}; {hint}"
        ) from error
