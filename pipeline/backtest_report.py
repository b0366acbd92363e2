"""What an edit of the policies would do, in figures: flips, hours of reviewers, and what people would call wrong."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.backtest import Redecided, action_of
from pipeline.recalibrating import Meaning
from pipeline.refitting import Unfitted
from pipeline.reliability import Figure, score_interval
from pipeline.sampling import Sampled
from pipeline.stored import Coded, Flags, Numbers, Stored, questions
from policies.schema import Action, PolicySet

_EXAMPLES: Final = 10
#: What `--fail-if` may hold against a limit.
MEASURES: Final = ("flips", "wrong_removals", "missed", "review_hours")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """One kind of change, how often it came, and some contents that it came to."""

    before: str
    after: str
    count: int
    examples: tuple[str, ...]


class Judged(NamedTuple):
    """What people found in an upload, and the chance with which it came to them."""

    violates: bool
    chance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Anew:
    """What was scored again, and what it took."""

    #: Question ids that were asked anew.
    questions: tuple[str, ...]
    #: Sampled uploads, labelled ones included; of those, uploads that were not to be had any more.
    uploads: int
    left_out: int
    #: Uploads beside them whose answers the calibrations rest on.
    labelled: int
    classifier_s: float
    #: Questions with a calibration for what is asked now, fitted on labels that count on.
    fitted: tuple[str, ...] = ()
    unfitted: tuple[Unfitted, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """Shares of all decisions with 95 % intervals, where a sample of them was decided again."""

    anew: Anew
    flips: Figure
    #: Decisions that a person would look at, that a person would look at no more, and that one now does.
    looks: Figure
    relieved: Figure
    burdened: Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the backtest found."""

    decisions: int
    flips: tuple[Flip, ...]
    by_clause: Mapping[str, int]
    by_surface: Mapping[str, int]
    by_region: Mapping[str, int]
    by_language: Mapping[str, int]
    jobs_before: int
    jobs_after: int
    minutes_a_job: float
    #: Of what would be removed, the share that is allowed: of what people have judged, each by its chance of having
    #: come to them.
    wrong_removals: Figure
    removals_judged: int
    #: Of the violations, the share that would pass with nobody looking: of those that people found, in the same way.
    missed: Figure
    violations_judged: int
    #: Live questions without one fresh calibration among the stored answers, though their policy lets them act.
    not_fresh: tuple[str, ...]
    #: What stored scores were taken to mean, by question and classifier; without the questions that were asked anew.
    meanings: tuple[Meaning, ...] = ()
    #: Where questions were asked anew; every count above is an estimate then.
    estimates: Estimates | None = None

    @property
    def flipped(self) -> int:
        """Return how many decisions change."""
        return sum(flip.count for flip in self.flips)

    @property
    def review_hours(self) -> float:
        """Return the hours that people gain (below zero) or lose over the whole time looked at."""
        return (self.jobs_after - self.jobs_before) * self.minutes_a_job / 60

    @property
    def forecast_hours(self) -> float:
        """Return the hours that people need over the whole time looked at; of an estimate, its upper bound."""
        jobs = self.jobs_after
        if self.estimates is not None:
            jobs = max(jobs, round(self.estimates.looks.high * self.decisions))
        return jobs * self.minutes_a_job / 60

    def measure(self, name: str) -> float:
        """Return one of `MEASURES`; of a figure with an interval, its upper bound."""
        flips, hours = self.flipped / max(self.decisions, 1), self.review_hours
        if (told := self.estimates) is not None:
            more = (told.burdened.high - told.relieved.low) * self.decisions
            flips, hours = told.flips.high, max(hours, more * self.minutes_a_job / 60)
        return {
            "flips": flips,
            # A gate that few labels could pass by luck would be none.
            "wrong_removals": self.wrong_removals.high,
            "missed": self.missed.high,
            "review_hours": hours,
        }[name]

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values; a share of nothing is null."""
        plain = asdict(self)
        for name, count in (
            ("wrong_removals", self.removals_judged),
            ("missed", self.violations_judged),
        ):
            if not count:
                plain[name] = None
        for one in plain["meanings"]:
            one["fitted_at"] = one["fitted_at"] and one["fitted_at"].isoformat()
        return plain | {"flipped": self.flipped, "review_hours": self.review_hours}


def account(
    stored: Stored,
    made: Redecided,
    policies: PolicySet,
    *,
    verdicts: Mapping[str, Judged],
    minutes_a_job: float,
    meanings: Sequence[Meaning] = (),
    sampled: tuple[Sampled, Anew] | None = None,
) -> Report:
    """Return what changes; `verdicts` says of decision ids what people found.

    With `sampled` the rows are a sample, and `stored` says how many decisions each of them stands for.
    """
    looked = stored.queues.known()
    looks = made.queue >= 0
    changed = (stored.ranks != made.ranks) | (looked != looks)
    which = np.flatnonzero(changed)
    known = pc.is_in(stored.decision_ids, value_set=pa.array(verdicts, pa.string()))
    rows = np.flatnonzero(known.to_numpy(zero_copy_only=False))
    judged = [(r, verdicts[stored.decision_ids[r].as_py()]) for r in rows.tolist()]
    removed = [one for row, one in judged if made.ranks[row] == Action.REMOVE.rank]
    violating = [(row, one) for row, one in judged if one.violates]
    passed = [made.ranks[r] == Action.ALLOW.rank and not looks[r] for r, _ in violating]
    weights = stored.weights
    return Report(
        decisions=len(stored.group) if sampled is None else sampled[0].of,
        flips=_flips(stored, made, which, looked, looks),
        by_clause=_by_clause(made, policies, changed, weights),
        by_surface=_count(stored.surfaces, which, weights, lambda s: [s or "unknown"]),
        by_region=_count(stored.shown, which, weights, lambda shown: shown or ["everywhere"]),
        by_language=_count(stored.languages, which, weights, lambda s: [s or "unknown"]),
        jobs_before=round(float(weights[looked].sum())),
        jobs_after=round(float(weights[looks].sum())),
        minutes_a_job=minutes_a_job,
        wrong_removals=_weighted([not one.violates for one in removed], removed),
        removals_judged=len(removed),
        missed=_weighted(passed, [one for _, one in violating]),
        violations_judged=len(violating),
        not_fresh=not_fresh(stored, policies),
        meanings=tuple(meanings),
        estimates=None
        if sampled is None
        else Estimates(
            anew=sampled[1],
            flips=sampled[0].share(changed),
            looks=sampled[0].share(looks),
            relieved=sampled[0].share(looked & ~looks),
            burdened=sampled[0].share(looks & ~looked),
        ),
    )


def _weighted(hits: Sequence[bool], of: Sequence[Judged]) -> Figure:
    """Return the share of hits, each counted as often as its chance says, at the size that unlike chances leave."""
    if not of:
        return Figure(value=float("nan"), low=0.0, high=1.0)
    weights = np.array([1 / one.chance for one in of])
    share = float(weights[np.array(hits, bool)].sum() / weights.sum())
    return score_interval(share, float(weights.sum() ** 2 / (weights**2).sum()))


def _flips(
    stored: Stored, made: Redecided, rows: NDArray[Any], looked: Flags, looks: Flags
) -> tuple[Flip, ...]:
    before = stored.ranks[rows] * 2 + looked[rows]
    after = made.ranks[rows] * 2 + looks[rows]
    kinds, where = np.unique(before * len(Action) * 2 + after, return_inverse=True)
    counts = np.bincount(where, stored.weights[rows], minlength=len(kinds))
    found = []
    for number in np.argsort(-counts, kind="stable").tolist():
        of_kind = rows[np.flatnonzero(where == number)[:_EXAMPLES]]
        was, becomes = divmod(int(kinds[number]), len(Action) * 2)
        found.append(
            Flip(
                before=_word(was // 2, looked=bool(was % 2)),
                after=_word(becomes // 2, looked=bool(becomes % 2)),
                count=round(float(counts[number])),
                examples=tuple(stored.content_ids.take(pa.array(of_kind)).to_pylist()),
            )
        )
    return tuple(found)


def not_fresh(stored: Stored, policies: PolicySet) -> tuple[str, ...]:
    """Return the live questions that may act but have no fresh calibration among the stored answers."""
    found = []
    for column, (policy, question) in enumerate(questions(policies)):
        rules = [policy.rule_under(question.clause, o) for o in (None, *policy.overrides)]
        may_act = any(r.act_at is not None and not r.acts_uncalibrated for r in rules)
        if policy.status == "live" and may_act and not stored.fresh[:, column].any():
            found.append(question.id)
    return tuple(found)


def _word(rank: int, *, looked: bool) -> str:
    return action_of(rank).value + (" + review" if looked else "")


def _by_clause(
    made: Redecided, policies: PolicySet, changed: Flags, weights: Numbers
) -> dict[str, int]:
    # What now leads to something, and of what leads to nothing any more the clause is not known: it is `none`.
    leads, of = made.outcome[changed] > 0, weights[changed]
    counts = {
        question.id: round(float(of[leads[:, column]].sum()))
        for column, (_, question) in enumerate(questions(policies))
    }
    counts["none"] = round(float(of[~leads.any(axis=1)].sum())) if leads.size else 0
    return {name: count for name, count in sorted(counts.items(), key=lambda c: -c[1]) if count}


def _count(
    column: Coded, rows: NDArray[Any], weights: Numbers, names: Callable[[Any], Iterable[str]]
) -> dict[str, int]:
    counted: dict[str, float] = {}
    for value, count in column.count(rows, weights[rows]).items():
        for name in names(value):
            counted[name] = counted.get(name, 0.0) + count
    ranked = sorted(counted.items(), key=lambda pair: -pair[1])
    return {name: round(count) for name, count in ranked}


_LIMIT: Final = re.compile(r"\s*(\w+)\s*>\s*(-?\d+(?:\.\d+)?)\s*(%?)\s*")


def parse_limit(text: str) -> tuple[str, float]:
    """Return the measure and the limit of `--fail-if`, like `wrong_removals > 0.5%`.

    Raises:
        ValueError: it is none; the message says how to write one.
    """
    match = _LIMIT.fullmatch(text)
    if match is None or match[1] not in MEASURES:
        raise ValueError(
            f"{text!r} is no limit: write one of {', '.join(MEASURES)}, then > and a number, like wrong_removals > 0.5%"
        )
    return match[1], float(match[2]) / (100 if match[3] else 1)


def _share(figure: Figure, count: int, of: str) -> str:
    if not count:
        return f"unknown: people have judged none of {of}"
    return (
        f"{figure.value:.2%} ({figure.low:.2%} to {figure.high:.2%}, {count} judged, each counted by its chance of "
        "coming to people; what cannot come to them, as `audit` draws none of it, is not in it)"
    )


def _lines(report: Report) -> list[tuple[str, str]]:
    share = report.flipped / max(report.decisions, 1)
    told = report.estimates
    return [
        ("decisions", f"{report.decisions:,}"),
        *([] if told is None else _anew(told.anew)),
        (
            "that change",
            f"{report.flipped:,} ({share:.2%})"
            + ("" if told is None else f", 95 % interval {_range(told.flips)}"),
        ),
        ("review jobs", f"{report.jobs_before:,} → {report.jobs_after:,}"),
        (
            "hours of reviewers",
            f"{report.review_hours:+,.1f} at {report.minutes_a_job:g} min a job"
            + ("" if told is None else f"; {_range(told.looks)} of all decisions are looked at"),
        ),
        (
            "wrong removals",
            _share(report.wrong_removals, report.removals_judged, "what would be removed"),
        ),
        ("violations missed", _share(report.missed, report.violations_judged, "the violations")),
        *_meanings(report.meanings),
        ("not calibrated freshly", ", ".join(report.not_fresh) or "none"),
    ]


def _meanings(meanings: Sequence[Meaning]) -> list[tuple[str, str]]:
    """Return which stored scores mean what the calibration in force says, and which what they meant then."""
    lines = []
    renewed = [one for one in meanings if one.fitted_at is not None]
    if renewed:
        fits = [
            f"{one.question} ({one.fitted_at:%Y-%m-%d}{'' if one.fresh else ', stale'})"
            for one in renewed
        ]
        lines.append(("scores by the calibration in force", _listed(fits)))
    kept = [one.question for one in meanings if one.fitted_at is None]
    if kept:
        why = "no calibration of the classifier that answered is in WEIR_CALIBRATIONS"
        lines.append(("probabilities as decided then", f"{_listed(kept)}: {why}"))
    return lines


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _range(figure: Figure) -> str:
    return f"{figure.low:.2%} to {figure.high:.2%}"


def _anew(anew: Anew) -> list[tuple[str, str]]:
    lost = f"; {anew.left_out:,} more were not to be had" if anew.left_out else ""
    each_ms = 1000 * anew.classifier_s / max(1, anew.uploads + anew.labelled)
    return [
        ("asked anew", ", ".join(anew.questions)),
        (
            "so every figure is an estimate",
            f"from {anew.uploads:,} decisions, each weighted by its chance of being sampled{lost}",
        ),
        ("time of the classifiers", f"{anew.classifier_s:,.1f} s, {each_ms:,.0f} ms an upload"),
        ("calibrations fitted", ", ".join(anew.fitted) or "none"),
        *(
            (
                f"labels of {one.question}",
                f"{one.violates} violations and {one.allowed} allowed: too few to fit",
            )
            for one in anew.unfitted
        ),
    ]


def _groups(report: Report) -> list[tuple[str, Mapping[str, int]]]:
    return [
        ("question or clause that leads afterwards", report.by_clause),
        ("surface", report.by_surface),
        ("region", report.by_region),
        ("language", report.by_language),
    ]


def markdown(report: Report) -> str:
    """Return the report for a pull request."""
    lines = ["## Backtest", "", "| | |", "|---|---|"]
    lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in _lines(report)]
    lines += ["", "| before | after | decisions | for example |", "|---|---|---:|---|"]
    lines += [
        f"| {f.before} | {f.after} | {f.count:,} | {_cell(', '.join(f.examples[:3]))} |"
        for f in report.flips
    ]
    for title, counts in _groups(report):
        lines += ["", f"| {title} | decisions that change |", "|---|---:|"]
        lines += [f"| {_cell(name)} | {count:,} |" for name, count in counts.items()]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    # Names of contents and surfaces are others' words.
    return re.sub(r"([|\\`*_<>\[\]])", r"\\\1", text.replace("\n", " "))


_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1a2230;--faint:#667080;--line:#d5dae1;--fill:#2f6fb3;--paper:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecf2;--faint:#98a3b3;--line:#3a4454;--fill:#7db4ee;--paper:#12161d}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:2rem auto;max-width:64rem;
padding:0 1rem}
table{border-collapse:collapse;width:100%;margin:1rem 0}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top;
overflow-wrap:anywhere}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(20rem,1fr));gap:1.5rem}
h2{font-size:1.05rem;margin:1rem 0 .4rem}
svg{width:100%;height:auto}
text{fill:var(--ink);font:12px system-ui,sans-serif}
"""


def page(report: Report) -> str:
    """Return the report as HTML that fetches nothing and runs nothing."""
    facts = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in _lines(report)
    )
    flips = "".join(
        f"<tr><td>{escape(f.before)}</td><td>{escape(f.after)}</td><td>{f.count:,}</td>"
        f"<td>{escape(', '.join(f.examples))}</td></tr>"
        for f in report.flips
    )
    plots = "".join(
        f"<section><h2>By {escape(title)}</h2>{_bars(title, counts)}</section>"
        for title, counts in _groups(report)
    )
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>Backtest</title><style>{_STYLE}</style></head><body><h1>Backtest</h1>"
        f"<table>{facts}</table><h2>What changes</h2><table><tr><th>before</th><th>after</th>"
        f"<th>decisions</th><th>for example</th></tr>{flips}</table>"
        f"<h2>Where it changes</h2><main>{plots}</main></body></html>"
    )


def _bars(title: str, counts: Mapping[str, int]) -> str:
    shown = list(counts.items())[:15]
    if not shown:
        return "<p>Nothing changes.</p>"
    most = max(count for _, count in shown)
    rows = "".join(
        f"<text x='0' y='{22 * n + 15}'>{escape(name[:22])}</text>"
        f"<rect x='150' y='{22 * n + 4}' width='{170 * count / most:.1f}' height='14' fill='var(--fill)'/>"
        f"<text x='{156 + 170 * count / most:.1f}' y='{22 * n + 15}'>{count:,}</text>"
        for n, (name, count) in enumerate(shown)
    )
    label = escape(f"Decisions that change by {title}", quote=True)
    return (
        f"<svg viewBox='0 0 400 {22 * len(shown) + 6}' role='img' aria-label='{label}'>{rows}</svg>"
    )
