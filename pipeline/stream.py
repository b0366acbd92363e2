"""The upload consumer: one thread that polls, and whose every turn is the same named steps.

1. `poll`: read records; forget the work on partitions that were taken away.
2. `parse`: a record becomes an upload event, or a dead letter.
3. `submit`: one batch goes to the pool, under the policy set of this moment.
4. `collect`: judgements come back; what could not be judged for now waits and is submitted again.
5. `decide`: answers are calibrated and become a decision.
6. `explain`: a decision that acts or that a person will read waits, for a bounded time, for its rationale.
7. `commit`: the longest finished run of each partition leaves in one transaction, with its offsets. The connection
   is at work on it in a thread of its own; meanwhile this one goes on deciding, and polls only when it has ended.

Faults have exactly three ways out. An `AbortedError` rewinds every partition to its committed offset and backs off.
A `WorkerError` is the upload's own fault, or its media's or the classifier's absence, and becomes a decision or a dead
letter. Everything else ends the process with nothing committed.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from pipeline import telemetry
from pipeline.away import Away
from pipeline.calibration import Calibrations
from pipeline.caps import Caps
from pipeline.cascading import settling
from pipeline.checkpoint import Checkpoint, Note
from pipeline.decide import decide, for_people, hold, questions_for, with_doubts
from pipeline.errors import AbortedError
from pipeline.messages import (
    RESCORE,
    Decision,
    Evidence,
    Fault,
    Finding,
    Rationale,
    Stage,
    UploadEvent,
)
from pipeline.outcome import (
    Outcome,
    decided,
    number_of,
    origin_of,
    parse,
    policy_set_record,
    set_aside,
)
from pipeline.records import Link, Mark, Outgoing, Partition, Record
from pipeline.watchdog import Watchdog
from policies.question import Question
from policies.schema import PolicySet
from workers.errors import (
    ClassifierUnavailableError,
    MediaUnavailableError,
    PoisonError,
)
from workers.upload import Explained, Judged, Location, Pool, Upload

#: What rescoring may take of the work in flight: a fifth.
RESCORE_SHARE: Final = 5
#: How long a poll waits for records when there is nothing else to do.
_IDLE_S: Final = 0.25
#: How long a turn waits for the pool when uploads are in flight: a judgement ends the wait, a new record does not.
_BUSY_S: Final = 0.01
#: How long a commit is waited for at a time, when there is nothing to decide meanwhile.
_COMMITTING_S: Final = 0.002
#: How long a poll waits for records when finished work waits for the group to settle.
_SETTLING_S: Final = 0.02
#: How often the classifiers are asked again what they can judge.
_COVERAGE_S: Final = 5.0
#: Records in one transaction: enough to fill it, few enough to keep it short.
_MAX_COMMIT: Final = 1_000
#: Longest pause after a transaction that was aborted; far below the longest time between two polls.
_MAX_BACKOFF_S: Final = 5.0
_STAGE: Final = Stage(name="", ms=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on the stream's work and waits."""

    max_in_flight: int = 1024
    rationale_wait_s: float = 20.0
    fetch_deadline_s: float = 120.0
    max_rescores: int = 5
    #: Whether text in media is read, which questions about captions are then asked of.
    read_text: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Coverage:
    """Which questions of a policy set are asked, and which policies no classifier can judge."""

    uncovered: frozenset[str]
    asked: tuple[Question, ...]
    looked_s: float


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One upload in work."""

    key: int
    record: Record
    event: UploadEvent
    policies: PolicySet
    coverage: _Coverage
    alone: bool
    began_s: float = field(default_factory=time.monotonic)
    attempts: int = 0
    decision: Decision | None = None
    explain_until_s: float = 0.0


class Stream:
    """Turns upload events into decisions."""

    def __init__(
        self,
        link: Link,
        pool: Pool,
        policies: Callable[[], PolicySet],
        calibrations: Callable[[], Calibrations],
        watchdog: Watchdog,
        *,
        limits: Limits = Limits(),
        clock: Callable[[], float] = time.time,
        caps: Caps | None = None,
    ) -> None:
        self._link = link
        self._pool = pool
        self._policies = policies
        self._calibrations = calibrations
        self._watchdog = watchdog
        self._limits = limits
        self._clock = clock
        self._checkpoint: Checkpoint[Outcome] = Checkpoint()
        self._pending: dict[Partition, deque[Record]] = {}
        self._jobs: dict[int, Job] = {}
        self._explaining: dict[int, Job] = {}
        self._away = Away()
        self._next_key = 0
        #: Judgements that came back and are not decided yet.
        self._judgements: deque[Judged] = deque()
        #: Uploads that the pool need keep no longer; told once a turn.
        self._released: list[int] = []
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="commit")
        self._must_rewind = False
        #: Partitions whose start by this process is noted; reading again after an abort is no new start.
        self._noted: set[Partition] = set()
        self._aborts = 0
        self._published: set[str] = set()
        self._unpublished: dict[str, PolicySet] = {}
        self._coverage: dict[str, _Coverage] = {}
        self._caps = caps or Caps()

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop, then leave in good order: unfinished work is read again by whoever comes next."""
        while not stop.is_set():
            self.turn()
        self.leave()

    def turn(self) -> None:
        """Go through all steps once."""
        try:
            if self._must_rewind:
                self._link.rewind()
                self._must_rewind = False
            self.poll()
            self.submit(self.parse())
            self.collect()
            self.explain()
            self._let_go()
            self.commit()
        except AbortedError as error:
            self._abort(error)

    def in_flight(self) -> int:
        """Return how many records were read and are not yet committed."""
        return len(self._checkpoint) + sum(len(records) for records in self._pending.values())

    def poll(self) -> None:
        """Read records; forget the work on partitions that were taken away."""
        room = self._limits.max_in_flight - self.in_flight()
        held = self._link.held()
        if room <= 0:
            self._link.pause(held)
        else:
            self._link.pause([p for p in held if self._full(p)])
        polled = self._link.poll(timeout_s=self._patience_s(), max_records=max(1, room))
        for partition in polled.dropped:
            self._forget(partition)
            self._noted.discard(partition)
        for record in polled.records:
            self._pending.setdefault(record.place, deque()).append(record)
        telemetry.IN_FLIGHT.set(self.in_flight())

    def parse(self) -> list[Job]:
        """Take records into work, in order: each becomes a job for the pool, or a dead letter at once."""
        self._start_new()
        policies = self._policies()
        if policies.digest not in self._published:
            self._unpublished[policies.digest] = policies
        now = self._now()
        jobs = []
        for partition, records in self._pending.items():
            while records and not self._full(partition):
                record = records.popleft()
                note = self._checkpoint.note(partition)
                self._checkpoint.begin(partition, record.offset)
                telemetry.received(record.topic)
                found = parse(record)
                if note.poisonous(record.offset):
                    fault = Fault(
                        reason="poison",
                        detail="it ended its process each time it was alone in work",
                    )
                    self._finish(record, set_aside(record, fault, policies, now=now))
                elif not isinstance(found, UploadEvent):
                    self._finish(record, set_aside(record, found.fault, policies, now=now))
                else:
                    jobs.append(self._job(record, found, policies, alone=note.alone(record.offset)))
        return jobs

    def submit(self, jobs: Sequence[Job]) -> None:
        """Hand uploads to the pool, those that are due again with the new ones, one batch a policy set."""
        due = [
            *jobs,
            *(self._jobs[key] for key in self._away.due(time.monotonic()) if key in self._jobs),
        ]
        batches: dict[tuple[int, bool], list[Job]] = {}
        for job in due:
            if not self._asked(job):
                self._decide(job, Judged(key=job.key))
                continue
            batches.setdefault((id(job.coverage), job.alone), []).append(job)
        for (_, alone), batch in batches.items():
            questions = batch[0].coverage.asked
            settle = settling(self._calibrations, batch[0].policies, self._now)
            self._pool.submit(
                [_upload(job) for job in batch], questions, alone=alone, settle=settle
            )
            telemetry.BATCH.observe(len(batch))

    def collect(self) -> None:
        """Take judgements back; decide what is judged, let wait what cannot be judged for now."""
        busy = bool(self._jobs) and not self._checkpoint.due(at_most=1).results
        self._take_back(timeout_s=_BUSY_S if busy else 0.0)
        self._give_up()

    def explain(self) -> None:
        """Take rationales back; a decision waits for its own only so long."""
        for explained in self._pool.explained() if self._explaining else ():
            job = self._explaining.get(explained.key)
            if job is not None and job.decision is not None:
                spoken = _with_rationales(job.decision, explained)
                job.decision = with_doubts(spoken, job.event, job.policies, now=self._now())
                self._decided(job, job.decision)
        now_s = time.monotonic()
        for job in [job for job in self._explaining.values() if job.explain_until_s <= now_s]:
            if job.decision is not None:
                self._decided(job, job.decision)

    def commit(self) -> None:
        """Write the longest finished run of each partition in one transaction, with its offsets."""
        due = self._checkpoint.due(at_most=_MAX_COMMIT)
        if not due.results or not self._link.may_commit():
            return
        outgoing: list[Outgoing] = []
        sets = list(self._unpublished.values())
        outgoing += [policy_set_record(policies) for policies in sets]
        for outcome in due.results:
            outgoing += outcome.outgoing
        with self._watchdog.guard("commit"), telemetry.stage("commit"):
            self._write(outgoing, due.marks)
        self._aborts = 0
        self._checkpoint.settle(due)
        for outcome in due.results:
            self._caps.settle(outcome.record.place, outcome.record.offset)
        self._published.update(self._unpublished)
        self._unpublished.clear()
        self._seen(due.results)

    def leave(self) -> None:
        """Say in the committed notes that this process did not die over the records that it had in work."""
        undone = {}
        for partition in self._link.held():
            first = self._checkpoint.first(partition)
            note = self._checkpoint.note(partition)
            if first is not None and note.restarts:
                undone[partition] = Mark(offset=first, note=str(note.undone()))
        if undone and self._link.may_commit():
            try:
                with self._watchdog.guard("commit"):
                    self._link.commit([], undone)
            except AbortedError as error:
                telemetry.log.warning("leaving without a word", error=str(error))

    def _write(self, outgoing: Sequence[Outgoing], marks: Mapping[Partition, Mark]) -> None:
        """Commit, and decide meanwhile: the broker takes its time, and nothing may be polled until it has answered."""
        writing = self._writer.submit(self._link.commit, outgoing, marks)
        try:
            while not writing.done():
                if not self._take_back(enough=writing.done):
                    wait([writing], timeout=_COMMITTING_S)
        finally:
            # Whatever went wrong with deciding, a transaction under way ends before anything else happens.
            wait([writing])
        writing.result()

    def _take_back(
        self, *, timeout_s: float = 0.0, enough: Callable[[], bool] = lambda: False
    ) -> bool:
        """Decide what the pool has judged, until it is enough; return whether there was anything."""
        wait_s = 0.0 if self._judgements else timeout_s
        self._judgements.extend(self._pool.finished(timeout_s=wait_s))
        found = bool(self._judgements)
        while self._judgements and not enough():
            judged = self._judgements.popleft()
            job = self._jobs.get(judged.key)
            if job is not None:
                self._judged(job, judged)
        return found

    def _let_go(self) -> None:
        if self._released:
            self._pool.release(self._released)
            self._released = []

    def _patience_s(self) -> float:
        """Return how long a poll may wait for records: not at all while the pool may have something for us."""
        if self._jobs:
            return 0.0
        return _SETTLING_S if self.in_flight() else _IDLE_S

    def _start_new(self) -> None:
        """Note, before work begins on a partition, that one more process starts at its committed offset."""
        new = {
            p: records[0]
            for p, records in self._pending.items()
            if records and not self._checkpoint.known(p)
        }
        if not new:
            return
        if not self._link.may_commit():
            return
        committed = self._link.committed(list(new))
        notes = {}
        for partition, record in new.items():
            mark = committed.get(partition)
            note = Note() if mark is None else Note.parse(mark.note)
            # The very first start on a partition is no restart.
            if mark is not None and partition not in self._noted:
                note = note.started(record.offset, window=self._limits.max_in_flight)
            notes[partition] = note
        marks = {
            partition: Mark(offset=new[partition].offset, note=str(note))
            for partition, note in notes.items()
            if partition not in self._noted
        }
        if marks:
            with self._watchdog.guard("commit"):
                self._link.commit([], marks)
        for partition, note in notes.items():
            self._checkpoint.start(partition, note)
            self._noted.add(partition)
            if partition in marks and note.alone_until:
                telemetry.log.warning(
                    "one record at a time",
                    partition=partition,
                    until=note.alone_until,
                    restarts=note.restarts,
                )

    def _full(self, partition: Partition) -> bool:
        """Return whether no more of the partition may be taken into work at present."""
        if not self._checkpoint.known(partition):
            return bool(self._pending.get(partition))
        open_records = self._checkpoint.open(partition)
        if open_records and self._checkpoint.note(partition).alone(
            self._checkpoint.last(partition)
        ):
            return True
        if partition.topic != RESCORE:
            return False
        share = max(1, self._limits.max_in_flight // RESCORE_SHARE)
        taken = sum(self._checkpoint.open(p) for p in self._link.held() if p.topic == RESCORE)
        return bool(self._away) or taken >= share

    def _job(self, record: Record, event: UploadEvent, policies: PolicySet, *, alone: bool) -> Job:
        telemetry.unknown(event.unknown())
        self._next_key += 1
        job = Job(
            key=self._next_key,
            record=record,
            event=event,
            policies=policies,
            coverage=self._covered(policies),
            alone=alone,
        )
        self._jobs[job.key] = job
        return job

    def _covered(self, policies: PolicySet) -> _Coverage:
        """Return what of a set can be judged; looked at anew now and then, because classifiers come and go."""
        found = self._coverage.get(policies.digest)
        now_s = time.monotonic()
        if found is None or now_s - found.looked_s > _COVERAGE_S:
            covered = {
                question.id for question in policies.questions if self._pool.covers(question)
            }
            uncovered = frozenset(q.policy for q in policies.questions if q.id not in covered)
            asked = tuple(q for q in policies.questions if q.policy not in uncovered)
            found = _Coverage(uncovered=uncovered, asked=asked, looked_s=now_s)
            self._coverage[policies.digest] = found
        return found

    def _asked(self, job: Job) -> bool:
        found = questions_for(
            job.event,
            job.policies,
            uncovered=job.coverage.uncovered,
            text_found=self._limits.read_text and bool(job.event.media),
        )
        return bool(found)

    def _judged(self, job: Job, judged: Judged) -> None:
        fault = judged.fault
        if fault is None:
            self._decide(job, judged)
        elif isinstance(fault, ClassifierUnavailableError):
            self._away.wait(
                job.key,
                judged.fault_by,
                since_s=job.record.timestamp_s,
                now_s=self._clock(),
                retry_s=time.monotonic() + 1.0,
            )
        elif isinstance(fault, MediaUnavailableError):
            self._media_unavailable(job, judged, fault)
        elif isinstance(fault, PoisonError):
            named = Fault(reason="poison", detail=str(fault))
            self._done(job, set_aside(job.record, named, job.policies, now=self._now()))
        else:
            self._hold(
                job, judged, Fault(reason=fault.reason, detail=fault.detail, media=fault.media)
            )

    def _media_unavailable(self, job: Job, judged: Judged, fault: MediaUnavailableError) -> None:
        """Try again until the deadline, then hold; scored again later, and a job for a person after the last try."""
        job.attempts += 1
        pause_s = min(2.0 ** (job.attempts - 1), 15.0)
        now_s = time.monotonic()
        if now_s + pause_s - job.began_s < self._limits.fetch_deadline_s:
            self._away.retry(job.key, at_s=now_s + pause_s)
            return
        named = Fault(reason=fault.reason, detail=fault.detail, media=fault.media)
        self._hold(job, judged, named, rescore=number_of(job.event) < self._limits.max_rescores)

    def _hold(self, job: Job, judged: Judged, fault: Fault, *, rescore: bool = False) -> None:
        decision = hold(
            job.event,
            fault,
            job.policies,
            origin=origin_of(
                job.record,
                job.event,
                media=judged.media_digests,
                perceptual=judged.perceptual_hashes,
                stages=_stages(judged),
            ),
            now=self._now(),
            rescored=rescore,
        )
        self._done(job, decided(job.record, job.event, decision, job.policies, rescore=rescore))

    def _give_up(self) -> None:
        """Decide without the classifier, by `when_unavailable`, once it has been away for too long."""
        for key in self._away.over(
            self._clock(),
            last_answer_s=self._pool.last_answer_at,
            after_s=lambda key: _after_s(self._jobs[key]) if key in self._jobs else 0.0,
        ):
            job = self._jobs.get(key)
            if job is not None:
                self._decide(job, Judged(key=key))

    def _decide(self, job: Job, judged: Judged) -> None:
        now = self._now()
        calibrations = self._calibrations()
        questions = {q.id: q for q in job.policies.questions}
        answers = [
            calibrations.answer(questions[c.question], c, judged.answered_by[c.question], now=now)
            for c in judged.classifications
            if c.question in questions
        ]
        decision = decide(
            job.event,
            answers,
            job.policies,
            origin=origin_of(
                job.record,
                job.event,
                media=judged.media_digests,
                perceptual=judged.perceptual_hashes,
                stages=_stages(judged),
            ),
            now=now,
            uncovered=job.coverage.uncovered,
            text_found=bool(judged.text_in_image),
            spent=self._caps.spent(job.policies, now),
        )
        self._caps.reserve(job.record.place, job.record.offset, decision)
        spoken = [f.question for f in decision.findings if f.outcome != "none"]
        if spoken and self._limits.rationale_wait_s > 0:
            job.decision = decision
            job.explain_until_s = time.monotonic() + self._limits.rationale_wait_s
            self._explaining[job.key] = job
            self._pool.explain(job.key, [questions[q] for q in spoken])
        else:
            self._decided(job, decision)

    def _decided(self, job: Job, decision: Decision) -> None:
        # Whatever was decided without a judgement is scored again, and after the last try a person looks.
        last = number_of(job.event) >= self._limits.max_rescores
        rescore = bool(decision.unjudged) and not last
        if decision.unjudged and last:
            decision = for_people(decision, job.event, job.policies)
        self._done(job, decided(job.record, job.event, decision, job.policies, rescore=rescore))

    def _done(self, job: Job, outcome: Outcome) -> None:
        self._jobs.pop(job.key, None)
        self._explaining.pop(job.key, None)
        self._away.forget(job.key)
        self._released.append(job.key)
        self._finish(job.record, outcome)

    def _finish(self, record: Record, outcome: Outcome) -> None:
        self._checkpoint.finish(record.place, record.offset, outcome)

    def _forget(self, partition: Partition) -> None:
        """Drop everything that is in work on a partition; none of it is committed."""
        self._checkpoint.drop(partition)
        self._caps.drop(partition)
        self._pending.pop(partition, None)
        gone = [key for key, job in self._jobs.items() if job.record.place == partition]
        for key in gone:
            self._jobs.pop(key)
            self._explaining.pop(key, None)
            self._away.forget(key)
        if gone:
            self._pool.release(gone)

    def _abort(self, error: AbortedError) -> None:
        """Forget all work and read it again from the committed offsets."""
        self._aborts += 1
        telemetry.log.warning("aborted, reading again from the committed offsets", error=str(error))
        for partition in {*self._pending, *self._link.held(), *self._checkpoint.partitions()}:
            self._forget(partition)
        self._must_rewind = True
        time.sleep(min(0.05 * 2.0 ** min(self._aborts, 10), _MAX_BACKOFF_S))

    def _seen(self, outcomes: Sequence[Outcome]) -> None:
        now_s = self._clock()
        telemetry.committed(
            [
                (outcome.decision, max(0.0, now_s - outcome.record.timestamp_s))
                for outcome in outcomes
                if outcome.decision is not None
            ]
        )
        for outcome in outcomes:
            if outcome.dead_letter is not None:
                telemetry.dead_letter(
                    outcome.dead_letter,
                    topic=outcome.record.topic,
                    partition=outcome.record.partition,
                    offset=outcome.record.offset,
                )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def _upload(job: Job) -> Upload:
    return Upload(
        key=job.key,
        media=tuple(
            Location(uri=m.uri, sha256=m.sha256, content_type=m.content_type)
            for m in job.event.media
        ),
        caption=job.event.text,
    )


def _stages(judged: Judged) -> tuple[Stage, ...]:
    return tuple(_STAGE.like(name=name, ms=round(ms, 3)) for name, ms in judged.stages_ms)


def _after_s(job: Job) -> float:
    """Return how long the classifier must have been away before every policy of the job has waited long enough."""
    waits = [
        policy.when_unavailable.after.total_seconds()
        for policy, _ in questions_for(job.event, job.policies, uncovered=job.coverage.uncovered)
    ]
    return max(waits, default=0.0)


def _with_rationales(decision: Decision, explained: Explained) -> Decision:
    """Return the decision with the rationales at their findings."""
    given = {rationale.question: rationale for rationale in explained.rationales}
    if not given:
        return decision
    findings: list[Finding] = []
    for finding in decision.findings:
        reason = given.get(finding.question)
        if reason is None:
            findings.append(finding)
            continue
        evidence: Mapping[str, object] = (
            {}
            if reason.media is None
            else {"evidence": (Evidence(media=reason.media, box=reason.box),)}
        )
        said = Rationale(
            clause=reason.clause,
            text=reason.text,
            supported=reason.supported,
            denied=reason.denied,
            agreement=reason.agreement,
        )
        findings.append(finding.model_copy(update={"rationale": said, **evidence}))
    stages = (*decision.stages, *(Stage(name=n, ms=round(ms, 3)) for n, ms in explained.stages_ms))
    return decision.model_copy(update={"findings": tuple(findings), "stages": stages})
