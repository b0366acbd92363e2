"""The bare loop that the whole pipeline is held against."""

from pathlib import Path

import pytest

from pipeline.bench_overhead import bare, bare_in_own_process
from pipeline.bench_stream import Load, rate_of
from pipeline.records import Record


def test_the_bare_loop_is_as_fast_as_its_classifier(tmp_path: Path) -> None:
    """A stub that sleeps 20 ms an upload is looped over at nearly 50 a second, and never faster."""
    rate = bare(tmp_path, classifier="stub", item_s=0.02, count=48, batch=8)
    assert 20 < rate <= 50


def test_the_bare_loop_runs_in_its_own_process(tmp_path: Path) -> None:
    """The rate comes back from the process."""
    load = Load(events=16, item_s=0.01)
    assert 10 < bare_in_own_process(load, tmp_path / "own", batch=4) <= 100


def test_what_was_made_before_the_clock_started_does_not_count() -> None:
    """Sixteen records a commit and a commit every 0.4 s are 40 a second, however few commits there are."""
    records = [
        Record(
            topic="t",
            partition=0,
            offset=number,
            key=None,
            value=None,
            headers=(),
            timestamp_s=100.0 + 0.4 * (number // 16),
        )
        for number in range(64)
    ]
    assert rate_of(records) == pytest.approx(40.0)
