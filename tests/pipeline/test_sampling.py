"""A stratified sample says of the whole what is true, with intervals that keep their word."""

import numpy as np
import pytest

from pipeline.sampling import Sampled, draw, shared_out


def test_every_stratum_is_seen_and_common_ones_do_not_take_all() -> None:
    """A handful of each kind is taken whatever its size, never more than there are; the rest by square roots."""
    taken = shared_out(np.array([2, 100, 10_000, 1_000_000]), 600)

    assert taken[0] == 2
    assert 595 <= taken.sum() <= 600
    assert taken[1] >= 4
    assert 5 < taken[3] / taken[2] < 15


@pytest.mark.parametrize("rate", [0.001, 0.02])
def test_the_interval_holds_the_truth(rate: float) -> None:
    """In 60 runs on 20,000 rows, whose kinds differ and of which some are known for sure, at least 52 do."""
    held, off = 0, []
    for run in range(60):
        rng = np.random.default_rng(run)
        kind = rng.choice(40, 20_000, p=np.r_[0.5, 0.3, np.full(38, 0.2 / 38)])
        hits = rng.random(20_000) < rate * np.where(kind > 1, 4, 0.3)
        sampled = draw(kind, rng.random(20_000) < 0.01, 800, rng=rng)
        told = sampled.share(hits[sampled.rows])
        held += told.low <= hits.mean() <= told.high
        off.append(told.value - hits.mean())

    # A share of 95 % gives fewer than 52 of 60 in one case of 400.
    assert held >= 52
    assert abs(np.mean(off)) < 4 * np.std(off) / np.sqrt(60)


def test_what_is_taken_for_sure_needs_no_interval() -> None:
    """A whole that was looked at whole is known."""
    told = draw(np.zeros(50, int), np.ones(50, bool), 10, rng=np.random.default_rng(0))

    figure = told.share(np.arange(50) < 5)

    assert (figure.low, figure.value, figure.high) == pytest.approx((0.1, 0.1, 0.1))


def test_others_of_its_kind_stand_for_what_is_gone() -> None:
    """Where half of one kind's sample is not to be had, its other half counts twice, and the whole stays the whole."""
    sampled = Sampled(
        of=110,
        rows=np.arange(12),
        strata=np.array([-1] * 2 + [0] * 4 + [1] * 6),
        weights=np.array([1.0] * 2 + [12.0] * 4 + [10.0] * 6),
    )
    there = np.array([True] * 4 + [False] * 2 + [True] * 6)

    kept = sampled.kept(there)

    assert kept.weights.tolist() == pytest.approx([1, 1, 24, 24] + [10] * 6)
    assert kept.weights.sum() == pytest.approx(110)
    # A stratum of which nothing is left is taken to be like all others.
    less = sampled.kept(np.array([True] * 2 + [False] * 4 + [True] * 6))
    assert less.weights.sum() == pytest.approx(110)
    assert less.weights[2:].tolist() == pytest.approx([18] * 6)
    # What was known for sure and is known in part is a sample.
    sure = sampled.kept(np.array([True] + [False] * 11))
    assert sure.strata.tolist() == [0]
    assert sure.weights.tolist() == [110]
