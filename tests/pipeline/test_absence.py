"""A classifier that is away for good: the stream, the pool's book-keeping and a real worker, without Ray."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import pytest

from pipeline.calibration import Calibrations
from pipeline.messages import DECISIONS, UPLOADS, Decision
from pipeline.records import Outgoing, Partition
from pipeline.stream import Limits, Stream
from pipeline.stub import StubBroker, StubLink
from pipeline.watchdog import Watchdog
from policies.question import Question
from policies.schema import Policy, PolicySet
from workers.actors import Judge, Watch
from workers.classifier import Classification, Item
from workers.crew import Patience
from workers.desk import Desk, Inbox
from workers.dispatch import Sizes
from workers.errors import ClassifierUnavailableError
from workers.spec import ClassifierSpec
from workers.stub import StubClassifier

P = Partition(UPLOADS, 0)
POLICY = Policy.model_validate(
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
        "when_unavailable": {"after": "15m", "action": "restrict"},
    }
)


class Away(StubClassifier):
    """Loads and says what it covers, and is never there to answer."""

    def classify(
        self, items: Sequence[Item], questions: Sequence[Question]
    ) -> list[list[Classification]]:
        """Say that it is away."""
        del items, questions
        raise ClassifierUnavailableError("remote-away", "3 tries, the last: 503")


class Here:
    """Hands that let workers of this process work at once, and a connection that is always there."""

    joined = True
    lost = False

    def __init__(self, kinds: Sequence[type[StubClassifier]], inbox: Inbox) -> None:
        self._kinds = kinds
        self._inbox = inbox

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def join(self) -> bool:
        """There is nothing to join."""
        return True

    def leave(self) -> None:
        """There is nothing to leave."""

    def hire(self, role: str, slot: int) -> Judge:
        """Return a worker; nobody prepares here, for captions need nobody."""
        del slot
        number = int(role.rpartition("-")[2]) if role.startswith("classifier") else 0
        return Judge(
            self._kinds[number](ClassifierSpec(name=role, kind="stub")),
            watch=Watch(600.0, lambda: None),
            node="",
            borrow=lambda refs: [() for _ in refs],
        )

    def call(self, handle: Judge, number: int, method: str, arguments: tuple[Any, ...]) -> None:
        """Have it done."""
        self._inbox.put((number, getattr(handle, method)(number, *arguments)))

    def end(self, handle: Any, described: Any) -> None:
        """Nobody is ended here."""


@pytest.fixture
def pool() -> Iterator[Callable[..., Desk]]:
    """Return what opens a pool of such classifiers."""
    opened: list[Desk] = []

    def opening(*kinds: type[StubClassifier]) -> Desk:
        connection: Any = Here(kinds, Inbox())
        desk = Desk(
            [ClassifierSpec(name=str(n), kind="stub") for n, _ in enumerate(kinds)],
            connection=connection,
            hands=lambda inbox: Here(kinds, inbox),
            sizes=Sizes(),
            patience=Patience(),
        )
        opened.append(desk)
        assert desk.ready(POLICY.questions, timeout_s=60)
        return desk

    yield opening
    for desk in opened:
        desk.close()


@pytest.mark.parametrize("kinds", [(Away,), (StubClassifier, Away)], ids=["alone", "second"])
def test_an_absence_is_decided_by_the_policy(
    kinds: Sequence[type[StubClassifier]], pool: Callable[..., Desk]
) -> None:
    """However often a dead endpoint is asked again, after `after` the policy decides, also behind a healthy one."""
    now = 1_000_000.0
    broker = StubBroker(clock=lambda: now)
    desk = pool(*kinds)
    stream = Stream(
        StubLink(broker, P),
        desk,
        lambda: PolicySet((POLICY,)),
        Calibrations,
        Watchdog(limit_s=60),
        limits=Limits(),
        clock=lambda: now,
    )
    value = b'{"event_id": "e", "content_id": "c", "text": "for sale"}'
    broker.write(Outgoing(topic=UPLOADS, key=b"c", value=value))

    def turn(times: int) -> list[Decision]:
        for _ in range(times):
            stream.turn()
        return [Decision.model_validate_json(r.value or b"") for r in broker.written(DECISIONS)]

    now += 14 * 60
    assert turn(100) == []
    now += 60
    (decision,) = turn(100)
    assert (decision.action, decision.unjudged) == ("restrict", ("weapons",))
