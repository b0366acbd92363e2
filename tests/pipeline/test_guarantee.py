"""Promises, calibrations and audits where the truth is known; `weir bench guarantee` is the long version."""

import numpy as np
import pytest

from pipeline.bench_guarantee import measure, measure_audits
from pipeline.monitor import RiskMonitor, drift
from pipeline.quality import Stratum, estimate
from pipeline.simulation import Kind


@pytest.mark.parametrize("kind", ["steady", "one author"])
def test_a_promise_holds_where_the_naive_threshold_breaks_it(kind: Kind) -> None:
    """In 20 runs with 400 labels few promises break; thresholds read off the labels break far more often."""
    kept, calibrated = measure([kind], [400], 20)

    # A promise that holds in 95 % of runs holds in fewer than 16 of 20 with a chance below one in 380.
    assert all(row.held >= 16 / 20 for row in kept)
    assert np.mean([row.naive_held for row in kept]) < 0.7
    assert calibrated[0].after <= calibrated[0].floor + 0.02
    assert calibrated[0].after < calibrated[0].before


def test_a_promise_that_no_longer_holds_is_turned_off() -> None:
    """When the world drifts the monitor notices: at the end the promise holds or is off."""
    kept, _ = measure(["drift"], [400], 6)

    assert all(row.held >= 5 / 6 for row in kept)
    assert max(row.turned_off or 0 for row in kept) > 0.5


def test_the_audits_intervals_hold_the_truth() -> None:
    """In 40 audits each figure's 95 % interval holds the truth in most, whatever the reviewers' errors."""
    for row in measure_audits([300], 40):
        assert row.covered >= 0.85, row


def test_a_handful_of_violations_under_changing_chances_is_no_false_certainty() -> None:
    """Where six violations are found at unlike chances the interval holds the truth in 93 % of runs at least."""
    rng = np.random.default_rng(3)
    held = 0
    for seed in range(1500):
        weights = np.where(rng.random(300) < 1 / 4, 1 / 0.025, 1 / 0.075)
        answers = (rng.random(300) < 0.02).astype(float)
        passed = Stratum(count=int(weights.sum()), weights=weights, first=answers, final=answers)
        told = estimate({"passed": passed}, seed=seed, draws=400)
        held += told.prevalence.low <= 0.02 <= told.prevalence.high

    assert held >= 0.93 * 1500


def test_a_promise_that_holds_raises_no_alarm() -> None:
    """Looked at after each of 2,000 answers, a risk of exactly what was promised alarms in few of 100 runs."""
    alarms = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        alarms += RiskMonitor(risk=0.05).follow(rng.random(2000) < 0.05)

    assert alarms <= 12


def test_a_risk_that_doubles_after_a_long_calm_is_noticed() -> None:
    """A thousand good answers do not hide what comes after them."""
    rng = np.random.default_rng(1)
    monitor = RiskMonitor(risk=0.05)

    assert not monitor.follow(rng.random(1000) < 0.03)
    assert monitor.follow(rng.random(3000) < 0.12)


def test_drift_is_told_from_chance() -> None:
    """Scores of the same stream stay far below the limit, scores that moved by one spread go far beyond it."""
    rng = np.random.default_rng(2)
    reference = np.quantile(rng.normal(0, 1, 5000), np.linspace(0, 1, 49))

    assert drift(reference, rng.normal(0, 1, 1000)) < 0.1
    assert drift(reference, rng.normal(1, 1, 1000)) > 0.2
    assert np.isnan(drift(reference, rng.normal(0, 1, 100)))
