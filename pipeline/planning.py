"""Where to put the bands: what reviewers' hours buy in violations found, question by question. Pure.

The stream's stored scores say what each threshold costs in hours; people's answers prove what it misses. Where there
are too few answers, the calibrated probabilities say what to expect, and the plan says that it is not proven.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.calibrating import at, prove
from pipeline.calibration import Calibration, Kept
from pipeline.reliability import Vector
from pipeline.scored import Scores
from policies.schema import MissRate, Precision

#: Miss rates at which the curves are drawn.
STEPS: Final = tuple(float(v) for v in np.geomspace(0.002, 0.5, 40))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One question's stored scores, and what people answered."""

    question: str
    probabilities: Vector  # of every upload that was asked
    uploads_a_week: float
    calibration: Calibration | None  # None: none fits these words and this model
    answered: Scores | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One choice of bands for one question, and what it costs and misses."""

    review_at: float
    act_at: float | None
    hours_a_week: float
    #: Shares of uploads that pass, go to people, act.
    passed: float
    reviewed: float
    acted: float
    #: Of the violations, the share that passes unseen: expected, and its proven upper bound (None: not proven).
    missed: float
    missed_at_most: float | None
    #: Of what acts, the share that is wrong: the same.
    wrong_at_most: float | None
    labels_needed: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """What one question costs and leaves to the machine at each of `STEPS`."""

    hours: list[float]  # of reviewers a week
    automated: list[float]  # share of uploads that pass or act without a person
    missed: list[float]  # share of the violations that is expected to pass unseen


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The chosen point of each question, the miss rate that the hours buy, and the trade over miss rates."""

    miss_rate: float
    wanted: float
    hours: float
    hours_for_wanted: float
    points: dict[str, Point]
    #: Question -> what may be had for what.
    curves: dict[str, Trade]


def plan(
    streams: Sequence[Stream],
    *,
    hours: float,
    miss_rate: float,
    precision: float,
    confidence: float,
    minutes: float,
    seed: int = 0,
) -> Plan:
    """Return the bands that miss no more than was wanted, or as little as the hours allow."""
    acts = {s.question: _act(s, precision, confidence, seed) for s in streams}

    def points(rate: float) -> dict[str, Point]:
        return {
            s.question: _point(s, rate, confidence, acts[s.question], minutes, seed)
            for s in streams
        }

    def total(found: dict[str, Point]) -> float:
        return sum(point.hours_a_week for point in found.values())

    wanted = points(miss_rate)
    chosen, rate = wanted, miss_rate
    if total(wanted) > hours:
        # The least miss rate that the hours buy: hours only fall as it rises.
        low, high = miss_rate, 0.999
        for _ in range(20):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if total(points(middle)) > hours else (low, middle)
        chosen, rate = points(high), high
    return Plan(
        miss_rate=rate,
        wanted=miss_rate,
        hours=total(chosen),
        hours_for_wanted=total(wanted),
        points=chosen,
        curves={
            s.question: _trade(
                [_point(s, step, confidence, acts[s.question], minutes, seed) for step in STEPS]
            )
            for s in streams
        },
    )


def _trade(points: Sequence[Point]) -> Trade:
    return Trade(
        hours=[point.hours_a_week for point in points],
        automated=[point.passed + point.acted for point in points],
        missed=[point.missed for point in points],
    )


def _act(stream: Stream, precision: float, confidence: float, seed: int) -> Kept | None:
    if stream.calibration is None or stream.answered is None:
        return None
    promise = Precision(precision=precision, confidence=confidence)
    return prove(promise, stream.answered, stream.calibration.curve, seed=seed)


def _point(
    stream: Stream, rate: float, confidence: float, act: Kept | None, minutes: float, seed: int
) -> Point:
    p = stream.probabilities
    proven = None
    if stream.calibration is not None and stream.answered is not None:
        promise = MissRate(miss_rate=rate, confidence=confidence)
        proven = prove(promise, stream.answered, stream.calibration.curve, seed=seed)
    if proven is not None and proven.value is not None:
        review_at = proven.value
    else:
        # What the probabilities themselves say: the highest threshold below which so little is expected.
        ranked = np.sort(p)
        mass = np.cumsum(ranked)
        below = int(np.searchsorted(mass, rate * mass[-1])) if len(mass) else 0
        review_at = float(ranked[min(below, len(ranked) - 1)]) if len(ranked) else 0.0
    act_at = None if act is None or act.value is None else max(act.value, review_at)
    acted = p >= act_at if act_at is not None else np.zeros(len(p), bool)
    passed = p < review_at
    reviewed = float((~passed & ~acted).mean()) if len(p) else 0.0
    expected = float(p.sum())
    is_proven = proven is not None and proven.value is not None
    return Point(
        review_at=review_at,
        act_at=act_at,
        hours_a_week=reviewed * stream.uploads_a_week * minutes / 60,
        passed=float(passed.mean()) if len(p) else 0.0,
        reviewed=reviewed,
        acted=float(acted.mean()) if len(p) else 0.0,
        missed=float(p[passed].sum() / expected) if expected else 0.0,
        missed_at_most=proven.bound if proven is not None and is_proven else None,
        wrong_at_most=act.bound if act is not None and act_at is not None else None,
        labels_needed=0 if is_proven else proven.labels_needed if proven is not None else 0,
        kind="" if is_proven or proven is None else proven.kind,
    )


def meant(calibration: Calibration | None, scores: Vector, stored: Vector) -> Vector:
    """Return what scores mean: by this calibration, or as it was stored."""
    return stored if calibration is None else at(calibration.curve, scores)


def yaml_of(point: Point, wanted: float) -> str:
    """Return the bands as they go into the policy's file."""
    act = "never" if point.act_at is None else f"{point.act_at:.4f}"
    if point.missed_at_most is None:
        why = f"expected to miss {point.missed:.1%}; not proven"
    else:
        why = f"misses at most {point.missed_at_most:.1%}"
        if point.missed_at_most > wanted + 1e-9:
            why += f", more than the {wanted:.1%} that was wanted"
    return f"bands: {{review: {point.review_at:.4f}, act: {act}}}  # {why}"
