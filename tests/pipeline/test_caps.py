"""The breaker: a policy acts so often a day, then people decide; the backtest knows."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline import telemetry
from pipeline.archive import Archive
from pipeline.archiving import write_batch
from pipeline.backtest import action_of, redecide
from pipeline.calibration import Calibrations
from pipeline.caps import Caps, acted
from pipeline.config import Store
from pipeline.decide import Answer, Origin, decide
from pipeline.errors import AbortedError
from pipeline.messages import DECISIONS, UPLOADS, Content, Decision, Source, UploadEvent
from pipeline.records import Outgoing, Partition, Record
from pipeline.redis import Shelf
from pipeline.stored import read, selected
from pipeline.stream import Limits, Stream
from pipeline.stub import StubBroker, StubLink, StubPool, constant
from pipeline.watchdog import Watchdog
from policies.schema import Policy, PolicySet

P = Partition(UPLOADS, 0)
DAY_S = 86_400.0
NOON_S = 20_000 * DAY_S + DAY_S / 2


def capped(cap: int | None) -> PolicySet:
    """Return a set of one policy that acts so often a day."""
    return PolicySet(
        (
            Policy.model_validate(
                {
                    "policy": "spam",
                    "title": "Spam",
                    "version": 1,
                    "status": "live",
                    "question": "Is it spam?",
                    "clauses": {"W1": {"text": "Sells one."}},
                    "severity": "low",
                    "action": "remove",
                    "bands": {"review": 0.3, "act": 0.9, "uncalibrated": "act"},
                    "review": {"queue": "spam", "meanwhile": "restrict"},
                    "daily_cap": cap,
                }
            ),
        )
    )


class House:
    """A stream whose classifier is sure of everything, at a time that the test sets."""

    def __init__(self, broker: StubBroker, caps: Caps) -> None:
        self.now = NOON_S
        self.broker = broker
        self.link = StubLink(broker, P)
        self.dog = Watchdog(limit_s=60)
        self.stream = Stream(
            self.link,
            StubPool(constant(9.0)),
            lambda: capped(5),
            Calibrations,
            self.dog,
            limits=Limits(max_in_flight=4, rationale_wait_s=0),
            clock=lambda: self.now,
            caps=caps,
        )

    def upload(self, first: int, count: int) -> None:
        """Upload and decide."""
        for n in range(first, first + count):
            value = {"event_id": f"e{n}", "content_id": f"c{n}", "text": "buy"}
            self.broker.write(Outgoing(topic=UPLOADS, key=b"k", value=json.dumps(value).encode()))
        while self.broker.marks.get(P) is None or self.broker.marks[P].offset < first + count:
            self.stream.turn()

    def told(self) -> list[str]:
        """Return of each decision what it did, or why a person looks."""
        found = []
        for record in self.broker.written(DECISIONS):
            decision = Decision.model_validate_json(record.value or b"")
            found.append(decision.review.reason if decision.review else decision.action.value)
        return found


def alarm() -> float | None:
    """Return what the alarm shows."""
    return telemetry.REGISTRY.get_sample_value("weir_policy_capped", {"policy": "spam"})


def test_past_the_cap_people_decide_until_tomorrow() -> None:
    """Exactly so many act, though transactions fail; the alarm is on until the day is over."""
    house = House(StubBroker(), Caps())
    house.link.faults.append(AbortedError("once"))
    house.upload(0, 8)

    assert house.told() == ["remove"] * 5 + ["cap"] * 3
    assert alarm() == 1
    held = Decision.model_validate_json(house.broker.written(DECISIONS)[-1].value or b"")
    assert held.action == "restrict"
    assert [finding.outcome for finding in held.findings] == ["review"]

    house.now += DAY_S
    house.upload(8, 1)
    assert house.told()[-1] == "remove"
    assert alarm() == 0
    house.dog.close()


def test_processes_share_the_count(redis_url: str) -> None:
    """What one process did counts in the next one, and in one beside it."""
    shelf = Shelf(redis_url)
    first = House(StubBroker(), Caps(counts=shelf, clock=iter(range(0, 10_000, 2)).__next__))
    first.upload(0, 4)
    second = House(StubBroker(), Caps(counts=shelf, clock=iter(range(0, 10_000, 2)).__next__))
    # Told to the others when the first looks again.
    first.upload(4, 1)
    first.upload(5, 1)
    second.upload(0, 2)

    assert first.told() == ["remove"] * 5 + ["cap"]
    assert second.told() == ["cap"] * 2
    for house in (first, second):
        house.dog.close()
    shelf.close()


def test_without_redis_a_process_counts_for_itself() -> None:
    """A count that is away holds nothing up."""
    house = House(StubBroker(), Caps(counts=Shelf("redis://127.0.0.1:1/0")))
    house.upload(0, 7)

    assert house.told() == ["remove"] * 5 + ["cap"] * 2
    house.dog.close()


@pytest.mark.parametrize("cap", [0, 3, 1_000])
def test_the_backtest_knows_the_cap(tmp_path: Path, cap: int) -> None:
    """Decided again day by day, in the order of time, it acts on the same uploads as the stream would."""
    begun = datetime(2026, 11, 20, 20, tzinfo=UTC)
    cases, records = [], []
    for n in range(60):
        # The archive's order is not that of time.
        at = begun + timedelta(minutes=17 * ((n * 7) % 60))
        event = UploadEvent(event_id=f"e{n}", content_id=f"c{n}", text="buy")
        probability = 0.95 if n % 3 else 0.2
        answer = Answer(
            question="spam", score=1, probability=probability, calibration="none", answered_by="x"
        )
        origin = Origin(
            source=Source(topic=UPLOADS, partition=0, offset=n),
            decision_id=f"d{n}",
            content=Content(text="sha256:t"),
        )
        made = decide(event, [answer], capped(None), origin=origin, now=at)
        value = made.model_dump_json().encode()
        records.append(
            Record(topic=DECISIONS, partition=0, offset=n, timestamp_s=0, key=b"c", value=value)
        )
        cases.append((at, n, event, answer, origin))
    archive = Archive(str(tmp_path / "archive"), Store())
    write_batch(archive, records)
    policies, caps = capped(cap), Caps()
    expected: dict[str, tuple[str, bool]] = {}
    for at, n, event, answer, origin in sorted(cases, key=lambda case: case[:2]):
        spent = caps.spent(policies, at)
        made = decide(event, [answer], policies, origin=origin, now=at, spent=spent)
        caps.reserve(P, n, made)
        caps.settle(P, n)
        expected[made.decision_id] = (made.action.value, bool(acted(made)))

    stored = read(selected(archive, since=begun - timedelta(days=1)), policies)
    again = redecide(stored, policies, {})

    found = {
        name: (action_of(int(again.ranks[row])).value, bool((again.outcome[row] == 2).any()))
        for row, name in enumerate(stored.decision_ids.to_pylist())
    }
    assert found == expected
