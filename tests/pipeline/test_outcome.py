"""What one upload writes, and that it always fits its topics."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.decide import decide
from pipeline.messages import (
    DEAD_LETTERS,
    DECISIONS,
    RESCORE,
    TICKETS,
    UPLOADS,
    Decision,
    Fault,
    Finding,
    Rationale,
    Review,
    UploadEvent,
)
from pipeline.outcome import (
    MAX_RECORD_BYTES,
    Outcome,
    Unreadable,
    decided,
    origin_of,
    parse,
    set_aside,
)
from pipeline.records import Record
from policies.schema import Policy, PolicySet, Severity, Status

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
POLICIES = PolicySet(
    (
        Policy.model_validate(
            {
                "policy": "weapons",
                "title": "Weapons",
                "version": 1,
                "status": "live",
                "question": "Does it break the rule?",
                "clauses": {"W1": {"text": "Sells one."}},
                "severity": "high",
                "action": "remove",
                "bands": {"review": 0.3, "act": 0.9},
                "review": {"queue": "weapons", "meanwhile": "hold", "due": "4h"},
            }
        ),
    )
)


REVIEW = Review(queue="weapons", priority=1.0, due_at=None, reason="band")
FINDING = Finding(
    policy="weapons",
    policy_version=1,
    status=Status.LIVE,
    severity=Severity.HIGH,
    question="weapons",
    question_digest="sha256:q",
    score=1.0,
    probability=0.7,
    calibration="none",
    answered_by="sha256:m",
)


def record(value: bytes | None, key: bytes | None = b"c") -> Record:
    """Return an upload's record."""
    return Record(topic=UPLOADS, partition=1, offset=2, timestamp_s=0.0, key=key, value=value)


def unjudged(event: UploadEvent, of: Record) -> Decision:
    """Return the decision that nobody judged: a hold with a rescoring as its exit."""
    return decide(event, [], POLICIES, origin=origin_of(of, event), now=NOW)


def upload(**fields: Any) -> tuple[Record, UploadEvent]:
    """Return an upload event and its record."""
    value = json.dumps({"event_id": "e", "content_id": "c", "text": "t", **fields}).encode()
    found = parse(record(value))
    assert isinstance(found, UploadEvent)
    return record(value), found


def topics(outcome: Outcome) -> list[str]:
    """Return the topics that an outcome writes to."""
    return [out.topic for out in outcome.outgoing]


def test_a_large_context_is_cut_and_said() -> None:
    """A decision and ticket that would exceed the limit lose the context, and the decision names it."""
    of, event = upload(context={"novel": "x" * 1_500_000})
    decision = unjudged(event, of).model_copy(update={"review": REVIEW})
    outcome = decided(of, event, decision, POLICIES)
    assert outcome.decision is not None
    assert outcome.decision.context == {}
    assert outcome.decision.fault is not None
    assert outcome.decision.fault.reason == "too_large"
    assert topics(outcome) == [DECISIONS, TICKETS]
    assert all(out.size_bytes <= MAX_RECORD_BYTES for out in outcome.outgoing)


def test_rationales_go_first() -> None:
    """Reasons that are too long are cut before anything else is, and nothing else is lost with them."""
    of, event = upload()
    long = Rationale(clause="W1", text="x" * 2_500_000, supported=True)
    finding = FINDING.model_copy(update={"rationale": long})
    decision = unjudged(event, of).model_copy(update={"findings": (finding,)})
    outcome = decided(of, event, decision, POLICIES)
    assert outcome.decision is not None
    assert outcome.decision.findings[0].rationale is None
    assert outcome.decision.fault is None


def test_what_is_too_large_to_be_scored_again_goes_to_a_person() -> None:
    """A rescoring needs its event whole; where that does not fit, the hold's exit is a job in intake."""
    of, event = upload(context={"novel": "é" * 1_100_000})
    outcome = decided(of, event, unjudged(event, of), POLICIES, rescore=True)
    assert RESCORE not in topics(outcome)
    assert outcome.decision is not None
    assert outcome.decision.action == "hold"
    assert outcome.decision.review is not None
    assert outcome.decision.review.queue == "intake"
    assert all(out.size_bytes <= MAX_RECORD_BYTES for out in outcome.outgoing)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 2_200_000),
    st.integers(0, 2_200_000),
    st.booleans(),
)
def test_no_record_exceeds_its_topic(text: int, context: int, rescore: bool) -> None:  # noqa: FBT001
    """Whatever the sizes: every record fits, and a hold keeps an exit."""
    of, event = upload(text="t" * text, context={"more": "\u0001" * (context // 6)})
    outcome = decided(of, event, unjudged(event, of), POLICIES, rescore=rescore)
    assert all(out.size_bytes <= MAX_RECORD_BYTES for out in outcome.outgoing)
    assert outcome.decision is not None
    if rescore:
        assert RESCORE in topics(outcome) or outcome.decision.review is not None


@settings(deadline=None)
@given(st.one_of(st.none(), st.binary(max_size=60)), st.one_of(st.none(), st.binary(max_size=20)))
def test_any_bytes_are_an_event_or_a_dead_letter(value: bytes | None, key: bytes | None) -> None:
    """No record, whatever it holds, raises: it is an upload event or is set aside whole."""
    of = record(value, key)
    found = parse(of)
    assert isinstance(found, UploadEvent | Unreadable)
    fault = found.fault if isinstance(found, Unreadable) else Fault(reason="poison")
    outcome = set_aside(of, fault, POLICIES, now=NOW)
    letter = outcome.outgoing[0]
    assert letter.topic == DEAD_LETTERS
    assert letter.key == key
    assert letter.value == (b"" if value is None and key is None else value)
    assert (outcome.decision is None) == (len(outcome.outgoing) == 1)


@pytest.mark.parametrize("locale", ["de", "de-AT", "de_CH", "DE"])
def test_the_language_is_the_locales(locale: str) -> None:
    """Policies know languages, senders know locales."""
    of, event = upload(context={"locale": locale})
    assert origin_of(of, event).content.language == "de"
