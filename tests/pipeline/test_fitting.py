"""Calibration: what is fitted, stored, read and applied."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.calibration import (
    Calibration,
    Calibrations,
    Curve,
    Labels,
    logistic,
)
from pipeline.errors import PipelineError
from pipeline.fitting import Fit, fit
from pipeline.reliability import auroc, bootstrap, brier, ece, ece_floor, log_loss, wilson
from policies.question import Forbidden, Question
from workers.classifier import Classification

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
QUESTION = Question(
    id="weapons", policy="weapons", question="Any?", forbidden=(Forbidden(id="W1", text="Sells."),)
)

Vector = NDArray[np.float64]


def stream(count: int, seed: int) -> tuple[Vector, Vector, Vector]:
    """Return over-confident scores, labels, and the true probabilities."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-2, 2.5, count)
    probabilities = 1 / (1 + np.exp(-truth))
    labels = (rng.random(count) < probabilities).astype(float)
    return truth * 2.3 + 1.2, labels, probabilities


def said(found: Fit, scores: Vector) -> Vector:
    """Return what a fitted calibration says of scores."""
    return np.array([found.curve.at(float(s)) for s in scores])


def stored(found: Fit, *, digest: str = QUESTION.digest, days: int = 0) -> Calibration:
    """Return a calibration as its file holds it."""
    return Calibration(
        question="weapons",
        question_digest=digest,
        policy_version=1,
        classifier="sha256:model",
        method=found.method,
        curve=found.curve,
        low=found.low,
        high=found.high,
        labels=Labels(violates=1, allowed=1),
        fitted_at=NOW - timedelta(days=days),
    )


@pytest.mark.parametrize("count", [300, 1200])
def test_calibration_brings_the_error_near_the_floor(count: int) -> None:
    """Over-confident scores come within 0.03 of what perfect probabilities would show."""
    scores, labels, _ = stream(count, 1)
    fresh, truth, _ = stream(20_000, 2)

    probabilities = said(fit(scores, labels, draws=5), fresh)

    assert ece(probabilities, truth) < ece_floor(probabilities) + 0.03
    assert ece(probabilities, truth) < ece(np.array([logistic(s) for s in fresh]), truth)


def test_few_labels_stay_near_the_default() -> None:
    """With three labels the map is the identity and the interval is everything."""
    found = fit(np.array([-1.0, 0.5, 2.0]), np.array([0.0, 0.0, 1.0]))

    assert found.method == "default"
    assert said(found, np.array([0.0])) == pytest.approx([0.5], abs=0.01)
    assert (found.low.at(0.0), found.high.at(0.0)) == pytest.approx((0.0, 1.0), abs=1e-4)


def test_selective_labels_are_weighted_back() -> None:
    """Labels that come mostly from high scores still calibrate the whole stream."""
    rng = np.random.default_rng(5)
    scores, labels, _ = stream(6_000, 6)
    propensity = np.where(scores > 0, 0.5, 0.05)
    seen = rng.random(len(scores)) < propensity

    found = fit(scores[seen], labels[seen], 1 / propensity[seen], draws=5)

    fresh, truth, _ = stream(20_000, 7)
    assert ece(said(found, fresh), truth) < 0.04


def test_a_prior_moves_the_log_odds() -> None:
    """Labels with half violations, from a stream with 2 %, say about 2 % on average of that stream."""
    rng = np.random.default_rng(8)
    labels = (np.arange(800) % 2).astype(float)
    scores = rng.normal(np.where(labels == 1, 1.0, -1.0), 1.0)
    rare = (rng.random(20_000) < 0.02).astype(float)
    shown = rng.normal(np.where(rare == 1, 1.0, -1.0), 1.0)

    found = fit(scores, labels, prior=0.02, draws=5)

    assert said(found, shown).mean() == pytest.approx(0.02, abs=0.005)


def test_the_interval_covers_the_truth() -> None:
    """Over several samples the 95 % interval holds the true probability in most places."""
    fresh, _, truth = stream(2000, 12)
    covered = []
    for seed in range(5):
        found = fit(*stream(300, 100 + seed)[:2], draws=20)
        low = np.interp(fresh, found.low.scores, found.low.probabilities)
        high = np.interp(fresh, found.high.scores, found.high.probabilities)
        covered.append(((low <= truth) & (truth <= high)).mean())

    assert np.mean(covered) > 0.8


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=40), st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_a_higher_score_never_means_less(scores: list[float], seed: int) -> None:
    """Whatever the labels, the map rises and stays between 0 and 1."""
    labels = np.random.default_rng(seed).integers(0, 2, len(scores)).astype(float)

    values = said(fit(np.array(scores), labels, draws=3), np.linspace(-40, 40, 50))

    assert (np.diff(values) >= 0).all()
    assert ((values >= 0) & (values <= 1)).all()


def test_a_finding_is_fresh_stale_or_none(tmp_path: Path) -> None:
    """A calibration of this wording and model is fresh, of an older wording or too old stale, else none."""
    found = fit(*stream(300, 1)[:2])
    now = stored(found)
    cases = {"fresh": now, "stale": stored(found, digest="sha256:old")}
    answered = Classification(question="weapons", score=1.0)
    for expected, calibration in cases.items():
        folder = tmp_path / expected
        folder.mkdir()
        (folder / calibration.file_name).write_text(calibration.model_dump_json())
        answer = Calibrations.load(folder).answer(QUESTION, answered, "sha256:model", now=NOW)
        assert answer.calibration == expected
        assert answer.interval is not None

    old = Calibrations.of([stored(found, days=400)])
    assert old.answer(QUESTION, answered, "sha256:model", now=NOW).calibration == "stale"
    drifting = Calibrations.of([now], drifting=frozenset({"weapons"}))
    assert drifting.answer(QUESTION, answered, "sha256:model", now=NOW).calibration == "stale"
    other = Calibrations.of([now]).answer(QUESTION, answered, "sha256:other", now=NOW)
    assert (other.calibration, other.interval) == ("none", None)
    assert other.probability == pytest.approx(logistic(1.0))


def test_calibrations_of_old_and_new_words_lie_side_by_side(tmp_path: Path) -> None:
    """A fit for words that are about to be merged leaves the one in force alone: both wordings are fresh."""
    found = fit(*stream(300, 1)[:2])
    fixed = replace(QUESTION, forbidden=(Forbidden(id="W1", text="Sells one."),))
    for calibration in (stored(found), stored(found, digest=fixed.digest)):
        (tmp_path / calibration.file_name).write_text(calibration.model_dump_json())

    both = Calibrations.load(tmp_path)

    answered = Classification(question="weapons", score=1.0)
    for question in (QUESTION, fixed):
        answer = both.answer(question, answered, "sha256:model", now=NOW)
        assert answer.calibration == "fresh"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_broken_calibration_file_is_named(tmp_path: Path) -> None:
    """A file that is no calibration is an error with its path and the remedy."""
    (tmp_path / "x.json").write_text('{"question": 3}')

    with pytest.raises(PipelineError, match=r"x\.json.*weir calibrate"):
        Calibrations.load(tmp_path)


def test_a_curve_is_flat_beyond_its_ends() -> None:
    """Scores beyond what was seen keep the outermost probability."""
    curve = Curve(scores=(-1.0, 1.0), probabilities=(0.2, 0.8))

    assert [curve.at(s) for s in (-9.0, 0.0, 9.0)] == [0.2, pytest.approx(0.5), 0.8]


def test_the_figures_agree_with_their_definitions() -> None:
    """AUROC counts ties half, Brier and log-loss are means, a perfect forecast has no calibration error."""
    labels = np.array([0.0, 0.0, 1.0, 1.0])

    assert auroc(np.array([0.1, 0.5, 0.5, 0.9]), labels) == pytest.approx(0.875)
    assert brier(np.array([0.0, 0.0, 1.0, 0.5]), labels) == pytest.approx(0.0625)
    assert log_loss(np.full(4, 0.5), labels) == pytest.approx(np.log(2))
    assert ece(labels, labels) == 0.0
    assert wilson(8, 10).low < 0.8 < wilson(8, 10).high
    interval = bootstrap(auroc, np.array([0.1, 0.2, 0.8, 0.9]), labels, draws=20)
    assert interval.low <= interval.value <= interval.high


@pytest.mark.parametrize("seed", range(5))
def test_a_calibration_error_lies_in_its_interval(seed: int) -> None:
    """Resampling adds to a calibration error, and its interval does not."""
    rng = np.random.default_rng(seed)
    said = rng.beta(0.5, 4, 900)
    found = bootstrap(ece, said, (rng.random(900) < said).astype(float))

    assert 0 <= found.low < found.value < found.high < 3 * found.value
