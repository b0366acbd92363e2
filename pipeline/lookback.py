"""Reads what people did from the log, from its beginning on, and keeps the figures that follow from it."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from pipeline.config import Kafka
from pipeline.kafka import Follower
from pipeline.messages import REVIEWS, TICKETS, VERDICTS, ReviewEvent, Ticket, Verdict
from pipeline.records import Record
from pipeline.tally import Figures, Tally

#: How many records one poll may bring.
_MOST = 1000


@dataclass(slots=True)
class Lookback:
    """Follows verdicts, and the decisions made of them; connects when it is first asked."""

    settings: Kafka
    _tally: Tally = field(default_factory=Tally, repr=False)
    _followers: list[tuple[Follower, str, Callable[[Record], None]]] = field(
        default_factory=list, repr=False
    )
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _figures: Figures | None = field(default=None, repr=False)
    _read_s: float = 0.0

    def figures(self, *, age_s: float = 10.0) -> Figures:
        """Return the figures, at most so old; many threads may ask.

        Raises:
            KafkaError: Kafka is out of reach or a topic does not exist.
            AbortedError: Kafka could not be read for now.
        """
        with self._lock:
            if self._figures is None or time.monotonic() - self._read_s >= age_s:
                self._catch_up()
                self._figures = self._tally.figures()
                self._read_s = time.monotonic()
            return self._figures

    def close(self) -> None:
        """Let go of the connections."""
        with self._lock:
            for follower, _, _ in self._followers:
                follower.close()
            self._followers.clear()

    def _catch_up(self) -> None:
        if not self._followers:
            # Right answers are known before those that are held against them, and verdicts before their decisions.
            order: tuple[tuple[str, Callable[[Record], None]], ...] = (
                (REVIEWS, self._review),
                (VERDICTS, self._verdict),
                (TICKETS, self._ticket),
            )
            for topic, take in order:
                follower = Follower(self.settings)
                follower.follow(dict.fromkeys(follower.partitions([topic]), 0))
                self._followers.append((follower, topic, take))
        for follower, topic, take in self._followers:
            ends = follower.ends(follower.partitions([topic]))
            while any(follower.position(place) < end for place, end in ends.items()):
                _each(follower.poll(timeout_s=0.2, max_records=_MOST), take)

    def _review(self, record: Record) -> None:
        self._tally.known(ReviewEvent.model_validate_json(record.value or b""))

    def _verdict(self, record: Record) -> None:
        self._tally.verdict(Verdict.model_validate_json(record.value or b""))

    def _ticket(self, record: Record) -> None:
        # Most tickets are the pipeline's own, and need not be read whole to see that.
        if b'"person"' in (record.value or b""):
            self._tally.decision(Ticket.model_validate_json(record.value or b"").decision)


def _each(records: Sequence[Record], take: Callable[[Record], None]) -> None:
    for record in records:
        try:
            take(record)
        except ValidationError:
            continue  # written by no version of ours; whoever projects it says so
