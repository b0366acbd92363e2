"""A world for the pool's book-keeping without Ray: real workers' code, in one thread, with faults on demand."""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from policies.question import Forbidden, Question
from workers.actors import (
    Answers,
    Crashed,
    Described,
    Identity,
    Kept,
    Lost,
    Place,
    Seen,
    Unknown,
    Withheld,
)
from workers.classifier import Classification, Rationale
from workers.crew import Failed, Failure, Patience, Pulse
from workers.dispatch import Dispatch, Sizes
from workers.errors import ClassifierUnavailableError, MediaRefusedError, WorkerError
from workers.passage import Passage, Questions
from workers.upload import Explained, Judged, Location, Settle, Upload

#: Calls that are answered while an actor is at another one.
_ASIDE = frozenset({"pulse", "describe", "turn", "go"})

QUESTIONS = Questions(
    tuple(
        Question(id=name, policy=name, question=name, forbidden=(Forbidden(id="W1", text=name),))
        for name in ("weapons", "drugs")
    )
)


@dataclass(eq=False)
class Actor:
    """One simulated process: it takes its calls in order, and those aside at once."""

    role: str
    slot: int
    alive: bool = True
    stopped: bool = False
    lessons: set[str] = field(default_factory=set)
    #: Calls that wait or are being worked on, first the oldest.
    calls: deque[tuple[int, str, tuple[Any, ...]]] = field(default_factory=deque)
    since_s: float = 0.0
    may_go: int | None = None


class World:
    """Hands that hire simulated actors, and time that passes when it is told to."""

    def __init__(self, *, classifiers: int = 1, sizes: Sizes | None = None, seed: int = 0) -> None:
        self.now_s = 100.0
        self.random = random.Random(seed)
        self.actors: dict[tuple[str, int], Actor] = {}
        self.arrived: deque[tuple[int, Any]] = deque()
        self.judged: list[Judged] = []
        self.reasons: list[Explained] = []
        self.passages: dict[int, Passage] = {}
        self.deaths = 0
        self.batches: list[int] = []
        self.lose_pictures = False
        self.can_hire = True
        #: The classifiers whose endpoint is away: they are well and answer nothing.
        self.absent: set[str] = set()
        #: A sick classifier dies of everything.
        self.sick = False
        self.dispatch = Dispatch(
            self,
            self,
            classifiers,
            sizes=sizes or Sizes(),
            patience=Patience(
                call_s=10.0, load_s=30.0, silence_s=3.0, pulse_s=1.0, unavailable_s=60.0
            ),
        )

    # What the book-keeping asks for.

    def hire(self, role: str, slot: int) -> Actor:
        """Return the actor in this place, made if it is not there."""
        actor = self.actors.get((role, slot))
        if actor is None or not actor.alive:
            actor = self.actors[role, slot] = Actor(role, slot)
        return actor

    def call(self, handle: Actor, number: int, method: str, arguments: tuple[Any, ...]) -> None:
        """Start a call."""
        if not handle.alive:
            self.arrived.append((number, Failed(Failure.DIED, "gone", alive=True)))
            return
        if not handle.calls:
            handle.since_s = self.now_s
        handle.calls.append((number, method, arguments))

    def end(self, handle: Actor, described: Any) -> None:
        """End an actor."""
        del described
        self.die(handle)

    def hand_over(self, passage: Passage, judged: Judged) -> None:
        """Take a judgement."""
        if self.passages.get(passage.upload.key) is passage:
            self.judged.append(judged)

    def hand_reasons(self, passage: Passage, explained: Explained) -> None:
        """Take reasons."""
        if self.passages.get(passage.upload.key) is passage:
            self.reasons.append(explained)

    # What tests do.

    def submit(self, *uploads: Upload, alone: bool = False, settle: Settle | None = None) -> None:
        """Submit uploads as the pool does."""
        passages = [
            Passage(
                upload=upload,
                questions=QUESTIONS,
                alone=alone,
                since_s=self.now_s,
                settle=settle,
            )
            for upload in uploads
        ]
        self.passages.update((passage.upload.key, passage) for passage in passages)
        self.dispatch.submit(passages, self.now_s)

    def release(self, *keys: int) -> None:
        """Release uploads as the pool does."""
        passages = [p for key in keys if (p := self.passages.pop(key, None))]
        for passage in passages:
            passage.gone = True
        self.dispatch.release(passages, self.now_s)

    def explain(self, key: int) -> None:
        """Ask for reasons as the pool does."""
        self.passages[key].wanted = QUESTIONS.all
        self.dispatch.explain(self.passages[key], self.now_s)

    def die(self, actor: Actor) -> None:
        """Let an actor die, with all its calls."""
        if actor.alive:
            actor.alive = False
            self.deaths += 1
            for number, _, _ in actor.calls:
                self.arrived.append((number, Failed(Failure.DIED, "died")))
            actor.calls.clear()

    def work(self, actor: Actor) -> None:
        """Let an actor do the next thing that it can do."""
        if not actor.alive or actor.stopped or not actor.calls:
            return
        aside = [call for call in actor.calls if call[1] in _ASIDE]
        for call in (*aside, *[c for c in actor.calls if c[1] not in _ASIDE][:1]):
            number, method, arguments = call
            outcome = getattr(self, f"_{method}")(actor, number, *arguments)
            if not actor.alive:
                return
            if outcome is not NotImplemented:
                actor.calls.remove(call)
                if call not in aside:
                    actor.since_s = self.now_s
                self.arrived.append((number, outcome))
                return

    def deliver(self) -> None:
        """Let the oldest outcome arrive."""
        if self.arrived:
            self.dispatch.ended(*self.arrived.popleft(), self.now_s)

    def settle(self, *, for_s: float = 0.0, step_s: float = 0.5) -> None:
        """Let everybody work until nothing moves, and for as long as told."""
        until_s = self.now_s + for_s
        while True:
            self.dispatch.tick(self.now_s)
            for _ in range(10_000):
                before = self._moves()
                for actor in list(self.actors.values()):
                    self.work(actor)
                while self.arrived:
                    self.deliver()
                if self._moves() == before:
                    break
            if self.now_s >= until_s:
                return
            self.now_s += step_s

    def _moves(self) -> tuple[Any, ...]:
        return (
            len(self.judged),
            len(self.reasons),
            self.deaths,
            len(self.arrived),
            tuple(call[0] for actor in self.actors.values() for call in actor.calls),
        )

    # What actors answer; words in the caption say what goes wrong.

    def _describe(self, actor: Actor, number: int) -> Described:
        del number
        me = Identity(pid=1, started="1")
        if actor.role.startswith("classifier"):
            return Described(identity=me, digest=actor.role, reads=frozenset({"image", "caption"}))
        return Described(identity=me)

    def _pulse(self, actor: Actor, number: int) -> Pulse:
        del number
        at = next((c for c in actor.calls if c[1] not in _ASIDE), None)
        return Pulse(
            running=at[0] if at else None,
            running_s=self.now_s - actor.since_s if at else 0.0,
            last_answer_at=None,
        )

    def _learn(
        self, actor: Actor, number: int, digest: str, questions: Sequence[Question]
    ) -> list[bool]:
        del number
        actor.lessons.add(digest)
        return [True for _ in questions]

    def _turn(self, actor: Actor, number: int, of: int) -> Any:
        del number
        working = [c for c in actor.calls if c[1] not in _ASIDE]
        return True if working and working[0][0] == of else NotImplemented

    def _go(self, actor: Actor, number: int, of: int) -> None:
        del number
        actor.may_go = of

    def _check(self, actor: Actor, number: int, digest: str) -> Crashed | None:
        del number, digest
        if self.sick:
            self.die(actor)
        return None

    def _classify_suspect(self, actor: Actor, number: int, *arguments: Any) -> Any:
        if actor.may_go != number:
            return NotImplemented
        return self._classify(actor, number, *arguments)

    def _classify(
        self, actor: Actor, number: int, digest: str, indices: Sequence[int], seen: Sequence[Seen]
    ) -> Answers | Unknown | Crashed | Withheld | Any:
        del number
        self.batches.append(len(seen))
        if digest not in actor.lessons:
            return Unknown()
        captions = [one.caption for one in seen]
        if self.sick or any("kills" in caption for caption in captions):
            self.die(actor)
        if any("hangs" in caption for caption in captions):
            return NotImplemented
        if any("crashes" in caption for caption in captions):
            return Crashed("crashed")
        found: list[tuple[tuple[Any, ...], ...] | WorkerError | Lost] = []
        for one in seen:
            if one.pictures is not None and self.lose_pictures:
                found.append(Lost())
            elif actor.role in self.absent:
                found.append(ClassifierUnavailableError("remote-away"))
            elif "refused" in one.caption:
                found.append(MediaRefusedError("broken"))
            else:
                found.append(tuple((QUESTIONS.all[i].id, 1.0, None, None, None) for i in indices))
        answered = any(isinstance(rows, tuple) for rows in found)
        return Answers(tuple(found), 1.0, self.now_s if answered else None)

    def _explain(
        self,
        actor: Actor,
        number: int,
        seen: Seen,
        findings: Sequence[tuple[Question, Classification]],
    ) -> Any:
        del number
        if "unspeakable" in seen.caption:
            self.die(actor)
        return [
            Rationale(question=question.id, clause="W1", text="because", supported=True)
            for question, _ in findings
        ]

    def _prepare(
        self, actor: Actor, number: int, uploads: Sequence[tuple[int, Upload]], wait_s: float
    ) -> Any:
        del number, wait_s
        outcomes: list[Kept | WorkerError | Crashed | None] = []
        shared = object()
        ready = [u for _, u in uploads if not any(w in u.media[0].uri for w in ("broken", "slow"))]
        for ticket, upload in uploads:
            uri = upload.media[0].uri
            if "kills" in uri:
                self.die(actor)
            elif "hangs" in uri:
                return NotImplemented
            elif "broken" in uri:
                outcomes.append(MediaRefusedError("broken", media=0))
            elif "slow" in uri and self.random.random() < 0.5:
                outcomes.append(None)
            else:
                outcomes.append(
                    Kept(
                        # Who was slow lies alone; all others of a call lie together.
                        pictures=Place(shared, 1_000_000 * len(ready), ready.index(upload))
                        if upload in ready
                        else Place(ticket, 1_000_000, 0),
                        media_digests=("sha256:1",),
                        perceptual_hashes=("00ff00ff00ff00ff",),
                        stages_ms=(("fetch", 1.0),),
                    )
                )
        return outcomes


def text(key: int, caption: str = "fine") -> Upload:
    """Return an upload with a caption only."""
    return Upload(key=key, caption=caption)


def picture(key: int, uri: str = "a.jpg", caption: str = "fine") -> Upload:
    """Return an upload with one picture."""
    return Upload(key=key, media=(Location(uri=uri),), caption=caption)
