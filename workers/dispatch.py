"""How uploads pass through the crews: prepared, put to each classifier in turn, judged, explained.

It runs in one thread and knows neither Ray nor clocks: time comes with every call. Whatever fails, every upload that
was submitted and not released comes back exactly once.
"""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from policies.question import Part, Question
from workers.actors import Kept
from workers.classifier import Classification, Rationale
from workers.crew import Calls, Crew, Hands, Patience
from workers.errors import ClassifierUnavailableError, WorkerError
from workers.judging import Bench
from workers.passage import Leg, Passage, Questions, legs_for, without
from workers.preparing import Preparing
from workers.scaling import Scale
from workers.upload import Explained, Judged
from workers.window import Window

#: How often pictures may be lost before the upload comes back as one that cannot be judged now.
_LOSSES: Final = 5


class Out(Protocol):
    """Where finished work goes."""

    def hand_over(self, passage: Passage, judged: Judged) -> None:
        """Take a judgement or a fault."""
        ...

    def hand_reasons(self, passage: Passage, explained: Explained) -> None:
        """Take rationales."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many workers there are and how much they are given.

    Args:
        batch: Uploads in one call to a classifier, at most.
        window: Uploads that are being prepared, or are prepared and not judged, at most; more than the two calls that a
            classifier may have at once hold, or it waits for pictures.
        window_bytes: Kept pictures, at about; those that are under way may take as much again.
        classifiers: Between how many and how many workers each classifier has.
        preparers: Between how many and how many workers prepare media.
    """

    batch: int = 16
    window: int = 128
    window_bytes: int = 128_000_000
    classifiers: tuple[int, int] = (1, 1)
    preparers: tuple[int, int] = (1, 2)


class Dispatch:
    """The book-keeping of one pipeline process's uploads."""

    def __init__(
        self, hands: Hands, out: Out, classifiers: int, *, sizes: Sizes, patience: Patience
    ) -> None:
        self._out = out
        self._patience = patience
        self._lessons: dict[str, Questions] = {}
        self._legs: dict[tuple[str, frozenset[Part], bool], list[Leg]] = {}
        self._unrouted: deque[Passage] = deque()
        self._window = Window(uploads=sizes.window, size_bytes=sizes.window_bytes)
        calls = Calls()
        self._calls = calls

        def crew(role: str, *, serial: bool) -> Crew:
            return Crew(role, hands, calls, patience, serial=serial)

        self.preparing = Preparing(
            crew("preparer", serial=False),
            crew("quarantine", serial=False),
            Scale(least=sizes.preparers[0], most=sizes.preparers[1]),
            self._window,
            done=self._prepared,
            fault=self.fault,
        )
        self.benches = [
            Bench(
                crew(f"classifier-{index}", serial=True),
                Scale(least=sizes.classifiers[0], most=sizes.classifiers[1]),
                sizes.batch,
                self._lessons,
                self,
            )
            for index in range(classifiers)
        ]

    # What comes in.

    def submit(self, passages: Sequence[Passage], now_s: float) -> None:
        """Start the way of uploads."""
        for passage in passages:
            if passage.gone:
                continue
            if passage.questions.digest not in self._lessons:
                self.learn(passage.questions)
            passage.questions = self._lessons[passage.questions.digest]
            if passage.upload.media:
                self.preparing.line.put(passage)
            else:
                self._route(passage)
        self._work(now_s)

    def explain(self, passage: Passage, now_s: float) -> None:
        """Start writing reasons for the questions that a judged upload now wants."""
        if passage.gone:
            return
        passage.since_s = now_s
        passage.reasons = []
        passage.reasons_left = [
            bench
            for bench in self.benches
            if any(passage.answered_at.get(q.id) is bench for q in passage.wanted or ())
        ]
        self._window.hold(passage)
        self._want_reasons(passage)
        self._work(now_s)

    def release(self, passages: Sequence[Passage], now_s: float) -> None:
        """Let go of uploads; the caller has marked them as gone."""
        for passage in passages:
            self._window.leave(passage)
            self._window.drop(passage)
        self._work(now_s)

    def ended(self, number: int, outcome: Any, now_s: float) -> None:
        """Take what came of a call."""
        if call := self._calls.close(number):
            call.member.crew.ended(call, outcome, now_s)
            self._work(now_s)

    def tick(self, now_s: float) -> None:
        """Do what is due."""
        self.preparing.tick(now_s)
        for bench in self.benches:
            bench.tick(now_s)
        self.give_up(now_s)
        self._work(now_s)

    def learn(self, questions: Questions) -> None:
        """Have every classifier say which of these questions it covers, before an upload asks."""
        questions = self._lessons.setdefault(questions.digest, questions)
        for bench in self.benches:
            for member in bench.crew.ready[:1]:
                bench.teach(member, questions)

    def cut_off(self, passages: Collection[Passage], now_s: float) -> None:
        """Forget all workers and pictures, because Ray cannot be reached; `passages` are all that are not released."""
        for crew in self._crews():
            crew.cut_off(now_s)
        for passage in passages:
            self._window.drop(passage)

    def give_up(self, now_s: float) -> None:
        """Return the uploads that have waited too long for workers that are away."""
        before_s = now_s - self._patience.unavailable_s
        for passage, crew in self.preparing.late(before_s):
            self.fault(passage, _away(crew), by=crew)
        for bench in self.benches:
            for passage in bench.late(before_s):
                self.fault(passage, _away(bench.crew), by=bench.crew)
            if self._unrouted and bench.crew.away_for(before_s):
                unrouted, self._unrouted = self._unrouted, deque()
                for passage in unrouted:
                    known = passage.questions.digest in bench.covers
                    if known or passage.since_s >= before_s:
                        self._unrouted.append(passage)
                    else:
                        self.fault(passage, _away(bench.crew), by=bench.crew)

    # What others want to know.

    def covers(self, classifier: int, question: Question) -> bool | None:
        """Return whether this classifier covers the question; None if it has not said so yet."""
        return self.benches[classifier].covered.get((question.id, question.digest))

    def is_ready(self, digest: str) -> bool:
        """Return whether every classifier has said which questions of this set it covers."""
        return all(digest in bench.covers for bench in self.benches)

    def last_answer_at(self, role: str) -> float | None:
        """Return when this crew last answered (seconds since the epoch), or None if it never did.

        Those who prepare media answer by what classifiers say of it.
        """
        crews = [bench.crew for bench in self.benches]
        asked = [crew for crew in crews if crew.role == role] or crews
        return max((crew.last_answer_at or 0.0 for crew in asked), default=0.0) or None

    def numbers(self) -> dict[str, Any]:
        """Return what is under way."""
        return {
            "preparing": len(self.preparing),
            "prepared": self._window.inside,
            "judging": sum(len(bench.line) + bench.working for bench in self.benches),
            "explaining": sum(len(bench.reasons) + bench.explaining for bench in self.benches),
            "workers": {crew.role: len(crew.ready) for crew in self._crews()},
            "restarts": {crew.role: crew.restarts for crew in self._crews()},
            "faults": {crew.role: crew.fault for crew in self._crews() if crew.fault},
            "batches": sum(bench.batches for bench in self.benches),
            "batched": sum(bench.batched for bench in self.benches),
        }

    # Where an upload goes; the benches call these.

    def answered(
        self,
        passage: Passage,
        bench: Bench,
        rows: Sequence[tuple[Any, ...]],
        stages_ms: Sequence[tuple[str, float]],
        now_s: float,
    ) -> None:
        """Take the answers to one upload's questions, and let it go on."""
        answers = [Classification(*row) for row in rows]
        if passage.answers:
            # In a cascade a later answer takes the place of an earlier one.
            again = {found.question for found in answers}
            passage.answers = [a for a in passage.answers if a.question not in again]
        for found in answers:
            passage.answers.append(found)
            passage.answered_by[found.question] = bench.digest
            passage.answered_at[found.question] = bench
        passage.stages_ms += stages_ms
        passage.since_s = now_s
        passage.legs = (passage.legs or [])[1:]
        if passage.settle is not None and passage.legs:
            settled = {
                number
                for number, question in enumerate(passage.questions.all)
                for found in answers
                if found.question == question.id and passage.settle(question, found, bench.digest)
            }
            passage.legs = without(passage.legs, settled)
        self._route(passage)

    def lost(self, passage: Passage, now_s: float, *, counts: bool = True) -> None:
        """Fetch the media again: the process that kept the pictures is gone, and nobody is to blame."""
        if passage.gone:
            return
        self._window.leave(passage)
        self._window.drop(passage)
        passage.losses += counts
        if passage.losses > _LOSSES:
            why = f"its pictures were lost {passage.losses} times"
            # It is the classifier that the upload never came to.
            by = self.benches[passage.legs[0].classifier].crew if passage.legs else None
            self.fault(passage, ClassifierUnavailableError("lost", why), by=by)
            return
        passage.since_s = now_s
        self.preparing.line.put_back([passage])

    def fault(self, passage: Passage, fault: WorkerError, *, by: Crew | None = None) -> None:
        """Return an upload that cannot be judged, or one that is judged without reasons."""
        if passage.gone:
            return
        if passage.wanted is not None:
            self._give_reasons(passage)
            return
        passage.gone = True
        self._window.leave(passage)
        self._window.drop(passage)
        judged = Judged(
            key=passage.upload.key,
            media_digests=passage.media_digests,
            perceptual_hashes=passage.perceptual_hashes,
            stages_ms=tuple(passage.stages_ms),
            fault=fault,
            fault_by="" if by is None else by.role,
        )
        self._out.hand_over(passage, judged)

    def reasons(self, passage: Passage, found: Sequence[Rationale]) -> None:
        """Take the reasons of one classifier, and ask the next one."""
        passage.reasons += found
        if passage.reasons_left:
            passage.reasons_left.pop(0)
        self._want_reasons(passage)

    def learned(self) -> None:
        """Let those go on who waited to know which classifier covers their questions."""
        unrouted, self._unrouted = self._unrouted, deque()
        for passage in unrouted:
            self._route(passage)

    # Inside.

    def _crews(self) -> list[Crew]:
        return [
            *(bench.crew for bench in self.benches),
            self.preparing.crew,
            self.preparing.quarantine,
        ]

    def _work(self, now_s: float) -> None:
        self.preparing.work(now_s)
        for bench in self.benches:
            bench.work(now_s)

    def _prepared(self, passage: Passage, kept: Kept, now_s: float) -> None:
        self._window.fill(passage, kept.pictures)
        passage.since_s = now_s
        if passage.wanted is not None:
            self._want_reasons(passage)
            return
        passage.media_digests = kept.media_digests
        passage.perceptual_hashes = kept.perceptual_hashes
        passage.text_in_image = kept.text_in_image
        passage.stages_ms += kept.stages_ms
        self._route(passage)

    def _route(self, passage: Passage) -> None:
        """Let an upload that is prepared wait for its next classifier, or hand it over after the last one."""
        if passage.gone:
            return
        if passage.legs is None:
            passage.legs = self._legs_of(passage)
            if passage.legs is None:
                self._unrouted.append(passage)
                return
        if passage.legs:
            leg = passage.legs[0]
            self.benches[leg.classifier].put(passage, leg)
        else:
            self._hand_over(passage)

    def _legs_of(self, passage: Passage) -> list[Leg] | None:
        digest, parts = passage.questions.digest, passage.parts
        cascade = passage.settle is not None
        key = digest, parts, cascade
        if key not in self._legs:
            known = [
                (bench.reads, bench.covers[digest])
                if bench.reads is not None and digest in bench.covers
                else None
                for bench in self.benches
            ]
            legs = legs_for(passage.questions.all, parts, known, cascade=cascade)
            if legs is None:
                return None
            self._legs[key] = legs
        return self._legs[key]

    def _hand_over(self, passage: Passage) -> None:
        if len(self.benches) > 1:
            order = {question.id: number for number, question in enumerate(passage.questions.all)}
            passage.answers.sort(key=lambda answer: order[answer.question])
        self._window.leave(passage)
        self._window.keep(passage)
        judged = Judged(
            key=passage.upload.key,
            classifications=tuple(passage.answers),
            answered_by=passage.answered_by,
            media_digests=passage.media_digests,
            perceptual_hashes=passage.perceptual_hashes,
            text_in_image=passage.text_in_image,
            stages_ms=tuple(passage.stages_ms),
        )
        self._out.hand_over(passage, judged)

    def _want_reasons(self, passage: Passage) -> None:
        """Let a judged upload wait for the next classifier that owes it reasons, with its pictures."""
        if passage.gone:
            return
        if not passage.reasons_left:
            self._give_reasons(passage)
        elif passage.upload.media and passage.pictures is None:
            self.preparing.line.put(passage)
        else:
            passage.reasons_left[0].reasons.append(passage)

    def _give_reasons(self, passage: Passage) -> None:
        passage.wanted = None
        self._window.keep(passage)
        explained = Explained(key=passage.upload.key, rationales=tuple(passage.reasons))
        self._out.hand_reasons(passage, explained)


def _away(crew: Crew) -> ClassifierUnavailableError:
    return ClassifierUnavailableError("away", f"{crew.role}: {crew.fault or 'not ready yet'}")
