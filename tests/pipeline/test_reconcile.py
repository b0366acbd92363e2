"""The count of uploads against outcomes, and what dead letters say."""

import pytest

from pipeline.deadletters import REPLAYED, original, parse_place, parse_source, read_letter
from pipeline.messages import DEAD_LETTERS, DECISIONS, UPLOADS
from pipeline.reconcile import count
from pipeline.records import Partition, Record


def upload(offset: int) -> Record:
    """Return an upload's record."""
    return Record(topic=UPLOADS, partition=0, offset=offset, timestamp_s=0, key=b"c", value=b"{}")


def outcome(topic: str, offset: int, *, at: int = 0, source: str | None = None) -> Record:
    """Return an outcome of the upload at that offset."""
    name = f"{UPLOADS}/0/{offset}" if source is None else source
    return Record(
        topic=topic,
        partition=0,
        offset=at,
        timestamp_s=0,
        key=b"c",
        value=b"{}",
        headers=(("weir_source", name.encode()),),
    )


def test_every_upload_with_one_outcome_balances() -> None:
    """A decision, a dead letter with its hold, and a dead letter alone are one outcome each."""
    account = count(
        [
            *(upload(n) for n in range(4)),
            outcome(DECISIONS, 0),
            outcome(DEAD_LETTERS, 1),
            outcome(DECISIONS, 1),
            outcome(DEAD_LETTERS, 2),
        ]
    )
    assert account.balanced
    assert (account.uploads, account.decided, account.dead_letters, account.waiting) == (4, 2, 2, 1)


def test_a_hole_is_missing() -> None:
    """An upload without an outcome, below one that has one, is missing; behind the last it waits."""
    account = count([upload(0), upload(1), upload(2), outcome(DECISIONS, 1)])
    assert account.missing == ("media.uploads/0/0",)
    assert account.waiting == 1
    assert not account.balanced


def test_a_second_decision_on_one_record_is_doubled() -> None:
    """Two decisions with one source are one too many, though their ids are the same."""
    account = count([upload(0), outcome(DECISIONS, 0), outcome(DECISIONS, 0, at=1)])
    assert account.doubled == ("media.uploads/0/0",)


def test_a_persons_decision_counts_for_no_upload() -> None:
    """It has the verdict's record for its source."""
    account = count(
        [upload(0), outcome(DECISIONS, 0), outcome(DECISIONS, 0, source="moderation.verdicts/0/0")]
    )
    assert account.balanced


def test_a_dead_letter_is_replayed_as_it_came() -> None:
    """Key, value and headers are the original's; the reason goes, and where it was replayed from comes."""
    record = Record(
        topic=DEAD_LETTERS,
        partition=3,
        offset=17,
        timestamp_s=0,
        key=b"k",
        value=b"\xff",
        headers=(
            ("mine", b"\x00"),
            ("weir_reason", b"undecodable"),
            ("weir_detail", b"d"),
            ("weir_source", b"media.uploads/0/5"),
        ),
    )
    letter = read_letter(record)
    assert (letter.reason, letter.source, letter.place) == (
        "undecodable",
        "media.uploads/0/5",
        "3/17",
    )
    again = original(letter)
    assert (again.topic, again.key, again.value) == (UPLOADS, b"k", b"\xff")
    assert again.headers == (("mine", b"\x00"), (REPLAYED, b"3/17"))


@pytest.mark.parametrize("text", ["", "1", "1/", "/1", "a/1", "1/b", "1/2/3"])
def test_a_place_is_two_numbers(text: str) -> None:
    """Anything else says what to write."""
    with pytest.raises(ValueError, match="0/17"):
        parse_place(text)


def test_a_source_is_read_back() -> None:
    """Topic, partition and offset come back; anything else is none."""
    assert parse_source("media.uploads/3/17") == (Partition("media.uploads", 3), 17)
    assert parse_source("nonsense") is None
    assert parse_source("a/b/c") is None
