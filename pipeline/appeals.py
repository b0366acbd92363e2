"""Appeals: an author's objection becomes a job for somebody who did not make the decision.

An appeal names a decision. Its ticket carries that decision and its upload as they were, so that the job can be shown
and rebuilt without looking for them again. Ticket and offset leave in one transaction.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from pipeline import telemetry
from pipeline.decide import questions_for
from pipeline.errors import AbortedError
from pipeline.kafka import Follower
from pipeline.messages import (
    DECISIONS,
    TICKETS,
    VERDICTS,
    Appeal,
    Decision,
    Review,
    Ticket,
    UploadEvent,
    headers,
)
from pipeline.records import Link, Mark, Outgoing, Partition, Record
from pipeline.redis import ReviewQueue
from pipeline.review import harm
from pipeline.watchdog import Watchdog
from policies.schema import PolicySet

#: The queue of appeals.
QUEUE: Final = "appeals"
_IDLE_S: Final = 0.5
_MOST: Final = 1000
_MAX_BACKOFF_S: Final = 5.0


@dataclass(slots=True, kw_only=True)
class Appeals:
    """Turns appeals into tickets."""

    link: Link
    reader: Follower
    queue: ReviewQueue
    policies: Callable[[], PolicySet]
    watchdog: Watchdog

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop."""
        aborts = 0
        while not stop.is_set():
            try:
                self.turn()
                aborts = 0
            except AbortedError as error:
                aborts += 1
                telemetry.log.warning("no appeal was committed, trying again", error=str(error))
                time.sleep(min(0.1 * 2**aborts, _MAX_BACKOFF_S))
                self.link.rewind()

    def turn(self) -> None:
        """Take one appeal."""
        polled = self.link.poll(timeout_s=_IDLE_S, max_records=1)
        for record in polled.records:
            ticket = self._ticket(record)
            while not self.link.may_commit():
                self.link.poll(timeout_s=_IDLE_S, max_records=1)
            with self.watchdog.guard("commit"):
                self.link.commit(
                    [] if ticket is None else [_record(ticket)],
                    {record.place: Mark(offset=record.offset + 1)},
                )

    def close(self) -> None:
        """Let go of the connections."""
        self.link.close()
        self.reader.close()
        self.queue.close()

    def _ticket(self, record: Record) -> Ticket | None:
        try:
            appeal = Appeal.model_validate_json(record.value or b"")
        except ValidationError as error:
            telemetry.log.error(
                "an appeal cannot be read",
                partition=record.partition,
                offset=record.offset,
                error=str(error),
            )
            return None
        found = self._find(appeal, record.partition)
        if found is None:
            telemetry.log.error(
                "an appeal names a decision that is not on the log",
                appeal_id=appeal.appeal_id,
                decision_id=appeal.decision_id,
            )
            return None
        # Whoever may not see what lies in a sealed queue does not see it as an appeal either.
        queue = self.queue.sealed(found) or QUEUE
        return opened(appeal, found, self.policies(), queue=queue)

    def _find(self, appeal: Appeal, near: int) -> Ticket | None:
        """Return the decision and its upload: from Redis while its job is fresh, else from the log.

        An appeal with the content id as its key lies in the partition of the same number as its decision.
        """
        known = self.queue.ticket(appeal.decision_id)
        if known is not None:
            return known
        places = sorted(self.reader.partitions([DECISIONS]), key=lambda place: place.number != near)
        for place in places:
            decision = self._read_decision(place, appeal.decision_id)
            if decision is not None:
                return Ticket(decision=decision, event=self._read_event(place, decision))
        return None

    def _read_decision(self, place: Partition, decision_id: str) -> Decision | None:
        end = self.reader.ends([place])[place]
        self.reader.follow({place: 0})
        name = decision_id.encode()
        while self.reader.position(place) < end:
            for record in self.reader.poll(timeout_s=0.2, max_records=_MOST):
                if record.header("ce_id") == name:
                    return Decision.model_validate_json(record.value or b"")
        return None

    def _read_event(self, beside: Partition, decision: Decision) -> UploadEvent:
        """Return the upload that a decision was made for, as far as its record is still kept."""
        first: Decision | None = decision
        # A person's decision comes from a verdict; the one that it supersedes, from the upload.
        while first is not None and first.source.topic == VERDICTS and first.supersedes:
            first = self._read_decision(beside, first.supersedes)
        decision = first or decision
        place = Partition(decision.source.topic, decision.source.partition)
        offset = decision.source.offset
        self.reader.follow({place: offset})
        end = self.reader.ends([place])[place]
        while self.reader.position(place) < end:
            for record in self.reader.poll(timeout_s=0.2, max_records=1):
                if record.offset != offset:
                    break
                try:
                    return UploadEvent.model_validate_json(record.value or b"")
                except ValidationError:
                    break
            else:
                continue
            break
        # The appeal is heard all the same: what was decided, and on what bytes, stands in the decision.
        return UploadEvent(event_id=decision.event_id, content_id=decision.content_id)


def opened(appeal: Appeal, about: Ticket, policies: PolicySet, *, queue: str = QUEUE) -> Ticket:
    """Return the ticket of an appeal: the decision as it was, before somebody else."""
    decision = about.decision
    at_issue = tuple(f for f in decision.findings if f.outcome != "none")
    questions = tuple(f.question for f in at_issue) or tuple(
        question.id for _, question in questions_for(about.event, policies)
    )
    reach = about.event.context.reach
    review = Review(
        queue=queue,
        priority=round(
            max((harm(f.probability, f.severity.weight, reach) for f in at_issue), default=1.0), 4
        ),
        due_at=None,
        reason="appeal",
        questions=questions,
    )
    return Ticket(
        decision=decision.model_copy(update={"review": review}), event=about.event, appeal=appeal
    )


def _record(ticket: Ticket) -> Outgoing:
    appeal = ticket.appeal.appeal_id if ticket.appeal is not None else ""
    return Outgoing(
        topic=TICKETS,
        key=ticket.decision.content_id.encode(),
        value=ticket.model_dump_json().encode(),
        headers=tuple(headers("ticket", appeal, source=ticket.decision.source)),
    )
