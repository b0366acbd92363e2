"""What the pipeline holds of the pool: it takes uploads in, gives judgements out, and keeps book in a thread.

Nothing here knows Ray. Whatever takes long, such as joining it, happens in the thread, so that the caller, who has
to poll Kafka in time, never waits for it.
"""

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, Self

from policies.question import Question
from workers.crew import Hands, Patience
from workers.dispatch import Dispatch, Sizes
from workers.passage import Passage, Questions
from workers.spec import ClassifierSpec
from workers.upload import Explained, Judged, Settle, Upload

#: How often the book-keeping looks at what is due.
_TICK_S: Final = 0.05

#: Where outcomes of calls arrive, as a call's number and what came of it.
Inbox = queue.SimpleQueue[Any]


class Connection(Protocol):
    """The way to the machines; entered and left by the thread that keeps book."""

    joined: bool
    lost: bool

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def join(self) -> bool:
        """Join, and return whether that worked; the next try comes after a while."""
        ...

    def leave(self) -> None:
        """Let go of what was lost."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What is under way in one pool, for metrics."""

    preparing: int
    prepared: int
    judging: int
    explaining: int
    workers: dict[str, int]
    restarts: dict[str, int]
    #: What workers of each kind died of last.
    faults: dict[str, str]
    batches: int
    batched: int


class Desk:
    """Judges uploads in the background; a `Pool` on whatever machines the hands reach."""

    def __init__(
        self,
        specs: Sequence[ClassifierSpec],
        *,
        connection: Connection,
        hands: Callable[[Inbox], Hands],
        sizes: Sizes,
        patience: Patience,
    ) -> None:
        """Start joining the machines in the background; uploads may be submitted at once."""
        self._specs = tuple(specs)
        self._inbox: Inbox = queue.SimpleQueue()
        self._lock = threading.Condition()
        self._passages: dict[int, Passage] = {}
        self._judged: deque[tuple[Passage, Judged]] = deque()
        self._explained: deque[tuple[Passage, Explained]] = deque()
        self._asked: tuple[tuple[Question, ...], Questions] = ((), Questions(()))
        self._closing = False
        self._error: Exception | None = None
        self._dispatch = Dispatch(
            hands(self._inbox), self, len(self._specs), sizes=sizes, patience=patience
        )
        self._thread = threading.Thread(
            target=self._run, args=(connection,), name="pool", daemon=True
        )
        self._thread.start()

    # What the pipeline calls.

    def covers(self, question: Question) -> bool:
        """Return whether any configured classifier can judge the question; `ready` makes this certain.

        What only a loaded classifier can say counts as covered until then.
        """
        if not any(spec.asks(question) for spec in self._specs):
            return False
        said = [self._dispatch.covers(index, question) for index in range(len(self._specs))]
        return any(one is not False for one in said)

    def ready(self, questions: Sequence[Question] = (), *, timeout_s: float) -> bool:
        """Wait until every classifier is loaded and has said which of the questions it covers."""
        asked = self._question_set(questions)
        self._inbox.put(partial(self._dispatch.learn, asked))
        until_s = time.monotonic() + timeout_s
        while not self._dispatch.is_ready(asked.digest):
            if self._error or time.monotonic() > until_s:
                return False
            time.sleep(_TICK_S)
        return True

    def submit(
        self,
        uploads: Sequence[Upload],
        questions: Sequence[Question],
        *,
        alone: bool = False,
        settle: Settle | None = None,
    ) -> None:
        """Start judging uploads; `alone` puts each upload into a call of its own, `settle` makes a cascade."""
        asked = self._question_set(questions)
        now_s = time.monotonic()
        passages = [
            Passage(
                upload=upload,
                questions=asked,
                alone=alone,
                since_s=now_s,
                settle=settle if len(self._specs) > 1 else None,
            )
            for upload in uploads
        ]
        with self._lock:
            added: set[int] = set()
            for key in (passage.upload.key for passage in passages):
                if key in self._passages or key in added:
                    raise ValueError(f"key {key} was submitted before and not released")
                added.add(key)
            self._passages.update((passage.upload.key, passage) for passage in passages)
        self._inbox.put(partial(self._dispatch.submit, passages, now_s))

    def finished(self, *, timeout_s: float = 0.0) -> list[Judged]:
        """Return what was judged since the last call, waiting up to `timeout_s` for the first."""
        with self._lock:
            self._lock.wait_for(lambda: self._judged or self._error, timeout=timeout_s)
            self._raise()
            found = [judged for _, judged in self._judged]
            for passage, judged in self._judged:
                if judged.fault is not None:
                    # There is nothing to explain and nothing kept: the key is free again.
                    del self._passages[passage.upload.key]
            self._judged.clear()
        return found

    def explain(self, key: int, questions: Sequence[Question]) -> None:
        """Start writing rationales for these questions of a judged upload that was not released."""
        with self._lock:
            passage = self._passages[key]
        if passage.wanted is not None:
            raise ValueError(f"key {key} is being explained already")
        passage.wanted = tuple(questions)
        self._inbox.put(partial(self._dispatch.explain, passage, time.monotonic()))

    def explained(self, *, timeout_s: float = 0.0) -> list[Explained]:
        """Return the rationales that were finished since the last call."""
        with self._lock:
            self._lock.wait_for(lambda: self._explained or self._error, timeout=timeout_s)
            self._raise()
            found = [explained for _, explained in self._explained]
            self._explained.clear()
        return found

    def release(self, keys: Sequence[int]) -> None:
        """Let go of everything that is kept for these uploads; unfinished work on them never comes back."""
        with self._lock:
            passages = [p for key in keys if (p := self._passages.pop(key, None))]
            for passage in passages:
                passage.gone = True
            released = set(passages)
            if self._judged:
                self._judged = deque(pair for pair in self._judged if pair[0] not in released)
            if self._explained:
                self._explained = deque(pair for pair in self._explained if pair[0] not in released)
        self._inbox.put(partial(self._dispatch.release, passages, time.monotonic()))

    def last_answer_at(self, fault_by: str) -> float | None:
        """Return when the workers that a fault is by last answered (seconds since the epoch), None if never."""
        return self._dispatch.last_answer_at(fault_by)

    def backlog(self) -> Backlog:
        """Return what is under way, for metrics."""
        return Backlog(**self._dispatch.numbers())

    def close(self) -> None:
        """Let go of the pool; actors that other pipelines share live on."""
        self._closing = True
        self._inbox.put(None)
        self._thread.join()

    # What the book-keeping calls.

    def hand_over(self, passage: Passage, judged: Judged) -> None:
        """Take a judgement or a fault."""
        with self._lock:
            if self._passages.get(passage.upload.key) is passage:
                self._judged.append((passage, judged))
                self._lock.notify_all()

    def hand_reasons(self, passage: Passage, explained: Explained) -> None:
        """Take rationales."""
        with self._lock:
            if self._passages.get(passage.upload.key) is passage:
                self._explained.append((passage, explained))
                self._lock.notify_all()

    # The thread.

    def _question_set(self, questions: Sequence[Question]) -> Questions:
        asked = tuple(questions)
        if asked != self._asked[0]:
            self._asked = asked, Questions(asked)
        return self._asked[1]

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self, connection: Connection) -> None:
        try:
            with connection:
                self._keep_book(connection)
        except Exception as error:  # noqa: BLE001 -- raised again in the thread of the caller
            with self._lock:
                self._error = error
                self._lock.notify_all()

    def _keep_book(self, connection: Connection) -> None:
        due_s = time.monotonic()
        while not self._closing:
            with contextlib.suppress(queue.Empty):
                self._take(self._inbox.get(timeout=max(0.0, due_s - time.monotonic())))
            now_s = time.monotonic()
            if connection.lost and connection.joined:
                with self._lock:
                    passages = list(self._passages.values())
                self._dispatch.cut_off(passages, now_s)
                connection.leave()
            if now_s >= due_s:
                if connection.joined or connection.join():
                    self._dispatch.tick(now_s)
                else:
                    self._dispatch.give_up(now_s)
                due_s = time.monotonic() + _TICK_S

    def _take(self, event: Any) -> None:
        if callable(event):
            event()
        elif event is not None:
            number, outcome = event
            self._dispatch.ended(number, outcome, time.monotonic())
