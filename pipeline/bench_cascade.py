"""What a cascade saves and what it costs: the share of uploads that reach each classifier, and the quality lost.

Labelled uploads are put to every classifier. One half of them calibrates each classifier by itself; on the other half
the cascade runs as the pipeline runs it, and stands beside the last classifier asked about everything.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from pipeline.calibrating import calibrate
from pipeline.calibration import Calibrations
from pipeline.cascading import clear, rare
from pipeline.decide import Answer
from pipeline.evaluating import Watched
from pipeline.labels import Labelled
from pipeline.reliability import Figure, Vector, auroc, brier
from pipeline.scored import Scores, score
from policies.question import Question
from policies.schema import MissRate, Policy, Precision, Rule
from workers.classifier import Classification, Classifier
from workers.reading import Reading

_DRAWS: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One classifier of the cascade."""

    classifier: str
    #: Share of the uploads, and of the questions, that reach it.
    uploads: float
    questions: float
    ms_per_upload: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cascaded:
    """One question: how much the cascade settles early, and its quality beside the last classifier's alone."""

    question: str
    labels: int
    settled: float
    auroc: float
    auroc_alone: float
    #: Of the difference to the last classifier alone; above zero the cascade is worse.
    brier_lost: Figure
    #: Share of the uploads on which both lead to the same: pass, review, act.
    same: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found."""

    uploads: int
    stages: tuple[Stage, ...]
    questions: tuple[Cascaded, ...]
    #: Time a cascade takes for an upload, as a share of the last classifier's for all.
    cost: float


@dataclass(frozen=True, slots=True)
class _Column:
    """One classifier's answers to one question on the half that tests."""

    rows: tuple[str, ...]
    labels: Vector
    answers: tuple[Answer, ...]
    rare: float


def measure(
    labelled: Sequence[Labelled],
    classifiers: Sequence[Classifier],
    policies: Sequence[Policy],
    *,
    reading: Reading,
    advance: Callable[[str], None] = lambda _: None,
    refused: Callable[[Labelled, str], None] = lambda _row, _why: None,
) -> Report:
    """Return what the classifiers do in this order.

    Raises:
        ValueError: there are not two classifiers that cover the same labelled question.
    """
    # Rows are told apart by their cluster below.
    own = [row.model_copy(update={"cluster": row.id}) for row in labelled]
    cluster = {row.id: row.cluster or row.id for row in labelled}
    owners = {
        question.id: (policy, question) for policy in policies for question in policy.questions
    }
    found: list[Mapping[str, _Column]] = []
    took_ms: list[float] = []
    for classifier in classifiers:
        advance(f"scoring with {classifier.name}")
        watched = Watched(classifier)
        questions = [question for _, question in owners.values()]
        scored = score(own, watched, questions, reading=reading, refused=refused)
        took_ms.append(watched.ms_per_upload)
        found.append(
            {
                name: _tested(*owners[name], column, classifier.digest, cluster)
                for name, column in scored.items()
            }
        )
    shared = [name for name in found[-1] if all(name in columns for columns in found)]
    if len(classifiers) < 2 or not shared:  # noqa: PLR2004 -- a cascade has a first and a last
        raise ValueError("a cascade needs two classifiers that cover the same labelled question")
    return _report([c.name for c in classifiers], took_ms, found, owners, shared)


def _tested(
    policy: Policy,
    question: Question,
    column: Scores,
    digest: str,
    cluster: Mapping[str, str],
) -> _Column:
    """Calibrate on one half of the clusters and return the answers on the other."""
    first = np.array([zlib.crc32(cluster[row].encode()) % 2 == 0 for row in column.clusters])
    now = datetime.now(UTC)
    calibration = calibrate(
        policy, question, column.take(first), classifier=digest, now=now
    ).calibration
    calibrations = Calibrations.of([calibration])
    rest = column.take(~first)
    answers = tuple(
        calibrations.answer(
            question, Classification(question=question.id, score=float(value)), digest, now=now
        )
        for value in rest.scores
    )
    return _Column(rest.clusters, rest.labels, answers, rare(calibration))


def _report(
    names: Sequence[str],
    took_ms: Sequence[float],
    found: Sequence[Mapping[str, _Column]],
    owners: Mapping[str, tuple[Policy, Question]],
    shared: Sequence[str],
) -> Report:
    reached: list[set[str]] = [set() for _ in names]
    asked = [0 for _ in names]
    questions = []
    for name in shared:
        policy, question = owners[name]
        rules = [policy.rule_under(question.clause, over) for over in (None, *policy.overrides)]
        columns = [
            dict(zip(columns[name].rows, columns[name].answers, strict=True)) for columns in found
        ]
        last = found[-1][name]
        chosen = []
        early = 0
        for row in last.rows:
            for at, answers in enumerate(columns):
                if row not in answers:
                    continue
                asked[at] += 1
                reached[at].add(row)
                answer = answers[row]
                if at < len(names) - 1 and clear(answer, rules, rare=found[at][name].rare):
                    early += 1
                    break
            chosen.append(answer)
        questions.append(_compared(name, last, chosen, rules[0], early))
    uploads = {row for name in shared for row in found[-1][name].rows}
    stages = tuple(
        Stage(
            classifier=name,
            uploads=len(reached[at]) / len(uploads),
            questions=asked[at] / asked[0],
            ms_per_upload=round(took_ms[at], 2),
        )
        for at, name in enumerate(names)
    )
    spent = sum(stage.uploads * stage.ms_per_upload for stage in stages)
    return Report(
        uploads=len(uploads),
        stages=stages,
        questions=tuple(questions),
        cost=spent / max(took_ms[-1], 1e-9),
    )


def _compared(
    name: str, last: _Column, chosen: Sequence[Answer], rule: Rule, early: int
) -> Cascaded:
    together = np.array([answer.probability for answer in chosen], float)
    alone = np.array([answer.probability for answer in last.answers], float)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(_DRAWS):
        pick = rng.integers(0, len(alone), len(alone))
        labels = last.labels[pick]
        drawn.append(brier(together[pick], labels) - brier(alone[pick], labels))
    lost = brier(together, last.labels) - brier(alone, last.labels)
    same = [
        _leads_to(one, rule) == _leads_to(other, rule)
        for one, other in zip(chosen, last.answers, strict=True)
    ]
    return Cascaded(
        question=name,
        labels=len(alone),
        settled=early / max(1, len(alone)),
        auroc=auroc(together, last.labels),
        auroc_alone=auroc(alone, last.labels),
        brier_lost=Figure(
            value=lost,
            low=float(np.quantile(drawn, 0.025)),
            high=float(np.quantile(drawn, 0.975)),
        ),
        same=float(np.mean(same)),
    )


def _leads_to(answer: Answer, rule: Rule) -> str:
    review_at, act_at = (
        answer.thresholds.get(band) if isinstance(band, (Precision, MissRate)) else band
        for band in (rule.review_at, rule.act_at)
    )
    if act_at is not None and answer.probability >= act_at:
        return "act"
    return "review" if answer.probability >= (review_at or 0.0) else "pass"
