"""What people answered about archived decisions: one row a question that somebody looked at, with its chance.

The archive counts everything that was decided; people saw part of it, for a band or by lot. Both are read here: the
counts, and the answers with the first person's word kept apart from what holds after a second look.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np

from pipeline.archive import Archive
from pipeline.archive_query import ask, connect
from pipeline.calibration import Calibration
from pipeline.quality import Stratum, Where
from pipeline.reliability import Vector
from pipeline.scored import Scores

#: What a finding led to -> the stratum that it is counted in.
WHERE: Final[Mapping[str, Where]] = {"none": "passed", "review": "review", "acted": "acted"}

_OURS: Final = """decided_by = 'pipeline' AND fault IS NULL AND decided_at >= TIMESTAMPTZ '{since}'
 AND decision_id NOT IN (SELECT supersedes FROM decisions WHERE supersedes IS NOT NULL AND decided_by = 'pipeline')"""
_COUNTS: Final = """SELECT f.question AS question, f.outcome AS outcome, surface, language, regions, count(*) AS count
 FROM (SELECT surface, language, regions, unnest(findings) AS f FROM decisions WHERE {ours})
 WHERE f.status = 'live' GROUP BY ALL"""
#: The verdicts that stand: golden ones say nothing about uploads, and one that its reviewer or a lead replaced no more.
STANDING: Final = """(SELECT v.* FROM verdicts v WHERE v.part <> 'golden'
 AND NOT EXISTS (SELECT 1 FROM verdicts later WHERE later.withdraws = v.verdict_id
  AND (later.reviewer = v.reviewer OR later.part = 'adjudication'))
 AND NOT EXISTS (SELECT 1 FROM verdicts old WHERE old.verdict_id = v.withdraws
  AND old.reviewer <> v.reviewer AND v.part <> 'adjudication'))"""
_VERDICTS: Final = (
    f"SELECT decision_id, part, answers, decided_at FROM {STANDING} ORDER BY decided_at"  # noqa: S608 -- our own words
)
_DECISIONS: Final = """SELECT decision_id, content_id, media, text, surface, language, regions, findings,
 review_questions, review_propensities, decided_at FROM decisions
 WHERE {ours} AND decision_id IN (SELECT decision_id FROM verdicts) ORDER BY decided_at"""
_SCORES: Final = """SELECT score FROM (SELECT unnest(findings, recursive := true) FROM decisions
 WHERE decided_by = 'pipeline' AND decided_at >= TIMESTAMPTZ '{begin}' AND decided_at < TIMESTAMPTZ '{end}')
 WHERE question = '{question}' AND answered_by = '{classifier}' LIMIT 20000"""
_STORED: Final = """SELECT question, question_digest, answered_by, list(score) AS scores,
 list(probability) AS probabilities, min(decided_at) AS first, max(decided_at) AS last
 FROM (SELECT decided_at, unnest(findings, recursive := true) FROM decisions
 WHERE decided_by = 'pipeline' AND decided_at >= TIMESTAMPTZ '{since}') GROUP BY ALL"""
_MOMENT: Final = "%Y-%m-%d %H:%M:%S+00"
#: The stream as it was when a calibration was fitted, and as it is now.
_AROUND: Final = timedelta(days=7)
_LATELY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Circumstances that figures are told apart by."""

    surface: str | None
    language: str | None
    regions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One question about one decided upload, answered by people."""

    question: str
    question_digest: str
    policy_version: int
    classifier: str
    score: float
    probability: float
    where: Where
    chance: float
    first: bool
    final: bool | None  # None: nobody looked again
    cluster: str
    content_id: str
    decision_id: str
    group: Group
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What was decided, counted, and what of it people answered."""

    counts: Mapping[tuple[str, Where, Group], int]
    answers: Sequence[Answered]

    def questions(self) -> list[str]:
        """Return every question about which something was decided."""
        return sorted({question for question, _, _ in self.counts})

    def strata(self, question: str, groups: frozenset[Group] | None = None) -> dict[Where, Stratum]:
        """Return a question's strata, in all circumstances or in these."""
        found: dict[Where, Stratum] = {}
        for where in WHERE.values():
            rows = [
                a
                for a in self.answers
                if a.question == question
                and a.where == where
                and (groups is None or a.group in groups)
            ]
            found[where] = Stratum(
                count=sum(
                    count
                    for (name, its, group), count in self.counts.items()
                    if name == question and its == where and (groups is None or group in groups)
                ),
                weights=np.array([1 / a.chance for a in rows], float),
                first=np.array([a.first for a in rows], float),
                final=np.array([np.nan if a.final is None else a.final for a in rows], float),
            )
        return found


def look(archive: Archive, *, since: datetime) -> Looked:
    """Return what the pipeline decided from this moment on, and what people said of it.

    Raises:
        RefusedError: the archive cannot be read.
    """
    connection = connect(archive, since_day=since.strftime("%Y-%m-%d"))
    ours = _OURS.format(since=since.strftime("%Y-%m-%d %H:%M:%S+00"))
    counts: dict[tuple[str, Where, Group], int] = {}
    for row in _rows(ask(connection, _COUNTS.format(ours=ours))):
        key = (row["question"], WHERE[row["outcome"]], _group(row))
        counts[key] = counts.get(key, 0) + int(row["count"])
    return Looked(counts=counts, answers=_said_of(connection, ours))


def answers_in(archive: Archive, *, since: datetime) -> list[Answered]:
    """Return what people said of what the pipeline decided from this moment on.

    Raises:
        RefusedError: the archive cannot be read.
    """
    connection = connect(archive, since_day=since.strftime("%Y-%m-%d"))
    return _said_of(connection, _OURS.format(since=since.strftime(_MOMENT)))


def _said_of(connection: Any, ours: str) -> list[Answered]:
    verdicts: dict[str, list[dict[str, Any]]] = {}
    for row in _rows(ask(connection, _VERDICTS)):
        verdicts.setdefault(row["decision_id"], []).append(row)
    answers: list[Answered] = []
    for row in _rows(ask(connection, _DECISIONS.format(ours=ours))):
        answers += _answered(row, verdicts.get(row["decision_id"], []))
    return answers


def moved(
    archive: Archive, calibrations: Iterable[Calibration], *, now: datetime
) -> dict[tuple[str, str], tuple[Vector, Vector]]:
    """Return each calibration's scores in the stream around its fit, and those of the last day."""
    fits = {(c.question, c.classifier): c.fitted_at for c in calibrations}
    if not fits:
        return {}
    connection = connect(archive, since_day=(min(fits.values()) - _AROUND).strftime("%Y-%m-%d"))
    found = {}
    for (question, classifier), fitted_at in fits.items():
        spans = (
            (fitted_at - _AROUND, min(fitted_at + _LATELY, now - _LATELY)),
            (now - _LATELY, now),
        )
        values = []
        for begin, end in spans:
            sql = _SCORES.format(
                question=question.replace("'", "''"),
                classifier=classifier.replace("'", "''"),
                begin=begin.strftime(_MOMENT),
                end=end.strftime(_MOMENT),
            )
            rows = [row["score"] for row in _rows(ask(connection, sql))]
            values.append(np.array(rows, float))
        found[question, classifier] = (values[0], values[1])
    return found


def stored_scores(
    archive: Archive, *, since: datetime
) -> dict[tuple[str, str, str], tuple[Vector, Vector, float]]:
    """Return scores, stored probabilities and the days they span, by question, its digest and the classifier.

    Raises:
        RefusedError: the archive cannot be read.
    """
    connection = connect(archive, since_day=since.strftime("%Y-%m-%d"))
    found = {}
    for row in _rows(ask(connection, _STORED.format(since=since.strftime(_MOMENT)))):
        days = max((row["last"] - row["first"]).total_seconds() / 86_400, 1.0)
        found[row["question"], row["question_digest"], row["answered_by"]] = (
            np.array(row["scores"], float),
            np.array(row["probabilities"], float),
            days,
        )
    return found


def scores_of(
    answers: Iterable[Answered], question: str, digest: str, version: int, classifier: str
) -> Scores | None:
    """Return the answers to one question, in this wording and of this version, as labels of one classifier."""
    rows = [
        a
        for a in answers
        if (a.question, a.question_digest, a.policy_version, a.classifier)
        == (question, digest, version, classifier)
    ]
    return scores_beside(rows, [a.score for a in rows]) if rows else None


def scores_beside(answers: Sequence[Answered], scores: Sequence[float]) -> Scores:
    """Return answers as labels of these scores, one an answer."""
    return Scores(
        scores=np.array(scores, float),
        labels=np.array([a.first if a.final is None else a.final for a in answers], float),
        weights=np.array([1 / a.chance for a in answers], float),
        clusters=tuple(a.cluster for a in answers),
        adjudicated=np.array([a.final is not None for a in answers], bool),
        first=np.array([np.nan if a.final is None else a.first for a in answers], float),
    )


def _rows(reader: Any) -> Iterable[dict[str, Any]]:
    for batch in reader:
        yield from batch.to_pylist()


def _group(row: Mapping[str, Any]) -> Group:
    return Group(
        surface=row["surface"], language=row["language"], regions=tuple(row["regions"] or ())
    )


def _answered(row: Mapping[str, Any], verdicts: Sequence[Mapping[str, Any]]) -> list[Answered]:
    asked = list(row["review_questions"] or ())
    chances = list(row["review_propensities"] or ()) or [1.0] * len(asked)
    alone = {(f["policy"], f["clause"]) for f in row["findings"] if f["clause"]}
    found = []
    for finding in row["findings"]:
        if finding["question"] not in asked or finding["status"] != "live":
            continue
        said = [
            (verdict["part"], answer)
            for verdict in verdicts
            if (answer := _said(verdict["answers"] or (), finding, alone)) is not None
        ]
        if not said:
            continue
        media = row["media"] or ()
        found.append(
            Answered(
                question=finding["question"],
                question_digest=finding["question_digest"],
                policy_version=finding["policy_version"],
                classifier=finding["answered_by"],
                score=finding["score"],
                probability=finding["probability"],
                where=WHERE[finding["outcome"]],
                chance=chances[asked.index(finding["question"])],
                first=said[0][1],
                final=_final(said),
                cluster="|".join(media) or row["text"] or row["content_id"],
                content_id=row["content_id"],
                decision_id=row["decision_id"],
                group=_group(row),
                at=row["decided_at"],
            )
        )
    return found


def _said(
    answers: Sequence[Mapping[str, Any]],
    finding: Mapping[str, Any],
    alone: set[tuple[str, str]],
) -> bool | None:
    """Return what one person said to a finding's question, None where nothing or "cannot tell"."""
    policy, clause = finding["policy"], finding["clause"]
    mine = [
        answer["answer"]
        for answer in answers
        if answer["policy"] == policy
        and (answer["clause"] == clause if clause else (policy, answer["clause"]) not in alone)
    ]
    if "violates" in mine:
        return True
    return False if mine and set(mine) == {"allowed"} else None


def _final(said: Sequence[tuple[str, bool]]) -> bool | None:
    """Return what holds after a second look: a lead's word, or two people's who agree."""
    part, last = said[-1]
    if part in {"adjudication", "approval", "appeal"}:
        return last
    return last if len(said) > 1 and said[-2][1] == last else None
