"""What runs inside the pool's actors: preparing media, and a classifier with its lessons; Ray is not known here."""

import contextlib
import itertools
import logging
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from policies.question import Part, Question
from workers.bounds import Bounds
from workers.classifier import Classification, Classifier, Item, Picture, Rationale
from workers.crew import Pulse
from workers.errors import ClassifierUnavailableError, WorkerError
from workers.media import Prepared, prepare
from workers.store import Store
from workers.upload import Upload

_log = logging.getLogger(__name__)

#: How many question sets a classifier remembers.
_LESSONS: Final = 64
#: How many uploads one preparer fetches and decodes at once.
THREADS: Final = 8
#: For how long media are kept that nobody asked for again.
_FORGET_S: Final = 300.0
#: How long one question whether a suspect's turn has come waits for it, and how long the suspect waits for `go`.
_TURN_S: Final = 1.0
_GO_S: Final = 10.0
#: What no classifier should die of.
_HARMLESS: Final = Item(
    pictures=(Picture(media=0, pixels=np.full((64, 64, 3), 127, dtype=np.uint8)),),
    caption="A grey square.",
)
_MS: Final = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which process an actor is; its start tells it from a later one with the same number."""

    pid: int
    started: str

    @classmethod
    def own(cls) -> "Identity":
        """Return the identity of this process."""
        return cls(pid=os.getpid(), started=start_of(os.getpid()) or "")


def start_of(pid: int) -> str | None:
    """Return when the process started, in the kernel's ticks; None if it is gone or this is no Linux."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What an actor says of itself once it is ready; a preparer has neither digest nor parts."""

    identity: Identity
    node: str = ""
    digest: str = ""
    reads: frozenset[Part] = frozenset()


@dataclass(frozen=True, slots=True)
class Place:
    """Where the pictures of one upload lie: in which object of the store, how large that is, and at which place in it.

    Uploads that were prepared in one call share an object: keeping book of one costs a good millisecond of CPU.
    """

    reference: Any
    bytes: int
    number: int


@dataclass(frozen=True, slots=True)
class Seen:
    """One upload as it travels to a classifier: where its pictures are, its text, and the text in them."""

    pictures: Place | None
    caption: str
    text_in_image: str = ""


@dataclass(frozen=True, slots=True)
class Crashed:
    """An error that no upload should cause; whoever is alone with it is to blame."""

    detail: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The pictures are no longer in the object store."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a classifier answered: a row for each question, an error or `Lost` for each upload.

    Rows are plain tuples of `Classification`'s fields: they pass between processes several times faster. `at` is when
    they came (seconds since the epoch), None where no upload has an answer.
    """

    by_upload: tuple[tuple[tuple[Any, ...], ...] | WorkerError | Lost, ...]
    ms: float
    at: float | None


class Unknown:
    """The classifier was not taught these questions."""


class Withheld:
    """The classifier did not look at the upload, because nobody heard that its turn had come."""


class Watch:
    """Tells which call runs and for how long, and ends a process that nobody has used for a while."""

    def __init__(self, idle_s: float, leave: Callable[[], None]) -> None:
        self._idle_s = idle_s
        self._leave = leave
        self._running: dict[int, float] = {}
        self._used_s = time.monotonic()
        self.last_answer_at: float | None = None
        threading.Thread(target=self._wait, daemon=True).start()

    @contextlib.contextmanager
    def call(self, number: int) -> Iterator[None]:
        """Note that a call runs."""
        self._running[number] = self._used_s = time.monotonic()
        try:
            yield
        finally:
            del self._running[number]
            self._used_s = time.monotonic()

    def pulse(self) -> Pulse:
        """Return the call that has run longest; being asked counts as being used."""
        self._used_s = time.monotonic()
        return self.peek()

    def peek(self) -> Pulse:
        """Return the call that has run longest."""
        now_s = time.monotonic()
        number, since_s = min(
            self._running.copy().items(), key=lambda c: c[1], default=(None, now_s)
        )
        return Pulse(running=number, running_s=now_s - since_s, last_answer_at=self.last_answer_at)

    def _wait(self) -> None:
        while True:
            left_s = self._used_s + self._idle_s - time.monotonic()
            if left_s <= 0 and not self._running:
                self._leave()
            time.sleep(max(0.05, min(left_s, self._idle_s / 4)))


class Judge:
    """One classifier, asked by number: it is taught the questions once, then they travel no more."""

    def __init__(
        self,
        classifier: Classifier,
        *,
        watch: Watch,
        node: str,
        borrow: Callable[[Sequence[Any]], list[Sequence[tuple[Picture, ...]] | Lost]],
        reasons_s: float = math.inf,
        reason_s: float = 0.0,
    ) -> None:
        """Make it.

        Args:
            classifier: Who judges.
            watch: Who tells which call runs, and for how long.
            node: The machine.
            borrow: Returns what lies behind each reference: the pictures of one upload after the other.
            reasons_s: How long all reasons of one upload may take; a worker whose call takes longer counts as stuck.
            reason_s: How long a single one may take, where that is known; else the longest before it says so.

        """
        self._classifier = classifier
        self._reasons_s = reasons_s
        self._reason_s = reason_s
        self._watch = watch
        self._node = node
        self._borrow = borrow
        self._lessons: OrderedDict[str, tuple[Question, ...]] = OrderedDict()
        self._turn: int | None = None
        self._may_go: int | None = None
        self._changed = threading.Condition()

    def describe(self, number: int) -> Described:
        """Return what this classifier is."""
        del number
        return Described(
            identity=Identity.own(),
            node=self._node,
            digest=self._classifier.digest,
            reads=self._classifier.reads,
        )

    def pulse(self, number: int) -> Pulse:
        """Return a sign of life to a pipeline, whose asking keeps this worker from ending itself."""
        del number
        return self._watch.pulse()

    def peek(self, number: int) -> Pulse:
        """Return a sign of life to a bystander."""
        del number
        return self._watch.peek()

    def learn(self, number: int, digest: str, questions: tuple[Question, ...]) -> list[bool]:
        """Remember the questions, and return which of them this classifier covers."""
        with self._watch.call(number):
            self._lessons[digest] = questions
            while len(self._lessons) > _LESSONS:
                self._lessons.popitem(last=False)
            return [self._classifier.covers(question) for question in questions]

    def turn(self, number: int, of: int) -> bool:
        """Return whether the suspect call with that number has its turn, waiting a moment for it."""
        del number
        with self._changed:
            return self._changed.wait_for(lambda: self._turn == of, timeout=_TURN_S)

    def go(self, number: int, of: int) -> None:
        """Let the suspect call begin: from here on it is to blame if this process dies."""
        del number
        with self._changed:
            self._may_go = of
            self._changed.notify_all()

    def classify_suspect(
        self, number: int, digest: str, indices: tuple[int, ...], seen: Sequence[Seen]
    ) -> Answers | Unknown | Crashed | Withheld:
        """Do as `classify`, but not before the caller has heard that the turn has come and says `go`."""
        with self._changed:
            self._turn = number
            self._changed.notify_all()
            told = self._changed.wait_for(lambda: self._may_go == number, timeout=_GO_S)
            self._turn = None
        return self.classify(number, digest, indices, seen) if told else Withheld()

    def check(self, number: int, digest: str) -> Crashed | None:
        """Classify a harmless upload, to tell whether the classifier is well at all."""
        with self._watch.call(number):
            try:
                self._isolate([_HARMLESS], self._lessons.get(digest, ()))
            except Exception as error:  # noqa: BLE001 -- the actor's edge: it is not well
                return Crashed(f"{type(error).__name__}: {error}"[:500])
            return None

    def classify(
        self, number: int, digest: str, indices: tuple[int, ...], seen: Sequence[Seen]
    ) -> Answers | Unknown | Crashed:
        """Return the answers to the questions with these numbers, for each upload in order."""
        with self._watch.call(number):
            if digest not in self._lessons:
                return Unknown()
            self._lessons.move_to_end(digest)
            lesson = self._lessons[digest]
            questions = tuple(lesson[index] for index in indices)
            started_s = time.perf_counter()
            items = self._items(seen)
            whole = [item for item in items if isinstance(item, Item)]
            try:
                found = iter(self._isolate(whole, questions))
            except Exception as error:  # noqa: BLE001 -- the actor's edge: whoever is alone with it is to blame
                return Crashed(f"{type(error).__name__}: {error}"[:500])
            by_upload = tuple(next(found) if isinstance(i, Item) else i for i in items)
            # An endpoint that is away is heard of in every row; only an answer says that it is there.
            answered = any(rows for rows in by_upload if isinstance(rows, tuple))
            at = time.time() if answered else None
            self._watch.last_answer_at = at or self._watch.last_answer_at
            ms = (time.perf_counter() - started_s) * _MS
            return Answers(by_upload, ms, at)

    def explain(
        self, number: int, seen: Seen, findings: Sequence[tuple[Question, Classification]]
    ) -> list[Rationale] | Lost:
        """Return the reasons for the findings of one upload; what cannot be explained is left out."""
        with self._watch.call(number):
            (item,) = self._items([seen])
            return item if isinstance(item, Lost) else self._reasons(item, findings)

    def _reasons(
        self, item: Item, findings: Sequence[tuple[Question, Classification]]
    ) -> list[Rationale]:
        """Ask finding by finding, so that one that fails takes no other's reason with it."""
        began_s = last_s = time.monotonic()
        longest_s = self._reason_s
        reasons: list[Rationale] = []
        for finding in findings:
            now_s = time.monotonic()
            longest_s, last_s = max(longest_s, now_s - last_s), now_s
            if now_s + longest_s > began_s + self._reasons_s:
                why = f"it would take more than {self._reasons_s:g} s with the others"
                _unexplained(finding[0], why)
                continue
            try:
                reasons += self._classifier.explain(item, [finding])
            except ClassifierUnavailableError as error:
                # The next finding would only wait for it as long again.
                _unexplained(finding[0], str(error))
                break
            except WorkerError as error:
                _unexplained(finding[0], str(error))
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                _unexplained(finding[0], f"{type(error).__name__}: {error}"[:500])
        return reasons

    def _items(self, seen: Sequence[Seen]) -> list[Item | Lost]:
        places = [one.pictures for one in seen if one.pictures is not None]
        references = list(dict.fromkeys(place.reference for place in places))
        borrowed = dict(zip(references, self._borrow(references), strict=True))
        items: list[Item | Lost] = []
        for one in seen:
            pictures: tuple[Picture, ...] = ()
            if one.pictures is not None:
                found = borrowed[one.pictures.reference]
                if isinstance(found, Lost):
                    items.append(found)
                    continue
                pictures = found[one.pictures.number]
            items.append(
                Item(pictures=pictures, caption=one.caption, text_in_image=one.text_in_image)
            )
        return items

    def _isolate(
        self, items: Sequence[Item], questions: Sequence[Question]
    ) -> list[tuple[tuple[Any, ...], ...] | WorkerError]:
        """Classify the items; if one spoils the call or memory runs out, try again in halves.

        A classifier that is away is so for all of them: none is tried again here.
        """
        if not items:
            return []
        try:
            answers = self._classifier.classify(items, questions)
        except ClassifierUnavailableError as error:
            return [error] * len(items)
        except WorkerError as error:
            if len(items) == 1:
                return [error]
        except (MemoryError, RuntimeError) as error:
            if len(items) == 1 or not _out_of_memory(error):
                raise
        else:
            if len(answers) != len(items):
                raise ValueError(f"{len(answers)} answers to {len(items)} uploads")
            return [tuple(map(tuple, found)) for found in answers]
        # Outside the handlers, so that the failed call's tensors are freed before the next one.
        middle = (len(items) + 1) // 2
        return self._isolate(items[:middle], questions) + self._isolate(items[middle:], questions)


def _unexplained(question: Question, why: str) -> None:
    _log.warning(
        "a finding goes without its reason", extra={"question": question.id, "reason": why}
    )


def _out_of_memory(error: Exception) -> bool:
    # torch is not imported here; its error on a GPU has a class of its own, on a CPU only these words.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The media of one upload, prepared: where its pictures are, None where it has none."""

    pictures: Place | None
    media_digests: tuple[str, ...]
    perceptual_hashes: tuple[str, ...]
    stages_ms: tuple[tuple[str, float], ...]
    text_in_image: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """The media of one upload, prepared and not yet put into the store."""

    prepared: Prepared
    text_in_image: str
    stages_ms: tuple[tuple[str, float], ...]


class Preparer:
    """Fetches, checks and decodes media, several uploads at once."""

    def __init__(
        self,
        store: Store,
        bounds: Bounds,
        *,
        watch: Watch,
        node: str,
        keep: Callable[[Sequence[tuple[Picture, ...]]], Any],
        text: Callable[[Sequence[Picture]], str] | None = None,
    ) -> None:
        """Make it.

        Args:
            store: Of the media.
            bounds: On what they may cost.
            watch: Of this process.
            node: The machine that it runs on.
            keep: Puts the pictures of several uploads into the object store, and returns a reference to them.
            text: Returns the text in pictures; None where it is not wanted.
        """
        self._text = text
        self._store = store
        self._bounds = bounds
        self._watch = watch
        self._node = node
        self._keep = keep
        self._threads = ThreadPoolExecutor(max_workers=THREADS)
        self._started: dict[int, tuple[float, Future[_Ready]]] = {}
        self._lock = threading.Lock()

    def describe(self, number: int) -> Described:
        """Return what this actor is."""
        del number
        return Described(identity=Identity.own(), node=self._node)

    def pulse(self, number: int) -> Pulse:
        """Return a sign of life to a pipeline, whose asking keeps this worker from ending itself."""
        del number
        return self._watch.pulse()

    def peek(self, number: int) -> Pulse:
        """Return a sign of life to a bystander."""
        del number
        return self._watch.peek()

    def prepare(
        self, number: int, uploads: Sequence[tuple[int, Upload]], wait_s: float
    ) -> list[Kept | WorkerError | Crashed | None]:
        """Return what became of each upload within `wait_s`; None for those that are still under way.

        Whoever asks again with the same ticket (the number beside the upload) joins what is under way.
        """
        with self._watch.call(number):
            with self._lock:
                now_s = time.monotonic()
                self._started = {
                    ticket: (since_s, future)
                    for ticket, (since_s, future) in self._started.items()
                    if now_s - since_s < _FORGET_S
                }
                for ticket, upload in uploads:
                    if ticket not in self._started:
                        future = self._threads.submit(self._prepare, upload)
                        self._started[ticket] = now_s, future
                futures = [self._started[ticket][1] for ticket, _ in uploads]
            wait(futures, timeout=wait_s)
            return self._kept(
                [self._outcome(t, f) for (t, _), f in zip(uploads, futures, strict=True)]
            )

    def _kept(
        self, outcomes: Sequence[_Ready | WorkerError | Crashed | None]
    ) -> list[Kept | WorkerError | Crashed | None]:
        """Put the pictures of all that are ready into the store, as one object."""
        started_s = time.perf_counter()
        groups = [o.prepared.pictures for o in outcomes if isinstance(o, _Ready)]
        groups = [pictures for pictures in groups if pictures]
        size = sum(picture.pixels.nbytes for pictures in groups for picture in pictures)
        reference = self._keep(groups) if groups else None
        keep_ms = round((time.perf_counter() - started_s) * _MS, 3)
        numbers = itertools.count()
        return [
            Kept(
                pictures=Place(reference, size, next(numbers)) if one.prepared.pictures else None,
                media_digests=one.prepared.media_digests,
                perceptual_hashes=one.prepared.perceptual_hashes,
                stages_ms=(*one.stages_ms, ("keep", keep_ms)),
                text_in_image=one.text_in_image,
            )
            if isinstance(one, _Ready)
            else one
            for one in outcomes
        ]

    def _outcome(
        self, ticket: int, future: Future[_Ready]
    ) -> _Ready | WorkerError | Crashed | None:
        if not future.done():
            return None
        with self._lock:
            self._started.pop(ticket, None)
        try:
            return future.result()
        except WorkerError as error:
            return error
        except Exception as error:  # noqa: BLE001 -- the actor's edge: the upload is to blame
            return Crashed(f"{type(error).__name__}: {error}"[:500])

    def _prepare(self, upload: Upload) -> _Ready:
        prepared: Prepared = prepare(upload, self._store, self._bounds)
        stages_ms = prepared.stages_ms
        text = ""
        if self._text is not None and prepared.pictures:
            reading_s = time.perf_counter()
            text = self._text(prepared.pictures)
            stages_ms += (("ocr", round((time.perf_counter() - reading_s) * _MS, 3)),)
        return _Ready(prepared=prepared, text_in_image=text, stages_ms=stages_ms)
