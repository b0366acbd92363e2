"""What one upload leads to: the records that its outcome writes. Pure.

Every decision gets a record; a ticket goes beside it where a person must look or an older decision is superseded; a
dead letter goes beside its hold; what could not be judged for now goes to be scored again. Nothing here exceeds the
limit of its topic: what is too large is cut, and the decision says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from pipeline.decide import Origin, hold
from pipeline.messages import (
    DEAD_LETTERS,
    DECISIONS,
    POLICIES,
    RESCORE,
    TICKETS,
    Content,
    Decision,
    Fault,
    Rescore,
    Source,
    Stage,
    Ticket,
    UploadEvent,
    decision_id,
    headers,
    text_digest,
)
from pipeline.records import Headers, Outgoing, Record
from policies.schema import PolicySet

#: What a record of our own topics may take, framing included; the topics themselves allow a little more.
MAX_RECORD_BYTES: Final = 2_000_000
#: Longest detail of a fault: enough for a person, never a record's whole content.
_MAX_DETAIL: Final = 1_000
#: What an event id reads where the event cannot be read.
UNREADABLE: Final = "unreadable"
_MAX_ID: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is written for one record; `decision` is None for a dead letter whose content id cannot be read."""

    record: Record
    decision: Decision | None
    outgoing: tuple[Outgoing, ...]
    dead_letter: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """Why a record is no upload event, and the content id, if that at least can be read."""

    fault: Fault
    content_id: str | None


def parse(record: Record) -> UploadEvent | Unreadable:
    """Return the upload event in a record, or why there is none."""
    if record.value is None:
        return Unreadable(
            fault=Fault(reason="undecodable", detail="the record has no value"),
            content_id=_content_id(record),
        )
    try:
        return UploadEvent.model_validate_json(record.value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = "undecodable" if first["type"] == "json_invalid" else "invalid"
        detail = f"{where}: {first['msg']}" if where else str(first["msg"])
        return Unreadable(
            fault=Fault(reason=reason, detail=detail[:_MAX_DETAIL]), content_id=_content_id(record)
        )


def source_of(record: Record) -> Source:
    """Return the record's place, as decisions and dead letters name it."""
    return Source(topic=record.topic, partition=record.partition, offset=record.offset)


def origin_of(
    record: Record,
    event: UploadEvent,
    *,
    media: Sequence[str] = (),
    perceptual: Sequence[str] = (),
    stages: tuple[Stage, ...] = (),
) -> Origin:
    """Return where the decision on this record comes from."""
    rescore = event.rescore
    locale = event.context.locale
    return Origin(
        source=source_of(record),
        decision_id=decision_id(
            event.event_id,
            record.value or b"",
            "pipeline" if rescore is None else f"rescore:{rescore.number}",
        ),
        content=Content(
            media=tuple(media),
            perceptual=tuple(perceptual),
            text=text_digest(event.text),
            language=locale.replace("_", "-").split("-")[0].lower() if locale else None,
        ),
        supersedes=None if rescore is None else rescore.supersedes,
        stages=stages,
    )


def decided(
    record: Record,
    event: UploadEvent,
    decision: Decision,
    policies: PolicySet,
    *,
    rescore: bool = False,
) -> Outcome:
    """Return what a decision writes: itself, its ticket, and, with `rescore`, its event to be scored again."""
    outgoing = _records(record, event, decision, rescore=rescore)
    if not _fits(outgoing):
        return _cut(record, event, decision, policies, rescore=rescore)
    return Outcome(record=record, decision=decision, outgoing=outgoing)


def set_aside(record: Record, fault: Fault, policies: PolicySet, *, now: datetime) -> Outcome:
    """Return what a dead letter writes: the record whole, and a hold beside it if its content id can be read."""
    found = parse(record)
    event: UploadEvent | None
    if isinstance(found, UploadEvent):
        event = found
    elif found.content_id is not None:
        event = UploadEvent(event_id=_event_id(record), content_id=found.content_id)
    else:
        event = None
    letter = _dead_letter_record(record, fault)
    if event is None:
        return Outcome(record=record, decision=None, outgoing=(letter,), dead_letter=fault.reason)
    decision = hold(event, fault, policies, origin=origin_of(record, event), now=now)
    beside = decided(record, event, decision, policies)
    return Outcome(
        record=record,
        decision=beside.decision,
        outgoing=(letter, *beside.outgoing),
        dead_letter=fault.reason,
    )


def policy_set_record(policies: PolicySet) -> Outgoing:
    """Return the record that keeps a policy set that was live, whole, under its digest."""
    # The files as written go along, comments and all, so that they can be put back.
    whole = {"digest": policies.digest, **policies.content, "files": dict(policies.files)}
    return Outgoing(
        topic=POLICIES,
        key=policies.digest.encode(),
        value=to_json(whole),
        headers=tuple(headers("policies", policies.digest)),
    )


def number_of(event: UploadEvent) -> int:
    """Return how often the upload was scored again so far."""
    return 0 if event.rescore is None else event.rescore.number


def _decision_record(record: Record, decision: Decision) -> Outgoing:
    return Outgoing(
        topic=DECISIONS,
        key=decision.content_id.encode(),
        value=to_json(decision),
        headers=_headers("decision", decision.decision_id, record),
    )


def _ticket_record(record: Record, event: UploadEvent, decision: Decision) -> Outgoing:
    return Outgoing(
        topic=TICKETS,
        key=decision.content_id.encode(),
        value=to_json(Ticket(decision=decision, event=event)),
        headers=_headers("ticket", decision.decision_id, record),
    )


def _rescore_record(record: Record, event: UploadEvent, decision: Decision) -> Outgoing:
    first = source_of(record) if event.rescore is None else event.rescore.source
    again = event.model_copy(
        update={
            "reason": "rescore",
            "rescore": Rescore(
                number=number_of(event) + 1, supersedes=decision.decision_id, source=first
            ),
        }
    )
    return Outgoing(
        topic=RESCORE,
        key=event.content_id.encode(),
        value=to_json(again),
        headers=_headers("upload", event.event_id, record),
    )


def _dead_letter_record(record: Record, fault: Fault) -> Outgoing:
    where = source_of(record)
    added: Headers = (
        ("weir_reason", fault.reason.encode()),
        ("weir_detail", fault.detail[:_MAX_DETAIL].encode("utf-8", "replace")),
        ("weir_source", f"{where.topic}/{where.partition}/{where.offset}".encode()),
    )
    # A record with neither key nor value cannot be written by every client: an empty value stands for none.
    value = b"" if record.key is None and record.value is None else record.value
    return Outgoing(
        topic=DEAD_LETTERS, key=record.key, value=value, headers=(*record.headers, *added)
    )


def _cut(
    record: Record, event: UploadEvent, decision: Decision, policies: PolicySet, *, rescore: bool
) -> Outcome:
    """Return an outcome that fits: without rationales, then without context, then with a shortened event beside it.

    What was to be scored again needs its event whole: where that does not fit, a person looks at the upload instead.
    """
    lean = decision.model_copy(
        update={
            "findings": tuple(f.model_copy(update={"rationale": None}) for f in decision.findings)
        }
    )
    fault = decision.fault or Fault(
        reason="too_large", detail="the context was cut: the record would exceed its topic's limit"
    )
    without = lean.model_copy(update={"context": {}, "fault": fault})
    for candidate in (lean, without):
        outgoing = _records(record, event, candidate, rescore=rescore)
        if _fits(outgoing):
            return Outcome(record=record, decision=candidate, outgoing=outgoing)
    short = UploadEvent(
        event_id=event.event_id,
        content_id=event.content_id,
        author_id=event.author_id,
        media=event.media[:100],
        text=event.text[:10_000],
        rescore=event.rescore,
    )
    if rescore:
        held = hold(
            short,
            fault,
            policies,
            origin=origin_of(record, event, media=decision.content.media[:100]),
            now=decision.decided_at,
        )
        stricter = max(decision.action, held.action, key=lambda action: action.rank)
        without = held.model_copy(update={"action": stricter, "context": {}})
    return Outcome(
        record=record,
        decision=without,
        outgoing=_records(record, short, without, rescore=False),
    )


def _records(
    record: Record, event: UploadEvent, decision: Decision, *, rescore: bool
) -> tuple[Outgoing, ...]:
    outgoing = [_decision_record(record, decision)]
    if decision.review is not None or decision.supersedes is not None:
        outgoing.append(_ticket_record(record, event, decision))
    if rescore:
        outgoing.append(_rescore_record(record, event, decision))
    return tuple(outgoing)


def _fits(outgoing: Sequence[Outgoing]) -> bool:
    return all(out.size_bytes <= MAX_RECORD_BYTES for out in outgoing)


def _headers(kind: str, identity: str, record: Record) -> Headers:
    trace = record.header("traceparent")
    return tuple(
        headers(
            kind,
            identity,
            source=source_of(record),
            traceparent=None if trace is None else trace.decode("utf-8", "replace"),
        )
    )


def _content_id(record: Record) -> str | None:
    """Return the content id from the key, or from what can be read of the value."""
    if record.key is not None:
        try:
            key = record.key.decode()
        except UnicodeDecodeError:
            return None
        return key if 0 < len(key) <= _MAX_ID else None
    try:
        value = from_json(record.value or b"")
    except ValueError:
        return None
    found = value.get("content_id") if isinstance(value, dict) else None
    return found if isinstance(found, str) and 0 < len(found) <= _MAX_ID else None


def _event_id(record: Record) -> str:
    claimed = record.header("ce_id")
    try:
        name = "" if claimed is None else claimed.decode()
    except UnicodeDecodeError:
        name = ""
    return name if 0 < len(name) <= _MAX_ID else UNREADABLE
