"""The queue's bench keeps its own promises on a small load."""

from pipeline.bench_queue import Load, measure


def test_small_load_breaks_no_promise(redis_url: str) -> None:
    """Reviewers who differ in all that counts work side by side, and nothing is lost, doubled or handed out wrongly."""
    load = Load(jobs=300, queues=12, reviewers=30, seconds=2.0, processes=2)

    found = measure(redis_url, load)

    assert found.claims > 0
    assert found.resolved > 0
    broken = (found.twice, found.barred, found.both, found.urgent_passed_over, found.lost)
    assert broken == (0, 0, 0, 0, 0)
