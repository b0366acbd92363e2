"""Archived uploads scored again by the classifiers as they are configured now, in this process: no pool, no broker."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.asking import Answered, ask
from policies.question import Question
from workers.classifier import Classifier, Item
from workers.errors import WorkerError
from workers.reading import Reading
from workers.store import Store
from workers.upload import Settle, Upload

#: Uploads a call: enough to share the work of a call, few enough that a bar moves and pictures fit into memory.
_BATCH = 8


@dataclass(slots=True, kw_only=True)
class Rescored:
    """What came of uploads that were scored again, by decision id."""

    answers: dict[str, list[Answered]] = field(default_factory=dict)
    #: Decision id -> why its upload could not be scored.
    left_out: dict[str, str] = field(default_factory=dict)
    #: What the classifiers took.
    spent_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescoring:
    """Puts uploads to classifiers."""

    classifiers: Sequence[Classifier]
    store: Store
    reading: Reading

    def score(
        self,
        uploads: Mapping[str, Upload],
        questions: Sequence[Question],
        settles: Settle,
        *,
        into: Rescored | None = None,
        advance: Callable[[int], None] = lambda _: None,
    ) -> Rescored:
        """Return the answers about these uploads; one that cannot be scored is left out, with the reason."""
        found = into or Rescored()
        for batch in _batches(list(uploads.items())):
            items: dict[str, Item] = {}
            for name, upload in batch:
                try:
                    items[name] = self.reading.item(upload, self.store)
                except WorkerError as error:
                    found.left_out[name] = str(error)
            started_s = time.perf_counter()
            self._ask(items, questions, settles, found)
            found.spent_s += time.perf_counter() - started_s
            advance(len(batch))
        return found

    def _ask(
        self,
        items: Mapping[str, Item],
        questions: Sequence[Question],
        settles: Settle,
        found: Rescored,
    ) -> None:
        if not items:
            return
        try:
            answers = ask(list(items.values()), questions, self.classifiers, settles)
        except WorkerError as error:
            if len(items) == 1:
                found.left_out[next(iter(items))] = str(error)
                return
            # One spoils the call for all: each is asked about by itself.
            for name, item in items.items():
                self._ask({name: item}, questions, settles, found)
            return
        found.answers.update(zip(items, answers, strict=True))


def _batches(
    uploads: Sequence[tuple[str, Upload]],
) -> Iterator[Sequence[tuple[str, Upload]]]:
    for start in range(0, len(uploads), _BATCH):
        yield uploads[start : start + _BATCH]
