"""What travels on Kafka: upload events, decisions, tickets, verdicts, and the headers beside them.

Unknown fields of what others send are kept; inside a major version no field is removed, retyped or made required.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID, uuid5

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from policies.schema import Action, Limits, Severity, Status

UPLOADS: Final = "media.uploads"
RESCORE: Final = "media.rescore"
DECISIONS: Final = "moderation.decisions"
TICKETS: Final = "moderation.tickets"
VERDICTS: Final = "moderation.verdicts"
DEAD_LETTERS: Final = "media.uploads.dlq"
REVIEWS: Final = "moderation.reviews"
APPEALS: Final = "moderation.appeals"
PEOPLE: Final = "moderation.people"
AUDIT: Final = "moderation.audit"
LEGAL: Final = "moderation.legal"
POLICIES: Final = "moderation.policies"
SHADOWS: Final = "moderation.shadows"

#: The namespace of decision ids (RFC 9562, version 5).
_NAMESPACE: Final = UUID("9d7e61fc-6d2f-5d43-8f9b-2f6c2a8d3b11")


def _aware(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Time = Annotated[datetime, AfterValidator(_aware)]
#: What an id may be: short enough for a key, a header and a log line.
Id = Annotated[str, Field(min_length=1, max_length=512)]


class _Door(BaseModel):
    """What others send: unknown fields are kept and counted."""

    model_config = ConfigDict(frozen=True, extra="allow")

    def unknown(self) -> tuple[str, ...]:
        """Return the names of the fields that this version does not know."""
        return tuple(self.model_extra or ())


class _Own(BaseModel):
    """What Weir itself writes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def like(self, **changes: Any) -> Self:
        """Return a copy with other values in some fields, unvalidated: `model_copy` in a quarter of its time."""
        made = object.__new__(type(self))
        object.__setattr__(made, "__dict__", {**self.__dict__, **changes})
        object.__setattr__(made, "__pydantic_fields_set__", self.__pydantic_fields_set__)
        object.__setattr__(made, "__pydantic_extra__", None)
        object.__setattr__(made, "__pydantic_private__", None)
        return made


class MediaRef(_Door):
    """Where one medium of an upload lies."""

    uri: Annotated[str, Field(min_length=1, max_length=4096)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = None
    content_type: str | None = None


class Context(_Door):
    """The circumstances of an upload; keys beyond these are declared in `policies/context.yaml`."""

    surface: str | None = None
    regions: tuple[str, ...] | None = None
    locale: str | None = None
    audience: str | None = None
    reach: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    author_age: str | None = None

    def values(self) -> dict[str, Any]:
        """Return every key that is present, as overrides see it."""
        return self.model_dump(exclude_none=True, exclude_unset=True)


class Report(_Door):
    """Somebody's complaint about the upload."""

    category: str | None = None
    text: str | None = None
    source: str = "user"


class Source(_Own):
    """The Kafka record that an outcome belongs to."""

    topic: str
    partition: int
    offset: int


class Rescore(_Door):
    """Says that an upload, decided without a judgement, is to be scored again."""

    number: Annotated[int, Field(ge=1)]
    supersedes: str
    source: Source


class UploadEvent(_Door):
    """Says that a piece of content exists and where its media lie."""

    event_id: Id
    content_id: Id
    author_id: Id | None = None
    reason: str = "upload"  # upload, edit, report, rescore; an unknown one counts as upload
    published: bool = False
    media: tuple[MediaRef, ...] = ()
    text: str = ""
    context: Context = Context()
    reports: tuple[Report, ...] = ()
    rescore: Rescore | None = None
    occurred_at: Time | None = None


class Rationale(_Own):
    """The model's words on why, for staff: untrusted, never a source of confidence."""

    clause: str | None
    text: str
    #: Whether clause, words and place, as they stand here, were each confirmed when the model was asked back.
    supported: bool
    #: What of its own words it denied then; where the reason is supported all the same, something else stands there.
    denied: tuple[Literal["clause", "text", "box"], ...] = ()
    #: The share of further drawn reasons that say the same, where the policy asks for several.
    agreement: float | None = None


class Evidence(_Own):
    """Where in the upload a finding points to; `box` is left, top, right, bottom as shares."""

    media: int
    time_s: float | None = None
    box: tuple[float, float, float, float] | None = None


Calibration = Literal["fresh", "stale", "none"]


class Finding(_Own):
    """What one question found."""

    policy: str
    policy_version: int
    status: Status
    severity: Severity
    clause: str | None = None
    question: str  # the question's id
    question_digest: str
    score: float
    probability: float
    interval: tuple[float, float] | None = None
    calibration: Calibration
    answered_by: str
    #: The probability of the picture read whole, where it was read in tiles as well.
    whole: float | None = None
    whole_score: float | None = None
    rationale: Rationale | None = None
    evidence: tuple[Evidence, ...] = ()
    #: What this finding led to everywhere; a region's own rule may lead to more.
    outcome: Literal["none", "review", "acted"] = "none"
    #: risk: a promise of the bands was refuted and is off; drift: the scores have moved, so the calibration is stale.
    alarm: Literal["risk", "drift"] | None = None


ReviewReason = Literal[
    "band", "unavailable", "intake", "cap", "audit", "disagreement", "appeal", "escalated"
]


class Review(_Own):
    """The review ticket of a decision."""

    queue: str
    priority: float
    due_at: Time | None  # None: the queue's own due time
    reviewers: int = 1
    reason: ReviewReason
    propensity: float | None = None
    questions: tuple[str, ...] = ()  # the question ids that a person has to answer
    #: Beside each question the chance with which it came to a person; empty: all were sure to.
    propensities: tuple[float, ...] = ()


class Content(_Own):
    """What was judged, by digest."""

    media: tuple[str, ...] = ()
    #: One for each medium, of 64 bits in hexadecimal digits; empty where it has too little contrast.
    perceptual: tuple[str, ...] = ()
    text: str | None = None
    language: str | None = None


class Stage(_Own):
    """How long one stage took."""

    name: str
    ms: float


class Fault(_Own):
    """Why an upload could not be judged; `reason` is a stable word."""

    reason: str
    detail: str = ""
    media: int | None = None


class AppealOutcome(_Own):
    """How an author's objection ended: the decision appealed against stands, or a milder one takes its place."""

    appeal_id: str
    outcome: Literal["upheld", "overturned"]


class Decision(_Own):
    """One action for one upload, with all that it rests on."""

    decision_id: str
    source: Source
    event_id: str
    content_id: str
    author_id: str | None = None
    content: Content = Content()
    context: Mapping[str, Any] = Field(default_factory=dict)
    action: Action
    labels: tuple[str, ...] = ()
    limits: Limits = Limits()
    regional: Mapping[str, Action] = Field(default_factory=dict)
    review: Review | None = None
    findings: tuple[Finding, ...] = ()
    not_asked: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()
    fault: Fault | None = None
    policy_set: str
    ground: str | None = None
    notice: str | None = None
    stages: tuple[Stage, ...] = ()
    decided_by: str = "pipeline"  # pipeline, person, or shadow: then it never acts
    reviewer: str | None = None
    verdict_id: str | None = None
    appeal: AppealOutcome | None = None
    decided_at: Time
    supersedes: str | None = None


class Appeal(_Door):
    """An author's objection to a decision; somebody who did not make that decision looks again."""

    appeal_id: Id
    decision_id: Id
    content_id: Id
    text: str = ""
    occurred_at: Time | None = None


class Ticket(_Own):
    """A decision that a person must see, or that supersedes another, with its event."""

    decision: Decision
    event: UploadEvent
    appeal: Appeal | None = None


class VerdictAnswer(_Door):
    """A person's answer to one question."""

    policy: str
    clause: str | None = None
    answer: Literal["violates", "allowed", "cannot_tell"]
    carve_out: str | None = None


class Verdict(_Door):
    """What a person decided about one review job."""

    verdict_id: Id
    job_id: Id
    decision_id: Id
    reviewer: Id
    lease: int
    part: str = "first"  # first, second, adjudication, approval, appeal, audit, golden
    answers: tuple[VerdictAnswer, ...] = ()
    action: Action | None = None  # only a lead may choose another than follows from the answers
    escalate: str | None = None
    policy_unclear: bool = False
    note: str = ""
    saw_model: bool = True
    opened_at: Time | None = None
    revealed_s: float | None = None
    decided_at: Time
    withdraws: str | None = None
    sealed: bool = False  # given in a sealed queue: never archived, so that nothing learns from it


class ReviewEvent(_Door):
    """What a person did to a review job besides claiming, renewing and its verdict."""

    event_id: Id
    #: moved, skipped, released, escalated, noted, revealed, golden; of a queue: paused, resumed; of whoever did it:
    #: rested, returned; an unknown one changes nothing
    kind: str
    job_id: Annotated[str, Field(max_length=512)] = ""  # empty: it is about no job
    decision_id: Annotated[str, Field(max_length=512)] = ""
    by: Id
    at: Time
    lease: int | None = None  # None: done without holding the job, as a lead may
    queue: str | None = None  # moved, escalated: where the job goes; paused, resumed: which
    reason: str | None = None
    note: str = ""
    seconds: float | None = (
        None  # revealed: how long the media were seen clearly; rested: for how long
    )
    weight: int | None = None  # revealed: the weight of the severity of what was seen
    answers: tuple[VerdictAnswer, ...] = ()  # golden: the right ones
    media: tuple[str, ...] = ()  # moved, escalated: digests of what lies in the job


class LegalEvent(_Door):
    """An erasure, or a legal hold on a content and its release; the topic keeps all of them for ever."""

    event_id: Id
    #: erase, hold, release; an unknown one changes nothing
    kind: str
    #: Whom an erasure names; a hold and its release name one content.
    author_id: Id | None = None
    content_ids: tuple[Id, ...] = ()
    reason: str
    by: Id
    at: Time  # what was decided later is no part of an erasure
    until: Time | None = None  # hold: when it ends by itself


def text_digest(text: str) -> str | None:
    """Return `sha256:…` of a caption, or None where there is none."""
    return (
        "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        if text
        else None
    )


def decision_id(event_id: str, record: bytes, made_by: str) -> str:
    """Return the id of a decision: the same event, bytes and maker give the same id, anything else another.

    `made_by` is `pipeline`, `rescore:NUMBER` or `verdict:ID`.
    """
    digest = hashlib.sha256(record).hexdigest()
    return str(uuid5(_NAMESPACE, f"{event_id}\n{digest}\n{made_by}"))


def headers(
    kind: str, identity: str, *, source: Source | None = None, traceparent: str | None = None
) -> list[tuple[str, bytes]]:
    """Return the CloudEvents 1.0 attributes (Kafka binding), the source record and the W3C trace context."""
    attributes = [
        ("ce_specversion", "1.0"),
        ("ce_id", identity),
        ("ce_type", f"org.weir.{kind}.v1"),
        ("ce_source", "weir"),
        ("content-type", "application/json"),
    ]
    if source is not None:
        attributes.append(("weir_source", f"{source.topic}/{source.partition}/{source.offset}"))
    if traceparent is not None:
        attributes.append(("traceparent", traceparent))
    return [(name, value.encode()) for name, value in attributes]
