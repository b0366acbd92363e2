"""The upload consumer as the kill test starts it: it says what it has in hand, lingers when told, and can be broken.

    launcher.py STATE FAULT POOL

STATE is a file: `in_flight phase commits` as three numbers, rewritten at every change. While there is `STATE.linger`
beside it the next commit stays inside its open transaction, and while there is `STATE.before` just before one. The
faults are the ways in which a plausible implementation loses or doubles; none of them is in the product. POOL is `ray`,
or `slow` for a pool in the same process.
"""

import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from kafka.errors import KafkaError

from pipeline import telemetry
from pipeline.config import Settings
from pipeline.kafka import Member
from pipeline.messages import DECISIONS, RESCORE, UPLOADS
from pipeline.pooling import open_pool
from pipeline.records import Mark, Outgoing, Partition, Polled
from pipeline.stream import Stream
from pipeline.stub import StubPool, constant
from pipeline.uploads import Parts, run_uploads
from workers.upload import Judged

STATE: Final = struct.Struct("<qqq")
#: Phases: polling and working; just before a transaction; inside an open one.
WORKING, BEFORE, INSIDE = 0, 1, 2


class Report:
    """Tells the test what this process has in hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.in_flight = 0
        self.phase = WORKING
        self.commits = 0
        self._file = path.open("wb", buffering=0)
        self.write()

    def write(self) -> None:
        """Rewrite the file."""
        self._file.seek(0)
        self._file.write(STATE.pack(self.in_flight, self.phase, self.commits))

    def stay(self, suffix: str, phase: int) -> None:
        """Stay in this phase as long as the file is there that asks for it."""
        asked = self.path.with_suffix(suffix)
        if not asked.exists() or self.in_flight < 20:
            return
        self.phase = phase
        self.write()
        while asked.exists():
            time.sleep(0.02)
        self.phase = WORKING
        self.write()


class Watched(Member):
    """A member that reports, lingers, and fails now and then."""

    report: Report
    #: Every so many transactions one is made to fail by a record that the client refuses.
    fail_every = 25
    #: Whether the transaction under way carries decisions: only such ones are worth lingering in.
    carries = False

    def commit(self, outgoing: Sequence[Outgoing], marks: Mapping[Partition, Mark]) -> None:
        """Commit, after a stay; every so often with a record that makes it fail."""
        if any(out.topic == DECISIONS for out in outgoing):
            self.report.stay(".before", BEFORE)
            self.report.commits += 1
            if self.report.commits % self.fail_every == 0:
                outgoing = [*outgoing, Outgoing(topic=DECISIONS, key=b"x", value=b"x" * 5_000_000)]
        self.write(outgoing, marks)
        self.report.in_flight -= sum(out.topic == DECISIONS for out in outgoing)
        self.report.write()

    def write(self, outgoing: Sequence[Outgoing], marks: Mapping[Partition, Mark]) -> None:
        """Commit."""
        self.carries = any(out.topic == DECISIONS for out in outgoing)
        super().commit(outgoing, marks)

    def _finish(self, producer: Any, offsets: Any) -> None:
        if self.carries:
            self.report.stay(".linger", INSIDE)
        super()._finish(producer, offsets)


class OffsetsFirst(Watched):
    """Commits the offsets before the decisions: what dies in between is lost."""

    def write(self, outgoing: Sequence[Outgoing], marks: Mapping[Partition, Mark]) -> None:
        """Commit twice."""
        super().write([], marks)
        super().write(outgoing, {})


class NoRewind(Watched):
    """Does not go back after an abort: the client goes on behind what was not committed."""

    fail_every = 6

    def rewind(self) -> None:
        """Stay where it is."""


class LateMetadata(Watched):
    """Asks for the group's metadata at commit time: an expelled member is not fenced."""

    def may_commit(self) -> bool:
        """Never wait for the group."""
        return True

    def write(self, outgoing: Sequence[Outgoing], marks: Mapping[Partition, Mark]) -> None:
        """Commit under whatever membership there is by now."""
        coordinator = self._consumer._coordinator
        # The heartbeat's turn comes at any moment; here it is now.
        with suppress(KafkaError):
            coordinator._net.run(coordinator._send_heartbeat_request)
        # Without a static name, as most groups have none: then the broker lets an empty membership pass.
        self._membership = self._consumer.group_metadata()._replace(group_instance_id=None)
        super().write(outgoing, marks)


class KeepsDropped(Watched):
    """Goes on with work on partitions that were taken away: their next owner does it too."""

    def poll(self, *, timeout_s: float, max_records: int) -> Polled:
        """Say nothing of what was dropped."""
        polled = super().poll(timeout_s=timeout_s, max_records=max_records)
        return Polled(records=polled.records)


FAULTS: Final[Mapping[str, type[Watched]]] = {
    "none": Watched,
    "offsets-first": OffsetsFirst,
    "no-rewind": NoRewind,
    "late-metadata": LateMetadata,
    "keeps-dropped": KeepsDropped,
}


class Telling(Stream):
    """A stream that reports what it has in hand after every turn."""

    report: Report

    def turn(self) -> None:
        """Go through all steps, and report."""
        super().turn()
        self._tell()

    def poll(self) -> None:
        """Read, and report."""
        super().poll()
        self._tell()

    def _tell(self) -> None:
        self.report.in_flight = self.in_flight()
        self.report.write()


class SlowPool(StubPool):
    """A pool without Ray: a batch of up to 16 takes half a second."""

    def __init__(self) -> None:
        super().__init__(constant(-3.0))
        self.holding = True
        self._next_s = time.monotonic()

    def finished(self, *, timeout_s: float = 0.0) -> list[Judged]:
        """Return a batch every half second."""
        if time.monotonic() < self._next_s:
            time.sleep(min(timeout_s, 0.01))
            return []
        self._next_s = time.monotonic() + 0.5
        self.let_go(count=16)
        return super().finished()


def join(report: Report, fault: str) -> Callable[[Settings], Member]:
    """Return what joins the group with this fault."""

    def joined(settings: Settings) -> Member:
        kind = FAULTS[fault]
        kind.report = report
        return kind(
            settings.kafka,
            [UPLOADS, RESCORE],
            group=settings.kafka.group,
            instance=settings.instance,
        )

    return joined


def main() -> None:
    """Run until killed."""
    state, fault, pool = sys.argv[1:]
    report = Report(Path(state))
    telemetry.configure(level="warning", layout="console")
    Telling.report = report
    parts = Parts(
        link=join(report, fault),
        pool=open_pool if pool == "ray" else lambda _: SlowPool(),
        stream=Telling,
    )
    run_uploads(Settings(), threading.Event(), parts=parts)


if __name__ == "__main__":
    main()
