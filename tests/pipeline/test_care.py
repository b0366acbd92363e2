"""Care: what people bear is counted the same in Redis as on paper."""

from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.care import Budget, Reveal, borne
from pipeline.messages import REVIEWS, ReviewEvent
from pipeline.redis import ReviewQueue

BUDGET = Budget(a_day=100, in_a_row=40, rest=timedelta(minutes=10))
NOW = datetime.now(UTC).replace(microsecond=0)

reveals = st.lists(
    st.builds(
        Reveal,
        at=st.integers(0, 60 * 48).map(lambda m: NOW - timedelta(minutes=m)),
        seconds=st.integers(1, 300).map(float),
        weight=st.sampled_from([1, 3, 10, 30]),
    ),
    max_size=8,
).map(lambda some: sorted(some, key=lambda reveal: reveal.at))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(some=reveals)
def test_redis_counts_as_care_does(redis_url: str, some: list[Reveal]) -> None:
    """Points of the day, points in a row and breaks agree, and a reveal that comes twice counts once."""
    queue = ReviewQueue(redis_url)
    queue.forget()
    queue.begin(REVIEWS, 0, 0)
    for offset, reveal in enumerate(some):
        event = ReviewEvent(
            event_id=f"e{offset}",
            kind="revealed",
            job_id="j",
            decision_id="d",
            by="ann",
            at=reveal.at,
            seconds=reveal.seconds,
            weight=reveal.weight,
        )
        for early in (True, False):
            queue.apply_review(REVIEWS, 0, offset, event, budget=BUDGET, early=early)
    found = queue.exposure("ann")
    queue.close()

    wanted = borne(some, BUDGET)
    if wanted.day is None:
        assert found == {}
        return
    assert found["day"] == wanted.day.isoformat()
    assert abs(float(found["points"]) - wanted.points) < 1e-6
    assert abs(float(found["run"]) - wanted.run) < 1e-6
    rest = wanted.rest_until
    assert ("rest" in found) == (rest is not None)
    if rest is not None:
        assert int(found["rest"]) == int(rest.timestamp() * 1000)


def test_a_used_up_day_leaves_what_is_mild() -> None:
    """Beyond the day's budget only mild jobs are left; in a break nothing is; a new day begins at zero."""
    heavy = [Reveal(at=NOW, seconds=240, weight=30)]
    exposure = borne(heavy, BUDGET)

    assert exposure.ceiling(BUDGET, NOW) == 0
    assert exposure.ceiling(BUDGET, NOW + BUDGET.rest) in {BUDGET.mild, float("inf")}
    assert exposure.ceiling(BUDGET, NOW + timedelta(days=1)) == float("inf")
    spread = [Reveal(at=NOW - timedelta(seconds=s), seconds=60, weight=10) for s in (30, 20, 10)]
    calm = borne(spread * 4, Budget(a_day=100, in_a_row=1000))
    assert calm.ceiling(Budget(a_day=100, in_a_row=1000), NOW) in {1, float("inf")}
