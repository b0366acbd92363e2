"""The rules of the review queue."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.messages import Content, Decision, Finding, Review, Source, Ticket, UploadEvent
from pipeline.review import (
    AGEING_PER_HOUR,
    Bucket,
    Person,
    fingerprint,
    in_force,
    job_of,
    key,
    open_to,
    terms,
)
from policies.queues import Queue
from policies.schema import Action, Policy, PolicySet, Severity, Status

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=7)
QUEUES = {
    "weapons": Queue(due=timedelta(hours=4)),
    "graphic": Queue(skills=("graphic",)),
    "abuse": Queue(languages=("de",)),
    "legal": Queue(sealed=True),
}
names = st.text(min_size=1, max_size=12)


def policy(name: str, *reads: str) -> Policy:
    """Return a live policy."""
    return Policy.model_validate(
        {
            "policy": name,
            "title": name,
            "version": 1,
            "status": "live",
            "reads": list(reads),
            "question": "Does it?",
            "clauses": {"W1": {"text": "It does."}},
            "severity": "high",
            "action": "remove",
            "bands": {"review": 0.3, "act": 0.9},
            "review": {"queue": "weapons"},
        }
    )


POLICIES = PolicySet((policy("pictures", "image"), policy("both", "image", "caption")))


def ticket(question: str = "pictures", *, text: str = "", **said: Any) -> Ticket:
    """Return a ticket with one finding at issue."""
    finding = Finding(
        policy=question,
        policy_version=1,
        status=Status.LIVE,
        severity=Severity.HIGH,
        question=question,
        question_digest="sha256:q",
        score=1.0,
        probability=0.7,
        calibration="fresh",
        answered_by="sha256:m",
        outcome="review",
    )
    fields = {
        "decision_id": "d1",
        "source": Source(topic="media.uploads", partition=0, offset=1),
        "event_id": "e",
        "content_id": "c",
        "content": Content(media=("sha256:a",), language="de"),
        "action": Action.HOLD,
        "review": Review(
            queue="weapons",
            priority=7.0,
            due_at=None,
            reason="band",
            questions=(question,),
        ),
        "findings": (finding,),
        "policy_set": "sha256:p",
        "decided_at": NOW,
        **said,
    }
    event = UploadEvent(event_id="e", content_id="c", text=text)
    return Ticket(decision=Decision.model_validate(fields), event=event)


def test_due_times_count_from_the_broker() -> None:
    """A job is due its policy's or its queue's time after the broker had the ticket, whatever the sender says."""
    own = ticket()
    job = job_of(own, POLICIES, QUEUES, recorded_at=LATER)
    assert job is not None
    assert job.due == LATER + timedelta(hours=4)
    review = own.decision.review
    assert review is not None
    said = review.model_copy(update={"due_at": NOW + timedelta(minutes=15)})
    job = job_of(ticket(review=said), POLICIES, QUEUES, recorded_at=LATER)
    assert job is not None
    assert job.due == LATER + timedelta(minutes=15)


def test_language_counts_only_where_there_is_text() -> None:
    """A picture without a caption is for everybody; a caption is for those who read it, for half the time."""
    mute = job_of(ticket(), POLICIES, QUEUES, recorded_at=NOW)
    spoken = job_of(ticket(text="Hallo"), POLICIES, QUEUES, recorded_at=NOW)
    assert mute is not None
    assert spoken is not None

    assert (mute.language, mute.widens) == ("", None)
    assert (spoken.language, spoken.widens) == ("de", NOW + timedelta(hours=2))


def test_only_pictures_judged_alone_share_a_job() -> None:
    """The same bytes under the same finding are one job only where no policy at issue reads the caption."""
    assert fingerprint(ticket(), POLICIES) == fingerprint(ticket(decision_id="d2"), POLICIES)
    assert fingerprint(ticket(), POLICIES) != fingerprint(
        ticket(content=Content(media=("sha256:b",))), POLICIES
    )
    assert fingerprint(ticket("both"), POLICIES) is None


@pytest.mark.parametrize(
    ("person", "open_queues"),
    [
        (Person(id="a"), ("weapons",)),
        (Person(id="a", skills=("graphic",)), ("weapons", "graphic")),
        (Person(id="a", languages=("de",)), ("weapons", "abuse")),
        (Person(id="a", sealed=("legal",)), ("weapons", "legal")),
        (Person(id="a", queues=("graphic", "legal"), skills=("graphic",)), ("graphic",)),
    ],
)
def test_queues_are_open_by_right(person: Person, open_queues: tuple[str, ...]) -> None:
    """A queue is open to whoever has its skills and one of its languages; a sealed one to those named for it alone."""
    assert open_to(person, QUEUES) == open_queues


@given(
    st.lists(names, max_size=3).map(tuple), st.sampled_from(["", "de", "*de"]), st.integers(1, 30)
)
def test_bucket_names_can_be_read_back(barred: tuple[str, ...], language: str, weight: int) -> None:
    """A bucket's name says all of it, whatever people are called."""
    bucket = Bucket(queue="q", language=language, policies=("a", "b"), weight=weight, barred=barred)

    assert Bucket.parse(str(bucket)) == bucket


@given(st.floats(0, 200), st.floats(0, 200), st.integers(0, 10**6), st.integers(0, 10**6))
def test_order_never_changes_while_jobs_wait(
    harm: float, other: float, age_s: int, other_s: int
) -> None:
    """Whoever stands before somebody now stands before them always: that is why nothing is sorted again."""
    one = key(harm, NOW - timedelta(seconds=age_s))
    two = key(other, NOW - timedelta(seconds=other_s))
    rate = AGEING_PER_HOUR / 3600
    standing, second = harm + age_s * rate, other + other_s * rate

    if abs(standing - second) > 1e-6:
        assert (one < two) == (standing > second)


def test_standing_is_shown_with_its_terms() -> None:
    """People see of what a job's standing is made."""
    found = terms(ticket(), born=NOW, now=NOW + timedelta(hours=2))

    assert (found.probability, found.severity, found.weight) == (0.7, "high", 10)
    assert (found.harm, found.ageing, found.raised) == (7.0, 2 * AGEING_PER_HOUR, 0.0)
    assert found.standing == 7.0 + 2 * AGEING_PER_HOUR


def test_what_a_person_decided_stands() -> None:
    """A person's decision is in force until the media, the text or a policy's version changes."""
    first = ticket().decision
    person = first.model_copy(update={"decision_id": "p", "decided_by": "person"})
    again = first.model_copy(update={"decision_id": "d2"})
    edited = again.model_copy(update={"content": Content(media=("sha256:a",), text="sha256:t")})
    [finding] = first.findings
    raised = again.model_copy(
        update={"findings": (finding.model_copy(update={"policy_version": 2}),)}
    )

    assert in_force([]) is None
    assert in_force([first]) == first
    assert in_force([first, person]) == person
    assert in_force([first, person, again]) == person
    assert in_force([first, person, edited]) == edited
    assert in_force([first, person, raised]) == raised
