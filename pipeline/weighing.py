"""What a verdict of the log does to its job as the job stands in Redis, and the decisions that follow."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from pipeline import telemetry
from pipeline.messages import Source, Ticket, Verdict, decision_id
from pipeline.projection import Projection
from pipeline.records import Record
from pipeline.redis import Entry, ReviewQueue
from pipeline.verdicts import Decides, Ignored, Progress, decide_again, missing, weigh
from policies.schema import PolicySet


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One verdict of the log and what it does."""

    record: Record
    job_id: str = ""
    verdict: Verdict | None = None
    result: Progress | Decides | Ignored
    barred: tuple[str, ...] = ()
    tickets: tuple[Ticket, ...] = ()  # each with the person's decision


@dataclass(slots=True, kw_only=True)
class Weighing:
    """Weighs verdicts."""

    queue: ReviewQueue
    projection: Projection
    policies: Callable[[], PolicySet]
    clock: Callable[[], float]

    def weigh(self, record: Record) -> Work:
        """Return what the verdict in a record does to its job as it stands in Redis.

        Raises:
            ProjectionLostError: Redis was emptied.
        """
        try:
            verdict = Verdict.model_validate_json(record.value or b"")
        except ValidationError as error:
            telemetry.log.error(
                "a verdict cannot be read",
                partition=record.partition,
                offset=record.offset,
                error=str(error),
            )
            return Work(record=record, result=Ignored(reason="unreadable"))
        if verdict.part == "golden":
            ignored = Ignored(reason="golden")
            return Work(record=record, job_id=verdict.job_id, verdict=verdict, result=ignored)
        entry = self._find(verdict)
        if entry is None or entry.ticket is None:
            return self._withdraw(record, verdict)
        saw, part = entry.saw, entry.part
        if saw and verdict.withdraws == saw[-1].verdict_id and saw[-1].reviewer == verdict.reviewer:
            saw, part = saw[:-1], saw[-1].part
        result = weigh(
            entry.ticket.decision,
            verdict,
            self.policies(),
            part=part,
            saw=saw,
            reviewers=entry.reviewers,
        )
        tickets: tuple[Ticket, ...] = ()
        if isinstance(result, Decides):
            tickets = tuple(
                self._decided(record, member, result) for member in self.queue.members(entry.job_id)
            )
        return Work(
            record=record,
            job_id=entry.job_id,
            verdict=verdict,
            result=result,
            barred=tuple(sorted({*entry.barred, verdict.reviewer})),
            tickets=tickets,
        )

    def _find(self, verdict: Verdict) -> Entry | None:
        entry = self._entry(verdict)
        if entry is None and self.queue.marker(verdict.job_id) is None:
            # Its ticket may not have been projected yet; or Redis was emptied this very moment, and knows of no job.
            self.projection.look(at_once=True)
            self.projection.complete()
            entry = self._entry(verdict)
        return entry

    def _entry(self, verdict: Verdict) -> Entry | None:
        return self.queue.entry(verdict.job_id) or self.queue.entry(verdict.decision_id)

    def _withdraw(self, record: Record, verdict: Verdict) -> Work:
        """Return what a verdict on a closed job does: nothing, unless it names the one that closed it."""
        marker = self.queue.marker(verdict.job_id) or self.queue.marker(verdict.decision_id)
        known = Work(
            record=record, job_id=verdict.job_id, verdict=verdict, result=Ignored(reason="closed")
        )
        if marker is None or not verdict.withdraws or verdict.withdraws != marker.verdict_id:
            return known
        # Only a lead gives an adjudication.
        if verdict.reviewer != marker.by and verdict.part != "adjudication":
            return known
        old = [t for made in marker.made if (t := self.queue.ticket(made)) is not None]
        if not old or missing(old[0].decision, verdict, self.policies()):
            return known
        result = Decides(verdict=verdict, escalate=verdict.escalate)
        return Work(
            record=record,
            job_id=verdict.job_id,
            verdict=verdict,
            result=result,
            tickets=tuple(self._decided(record, ticket, result) for ticket in old),
        )

    def _decided(self, record: Record, ticket: Ticket, result: Decides) -> Ticket:
        decision = decide_again(
            ticket,
            result.verdict,
            self.policies(),
            source=Source(topic=record.topic, partition=record.partition, offset=record.offset),
            decision_id=decision_id(
                ticket.decision.event_id + "\n" + ticket.decision.decision_id,
                record.value or b"",
                f"verdict:{result.verdict.verdict_id}",
            ),
            now=datetime.fromtimestamp(self.clock(), UTC),
            escalate=result.escalate,
            appeal=None if ticket.appeal is None else ticket.appeal.appeal_id,
        )
        return Ticket(decision=decision, event=ticket.event, appeal=ticket.appeal)


def content_key(entry: Entry) -> str:
    """Return the content id by which everything about a job is keyed."""
    return entry.ticket.decision.content_id if entry.ticket is not None else entry.job_id
