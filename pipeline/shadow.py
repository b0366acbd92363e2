"""Policies, or a classifier, that decide beside those in force: recorded on a topic of their own, and never acting.

A shadow is an upload consumer like any other, in a group of its own; what it may write passes through `ShadowLink`,
which lets through nothing but decisions, and those to `moderation.shadows` alone. It looks at a share of the contents,
always the same, and at what arrives while it runs.
"""

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic_core import to_json

from pipeline import telemetry
from pipeline.caps import Caps
from pipeline.config import Settings
from pipeline.kafka import Member
from pipeline.messages import DECISIONS, SHADOWS, UPLOADS, Decision, UploadEvent
from pipeline.outcome import parse
from pipeline.records import Link, Mark, Outgoing, Partition, Polled, Record
from pipeline.uploads import Parts, run_uploads
from policies.notation import share_of

#: The consumer group's name, behind that of the pipeline, and what its share of contents hangs on.
GROUP = "shadow"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowLink:
    """A link that lets a stream see a share of the uploads, and write nothing but shadows of decisions."""

    link: Link
    share: float
    #: What the broker had before this moment is not looked at.
    since_s: float

    def poll(self, *, timeout_s: float, max_records: int) -> Polled:
        """Return those of the new records that the shadow looks at."""
        polled = self.link.poll(timeout_s=timeout_s, max_records=max_records)
        return replace(polled, records=[r for r in polled.records if self._looks_at(r)])

    def may_commit(self) -> bool:
        """Return whether a transaction may begin."""
        return self.link.may_commit()

    def commit(self, outgoing: Sequence[Outgoing], marks: Mapping[Partition, Mark]) -> None:
        """Write the shadows of the decisions among the records, and the positions.

        Raises:
            AbortedError: nothing was committed.
            PipelineError: another process goes by this one's name.
        """
        self.link.commit([_shadow(out) for out in outgoing if out.topic == DECISIONS], marks)

    def rewind(self) -> None:
        """Go back to the committed positions."""
        self.link.rewind()

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, Mark]:
        """Return the committed positions of these partitions."""
        return self.link.committed(partitions)

    def pause(self, partitions: Collection[Partition]) -> None:
        """Read nothing from these partitions until they are resumed, and from all others again."""
        self.link.pause(partitions)

    def held(self) -> frozenset[Partition]:
        """Return the partitions that this member holds."""
        return self.link.held()

    def backlog(self) -> Mapping[str, int]:
        """Return how many records of each topic wait to be read."""
        return self.link.backlog()

    def close(self) -> None:
        """Let go of the connection."""
        self.link.close()

    def _looks_at(self, record: Record) -> bool:
        if record.timestamp_s < self.since_s:
            return False
        found = parse(record)
        # What cannot be read is the pipeline's own to set aside.
        return isinstance(found, UploadEvent) and share_of(GROUP, found.content_id) < self.share


def _shadow(out: Outgoing) -> Outgoing:
    decision = Decision.model_validate_json(out.value or b"")
    return replace(out, topic=SHADOWS, value=to_json(decision.like(decided_by="shadow")))


def shadowed(settings: Settings) -> Settings:
    """Return the settings under which the shadow decides: its own policies and classifiers, and no reasons in words."""
    shadow = settings.shadow
    return settings.model_copy(
        update={
            "policies": shadow.policies or settings.policies,
            "classifiers": shadow.classifiers or settings.classifiers,
            "stream": settings.stream.model_copy(update={"rationale_wait_s": 0.0}),
        }
    )


def run_shadow(settings: Settings, stop: threading.Event) -> int:
    """Decide in the shadow until told to stop, and return the exit status.

    Raises:
        PipelineError: it cannot run as configured.
        PolicyError: its policies are wrong.
    """

    def join(own: Settings) -> Link:
        member = Member(
            own.kafka,
            [UPLOADS],
            group=f"{own.kafka.group}-{GROUP}",
            instance=own.instance,
        )
        return ShadowLink(link=member, share=own.shadow.rollout, since_s=time.time())

    # What it would do counts against nobody's daily cap but its own, and its decisions not among those in force.
    parts = Parts(link=join, caps=lambda _: Caps(), serve=telemetry.serve_shadow)
    return run_uploads(shadowed(settings), stop, parts=parts)
