"""Promises of bands: they hold as often as they say, or say what is missing."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import beta

from pipeline.thresholds import act_at, independent, least, review_at, upper
from policies.schema import MissRate, Precision


def stream(count: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return calibrated probabilities and labels drawn from them."""
    rng = np.random.default_rng(seed)
    probabilities = 1 / (1 + np.exp(-rng.normal(-1, 3, count)))
    return probabilities, (rng.random(count) < probabilities).astype(float)


TRUE_P, TRUE_Y = stream(200_000, 99)


@pytest.mark.parametrize("errors", [0, 3])
def test_the_least_number_of_labels_certifies_and_one_less_does_not(errors: int) -> None:
    """`least` is where the exact bound first falls below the risk."""
    enough = least(0.05, 0.05, errors=errors)

    assert upper(errors, enough, 0.05) <= 0.05
    assert enough == 59 if errors == 0 else enough > 59


def test_a_promised_precision_holds_in_the_promised_share_of_runs() -> None:
    """Of 25 samples of 3,000 labels few break 95 % precision, where the naive threshold often does."""
    broke = naive = found_one = 0
    for seed in range(25):
        p, y = stream(3000, seed)
        found = act_at(independent(p, y), Precision(precision=0.95))
        if found.value is not None:
            found_one += 1
            broke += TRUE_Y[found.value <= TRUE_P].mean() < 0.95
        order = np.argsort(-p)
        kept = np.flatnonzero(np.cumsum(y[order]) / np.arange(1, len(p) + 1) >= 0.95)
        naive += TRUE_Y[p[order][kept[-1]] <= TRUE_P].mean() < 0.95

    # 5 % of 25 are 1.25; more than 5 has a chance below one in 900 if the promise holds.
    assert broke <= 5
    assert naive > 6
    assert found_one > 18


def test_a_promised_miss_rate_holds_in_the_promised_share_of_runs() -> None:
    """Of 25 samples, at most a few let more than 5 % of all violations pass."""
    broke = 0
    for seed in range(25):
        p, y = stream(1000, seed)
        found = review_at(independent(p, y), MissRate(miss_rate=0.05))
        assert found.value is not None
        broke += (TRUE_P[TRUE_Y == 1] < found.value).mean() > 0.05

    assert broke <= 5


def test_too_few_labels_give_no_threshold_and_say_how_many_are_missing() -> None:
    """Where the labels do not suffice nothing acts, and the number and kind still needed stand there."""
    p, y = stream(40, 1)

    acts = act_at(independent(p, y), Precision(precision=0.99))
    reviews = review_at(independent(p, y), MissRate(miss_rate=0.02))

    assert acts.value is None
    assert acts.labels_needed > 200
    assert reviews.value is None
    assert reviews.labels_needed == least(0.02, 0.02) - int(y.sum())


def test_near_duplicates_count_once() -> None:
    """A thousand copies of one upload certify nothing."""
    copies = independent(np.full(1000, 0.99), np.ones(1000), clusters=np.zeros(1000, int))

    assert len(copies.labels) == 1
    assert act_at(copies, Precision(precision=0.95)).value is None


def test_unequal_propensities_are_thinned_to_the_stream() -> None:
    """Labels that reviewers saw ten times as often count a tenth as much."""
    rng = np.random.default_rng(3)
    p, y = stream(20_000, 4)
    propensity = np.where(p > 0.5, 1.0, 0.1)
    seen = rng.random(len(p)) < propensity

    sample = independent(p[seen], y[seen], weights=1 / propensity[seen])

    assert (sample.probabilities > 0.5).mean() == pytest.approx((p > 0.5).mean(), abs=0.03)


def test_reviewers_who_err_need_more_labels() -> None:
    """With single answers the measured reviewer error makes the promise harder to keep."""
    p, y = stream(3000, 5)

    sure = act_at(independent(p, y), Precision(precision=0.95))
    unsure = act_at(independent(p, y, reviewer_error=0.3), Precision(precision=0.95))

    assert sure.value is not None
    assert unsure.value is None or unsure.value >= sure.value


@pytest.mark.parametrize("labels", [59, 77, 150, 330, 3000])
@pytest.mark.parametrize("risk", [0.05, 0.02])
def test_a_promised_miss_rate_holds_with_more_than_the_promised_chance(
    labels: int, risk: float
) -> None:
    """Where the threshold is the k-th of n violations, k is the largest for which at most 2 % of samples miss more.

    Chance may spend two fifths of the 5 % that may go wrong. The share of violations below the k-th of n is distributed
    by Beta(k, n - k + 1), whatever their scores are.
    """
    ranked = np.linspace(0.01, 0.99, labels)

    found = review_at(independent(ranked, np.ones(labels)), MissRate(miss_rate=risk))

    def broken(k: int) -> float:
        return float(beta.sf(risk, k, labels - k + 1))

    if found.value is None:
        assert broken(1) > 0.02
    else:
        k = int(np.searchsorted(ranked, found.value)) + 1
        assert broken(k) <= 0.02 < broken(k + 1)
