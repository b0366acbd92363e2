"""`weir bench guarantee`: do promises, calibrations and audits keep their word where the truth is known?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.calibrating import at, fit_answers, prove
from pipeline.calibration import Curve, logistic
from pipeline.monitor import RiskMonitor
from pipeline.quality import Quality, Stratum, Where, estimate
from pipeline.reliability import Figure, Vector, ece, ece_floor
from pipeline.scored import Scores
from pipeline.simulation import SHIFTED_PRIOR, Kind, Uploads, answers, labelled, uploads, whole
from pipeline.thresholds import upper
from policies.schema import MissRate, Precision

#: What is promised: a strict and a lenient pair, with 95 % confidence.
PROMISES: Final[tuple[Precision | MissRate, ...]] = (
    Precision(precision=0.95),
    Precision(precision=0.99),
    MissRate(miss_rate=0.05),
    MissRate(miss_rate=0.02),
)
#: Quantiles of the stream on which the truth is read off.
_TRUTH: Final = 40_000
#: How far the world drifts, in log-odds; over how many steps it does, and stays so; how many audits each step brings.
_DRIFTED, _MOVES, _STAYS, _AUDITED = 4.0, 6, 24, 250
#: Runs of different seeds have nothing in common.
_APART: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How often one promise held on one stream with so many labels."""

    stream: str
    labels: int
    promise: str
    promised: float
    #: Shares of runs: a threshold was found; it held (or nothing acts, or the monitor has turned it off); naive held.
    found: float
    held: float
    #: What the runs say of the true share of held: its 95 % binomial interval (Clopper, Pearson 1934).
    interval: tuple[float, float]
    naive_held: float
    #: Where the promise acts or passes by itself, with it: mean share of uploads.
    automated: float
    #: Of runs on a drifting stream, those in which the monitor turned the promise off.
    turned_off: float | None

    @property
    def well(self) -> bool:
        """Return whether it held as often as was promised."""
        return self.held >= self.promised

    @property
    def refuted(self) -> bool:
        """Return whether so many runs rule out that it truly holds as often as was promised."""
        return self.interval[1] < self.promised


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """Calibration error after fitting so many labels, on as many others of the stream."""

    stream: str
    labels: int
    before: float
    after: float
    floor: float
    #: Standard error of how far `after` lies above the floor, over the runs.
    error: float

    @property
    def well(self) -> bool:
        """Return whether the error is at most the sampling floor + 0.01."""
        return self.after <= self.floor + 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """How often the audit's 95 % intervals held the truth."""

    stream: str
    audited: int
    figure: str
    runs: int
    covered: float
    width: float

    @property
    def well(self) -> bool:
        """Return whether that is 93 to 97 % of runs."""
        return 0.93 <= self.covered <= 0.97  # noqa: PLR2004 -- what the issue of intervals is


@dataclass(slots=True, kw_only=True)
class _Run:
    found: bool
    held: bool
    naive: bool
    automated: float
    off: bool


def measure(
    kinds: Sequence[Kind],
    labels: Sequence[int],
    runs: int,
    *,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[list[Kept], list[Calibrated]]:
    """Return how promises and calibrations did on each stream with each number of labels."""
    kept: list[Kept] = []
    calibrated: list[Calibrated] = []
    for kind in kinds:
        prior = SHIFTED_PRIOR if kind == "class shift" else None
        truth = whole(_TRUTH, prior=prior)
        for count in labels:
            outcomes: dict[Precision | MissRate, list[_Run]] = {p: [] for p in PROMISES}
            errors = []
            for run in range(seed * _APART, seed * _APART + runs):
                rng = np.random.default_rng([run, count, len(kind)])
                scored = labelled(kind, count, rng)
                once = scored.one_a_cluster(run)
                curve = fit_answers(once, prior=prior, seed=run, draws=2).curve
                errors.append(_error(curve, uploads(count, rng, prior=prior), run))
                said = at(curve, truth.scores)
                for promise in PROMISES:
                    value = prove(promise, once, curve, prior=prior, seed=run).value
                    outcome = _outcome(promise, value, said, truth)
                    outcome.naive = _naive_held(promise, scored, truth)
                    if kind == "drift":
                        _drift(promise, value, curve, outcome, scored, rng)
                    outcomes[promise].append(outcome)
                advance(1)
            kept += [_kept(kind, count, p, found) for p, found in outcomes.items()]
            before, after, floor = np.mean(errors, axis=0)
            above = [error[1] - error[2] for error in errors]
            calibrated.append(
                Calibrated(
                    stream=kind,
                    labels=count,
                    before=float(before),
                    after=float(after),
                    floor=float(floor),
                    error=float(np.std(above) / np.sqrt(len(above))),
                )
            )
    return kept, calibrated


def _kept(kind: Kind, count: int, promise: Precision | MissRate, found: list[_Run]) -> Kept:
    def share(values: Sequence[float]) -> float:
        return float(np.mean(values))

    return Kept(
        stream=kind,
        labels=count,
        promise=f"precision {promise.precision:g}"
        if isinstance(promise, Precision)
        else f"miss rate {promise.miss_rate:g}",
        promised=promise.confidence,
        found=share([r.found for r in found]),
        held=share([r.held for r in found]),
        interval=_binomial(sum(r.held for r in found), len(found)),
        naive_held=share([r.naive for r in found]),
        automated=share([r.automated for r in found]),
        turned_off=share([r.off for r in found]) if kind == "drift" else None,
    )


def _binomial(hits: int, runs: int) -> tuple[float, float]:
    return 1 - upper(runs - hits, runs, 0.025), upper(hits, runs, 0.025)


def _error(curve: Curve, fresh: Uploads, seed: int) -> tuple[float, float, float]:
    said = at(curve, fresh.scores)
    raw = np.array([logistic(s) for s in fresh.scores])
    # The floor is what the true chances themselves show at this number.
    return (
        ece(raw, fresh.violates),
        ece(said, fresh.violates),
        ece_floor(fresh.chance, draws=10, seed=seed),
    )


def _risk(
    promise: Precision | MissRate, below: NDArray[np.bool_], chance: Vector
) -> tuple[float, float]:
    """Return the risk that was promised to be small, and the promise's limit; `below` marks what passes."""
    limit = 1 - promise.precision if isinstance(promise, Precision) else promise.miss_rate
    return _over_time([_parts(promise, below, chance)]), limit


def _outcome(
    promise: Precision | MissRate, value: float | None, said: Vector, truth: Uploads
) -> _Run:
    if value is None:
        return _Run(found=False, held=True, naive=False, automated=0.0, off=False)
    below = said < value
    risk, limit = _risk(promise, below, truth.chance)
    automated = float((~below if isinstance(promise, Precision) else below).mean())
    return _Run(found=True, held=risk <= limit, naive=False, automated=automated, off=False)


def naive(promise: Precision | MissRate, scored: Scores) -> float:
    """Return the score from which on the labels themselves, as they lie there, show what is promised."""
    order = np.argsort(-scored.scores, kind="stable")
    ranked, labels = scored.scores[order], scored.labels[order]
    if isinstance(promise, Precision):
        good = np.flatnonzero(
            np.cumsum(labels) / np.arange(1, len(labels) + 1) >= promise.precision
        )
        return float(ranked[good[-1]]) if len(good) else float("inf")
    violations = np.sort(scored.scores[scored.labels == 1])
    if not len(violations):
        return float("-inf")
    return float(violations[min(len(violations) - 1, int(promise.miss_rate * len(violations)))])


def _naive_held(promise: Precision | MissRate, scored: Scores, truth: Uploads) -> bool:
    risk, limit = _risk(promise, truth.scores < naive(promise, scored), truth.chance)
    return risk <= limit


def _drift(
    promise: Precision | MissRate,
    value: float | None,
    curve: Curve,
    outcome: _Run,
    scored: Scores,
    rng: np.random.Generator,
) -> None:
    """Let the world drift under the promise while audits come in, and hold the end against it."""
    limit = 1 - promise.precision if isinstance(promise, Precision) else promise.miss_rate
    monitor = RiskMonitor(risk=limit)
    # Upward drift makes more pass that should not; downward drift makes what acts wrong.
    direction = _DRIFTED if isinstance(promise, Precision) else -_DRIFTED
    threshold = naive(promise, scored)
    risk = 0.0
    for step in range(1, _MOVES + _STAYS + 1):
        now = uploads(8_000, rng, moved=direction * min(1.0, step / _MOVES))
        risk, _ = _risk(promise, now.scores < threshold, now.chance)
        outcome.naive = risk <= limit
        if value is None or monitor.alarm:
            continue
        below = at(curve, now.scores) < value
        risk, _ = _risk(promise, below, now.chance)
        if isinstance(promise, Precision):
            monitor.follow(now.violates[np.flatnonzero(~below)[:_AUDITED]] == 0)
        else:
            monitor.follow(below[np.flatnonzero(now.violates == 1)[:_AUDITED]])
    # At the end the promise holds, or it has been turned off.
    outcome.off = monitor.alarm
    outcome.held = value is None or monitor.alarm or risk <= limit


def _parts(
    promise: Precision | MissRate, below: NDArray[np.bool_], chance: Vector
) -> tuple[float, float]:
    """Return how many uploads went wrong, and of how many a share was promised."""
    if isinstance(promise, Precision):
        return float((1 - chance[~below]).sum()), float((~below).sum())
    return float(chance[below].sum()), float(chance.sum())


def _over_time(parts: list[tuple[float, float]]) -> float:
    """Return the risk over all the time in which the promise was in force."""
    wrong, of = np.sum(parts, axis=0) if parts else (0.0, 0.0)
    return float(wrong / of) if of else 0.0


def measure_audits(
    audited: Sequence[int],
    runs: int,
    *,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Covered]:
    """Return how often the audit's intervals hold the truth, with sure and with erring reviewers."""
    found = []
    for stream in ("steady", "rates change", "reviewers"):
        for count in audited:
            hits: dict[str, list[bool]] = {}
            widths: dict[str, list[float]] = {}
            for run in range(seed * _APART, seed * _APART + runs):
                rng = np.random.default_rng([run, count, len(stream)])
                told, truth = _audit(stream, count, rng)
                for name, true in truth.items():
                    figure: Figure = getattr(told, name)
                    hits.setdefault(name, []).append(figure.low <= true <= figure.high)
                    widths.setdefault(name, []).append(figure.high - figure.low)
                advance(1)
            found += [
                Covered(
                    stream=stream,
                    audited=count,
                    figure=name.replace("_", " "),
                    runs=runs,
                    covered=float(np.mean(hits[name])),
                    width=float(np.mean(widths[name])),
                )
                for name in hits
            ]
    return found


def _audit(
    stream: str, count: int, rng: np.random.Generator
) -> tuple[Quality, Mapping[str, float]]:
    """Return what an audit of so many passed, and as many acted, uploads tells, and what is true."""
    total = 20_000
    prior = float(rng.uniform(0.05, 0.3))
    there = uploads(total, rng, prior=prior)
    passed = there.scores < -1.5  # noqa: PLR2004 -- the bands of this world
    acted = there.scores >= 5  # noqa: PLR2004 -- the same
    where = {"passed": passed, "review": ~passed & ~acted, "acted": acted}
    first = answers(there, rng) if stream == "reviewers" else there.violates
    early = rng.random(total) < 0.5  # noqa: PLR2004 -- half of the time
    strata: dict[Where, Stratum] = {}
    for name, chosen in where.items():
        rate = min(0.5, count / max(1, chosen.sum())) if name != "review" else 1.0
        rates = np.full(total, rate)
        if stream == "rates change" and name != "review":
            rates = np.where(early, rate * 0.5, min(1.0, rate * 1.5))
        seen = chosen & (rng.random(total) < rates)
        # A second person looks at whatever would change what was decided, and at a fifth of the rest.
        changes = first == (0.0 if name == "acted" else 1.0)
        again = changes | (rng.random(total) < 0.2)  # noqa: PLR2004 -- a fifth
        if name == "review" or stream != "reviewers":
            again = np.ones(total, bool)
        strata[name] = Stratum(  # type: ignore[index]
            count=int(chosen.sum()),
            weights=1 / rates[seen],
            first=first[seen],
            final=np.where(again, there.violates, np.nan)[seen],
        )
    violations = there.violates.sum()
    truth = {
        "prevalence": float(violations / total),
        "miss_rate": float(there.violates[passed].sum() / violations),
        "precision": float(there.violates[acted].mean()),
    }
    return estimate(strata, seed=int(rng.integers(2**31)), draws=1000), truth
