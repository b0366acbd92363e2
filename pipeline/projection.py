"""The projection: keeps the review queue in Redis in step with tickets and with what people do.

Where it stands is written in Redis by the scripts that write the jobs. So an emptied Redis, or one that was set back,
is noticed: it does not stand where the projection left it, and is read on from where it stands, which is a rebuild.
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from pipeline import telemetry
from pipeline.care import Budget
from pipeline.config import Kafka
from pipeline.errors import ProjectionLostError
from pipeline.kafka import Follower
from pipeline.messages import REVIEWS, TICKETS, VERDICTS, ReviewEvent, Ticket
from pipeline.records import Partition, Record
from pipeline.redis import Projected, ReviewQueue
from pipeline.review import job_of
from policies.errors import PolicyError, Problem
from policies.folder import QUEUES, read_file
from policies.queues import Queue, QueueFile
from policies.schema import PolicySet

#: How many records one poll may bring.
_MOST: Final = 500
#: How often Redis is asked whether it still stands where it was left.
_LOOK_S: Final = 1.0


class Projection:
    """Reads tickets and reviews of all partitions and applies them to the queue; several may run side by side."""

    def __init__(
        self,
        settings: Kafka,
        queue: ReviewQueue,
        policies: Callable[[], PolicySet],
        queues: Mapping[str, Queue],
        *,
        budget: Budget = Budget(),  # noqa: B008 -- frozen
    ) -> None:
        self._queue = queue
        self._policies = policies
        self._queues = queues
        self._budget = budget
        self._tickets = Follower(settings)
        self._reviews = Follower(settings)
        self._at: dict[Partition, int] = {}
        self._goal: dict[Partition, int] = {}
        self._looked_s = 0.0
        #: How often it had to find its place anew; whoever projects something else of the log looks at it.
        self.generation = 0
        #: Partitions of an emptied Redis, and up to where they must be applied before jobs are handed out again.
        self.behind: dict[Partition, int] = {}
        self.align()

    def align(self) -> None:
        """Find out where Redis stands and read on from there; reviews wait until all tickets so far are applied."""
        self._queue.configure(self._queues)
        self.generation += 1
        places = self._tickets.partitions([TICKETS, REVIEWS, VERDICTS])
        ends = self._tickets.ends(places)
        stood = self._queue.begin_all({(p.topic, p.number): ends[p] for p in places})
        stands = {p: stood[p.topic, p.number] for p in places}
        missing = self._queue.behind()
        self.behind = {p: ends[p] for p in places if (p.topic, p.number) in missing}
        self._at = {place: at for place, at in stands.items() if place.topic != VERDICTS}
        self._tickets.follow({p: at for p, at in self._at.items() if p.topic == TICKETS})
        self._reviews.follow({p: at for p, at in self._at.items() if p.topic == REVIEWS})
        self._aim()
        self._looked_s = time.monotonic()

    def turn(self, *, timeout_s: float = 0.0) -> int:
        """Apply what has come; return how many records that was."""
        try:
            self.look()
            applied = self._project(self._tickets.poll(timeout_s=timeout_s, max_records=_MOST))
            if self.caught_up():
                for record in self._reviews.poll(timeout_s=0.0, max_records=_MOST):
                    self._review(record)
                    applied += 1
                self._catch_up()
        except ProjectionLostError:
            telemetry.log.warning("the queue in Redis is rebuilt from the log")
            self.align()
            return 0
        return applied

    def doubt(self) -> None:
        """Look at once whether Redis still stands where it was left: it was away."""
        self._looked_s = float("-inf")

    def caught_up(self) -> bool:
        """Return whether every ticket that existed when the projection found its place has been applied."""
        if self._goal:
            self._goal = {
                place: end
                for place, end in self._goal.items()
                if self._tickets.position(place) < end
            }
        return not self._goal

    def _catch_up(self) -> None:
        for place, goal in list(self.behind.items()):
            follower = self._reviews if place.topic == REVIEWS else self._tickets
            if place in self._at and follower.position(place) >= goal:
                self._queue.catch_up(place.topic, place.number)
                del self.behind[place]

    def left(self) -> int:
        """Return how many offsets of tickets are still to be read before it has caught up."""
        return sum(end - self._tickets.position(place) for place, end in self._goal.items())

    def complete(self) -> None:
        """Apply every ticket that exists at this moment."""
        self._aim()
        while not self.caught_up():
            self.turn(timeout_s=0.1)

    def close(self) -> None:
        """Let go of the connections."""
        self._tickets.close()
        self._reviews.close()

    def _aim(self) -> None:
        places = [place for place in self._at if place.topic == TICKETS]
        self._goal = self._tickets.ends(places)

    def look(self, *, at_once: bool = False) -> None:
        """Look now and then, or at once, whether Redis still stands where it was left.

        Raises:
            ProjectionLostError: it does not.
        """
        now_s = time.monotonic()
        if not at_once and now_s - self._looked_s < _LOOK_S:
            return
        self._looked_s = now_s
        stands = self._queue.offsets()
        if any(stands.get((place.topic, place.number)) != at for place, at in self._at.items()):
            raise ProjectionLostError

    def _project(self, records: list[Record]) -> int:
        by_place: dict[Partition, list[Record]] = {}
        for record in records:
            by_place.setdefault(record.place, []).append(record)
        for place, run in by_place.items():
            tickets = [found for record in run if (found := self._ticket(record)) is not None]
            end = run[-1].offset + 1
            self._queue.project(
                place.topic, place.number, start=self._at[place], end=end, tickets=tickets
            )
            self._at[place] = end
        return len(records)

    def _ticket(self, record: Record) -> Projected | None:
        try:
            ticket = Ticket.model_validate_json(record.value or b"")
        except ValidationError as error:
            # Only we write this topic: one that cannot be read is another version's, and is told, not lost.
            telemetry.log.error(
                "a ticket cannot be read",
                partition=record.partition,
                offset=record.offset,
                error=str(error),
            )
            return None
        at = datetime.fromtimestamp(record.timestamp_s, UTC)
        job = job_of(ticket, self._policies(), self._queues, recorded_at=at)
        return Projected(offset=record.offset, ticket=ticket, job=job)

    def _review(self, record: Record) -> None:
        place = record.place
        try:
            event = ReviewEvent.model_validate_json(record.value or b"")
        except ValidationError as error:
            telemetry.log.error(
                "a review event cannot be read",
                partition=record.partition,
                offset=record.offset,
                error=str(error),
            )
            self._queue.stand(place.topic, place.number, record.offset + 1)
        else:
            self._queue.apply_review(
                place.topic,
                place.number,
                record.offset,
                event,
                budget=self._budget,
                early=False,
                content=(record.key or b"").decode(errors="replace"),
            )
        self._at[place] = record.offset + 1


def read_queues(folder: Path) -> Mapping[str, Queue]:
    """Return the queues that `queues.yaml` of a folder of policies declares.

    Raises:
        PolicyError: the file is missing or wrong.
    """
    problems: list[Problem] = []
    read = read_file(folder / QUEUES, QueueFile, problems.extend)
    if read is None:
        raise PolicyError(problems)
    return read[0].queues
