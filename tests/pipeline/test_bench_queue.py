"""The queue's bench keeps its own promises on a small load, and sees when one is broken."""

import pytest

from pipeline import bench_queue, bench_rebuild
from pipeline.bench_crowd import Load
from pipeline.bench_queue import Claim, handed_to_two, urgent_passed_over
from pipeline.bench_redis import own_redis
from pipeline.config import Kafka
from pipeline.review import Bucket, Person
from policies.queues import Queue


def test_small_load_breaks_no_promise(redis_url: str) -> None:
    """Reviewers who differ in all that counts work side by side, and nothing is lost, doubled or handed out wrongly."""
    load = Load(open=300, queues=12, reviewers=30, seconds=2.0, differ=True)

    found = bench_queue.measure(redis_url, load)

    assert found.claims > 0
    assert found.resolved > 0
    assert found.broken == 0, found


@pytest.mark.timeout(300)
def test_redis_lost_in_the_middle(kafka_settings: Kafka) -> None:
    """Redis is killed while people work, and the topics say that every job was decided once or is still open."""
    # More than can be answered meanwhile: whoever is told that nothing is open was told a lie.
    load = Load(open=2_000, queues=3, reviewers=12, seconds=12.0, processes=1)

    with own_redis() as own:
        found = bench_rebuild.measure(kafka_settings, own, load)

    assert found.decided > 0
    assert found.rebuilt_s > 0
    assert found.broken == 0, found


def test_broken_promises_are_seen() -> None:
    """A job handed out twice, and a normal one handed out before an urgent one, are counted."""
    ann, bob = Person(id="r1"), Person(id="r2", opt_outs=("hate",))
    queues = {"threats": Queue(lane="urgent"), "other": Queue()}
    urgent = {"u": (Bucket(queue="threats", policies=("hate",)), 1.0)}
    claims = [
        Claim("r1", 0.2, 0.3, "a", "first", False),  # before it was open
        Claim("r2", 2.0, 2.1, "b", "first", False),  # not theirs to have
        Claim("r1", 2.0, 2.1, "c", "first", False),  # passed over
        Claim("r1", 3.0, 3.1, "u", "first", True),
        Claim("r1", 4.0, 4.1, "d", "first", False),  # it was taken
        Claim("r2", 5.0, 5.1, "c", "first", False),
        Claim("r2", 6.0, 6.1, "c", "second", False),
    ]

    assert urgent_passed_over(claims, urgent, [ann, bob], queues) == 1
    assert handed_to_two(claims) == 1
