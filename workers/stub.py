"""A classifier without a model: scores come from the content's checksum, time passes as on a GPU.

It ships for benchmarks and for tests of everything around a model, and passes the same contract tests as every other
classifier. It fails only where its options say so.
"""

import hashlib
import os
import signal
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np

from policies.question import Part, Question
from workers.classifier import Classification, Item, Rationale, asked
from workers.errors import CheckpointError, MediaRefusedError
from workers.spec import ClassifierSpec

#: Scores lie within plus and minus this, before the bias.
_REACH: Final = 6.0
_STEPS: Final = 12_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StubOptions:
    """The options of a stub classifier.

    Args:
        batch_s: How long a call takes.
        item_s: How much longer for each upload in it.
        picture_s: How much longer for each picture in it.
        load_s: How long loading takes.
        bias: Added to every score.
        crash_on: A caption that holds these words kills the process.
        hang_on: A caption that holds these words takes for ever.
        refuse_on: A caption that holds these words raises an error of its own.
        exhaust_on: A call that holds more than one such caption runs out of memory.
    """

    batch_s: float = 0.0
    item_s: float = 0.0
    picture_s: float = 0.0
    load_s: float = 0.0
    bias: float = 0.0
    crash_on: str | None = None
    hang_on: str | None = None
    refuse_on: str | None = None
    exhaust_on: str | None = None

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> Self:
        """Return the options, or raise for one that a stub does not have."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise CheckpointError(
                    "options", f"a stub has no option {name!r}; there are {', '.join(known)}"
                )
        return cls(**options)


class StubClassifier:
    """Answers every question at once, the same for the same content."""

    def __init__(self, spec: ClassifierSpec) -> None:
        self._spec = spec
        self._options = StubOptions.read(spec.options)
        self._reads: frozenset[Part] = frozenset(spec.reads)
        time.sleep(self._options.load_s)

    @property
    def name(self) -> str:
        """The name that configuration gives this classifier."""
        return self._spec.name

    @property
    def digest(self) -> str:
        """`sha256:…` of what its answers depend on."""
        told = f"stub-1 {self._options.bias} {sorted(self._reads)}"
        return "sha256:" + hashlib.sha256(told.encode()).hexdigest()

    @property
    def reads(self) -> frozenset[Part]:
        """Which parts of an upload this classifier can look at."""
        return self._reads

    def covers(self, question: Question) -> bool:
        """Return whether configuration lets this classifier be asked."""
        return self._spec.asks(question)

    def classify(
        self, items: Sequence[Item], questions: Sequence[Question]
    ) -> list[list[Classification]]:
        """Return one list of classifications an item, in the items' order."""
        self._fail_as_told(items)
        pictures = sum(len(item.pictures) for item in items)
        time.sleep(
            self._options.batch_s
            + self._options.item_s * len(items)
            + self._options.picture_s * pictures
        )
        covered = [(question, question.digest.encode()) for question in questions]
        covered = [pair for pair in covered if self.covers(pair[0])]
        return [self._answers(item, covered) for item in items]

    def explain(
        self, item: Item, findings: Sequence[tuple[Question, Classification]]
    ) -> list[Rationale]:
        """Return a reason for each finding that says how it was found; none where configured so."""
        del item
        if not self._spec.rationales:
            return []
        return [
            Rationale(
                question=question.id,
                clause=question.forbidden[0].id,
                text=f"The checksum of the content gives {found.score:+.3f}.",
                supported=found.score > 0,
                media=found.media,
            )
            for question, found in findings
        ]

    def _answers(
        self, item: Item, questions: Sequence[tuple[Question, bytes]]
    ) -> list[Classification]:
        words = zlib.crc32(f"{item.caption}\0{item.text_in_image}".encode(errors="surrogatepass"))
        reading = "caption" in self._reads and bool(item.caption or item.text_in_image)
        seen = (
            [
                (zlib.crc32(np.ascontiguousarray(p.pixels).data, words if reading else 0), p)
                for p in item.pictures
            ]
            if "image" in self._reads
            else []
        )
        answers = []
        for question, digest in questions:
            if not asked(question, item, self._reads):
                continue
            if seen and "image" in question.reads:
                score, picture = max(
                    ((self._score(digest, seed), picture) for seed, picture in seen),
                    key=lambda found: found[0],
                )
                media, time_s = picture.media, picture.time_s
            else:
                score, media, time_s = self._score(digest, words), None, None
            answers.append(
                Classification(question=question.id, score=score, media=media, time_s=time_s)
            )
        return answers

    def _score(self, digest: bytes, seed: int) -> float:
        share = (zlib.crc32(digest, seed) % (_STEPS + 1)) / _STEPS
        return self._options.bias + _REACH * (2.0 * share - 1.0)

    def _fail_as_told(self, items: Sequence[Item]) -> None:
        options = self._options

        def told(words: str | None) -> int:
            return sum(words in item.caption for item in items) if words else 0

        if told(options.crash_on):
            os.kill(os.getpid(), signal.SIGKILL)
        while told(options.hang_on):
            time.sleep(1.0)
        if told(options.refuse_on):
            raise MediaRefusedError("told", "the stub was told to refuse this caption")
        if told(options.exhaust_on) > 1:
            raise MemoryError
