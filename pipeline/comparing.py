"""How a shadow decides beside what is in force, upload by upload, from the archive."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from pipeline.archive import Archive
from pipeline.archive_query import ask, connect
from pipeline.reliability import Figure, wilson

_EXAMPLES: Final = 5
#: One record may have been decided again in the shadow after a crash: the last word counts.
_PAIRED: Final = """WITH mine AS (SELECT * FROM shadows WHERE decided_at >= TIMESTAMPTZ '{since}'
 QUALIFY row_number() OVER (PARTITION BY source_topic, source_partition, source_offset ORDER BY decided_at DESC) = 1),
 paired AS (SELECT d.content_id AS content_id, d.decision_id AS decision_id, d.findings AS live, s.findings AS shadow,
 d.action || CASE WHEN d.queue IS NULL THEN '' ELSE ' + review' END AS before,
 s.action || CASE WHEN s.queue IS NULL THEN '' ELSE ' + review' END AS after, s.policy_set AS policy_set
 FROM mine s JOIN decisions d USING (source_topic, source_partition, source_offset)
 WHERE d.decided_by = 'pipeline')"""
_PAIRS: Final = """SELECT before, after, count(*) AS count, list(content_id ORDER BY content_id)[1:{most}] AS examples
 FROM paired GROUP BY before, after ORDER BY count DESC, before, after"""
_QUESTIONS: Final = """SELECT l.question AS question, count(*) AS count,
 sum((l.outcome <> s.outcome)::INT) AS differing, avg(abs(l.probability - s.probability)) AS apart
 FROM (SELECT decision_id, unnest(live) AS l FROM paired) a
 JOIN (SELECT decision_id, unnest(shadow) AS s FROM paired) b
 ON a.decision_id = b.decision_id AND a.l.question = b.s.question
 GROUP BY l.question ORDER BY l.question"""
_SETS: Final = "SELECT DISTINCT policy_set FROM paired ORDER BY policy_set"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What was decided and what the shadow would have, how often, with some contents."""

    live: str
    shadow: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question that both asked: how often it led elsewhere, and how far probabilities are apart."""

    question: str
    count: int
    differing: int
    apart: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A shadow beside what is in force."""

    decisions: int
    #: The share that the shadow decides otherwise, with its 95 % interval.
    differing: Figure
    pairs: Sequence[Pair]
    questions: Sequence[Asked]
    #: The digests of the policy sets that decided in the shadow.
    policy_sets: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)


def compare(archive: Archive, *, since: datetime) -> Compared:
    """Return how the shadow decided since this moment what was decided as well.

    Raises:
        RefusedError: the archive cannot be read.
    """
    connection = connect(archive)
    paired = _PAIRED.format(since=since.strftime("%Y-%m-%d %H:%M:%S+00"))

    def rows(sql: str) -> list[Mapping[str, Any]]:
        return [row for batch in ask(connection, f"{paired} {sql}") for row in batch.to_pylist()]

    pairs = [
        Pair(
            live=row["before"],
            shadow=row["after"],
            count=row["count"],
            examples=tuple(row["examples"]),
        )
        for row in rows(_PAIRS.format(most=_EXAMPLES))
    ]
    count = sum(pair.count for pair in pairs)
    return Compared(
        decisions=count,
        differing=wilson(sum(p.count for p in pairs if p.live != p.shadow), count),
        pairs=pairs,
        questions=[
            Asked(
                question=row["question"],
                count=row["count"],
                differing=int(row["differing"]),
                apart=float(row["apart"]),
            )
            for row in rows(_QUESTIONS)
        ],
        policy_sets=[row["policy_set"] for row in rows(_SETS)],
    )
