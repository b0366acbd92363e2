"""The backtest's bench keeps its own promises on a small archive."""

from pipeline.bench_backtest import measure


def test_the_backtest_decides_as_decide_does() -> None:
    """What each upload had and gets is equal to `decide`, and no feature of the policies goes untried."""
    found = measure(1_500, sample=500)

    assert (found.compared, found.different, found.same_count) == (500, 0, True)
    assert found.questions == 12
    assert found.changed > 0
    assert [name for name, count in found.features.items() if not count] == []
