"""What a row of the archive holds: uploads by reference, decisions with every question's raw score, and verdicts.

Beside them stands what lay in a sealed queue: of a content that is named there, nothing else is kept or read.
"""

import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa
from pydantic import ValidationError

from pipeline.messages import (
    DECISIONS,
    REVIEWS,
    SHADOWS,
    UPLOADS,
    VERDICTS,
    Decision,
    ReviewEvent,
    UploadEvent,
    Verdict,
)
from pipeline.records import Record

_TEXTS: Final = pa.list_(pa.string())
_TIME: Final = pa.timestamp("us", tz="UTC")
_PLACE: Final = [
    pa.field("partition", pa.int32()),
    pa.field("offset", pa.int64()),
]

_FINDING: Final = pa.struct(
    {
        "policy": pa.string(),
        "policy_version": pa.int32(),
        "status": pa.string(),
        "severity": pa.string(),
        "clause": pa.string(),
        "question": pa.string(),
        "question_digest": pa.string(),
        "score": pa.float64(),
        "probability": pa.float64(),
        "whole": pa.float64(),
        "whole_score": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "calibration": pa.string(),
        "answered_by": pa.string(),
        "rationale_clause": pa.string(),
        "rationale": pa.string(),
        "media": pa.int32(),
        "time_s": pa.float64(),
        "outcome": pa.string(),
    }
)

_DECISION: Final = pa.schema(
    [
        *_PLACE,
        pa.field("decision_id", pa.string()),
        pa.field("source_topic", pa.string()),
        pa.field("source_partition", pa.int32()),
        pa.field("source_offset", pa.int64()),
        pa.field("event_id", pa.string()),
        pa.field("content_id", pa.string()),
        pa.field("author_id", pa.string()),
        pa.field("media", _TEXTS),
        pa.field("text", pa.string()),
        pa.field("language", pa.string()),
        pa.field("surface", pa.string()),
        pa.field("regions", _TEXTS),
        pa.field("context", pa.string()),  # as JSON: its keys are the platform's own
        pa.field("action", pa.string()),
        pa.field("labels", _TEXTS),
        pa.field("age", pa.int32()),
        pa.field("no_recommend", pa.bool_()),
        pa.field("no_ads", pa.bool_()),
        pa.field("regional", pa.string()),  # as JSON: region -> action
        pa.field("queue", pa.string()),
        pa.field("priority", pa.float64()),
        pa.field("due_at", _TIME),
        pa.field("reviewers", pa.int32()),
        pa.field("review_reason", pa.string()),
        pa.field("propensity", pa.float64()),
        pa.field("review_questions", _TEXTS),
        pa.field("review_propensities", pa.list_(pa.float64())),
        pa.field("findings", pa.list_(_FINDING)),
        pa.field("not_asked", _TEXTS),
        pa.field("unjudged", _TEXTS),
        pa.field("fault", pa.string()),
        pa.field("policy_set", pa.string()),
        pa.field("ground", pa.string()),
        pa.field("notice", pa.string()),
        pa.field("decided_by", pa.string()),
        pa.field("reviewer", pa.string()),
        pa.field("verdict_id", pa.string()),
        pa.field("appeal", pa.string()),
        pa.field("decided_at", _TIME),
        pa.field("supersedes", pa.string()),
    ]
)

_ANSWER: Final = pa.struct(
    {"policy": pa.string(), "clause": pa.string(), "answer": pa.string(), "carve_out": pa.string()}
)

_VERDICT: Final = pa.schema(
    [
        *_PLACE,
        pa.field("verdict_id", pa.string()),
        pa.field("job_id", pa.string()),
        pa.field("decision_id", pa.string()),
        pa.field("content_id", pa.string()),
        pa.field("reviewer", pa.string()),
        pa.field("part", pa.string()),
        pa.field("answers", pa.list_(_ANSWER)),
        pa.field("action", pa.string()),
        pa.field("escalate", pa.string()),
        pa.field("policy_unclear", pa.bool_()),
        pa.field("note", pa.string()),
        pa.field("saw_model", pa.bool_()),
        pa.field("opened_at", _TIME),
        pa.field("revealed_s", pa.float64()),
        pa.field("decided_at", _TIME),
        pa.field("withdraws", pa.string()),
    ]
)

#: What it takes to look at an upload again: its caption, and where its media lie.
_UPLOAD: Final = pa.schema(
    [
        *_PLACE,
        pa.field("event_id", pa.string()),
        pa.field("content_id", pa.string()),
        pa.field("author_id", pa.string()),
        pa.field("uris", _TEXTS),
        pa.field("content_types", _TEXTS),
        pa.field("caption", pa.string()),
        pa.field("received_at", _TIME),
    ]
)

#: That a content lay in a sealed queue, and which media it had.
_SEAL: Final = pa.schema(
    [
        *_PLACE,
        pa.field("content_id", pa.string()),
        pa.field("media", _TEXTS),
        pa.field("queue", pa.string()),
        pa.field("at", _TIME),
    ]
)

#: Topic -> what its rows hold.
SCHEMAS: Final[Mapping[str, Any]] = {
    DECISIONS: _DECISION,
    VERDICTS: _VERDICT,
    UPLOADS: _UPLOAD,
    SHADOWS: _DECISION,
}
#: Topic -> where the archive keeps what its records sealed.
SEALS: Final[Mapping[str, str]] = {
    topic: f"sealed.{topic}" for topic in (DECISIONS, VERDICTS, REVIEWS)
}
#: Name of a folder of the archive -> what the rows of its files hold.
COLUMNS: Final[Mapping[str, Any]] = {**SCHEMAS, **dict.fromkeys(SEALS.values(), _SEAL)}
#: What stands where a digest stood that was erased.
ERASED: Final = "erased"
#: Topic -> the column that says when it came about: it gives a row its day, and an erasure its end.
MOMENTS: Final[Mapping[str, str]] = {
    DECISIONS: "decided_at",
    VERDICTS: "decided_at",
    UPLOADS: "received_at",
    SHADOWS: "decided_at",
    REVIEWS: "at",
}


def row_of(record: Record) -> dict[str, Any] | None:
    """Return a record as a row, or None where it is none of what its topic holds."""
    try:
        if record.topic in {DECISIONS, SHADOWS}:
            row = _decision(Decision.model_validate_json(record.value or b""))
        elif record.topic == UPLOADS:
            row = _upload(UploadEvent.model_validate_json(record.value or b""))
            row["received_at"] = datetime.fromtimestamp(record.timestamp_s, UTC)
        else:
            row = (
                _moved(ReviewEvent.model_validate_json(record.value or b""))
                if record.topic == REVIEWS
                else _verdict(Verdict.model_validate_json(record.value or b""))
            )
            # It names its decision; whose content it is about says its key.
            row["content_id"] = None if record.key is None else record.key.decode(errors="replace")
    except ValidationError:
        return None
    return {"partition": record.partition, "offset": record.offset, **row}


def seal_of(topic: str, row: Mapping[str, Any], sealed: Collection[str]) -> dict[str, Any] | None:
    """Return what a row of this topic says is sealed, these being the sealed queues, or None."""
    if topic not in SEALS:
        return None
    into = {row["escalate"]} if topic == VERDICTS else {row["queue"]}
    if not row.get("sealed", False) and into.isdisjoint(sealed):
        return None
    return {
        **{name: row[name] for name in ("partition", "offset", "content_id")},
        "media": row.get("media"),
        "queue": next(iter(into)),
        "at": row[MOMENTS[topic]],
    }


def day_of(topic: str, row: Mapping[str, Any]) -> str:
    """Return the UTC day that a row of this topic belongs to."""
    moment: datetime = row[MOMENTS[topic]]
    return moment.strftime("%Y-%m-%d")


def _moved(event: ReviewEvent) -> dict[str, Any]:
    """Return where a person put a job; of all else that people do nothing is kept."""
    return {
        "queue": event.queue if event.kind in {"moved", "escalated"} else None,
        "media": event.media,
        "at": event.at,
    }


def _upload(event: UploadEvent) -> dict[str, Any]:
    return {
        "event_id": event.event_id,
        "content_id": event.content_id,
        "author_id": event.author_id,
        "uris": [medium.uri for medium in event.media],
        "content_types": [medium.content_type for medium in event.media],
        "caption": event.text,
    }


def _decision(d: Decision) -> dict[str, Any]:
    regions = d.context.get("regions")
    review = d.review
    return {
        "decision_id": d.decision_id,
        "source_topic": d.source.topic,
        "source_partition": d.source.partition,
        "source_offset": d.source.offset,
        "event_id": d.event_id,
        "content_id": d.content_id,
        "author_id": d.author_id,
        "media": d.content.media,
        "text": d.content.text,
        "language": d.content.language,
        "surface": d.context.get("surface"),
        "regions": None if regions is None else list(regions),
        "context": json.dumps(dict(d.context), ensure_ascii=False, sort_keys=True),
        "action": d.action.value,
        "labels": d.labels,
        "age": d.limits.age,
        "no_recommend": d.limits.no_recommend,
        "no_ads": d.limits.no_ads,
        "regional": json.dumps({k: v.value for k, v in d.regional.items()}, sort_keys=True),
        "queue": None if review is None else review.queue,
        "priority": None if review is None else review.priority,
        "due_at": None if review is None else review.due_at,
        "reviewers": None if review is None else review.reviewers,
        "review_reason": None if review is None else review.reason,
        "propensity": None if review is None else review.propensity,
        "review_questions": None if review is None else review.questions,
        "review_propensities": None if review is None else review.propensities,
        "findings": [
            {
                **f.model_dump(
                    mode="json",
                    exclude={"interval", "alarm", "rationale", "evidence"},
                    warnings=False,
                ),
                "low": None if f.interval is None else f.interval[0],
                "high": None if f.interval is None else f.interval[1],
                "rationale_clause": None if f.rationale is None else f.rationale.clause,
                "rationale": None if f.rationale is None else f.rationale.text,
                "media": f.evidence[0].media if f.evidence else None,
                "time_s": f.evidence[0].time_s if f.evidence else None,
            }
            for f in d.findings
        ],
        "not_asked": d.not_asked,
        "unjudged": d.unjudged,
        "fault": None if d.fault is None else d.fault.reason,
        "policy_set": d.policy_set,
        "ground": d.ground,
        "notice": d.notice,
        "decided_by": d.decided_by,
        "reviewer": d.reviewer,
        "verdict_id": d.verdict_id,
        "appeal": None if d.appeal is None else d.appeal.outcome,
        "decided_at": d.decided_at,
        "supersedes": d.supersedes,
    }


def _verdict(v: Verdict) -> dict[str, Any]:
    row = v.model_dump(
        exclude={"lease", "answers", "action", *v.unknown()}, mode="python", warnings=False
    )
    known = ("policy", "clause", "answer", "carve_out")
    return {
        **row,
        "answers": [{key: getattr(a, key) for key in known} for a in v.answers],
        "action": None if v.action is None else v.action.value,
    }
