"""One upload's way through the workers, as the pool keeps book of it."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from policies.question import Part, Question
from workers.actors import Place
from workers.classifier import Classification, Rationale
from workers.upload import Settle, Upload


@dataclass(frozen=True)
class Questions:
    """The questions of one submission, which classifiers learn once and are then asked by their digest."""

    all: tuple[Question, ...]

    @cached_property
    def digest(self) -> str:
        """Return what tells these questions from all others: their names and all that scores depend on."""
        told = [(question.id, question.digest) for question in self.all]
        return hashlib.sha256(repr(told).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Leg:
    """One classifier's part of the way: which of the questions it is asked."""

    classifier: int
    questions: tuple[int, ...]


@dataclass(slots=True, eq=False, kw_only=True)
class Passage:
    """One upload between its submission and its release."""

    upload: Upload
    questions: Questions
    alone: bool
    #: Says whether an answer is enough; None: it always is.
    settle: Settle | None = None
    #: When it began to wait for whatever it waits for now; monotonic.
    since_s: float
    #: Where its pictures are in the object store.
    pictures: Place | None = None
    media_digests: tuple[str, ...] = ()
    perceptual_hashes: tuple[str, ...] = ()
    text_in_image: str = ""
    stages_ms: list[tuple[str, float]] = field(default_factory=list)
    legs: list[Leg] | None = None
    answers: list[Classification] = field(default_factory=list)
    answered_by: dict[str, str] = field(default_factory=dict)
    #: Which bench of the cascade answered each question.
    answered_at: dict[str, Any] = field(default_factory=dict)
    #: How often it killed a worker while alone in its call, and when it first did; monotonic.
    deaths: int = 0
    first_death_s: float | None = None
    #: How often its pictures were lost.
    losses: int = 0
    #: The questions whose reasons are wanted, once it was judged.
    wanted: tuple[Question, ...] | None = None
    reasons: list[Rationale] = field(default_factory=list)
    #: The benches that still owe reasons.
    reasons_left: list[Any] = field(default_factory=list)
    #: Whether it counts as being prepared, or prepared and not judged.
    in_window: bool = False
    #: Set when it is released or has come back with a fault: whatever is still under way for it is dropped.
    gone: bool = False

    @property
    def parts(self) -> frozenset[Part]:
        """Return what of it there is to look at."""
        parts: set[Part] = set()
        if self.pictures is not None:
            parts.add("image")
        if self.upload.caption or self.text_in_image:
            parts.add("caption")
        return frozenset(parts)


def legs_for(
    questions: Sequence[Question],
    parts: frozenset[Part],
    classifiers: Sequence[tuple[frozenset[Part], Sequence[bool]] | None],
    *,
    cascade: bool = False,
) -> list[Leg] | None:
    """Return which classifier is asked which questions about an upload that has these parts.

    Each question goes to the first classifier that covers it and reads all of the parts that both the question and
    the upload have; if there is none, to the first that covers it and reads any of them. `classifiers` gives what
    each one reads and which questions it covers; None where that is not known yet. Returns None if that has to be
    known first. In a cascade a question goes to every classifier that covers it and reads all of those parts.
    """
    legs: dict[int, list[int]] = {}
    for number, question in enumerate(questions):
        needed = question.reads & parts
        if not needed:
            continue
        second: int | None = None
        found = False
        for index, known in enumerate(classifiers):
            if known is None:
                return None
            reads, covered = known
            if not covered[number] or not needed & reads:
                continue
            if needed <= reads:
                legs.setdefault(index, []).append(number)
                found = True
                if not cascade:
                    break
                continue
            second = index if second is None else second
        if not found and second is not None:
            legs.setdefault(second, []).append(number)
    return [Leg(index, tuple(numbers)) for index, numbers in sorted(legs.items())]


def without(legs: Sequence[Leg], settled: Collection[int]) -> list[Leg]:
    """Return the legs that are left once these questions need no further answer."""
    rest = [
        Leg(leg.classifier, tuple(number for number in leg.questions if number not in settled))
        for leg in legs
    ]
    return [leg for leg in rest if leg.questions]
