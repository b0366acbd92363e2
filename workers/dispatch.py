"""How uploads pass through the crews: prepared, put to each classifier in turn, judged, explained.

It runs in one thread and knows neither Ray nor clocks: time comes with every call. Whatever fails, every upload that
was submitted and not released is delivered exactly once.
"""

import itertools
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, cast

from policies.question import Part, Question
from workers.actors import Answers, Crashed, Described, Kept, Lost, Seen, Unknown, classification
from workers.attempts import blame
from workers.batching import Line
from workers.classifier import Classification, Rationale
from workers.crew import Calls, Crew, Failed, Failure, Hands, Member, Patience, nothing
from workers.errors import ClassifierUnavailableError, PoisonError, WorkerError
from workers.passage import Leg, Passage, Questions, legs_for
from workers.scaling import Scale
from workers.upload import Explained, Judged

#: Calls that wait at one worker while it does another, so that it never waits for the next.
_DEPTH: Final = 2
#: Uploads in one call to a preparer; few, because all of them wait for the slowest for a while.
_PREPARED_TOGETHER: Final = 8
#: How long they wait for it; whoever is not ready then is asked for alone.
_TOGETHER_S: Final = 0.25
#: How often pictures may be lost before the upload comes back as unavailable.
_LOSSES: Final = 5
_MS: Final = 1000.0


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
        window: Uploads that are being prepared, or are prepared and not judged, at most.
        window_bytes: The pictures of all uploads that are kept for a rationale, and of those not judged, about at most.
        classifiers: Between how many and how many workers each classifier has.
        preparers: Between how many and how many workers prepare media.
    """

    batch: int = 16
    window: int = 64
    window_bytes: int = 256_000_000
    classifiers: tuple[int, int] = (1, 1)
    preparers: tuple[int, int] = (1, 2)


@dataclass(slots=True, eq=False)
class _Bench:
    """One classifier of the cascade: its workers, and who waits for them."""

    crew: Crew
    scale: Scale
    line: Line
    reasons: deque[Passage]
    #: Digest of a question set -> which questions it covers.
    covers: dict[str, list[bool]]
    #: The same by question.
    covered: dict[tuple[str, str], bool] = field(default_factory=dict)
    reads: frozenset[Part] | None = None
    working: int = 0
    #: Whose turn it is when both uploads and reasons wait.
    reason_next: bool = False


class Dispatch:
    """The book-keeping of one pipeline process's uploads."""

    def __init__(
        self, hands: Hands, out: Out, classifiers: int, *, sizes: Sizes, patience: Patience
    ) -> None:
        self._hands = hands
        self._out = out
        self._sizes = sizes
        self._patience = patience
        self._calls = Calls()
        self._tickets = itertools.count(1)
        self._lessons: dict[str, Questions] = {}
        self._legs: dict[tuple[str, frozenset[Part]], list[Leg]] = {}
        self._unrouted: deque[Passage] = deque()
        self._kept: OrderedDict[Passage, None] = OrderedDict()
        self._kept_bytes = 0
        self._window = 0
        self._preparing = 0
        self.batches = 0
        self.batched = 0
        self.benches = [
            _Bench(
                crew=self._crew(f"classifier-{index}", serial=True),
                scale=Scale(least=sizes.classifiers[0], most=sizes.classifiers[1]),
                line=Line(),
                reasons=deque(),
                covers={},
            )
            for index in range(classifiers)
        ]
        self.preparers = self._crew("preparer", serial=False)
        self._preparer_scale = Scale(least=sizes.preparers[0], most=sizes.preparers[1])
        self._raw = Line()

    def _crew(self, role: str, *, serial: bool) -> Crew:
        crew = Crew(role, self._hands, self._calls, self._patience, serial=serial)
        crew.on_ready = self._met
        return crew

    # What comes in.

    def submit(self, passages: Sequence[Passage], now_s: float) -> None:
        """Start the way of uploads."""
        for passage in passages:
            passage.questions = self._lessons.setdefault(
                passage.questions.digest, passage.questions
            )
            if passage.upload.media:
                self._raw.put(passage)
            else:
                passage.prepared = True
                self._route(passage)
        self._work(now_s)

    def explain(self, passage: Passage, now_s: float) -> None:
        """Start writing reasons for the questions that a judged upload now wants."""
        passage.since_s = now_s
        self._kept.pop(passage, None)  # its pictures must not go before the reasons are there
        if passage.upload.media and passage.pictures is None:
            self._raw.put(passage)
        else:
            self._want_reasons(passage, now_s)
        self._work(now_s)

    def release(self, passages: Sequence[Passage], now_s: float) -> None:
        """Let go of uploads; the caller has marked them as gone."""
        for passage in passages:
            self._let_go(passage)
        self._work(now_s)

    def ended(self, number: int, outcome: Any, now_s: float) -> None:
        """Take what came of a call."""
        if call := self._calls.close(number):
            call.member.crew.ended(call, outcome, now_s)
            self._work(now_s)

    def tick(self, now_s: float) -> None:
        """Do what is due."""
        for bench in self.benches:
            bench.crew.wanted = bench.scale.wanted(
                waiting=len(bench.line),
                working=bench.working,
                batch=self._sizes.batch,
                now_s=now_s,
            )
            bench.crew.tick(now_s)
        self.preparers.wanted = self._preparer_scale.wanted(
            waiting=len(self._raw),
            working=self._preparing,
            batch=_PREPARED_TOGETHER,
            now_s=now_s,
        )
        self.preparers.tick(now_s)
        self._give_up(now_s)
        self._work(now_s)

    def learn(self, questions: Questions) -> None:
        """Have every classifier say which of these questions it covers, before an upload asks."""
        self._lessons.setdefault(questions.digest, questions)
        for bench in self.benches:
            for member in bench.crew.ready[:1]:
                self._teach(bench, member, questions)

    def covers(self, classifier: int, question: Question) -> bool | None:
        """Return whether this classifier covers the question; None if it has not said so yet."""
        return self.benches[classifier].covered.get((question.id, question.digest))

    def is_ready(self, digest: str) -> bool:
        """Return whether every classifier has said which questions of this set it covers."""
        return all(digest in bench.covers for bench in self.benches)

    def numbers(self) -> dict[str, Any]:
        """Return what is under way."""
        crews = [*(bench.crew for bench in self.benches), self.preparers]
        return {
            "preparing": len(self._raw) + self._preparing,
            "prepared": self._window,
            "judging": sum(len(bench.line) + bench.working for bench in self.benches),
            "explaining": sum(len(bench.reasons) for bench in self.benches),
            "workers": {crew.role: len(crew.ready) for crew in crews},
            "restarts": {crew.role: crew.restarts for crew in crews},
            "batches": self.batches,
            "batched": self.batched,
        }

    # Where an upload stands.

    def _route(self, passage: Passage) -> None:
        """Let an upload that is prepared wait for its next classifier, or deliver it after the last one."""
        if passage.gone:
            return
        if passage.legs is None:
            passage.legs = self._legs_of(passage)
            if passage.legs is None:
                self._unrouted.append(passage)
                return
        if passage.legs:
            leg = passage.legs[0]
            self.benches[leg.classifier].line.put(
                passage, (passage.questions.digest, leg.questions)
            )
        else:
            self._deliver(passage)

    def _legs_of(self, passage: Passage) -> list[Leg] | None:
        key = passage.questions.digest, passage.parts
        if key not in self._legs:
            known = [
                (bench.reads, bench.covers[key[0]])
                if bench.reads is not None and key[0] in bench.covers
                else None
                for bench in self.benches
            ]
            legs = legs_for(passage.questions.all, passage.parts, known)
            if legs is None:
                return None
            self._legs[key] = legs
        return list(self._legs[key])

    def _deliver(self, passage: Passage) -> None:
        order = {question.id: number for number, question in enumerate(passage.questions.all)}
        passage.answers.sort(key=lambda answer: order[answer.question])
        self._leave_window(passage)
        judged = Judged(
            key=passage.upload.key,
            classifications=tuple(passage.answers),
            answered_by=passage.answered_by,
            media_digests=passage.media_digests,
            stages_ms=tuple(passage.stages_ms),
        )
        self._keep(passage)
        self._out.hand_over(passage, judged)

    def _fail(self, passage: Passage, fault: WorkerError) -> None:
        if passage.gone:
            return
        if passage.wanted is not None:
            self._give_reasons(passage, [])
            return
        passage.gone = True
        self._let_go(passage)
        self._out.hand_over(
            passage,
            Judged(
                key=passage.upload.key,
                media_digests=passage.media_digests,
                stages_ms=tuple(passage.stages_ms),
                fault=fault,
            ),
        )

    def _give_up(self, now_s: float) -> None:
        """Return the uploads that have waited too long for workers that are away."""
        before_s = now_s - self._patience.unavailable_s

        def away(crew: Crew) -> bool:
            return crew.away_since_s is not None and crew.away_since_s <= before_s

        def fault(crew: Crew) -> ClassifierUnavailableError:
            return ClassifierUnavailableError("away", f"{crew.role}: {crew.fault or 'not ready'}")

        for bench in self.benches:
            if away(bench.crew):
                for passage in bench.line.leave(before_s):
                    self._fail(passage, fault(bench.crew))
                while bench.reasons and bench.reasons[0].since_s < before_s:
                    self._give_reasons(bench.reasons.popleft(), [])
                while self._unrouted and self._unrouted[0].since_s < before_s:
                    self._fail(self._unrouted.popleft(), fault(bench.crew))
        if away(self.preparers):
            for passage in self._raw.leave(before_s):
                self._fail(passage, fault(self.preparers))

    # The window: how many prepared uploads there are at once.

    def _leave_window(self, passage: Passage) -> None:
        if passage.in_window:
            passage.in_window = False
            self._window -= 1

    def _keep(self, passage: Passage) -> None:
        if passage.pictures is not None:
            self._kept[passage] = None
        # Reasons may want the pictures of what was judged; beyond the bound they are fetched again instead.
        while self._kept_bytes > self._sizes.window_bytes and self._kept:
            oldest, _ = self._kept.popitem(last=False)
            self._drop_pictures(oldest)

    def _drop_pictures(self, passage: Passage) -> None:
        self._kept_bytes -= passage.pictures_bytes
        passage.pictures, passage.pictures_bytes = None, 0

    def _let_go(self, passage: Passage) -> None:
        self._leave_window(passage)
        self._kept.pop(passage, None)
        self._drop_pictures(passage)

    # What is handed to workers.

    def _work(self, now_s: float) -> None:
        self._prepare_next(now_s)
        for bench in self.benches:
            self._judge_next(bench, now_s)

    def _prepare_next(self, now_s: float) -> None:
        for member in self.preparers.ready[: self.preparers.wanted]:
            while len(self._raw):
                room = self._sizes.window - self._window
                if room <= 0 or self._kept_bytes > 2 * self._sizes.window_bytes:
                    return
                if member.exclusive or member.load >= _DEPTH:
                    break
                share = -(-len(self._raw) // (_DEPTH * len(self.preparers.ready)))
                taken = self._raw.take(
                    min(room, share, _PREPARED_TOGETHER), suspects=not member.load
                )
                if taken is None:
                    break
                _, group, suspects = taken
                for passage in group:
                    passage.since_s = now_s
                    if passage.wanted is None and not passage.in_window:
                        passage.in_window = True
                        self._window += 1
                tickets = [(next(self._tickets), passage) for passage in group]
                self._prepare(member, tickets, _TOGETHER_S, exclusive=suspects)

    def _prepare(
        self,
        member: Member,
        tickets: list[tuple[int, Passage]],
        wait_s: float,
        *,
        exclusive: bool = False,
    ) -> None:
        group = [passage for _, passage in tickets]
        self._preparing += len(group)
        uploads = [(ticket, passage.upload) for ticket, passage in tickets]

        def done(outcomes: list[Kept | WorkerError | Crashed | None]) -> None:
            self._preparing -= len(group)
            now_s = member.heard_s
            self.preparers.answered(now_s, None)
            for (ticket, passage), outcome in zip(tickets, outcomes, strict=True):
                if passage.gone:
                    continue
                if outcome is None:
                    self._prepare(member, [(ticket, passage)], self._patience.call_s)
                elif isinstance(outcome, Kept):
                    self._prepared(passage, outcome, now_s)
                elif isinstance(outcome, Crashed):
                    self._blame(self._raw, "any", [passage], outcome.detail, now_s)
                else:
                    self._fail(passage, outcome)

        def failed(why: Failed) -> None:
            self._preparing -= len(group)
            self._try_again(self._raw, "any", group, why, exclusive=exclusive)

        self.preparers.give(
            member,
            "prepare",
            (uploads, wait_s),
            done=done,
            failed=failed,
            uploads=len(group),
            exclusive=exclusive,
        )

    def _prepared(self, passage: Passage, kept: Kept, now_s: float) -> None:
        passage.pictures, passage.pictures_bytes = kept.pictures, kept.bytes
        self._kept_bytes += kept.bytes
        passage.since_s = now_s
        if passage.wanted is not None:
            self._want_reasons(passage, now_s)
            return
        passage.prepared = True
        passage.media_digests = kept.media_digests
        passage.stages_ms += kept.stages_ms
        self._route(passage)

    def _judge_next(self, bench: _Bench, now_s: float) -> None:
        for member in bench.crew.ready[: bench.crew.wanted]:
            while not member.exclusive:
                load = member.load
                if bench.reasons and not load and (bench.reason_next or not len(bench.line)):
                    bench.reason_next = False
                    self._explain(bench, member, bench.reasons.popleft(), now_s)
                    continue
                # One call may wait behind another, but only a full one: what comes until then may still join it.
                if load >= _DEPTH or (load and not bench.line.holds(self._sizes.batch)):
                    break
                taken = bench.line.take(self._sizes.batch, suspects=not load)
                if taken is None:
                    break
                kind, group, suspects = taken
                bench.reason_next = True
                digest, indices = cast("tuple[str, tuple[int, ...]]", kind)
                self._judge(bench, member, digest, indices, group, exclusive=suspects, now_s=now_s)

    def _judge(
        self,
        bench: _Bench,
        member: Member,
        digest: str,
        indices: tuple[int, ...],
        group: list[Passage],
        *,
        exclusive: bool,
        now_s: float,
    ) -> None:
        if digest not in member.learned:
            self._teach(bench, member, self._lessons[digest])
        self.batches += 1
        self.batched += len(group)
        bench.working += len(group)
        waited = [(now_s - passage.since_s) * _MS for passage in group]
        kind = digest, indices

        def done(answers: Answers | Unknown | Crashed) -> None:
            bench.working -= len(group)
            now_s = member.heard_s
            if isinstance(answers, Unknown):
                member.learned.pop(digest, None)
                bench.line.put_back(group, kind)
                return
            if isinstance(answers, Crashed):
                # A worker that failed in an unforeseen way may be broken for good: it does not stay.
                bench.crew.end(member, answers.detail, now_s, running=None)
                self._blame(bench.line, kind, group, answers.detail, now_s)
                return
            bench.crew.answered(now_s, answers.at)
            by = cast("Described", member.described).digest
            for passage, waited_ms, rows in zip(group, waited, answers.by_upload, strict=True):
                if not passage.gone:
                    self._answered(passage, bench, by, rows, (waited_ms, answers.ms), now_s)

        def failed(why: Failed) -> None:
            bench.working -= len(group)
            self._try_again(bench.line, kind, group, why, exclusive=exclusive)

        seen = [Seen(passage.pictures, passage.upload.caption) for passage in group]
        bench.crew.give(
            member,
            "classify",
            (digest, indices, seen),
            done=done,
            failed=failed,
            uploads=len(group),
            exclusive=exclusive,
        )

    def _answered(
        self,
        passage: Passage,
        bench: _Bench,
        by: str,
        rows: tuple[tuple[Any, ...], ...] | WorkerError | Lost,
        spent_ms: tuple[float, float],
        now_s: float,
    ) -> None:
        if isinstance(rows, Lost):
            self._lost(passage, now_s)
            return
        if isinstance(rows, WorkerError):
            self._fail(passage, rows)
            return
        index = self.benches.index(bench)
        for row in rows:
            found = classification(row)
            passage.answers.append(found)
            passage.answered_by[found.question] = by
            passage.answered_at[found.question] = index
        passage.stages_ms += [
            ("queue", round(spent_ms[0], 3)),
            ("classify", round(spent_ms[1], 3)),
        ]
        passage.since_s = now_s
        passage.legs = (passage.legs or [])[1:]
        self._route(passage)

    # What goes wrong.

    def _lost(self, passage: Passage, now_s: float) -> None:
        """Fetch the media again: the process that kept the pictures is gone, and nobody is to blame."""
        passage.losses += 1
        self._kept.pop(passage, None)
        self._drop_pictures(passage)
        if passage.losses > _LOSSES:
            self._fail(
                passage,
                ClassifierUnavailableError(
                    "lost", f"its pictures were lost {passage.losses} times"
                ),
            )
            return
        passage.since_s = now_s
        self._raw.put_back([passage])

    def _try_again(
        self, line: Line, kind: Any, group: list[Passage], why: Failed, *, exclusive: bool
    ) -> None:
        now_s = time.monotonic()
        if why.failure is Failure.DIED:
            self._blame(line, kind, group, why.detail, now_s)
        elif exclusive:
            line.put_suspects(group, kind)
        else:
            line.put_back([passage for passage in group if not passage.gone], kind)

    def _blame(
        self, line: Line, kind: Any, group: list[Passage], detail: str, now_s: float
    ) -> None:
        again, poisons = blame(group, now_s=now_s)
        for suspects in again:
            line.put_suspects(suspects, kind)
        for passage in poisons:
            self._fail(passage, PoisonError("killed_worker", detail))

    # What classifiers are told, and what they say of themselves.

    def _met(self, member: Member) -> None:
        for bench in self.benches:
            if bench.crew is member.crew:
                bench.reads = cast("Described", member.described).reads
                for lesson in self._lessons.values():
                    self._teach(bench, member, lesson)

    def _teach(self, bench: _Bench, member: Member, questions: Questions) -> None:
        if questions.digest in member.learned:
            return
        member.learned[questions.digest] = True

        def done(covers: list[bool]) -> None:
            bench.covers[questions.digest] = covers
            for question, covered in zip(questions.all, covers, strict=True):
                bench.covered[question.id, question.digest] = covered
            unrouted, self._unrouted = self._unrouted, deque()
            for passage in unrouted:
                self._route(passage)

        bench.crew.give(
            member,
            "learn",
            (questions.digest, questions.all),
            done=done,
            failed=nothing,
        )

    # Reasons.

    def _want_reasons(self, passage: Passage, now_s: float) -> None:
        """Let a judged upload wait for the classifier that answered the first of its wanted questions."""
        by_bench = {
            passage.answered_at[q.id] for q in passage.wanted or () if q.id in passage.answered_at
        }
        passage.since_s = now_s
        passage.reasons_left = sorted(by_bench)
        passage.reasons = []
        self._next_reasons(passage)

    def _next_reasons(self, passage: Passage) -> None:
        if passage.reasons_left:
            self.benches[passage.reasons_left.pop(0)].reasons.append(passage)
        else:
            self._give_reasons(passage, passage.reasons)

    def _give_reasons(self, passage: Passage, reasons: Sequence[Rationale]) -> None:
        passage.wanted = None
        if not passage.gone:
            self._keep(passage)
            self._out.hand_reasons(
                passage, Explained(key=passage.upload.key, rationales=tuple(reasons))
            )

    def _explain(self, bench: _Bench, member: Member, passage: Passage, now_s: float) -> None:
        if passage.gone:
            return
        index = self.benches.index(bench)
        found: dict[str, Classification] = {answer.question: answer for answer in passage.answers}
        findings: list[tuple[Question, Classification]] = [
            (question, found[question.id])
            for question in passage.wanted or ()
            if passage.answered_at.get(question.id) == index
        ]

        def done(reasons: list[Rationale] | Lost) -> None:
            bench.crew.answered(member.heard_s, time.time())
            if isinstance(reasons, Lost):
                self._lost(passage, member.heard_s)
                return
            passage.reasons += reasons
            self._next_reasons(passage)

        bench.crew.give(
            member,
            "explain",
            (Seen(passage.pictures, passage.upload.caption), findings),
            done=done,
            # A reason is never worth a second worker: whatever became of the first, it goes without.
            failed=lambda _: self._give_reasons(passage, passage.reasons),
            uploads=1,
        )
        del now_s
