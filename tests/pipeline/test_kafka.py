"""Tests of the Kafka client wrapper against a real broker."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from kafka import KafkaAdminClient
from kafka.admin import MemberToRemove

from pipeline.config import Kafka
from pipeline.errors import AbortedError, KafkaError, PipelineError
from pipeline.kafka import Member, Producer, Topics, read
from pipeline.messages import DECISIONS, RESCORE, UPLOADS
from pipeline.records import Mark, Outgoing, Partition, Polled, Record
from pipeline.topics import plan, problems

P0, P1 = Partition(UPLOADS, 0), Partition(UPLOADS, 1)


@contextmanager
def member(settings: Kafka, name: str = "a") -> Iterator[Member]:
    """Join a group."""
    joined = Member(settings, [UPLOADS], group="g", instance=name)
    try:
        yield joined
    finally:
        joined.close()


def until(
    condition: Callable[[], bool], *, turn: Callable[[], object] = lambda: time.sleep(0.05)
) -> None:
    """Turn until the condition holds, at most two minutes."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        turn()


def poll_all(link: Member, count: int) -> list[Record]:
    """Poll until so many records are there."""
    found: list[Record] = []
    until(
        lambda: len(found) >= count,
        turn=lambda: found.extend(link.poll(timeout_s=0.2, max_records=500).records),
    )
    return found


def upload(settings: Kafka, *values: bytes) -> None:
    """Write uploads under the same key, so that they lie in one partition."""
    producer = Producer(settings)
    producer.send([Outgoing(topic=UPLOADS, key=b"same", value=value) for value in values])
    producer.close()


def decisions(settings: Kafka) -> list[bytes]:
    """Return the values of all committed decisions."""
    return [record.value or b"" for record in read(settings, [DECISIONS])]


def out(value: bytes) -> Outgoing:
    """Return a decision's record."""
    return Outgoing(topic=DECISIONS, key=b"same", value=value, headers=(("ce_id", b"1"),))


def after(records: list[Record], note: str = "") -> dict[Partition, Mark]:
    """Return the position behind these records of one partition."""
    return {records[-1].place: Mark(offset=records[-1].offset + 1, note=note)}


def test_records_and_offsets_commit_together(kafka_settings: Kafka) -> None:
    """What a member wrote is there, and its successor reads on behind what was committed, with the note."""
    upload(kafka_settings, b"1", b"2", b"3")
    with member(kafka_settings) as first:
        records = poll_all(first, 3)
        assert [record.value for record in records] == [b"1", b"2", b"3"]
        first.commit([out(b"one")], after(records[:1], "note"))
    with member(kafka_settings) as second:
        assert [record.value for record in poll_all(second, 2)] == [b"2", b"3"]
        assert second.committed([records[0].place]) == after(records[:1], "note")
    assert decisions(kafka_settings) == [b"one"]


def test_headers_and_timestamps_travel(kafka_settings: Kafka) -> None:
    """Headers come as they were written, and the time is the broker's."""
    before = time.time()
    producer = Producer(kafka_settings)
    producer.send([out(b"x")])
    producer.close()
    (record,) = read(kafka_settings, [DECISIONS])
    assert record.headers == (("ce_id", b"1"),)
    assert before - 5 < record.timestamp_s < time.time() + 5


def test_aborted_records_are_invisible_and_rewound(kafka_settings: Kafka) -> None:
    """After a transaction that failed nothing is visible, and the records come again after a rewind."""
    upload(kafka_settings, b"1", b"2")
    with member(kafka_settings) as link:
        records = poll_all(link, 2)
        with pytest.raises(AbortedError):
            link.commit([out(b"one"), out(b"x" * 3_000_000)], after(records))
        assert decisions(kafka_settings) == []
        link.rewind()
        again = poll_all(link, 2)
        assert [record.offset for record in again] == [record.offset for record in records]
        link.commit([out(b"one")], after(again))
    assert decisions(kafka_settings) == [b"one"]


def test_without_a_rewind_the_client_goes_on(kafka_settings: Kafka) -> None:
    """The client itself does not go back after an abort: that is why `rewind` exists."""
    upload(kafka_settings, b"1")
    with member(kafka_settings) as link:
        records = poll_all(link, 1)
        with pytest.raises(AbortedError):
            link.commit([out(b"x" * 3_000_000)], after(records))
        assert not link.poll(timeout_s=1.0, max_records=10).records


def test_nothing_commits_before_the_group_has_settled(kafka_settings: Kafka) -> None:
    """A member that has not joined yet cannot commit: the broker would not fence it."""
    with member(kafka_settings) as link:
        assert not link.may_commit()
        with pytest.raises(AbortedError, match="settling"):
            link.commit([out(b"x")], {P0: Mark(offset=0)})


def test_a_second_process_of_the_same_name_fences_the_first(kafka_settings: Kafka) -> None:
    """The first process of an instance name must stop when a second one comes."""
    upload(kafka_settings, b"1")
    with member(kafka_settings) as first:
        records = poll_all(first, 1)
        with member(kafka_settings):
            with pytest.raises(PipelineError, match="WEIR_INSTANCE"):
                first.commit([out(b"one")], after(records))
            assert decisions(kafka_settings) == []


def test_refused_offsets_do_not_leave_with_the_next_transaction(kafka_settings: Kafka) -> None:
    """Offsets that the broker refused are gone: the next transaction carries its own ones only."""
    upload(kafka_settings, b"1")
    with member(kafka_settings) as link:
        records = poll_all(link, 1)
        settled = link._membership
        assert settled is not None
        link._membership = settled._replace(generation_id=settled.generation_id + 7)
        with pytest.raises(AbortedError):
            link.commit([out(b"one")], after(records))
        link._membership = settled
        other = P1 if records[0].place == P0 else P0
        link.commit([out(b"two")], {other: Mark(offset=0)})
        assert records[0].place not in link.committed([records[0].place])
    assert decisions(kafka_settings) == [b"two"]


def test_an_expelled_member_forgets_its_partitions(kafka_settings: Kafka) -> None:
    """A member that learns in the middle of a join that it was expelled claims nothing and starts anew."""
    upload(kafka_settings, b"1", b"2")
    with member(kafka_settings) as link:
        records = poll_all(link, 2)
        link.commit([], after(records[:1]))
        # As after a stop that was too long: it learns of it only when it joins again.
        admin = KafkaAdminClient(bootstrap_servers=kafka_settings.servers)
        admin.remove_group_members(link._group, [MemberToRemove(group_instance_id="a")])
        admin.close()
        link._consumer._coordinator.request_rejoin()
        dropped: set[Partition] = set()
        found: list[Record] = []

        def turn() -> None:
            polled: Polled = link.poll(timeout_s=0.2, max_records=10)
            dropped.update(polled.dropped)
            found.extend(polled.records)

        until(lambda: bool(found), turn=turn)
        assert {P0, P1} <= dropped
        # It reads from the committed position, not from where it was.
        assert [record.value for record in found] == [b"2"]


def test_a_lost_membership_claims_nothing(kafka_settings: Kafka) -> None:
    """What the assignor claims in a join is empty once the partitions were lost."""
    upload(kafka_settings, b"1")
    with member(kafka_settings) as link:
        poll_all(link, 1)
        assignor = link._events.assignor
        assert assignor.metadata([UPLOADS]).owned_partitions
        link._events.on_partitions_lost(set())
        assert not assignor.metadata([UPLOADS]).owned_partitions


def test_a_join_under_way_gives_no_membership(kafka_settings: Kafka) -> None:
    """While the new generation's partitions are unknown there is no membership to commit with."""
    upload(kafka_settings, b"1")
    with member(kafka_settings) as link:
        records = poll_all(link, 1)
        assert link.may_commit()
        # A second member that joins and then does not answer keeps the first one's join open.
        coordinator = link._consumer._coordinator
        with coordinator._lock:
            coordinator.state = "<rebalancing>"
        link._membership = link._snapshot()
        assert not link.may_commit()
        with pytest.raises(AbortedError, match="settling"):
            link.commit([out(b"one")], after(records))
    assert decisions(kafka_settings) == []


def test_a_join_outlives_polls_that_are_too_short_for_it(kafka_settings: Kafka) -> None:
    """A member that joined before it knew of the topic's partitions gets them, however short its polls are."""
    with member(kafka_settings) as link:
        until(link.may_commit, turn=lambda: link.poll(timeout_s=0.2, max_records=10))
        coordinator = link._consumer._coordinator
        # As where the broker was slower to describe the topic than to let the member in.
        coordinator._assignment_snapshot = {}
        link.poll(timeout_s=0.0, max_records=10)
        until(link.may_commit, turn=lambda: link.poll(timeout_s=0.0, max_records=10))
        assert link.held() == {P0, P1}


def test_whoever_comes_after_a_short_life_gets_its_partitions(kafka_settings: Kafka) -> None:
    """A process that ends as soon as it has joined leaves no empty share to its successor."""
    for _ in range(3):
        with member(kafka_settings) as link:
            until(link.may_commit, turn=partial(link.poll, timeout_s=0.0, max_records=10))
            assert link.held() == {P0, P1}


def test_two_members_share_and_hand_over(kafka_settings: Kafka) -> None:
    """A second member takes a partition; the first is told which, and cannot commit for it any more."""
    with member(kafka_settings, "a") as first:
        until(
            lambda: first.held() == {P0, P1}, turn=lambda: first.poll(timeout_s=0.2, max_records=10)
        )
        dropped: set[Partition] = set()
        stop = threading.Event()
        with member(kafka_settings, "b") as second:
            beside = threading.Thread(target=_poll_until, args=(second, stop))
            beside.start()
            try:
                until(
                    lambda: len(first.held()) == 1,
                    turn=lambda: dropped.update(first.poll(timeout_s=0.2, max_records=10).dropped),
                )
            finally:
                stop.set()
                beside.join()
        assert len(dropped) == 1
        assert first.held() == {P0, P1} - dropped


def _poll_until(link: Member, stop: threading.Event) -> None:
    while not stop.is_set():
        link.poll(timeout_s=0.1, max_records=10)


def test_every_topic_is_shared_out_by_itself(kafka_settings: Kafka) -> None:
    """Two members of two topics get half of each, not a topic each."""
    topics = [UPLOADS, RESCORE]
    links = [Member(kafka_settings, topics, group="g", instance=name) for name in ("a", "b")]
    stop = threading.Event()
    beside = threading.Thread(target=_poll_until, args=(links[1], stop))
    beside.start()
    try:
        until(
            lambda: len(links[0].held()) == len(links[1].held()) == len(topics),
            turn=lambda: links[0].poll(timeout_s=0.1, max_records=10),
        )
        for link in links:
            assert sorted(place.topic for place in link.held()) == sorted(topics)
    finally:
        stop.set()
        beside.join()
        for link in links:
            link.close()


def test_a_restart_takes_its_partitions_back_at_once(kafka_settings: Kafka) -> None:
    """A process that died and comes back under its name reads on long before its session would have ended."""
    slow = kafka_settings.model_copy(update={"session_s": 90.0})
    upload(slow, b"1", b"2")
    first = Member(slow, [UPLOADS], group="g", instance="a")
    records = poll_all(first, 2)
    first.commit([out(b"one")], after(records[:1]))
    # As a killed process leaves it: nothing said to anybody.
    first._consumer._coordinator._close_heartbeat()
    began = time.monotonic()
    with member(slow) as second:
        assert [record.value for record in poll_all(second, 1)] == [b"2"]
    assert time.monotonic() - began < 60
    first.close()


def test_paused_partitions_give_nothing(kafka_settings: Kafka) -> None:
    """A paused partition is not read until it is resumed."""
    with member(kafka_settings) as link:
        until(lambda: len(link.held()) == 2, turn=lambda: link.poll(timeout_s=0.2, max_records=10))
        link.pause(link.held())
        upload(kafka_settings, b"1")
        assert not link.poll(timeout_s=0.5, max_records=10).records
        link.pause([])
        assert [record.value for record in poll_all(link, 1)] == [b"1"]


def test_the_backlog_is_what_was_not_read_yet(kafka_settings: Kafka) -> None:
    """Of what lies in a partition that is read, all that comes after the last read record waits."""
    values = [str(n).encode() for n in range(20)]
    upload(kafka_settings, *values)
    with member(kafka_settings) as link:
        read: list[Record] = []
        until(
            lambda: len(read) > 0,
            turn=lambda: read.extend(link.poll(timeout_s=0.2, max_records=1).records),
        )
        first = link.backlog()[UPLOADS]
        read += poll_all(link, len(values) - 1)
        assert 0 < first < len(values)
        assert link.backlog()[UPLOADS] == 0


def test_topics_are_as_planned(kafka_settings: Kafka) -> None:
    """What `create` makes has nothing for `problems` to find; what differs is named with a remedy."""
    topics = Topics(kafka_settings)
    wanted = plan(kafka_settings)
    names = [topic.name for topic in wanted]
    partitions, options = topics.partitions(names), topics.options(names)
    topics.close()
    assert problems(wanted, partitions=partitions, options=options) == []
    options[UPLOADS]["max.message.bytes"] = "1000"
    del partitions[DECISIONS]
    found = {
        problem.topic: problem
        for problem in problems(wanted, partitions=partitions, options=options)
    }
    assert found[DECISIONS].remedy == "run `weir topics create`"
    assert "max.message.bytes is 1000" in found[UPLOADS].wrong


def test_a_broker_out_of_reach_is_named() -> None:
    """The error says which servers, and what to look at."""
    with pytest.raises(KafkaError, match=r"localhost:1 cannot be reached.*WEIR_KAFKA_SERVERS"):
        Producer(Kafka(servers="localhost:1", commit_timeout_s=1.0))


def test_a_missing_topic_is_named(kafka_settings: Kafka) -> None:
    """Reading a topic that is not there says how to make it."""
    with pytest.raises(KafkaError, match="weir topics create"):
        list(read(kafka_settings, ["no.such.topic"]))
