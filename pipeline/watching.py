"""Holds calibrations against what people answered since: which promises are refuted, and whose scores drift. Pure.

Of the answers only those count that the audit's lot chose, whatever else brought them to a person: they alone are
like all decisions. A single answer counts as it is, so that a promise is turned off rather too early than too late.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pipeline.answered import Answered
from pipeline.calibration import Alarm, Calibration
from pipeline.lottery import lot
from pipeline.monitor import DRIFT_LIMIT, RiskMonitor, drift
from pipeline.reliability import Vector
from policies.schema import MissRate, Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """How one promise, or the scores of one question, stand."""

    calibration: Calibration
    promise: Precision | MissRate | None
    seen: int
    errors: int
    evidence: float
    alarm: Alarm | None


def watch(
    calibrations: Sequence[Calibration],
    answers: Sequence[Answered],
    scores: Mapping[tuple[str, str], tuple[Vector, Vector]],
    *,
    before: Sequence[Alarm],
    now: datetime,
) -> list[Watched]:
    """Return how every promise stands, and every question's scores; an alarm on a promise stays until a new fit."""
    known = {(a.question, a.classifier, a.fitted_at, a.promise): a for a in before}
    found = []
    for calibration in calibrations:
        mine = _mine(calibration, answers)
        for kept in calibration.kept:
            if kept.value is not None:
                old = known.get((*_key(calibration), kept.promise))
                found.append(_risk(calibration, kept.promise, mine, old, now))
        both = scores.get((calibration.question, calibration.classifier))
        if both is not None and len(both[0]):
            found.append(_drift(calibration, *both, now=now))
    return found


def _key(calibration: Calibration) -> tuple[str, str, datetime]:
    return calibration.question, calibration.classifier, calibration.fitted_at


def _mine(calibration: Calibration, answers: Sequence[Answered]) -> list[Answered]:
    rows = [
        a
        for a in answers
        if a.at >= calibration.fitted_at
        and (a.question, a.classifier, a.question_digest)
        == (calibration.question, calibration.classifier, calibration.question_digest)
    ]
    return sorted(rows, key=lambda a: a.at)


def _risk(
    calibration: Calibration,
    promise: Precision | MissRate,
    answers: Sequence[Answered],
    old: Alarm | None,
    now: datetime,
) -> Watched:
    if isinstance(promise, Precision):
        monitor = RiskMonitor(risk=1 - promise.precision)
        rows = _by_lot([a for a in answers if a.where == "acted"])
        monitor.follow(not _violates(a) for a in rows)
    else:
        monitor = RiskMonitor(risk=promise.miss_rate)
        # Without an audit of what passed nothing that was missed could ever be seen.
        audited = any(a.where == "passed" for a in answers)
        rows = _by_lot([a for a in answers if a.where != "acted"]) if audited else []
        monitor.follow(a.where == "passed" for a in rows if _violates(a))
    alarm = old
    if monitor.alarm and old is None:
        alarm = Alarm(
            question=calibration.question,
            classifier=calibration.classifier,
            fitted_at=calibration.fitted_at,
            kind="risk",
            promise=promise,
            seen=monitor.seen,
            errors=monitor.errors,
            evidence=round(monitor.highest, 3),
            raised_at=now,
        )
    return Watched(
        calibration=calibration,
        promise=promise,
        seen=monitor.seen,
        errors=monitor.errors,
        evidence=monitor.highest,
        alarm=alarm,
    )


def _by_lot(answers: Sequence[Answered]) -> list[Answered]:
    least = min((a.chance for a in answers), default=1.0)
    return [a for a in answers if lot(a.content_id) < least]


def _violates(answer: Answered) -> bool:
    return answer.first if answer.final is None else answer.final


def _drift(calibration: Calibration, then: Vector, lately: Vector, *, now: datetime) -> Watched:
    index = drift(then, lately)
    alarm = None
    if index > DRIFT_LIMIT:
        alarm = Alarm(
            question=calibration.question,
            classifier=calibration.classifier,
            fitted_at=calibration.fitted_at,
            kind="drift",
            seen=len(lately),
            evidence=round(index, 3),
            raised_at=now,
        )
    return Watched(
        calibration=calibration,
        promise=None,
        seen=len(lately),
        errors=0,
        evidence=index,
        alarm=alarm,
    )
