"""`weir thresholds plan`: bands from stored scores, answers and hours."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.archive import Archive
from pipeline.cli import main
from pipeline.config import Store
from pipeline.planning import Plan, Stream, plan, yaml_of
from tests.pipeline.test_answered import fill, shell


def stream(name: str, count: int = 20_000) -> Stream:
    """Return a stream without labels, whose probabilities keep their word."""
    z = np.random.default_rng(len(name)).normal(-3, 2.5, count)
    return Stream(
        question=name,
        probabilities=1 / (1 + np.exp(-z)),
        uploads_a_week=7000,
        calibration=None,
        answered=None,
    )


def test_hours_buy_the_least_miss_rate_that_they_can() -> None:
    """Enough hours give what is wanted; half of them give more misses, shared by all questions, within the hours."""
    streams = [stream("arms"), stream("beer")]

    def with_hours(hours: float) -> Plan:
        return plan(
            streams, hours=hours, miss_rate=0.02, precision=0.99, confidence=0.95, minutes=1
        )

    rich = with_hours(10_000)
    poor = with_hours(rich.hours / 2)

    assert rich.miss_rate == 0.02
    assert all(0.015 < point.missed <= 0.021 for point in rich.points.values())
    assert poor.hours <= rich.hours / 2
    assert poor.hours_for_wanted == pytest.approx(rich.hours)
    assert 0.02 < poor.miss_rate < 0.5
    # Hours fall as more may be missed, and what needs no person grows.
    for trade in poor.curves.values():
        assert np.diff(trade.hours).max() <= 1e-9
        assert np.diff(trade.automated).min() >= -1e-9
        assert np.diff(trade.missed).min() >= -1e-9
    assert "not proven" in yaml_of(rich.points["arms"], 0.02)


def test_the_command_needs_the_archive_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With calibrated answers in the archive the bound is proven, and bands to paste are printed; no service runs."""
    fill(Archive(str(tmp_path / "archive"), Store()), 3000)
    run = shell(tmp_path / "archive", monkeypatch, tmp_path)
    assert run.invoke(main, ["calibrate", "--json"]).exit_code == 0
    html = tmp_path / "plan.html"
    words = ["thresholds", "plan", "--reviewer-hours", "300", "--miss-rate", "0.2"]

    done = run.invoke(main, [*words, "--precision", "0.8", "--html", str(html)])
    told = json.loads(run.invoke(main, [*words, "--precision", "0.8", "--json"]).stdout)

    assert done.exit_code == 0, done.output
    assert "bands: {review: 0." in done.stdout
    point = told["points"]["weapons"]
    assert point["missed_at_most"] <= 0.2
    assert point["act_at"] is not None
    assert point["wrong_at_most"] <= 0.2
    assert point["passed"] + point["reviewed"] + point["acted"] == pytest.approx(1)
    page = html.read_text()
    assert page.count("<polyline") == 3
    assert "<script" not in page
    short = run.invoke(
        main, ["thresholds", "plan", "--reviewer-hours", "0.1", "--miss-rate", "0.2"]
    )
    assert short.exit_code == 1
    assert "would need" in short.stdout
