"""One classifier of the cascade: its crew, who waits for it, and what it answers."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, cast

from policies.question import Part, Question
from workers.actors import Answers, Crashed, Described, Lost, Seen, Unknown, Withheld
from workers.attempts import blame
from workers.batching import Line
from workers.classifier import Classification, Rationale
from workers.crew import Crew, Failed, Failure, Member, nothing
from workers.errors import ClassifierUnavailableError, PoisonError, WorkerError
from workers.passage import Leg, Passage, Questions
from workers.scaling import Scale

#: Calls at one worker: one that it works on, and one so that it need not wait for the next.
_DEPTH: Final = 2
_MS: Final = 1000.0

#: What uploads share that may share a call: the digest of their question set, and which of its questions are asked.
_Kind = tuple[str, tuple[int, ...]]


class Way(Protocol):
    """Where an upload goes from a classifier."""

    def answered(
        self,
        passage: Passage,
        bench: "Bench",
        rows: Sequence[tuple[Any, ...]],
        stages_ms: Sequence[tuple[str, float]],
        now_s: float,
    ) -> None:
        """Take the answers to one upload's questions."""
        ...

    def lost(self, passage: Passage, now_s: float, *, counts: bool = True) -> None:
        """Take an upload whose pictures are gone."""
        ...

    def fault(self, passage: Passage, fault: WorkerError, *, by: Crew | None = None) -> None:
        """Take an upload that cannot be judged; `by` is the crew whose fault it is, if it is one's."""
        ...

    def reasons(self, passage: Passage, found: Sequence[Rationale]) -> None:
        """Take what reasons there are."""
        ...

    def learned(self) -> None:
        """Note that the classifier has said which questions it covers."""
        ...


class Bench:
    """Forms batches for one classifier, teaches it its questions, and finds out whom its workers die of."""

    def __init__(
        self, crew: Crew, scale: Scale, batch: int, lessons: Mapping[str, Questions], way: Way
    ) -> None:
        """Make it; `lessons` are the question sets in use, by digest, as the dispatch keeps them."""
        self.crew = crew
        self.line = Line()
        self.reasons: deque[Passage] = deque()
        #: Digest of a question set -> which of its questions are covered.
        self.covers: dict[str, list[bool]] = {}
        self.covered: dict[tuple[str, str], bool] = {}
        self.reads: frozenset[Part] | None = None
        self.digest = ""
        self.working = 0
        self.explaining = 0
        self.batches = 0
        self.batched = 0
        self._scale = scale
        self._batch = batch
        self._lessons = lessons
        self._way = way
        self._reason_next = False
        #: Those that killed workers, until it is known that the classifier itself is well.
        self._condemned: list[tuple[Passage, str]] = []
        self._checking = False
        crew.on_ready = self._met

    def put(self, passage: Passage, leg: Leg) -> None:
        """Let an upload wait for this classifier."""
        self.line.put(passage, (passage.questions.digest, leg.questions))

    def tick(self, now_s: float) -> None:
        """Do what is due."""
        self.crew.wanted = self._scale.wanted(
            waiting=len(self.line), working=self.working, batch=self._batch, now_s=now_s
        )
        self.crew.tick(now_s)

    def late(self, before_s: float) -> list[Passage]:
        """Take out and return those that have waited since before this moment, while the crew is away."""
        if not self.crew.away_for(before_s):
            return []
        late = self.line.leave(before_s)
        late += [passage for passage, _ in self._condemned if not passage.gone]
        self._condemned = []
        while self.reasons and self.reasons[0].since_s < before_s:
            late.append(self.reasons.popleft())
        return late

    def work(self, now_s: float) -> None:
        """Hand out what waits."""
        for member in self.crew.ready[: self.crew.wanted]:
            if self._condemned and not self._checking:
                self._check(member)
            while not member.exclusive:
                load = member.load
                if self.reasons and not load and (self._reason_next or not len(self.line)):
                    self._reason_next = False
                    self._explain(member, self.reasons.popleft())
                    continue
                # One call may wait behind another, but only a full one: what comes until then may still join it.
                if load >= _DEPTH or (load and not self.line.holds(self._batch)):
                    break
                taken = self.line.take(self._batch, suspects=not load)
                if taken is None:
                    break
                self._reason_next = True
                kind, group, suspects = taken
                self._judge(member, cast("_Kind", kind), group, now_s, suspects=suspects)

    def teach(self, member: Member, questions: Questions) -> None:
        """Tell a worker the questions, unless it knows them."""
        if questions.digest in member.learned:
            return
        member.learned.add(questions.digest)

        def done(covers: list[bool], now_s: float) -> None:
            del now_s
            self.covers[questions.digest] = covers
            for question, covered in zip(questions.all, covers, strict=True):
                self.covered[question.id, question.digest] = covered
            self._way.learned()

        self.crew.give(
            member, "learn", (questions.digest, questions.all), done=done, failed=nothing
        )

    def _met(self, member: Member) -> None:
        described = cast("Described", member.described)
        self.reads, self.digest = described.reads, described.digest
        for questions in self._lessons.values():
            self.teach(member, questions)

    def _judge(
        self, member: Member, kind: _Kind, group: list[Passage], now_s: float, *, suspects: bool
    ) -> None:
        for passage in [p for p in group if p.upload.media and p.pictures is None]:
            group.remove(passage)
            self._way.lost(passage, now_s, counts=False)
        if not group:
            return
        self.teach(member, self._lessons[kind[0]])
        self.batches += 1
        self.batched += len(group)
        self.working += len(group)
        alone = suspects and len(group) == 1
        batch = _Batch(
            kind=kind,
            group=group,
            waited_ms=[(now_s - passage.since_s) * _MS for passage in group],
            suspects=suspects,
            trial=_Trial(self.crew, member) if alone else None,
        )
        number = self.crew.give(
            member,
            "classify_suspect" if alone else "classify",
            (*kind, [_seen(p) for p in group]),
            done=partial(self._came, batch, member),
            failed=partial(self._failed, batch),
            uploads=len(group),
            exclusive=suspects,
        )
        if batch.trial:
            batch.trial.watch(number)

    def _came(
        self,
        batch: "_Batch",
        member: Member,
        answers: Answers | Unknown | Crashed | Withheld,
        now_s: float,
    ) -> None:
        self.working -= len(batch.group)
        if isinstance(answers, Unknown):
            member.learned.discard(batch.kind[0])
        if isinstance(answers, Unknown | Withheld):
            self._put_back(batch)
        elif isinstance(answers, Crashed):
            # A worker that failed in an unforeseen way may be broken for good: it does not stay.
            self.crew.end(member, f"crashed with {answers.detail}", now_s, running=None)
            self._blame(batch, answers.detail, now_s)
        else:
            self.crew.answered(now_s, answers.at)
            self._acquit()
            for one, waited_ms, found in zip(
                batch.group, batch.waited_ms, answers.by_upload, strict=True
            ):
                if not one.gone:
                    self._answered(one, found, waited_ms, answers.ms, now_s)

    def _failed(self, batch: "_Batch", why: Failed, now_s: float) -> None:
        self.working -= len(batch.group)
        if why.failure is Failure.SPARED or (batch.trial and not batch.trial.began):
            self._put_back(batch)
        else:
            self._blame(batch, why.detail, now_s)

    def _answered(
        self,
        passage: Passage,
        found: tuple[tuple[Any, ...], ...] | WorkerError | Lost,
        waited_ms: float,
        spent_ms: float,
        now_s: float,
    ) -> None:
        if isinstance(found, Lost):
            self._way.lost(passage, now_s)
        elif isinstance(found, WorkerError):
            self._way.fault(passage, found, by=self.crew)
        else:
            stages_ms = (("queue", round(waited_ms, 3)), ("classify", round(spent_ms, 3)))
            self._way.answered(passage, self, found, stages_ms, now_s)

    def _put_back(self, batch: "_Batch") -> None:
        if batch.suspects:
            self.line.put_suspects(batch.group, batch.kind)
        else:
            self.line.put_back([p for p in batch.group if not p.gone], batch.kind)

    def _blame(self, batch: "_Batch", detail: str, now_s: float) -> None:
        again, poisons = blame(batch.group, certain=batch.trial is not None, now_s=now_s)
        for suspects in again:
            self.line.put_suspects(suspects, batch.kind)
        self._condemned += [(passage, detail) for passage in poisons]
        self._acquit()

    def _acquit(self) -> None:
        """Call those a poison that killed workers of a classifier which has answered others since."""
        answered_s = self.crew.answered_s
        still = []
        for passage, detail in self._condemned:
            if answered_s is not None and answered_s > (passage.first_death_s or 0.0):
                self._way.fault(passage, PoisonError("killed_classifier", detail))
            else:
                still.append((passage, detail))
        self._condemned = still

    def _check(self, member: Member) -> None:
        """Have a harmless upload classified: if that fails too, the classifier is to blame and not the uploads."""
        self._checking = True

        def verdict(well: bool, detail: str, now_s: float) -> None:  # noqa: FBT001 -- of this function only
            self._checking = False
            if well:
                self.crew.answered(now_s, None)
                self._acquit()
                return
            condemned, self._condemned = self._condemned, []
            for passage, _ in condemned:
                sick = ClassifierUnavailableError("sick", detail)
                self._way.fault(passage, sick, by=self.crew)

        def done(crashed: Crashed | None, now_s: float) -> None:
            if crashed is not None:
                why = f"crashed over a harmless upload with {crashed.detail}"
                self.crew.end(member, why, now_s, running=None)
            verdict(crashed is None, crashed.detail if crashed else "", now_s)

        self.crew.give(
            member,
            "check",
            (self._condemned[0][0].questions.digest,),
            done=done,
            failed=lambda why, now_s: verdict(False, why.detail, now_s),
            uploads=1,
            exclusive=True,
        )

    def _explain(self, member: Member, passage: Passage) -> None:
        if passage.gone:
            return
        found = {answer.question: answer for answer in passage.answers}
        findings: list[tuple[Question, Classification]] = [
            (question, found[question.id])
            for question in passage.wanted or ()
            if passage.answered_at.get(question.id) is self
        ]
        self.explaining += 1

        def done(reasons: list[Rationale] | Lost, now_s: float) -> None:
            self.explaining -= 1
            if isinstance(reasons, Lost):
                self._way.lost(passage, now_s)
            else:
                self._way.reasons(passage, reasons)

        def failed(why: Failed, now_s: float) -> None:
            # A reason is never worth a second worker: whatever became of the first, it goes without.
            del why, now_s
            self.explaining -= 1
            self._way.reasons(passage, ())

        self.crew.give(
            member,
            "explain",
            (_seen(passage), findings),
            done=done,
            failed=failed,
            uploads=1,
        )


def _seen(passage: Passage) -> Seen:
    return Seen(passage.pictures, passage.upload.caption, passage.text_in_image)


@dataclass(slots=True, eq=False, kw_only=True)
class _Batch:
    kind: _Kind
    group: list[Passage]
    waited_ms: list[float]
    suspects: bool
    trial: "_Trial | None"


class _Trial:
    """Finds out whether a suspect was being worked on when its worker died.

    Workers are shared, so the call that they die of may be another process's. A suspect's call therefore begins only
    after its worker was heard to say that the turn has come, and was told to go.
    """

    def __init__(self, crew: Crew, member: Member) -> None:
        self.began = False
        self._crew = crew
        self._member = member

    def watch(self, number: int) -> None:
        """Ask whether the turn of the call has come."""

        def turn(come: bool, now_s: float) -> None:  # noqa: FBT001 -- the answer of the worker
            del now_s
            if come:
                self.began = True
                self._crew.give(self._member, "go", (number,), done=nothing, failed=nothing)
            elif number in self._member.calls:
                self.watch(number)

        self._crew.give(self._member, "turn", (number,), done=turn, failed=nothing)
