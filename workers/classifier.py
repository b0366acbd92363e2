"""The contract of everything that answers questions about uploads.

A classifier is a generative vision-language model, a dual encoder, a plain image or text model, or a remote one.
The pool, the pipeline, the tests and the benchmarks know only what stands here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from policies.question import Part, Question

#: One decoded picture: height × width × 3, RGB.
Pixels = NDArray[np.uint8]

#: A place in a picture: left, top, right, bottom as shares (0 to 1) of it.
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture of an upload: a whole image, or one sampled frame of an animation or a video."""

    media: int
    pixels: Pixels
    time_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What a classifier sees of one upload."""

    pictures: tuple[Picture, ...] = ()
    caption: str = ""
    text_in_image: str = ""


class Classification(NamedTuple):
    """One classifier's answer to one question about one upload; a dozen are made for each, so a tuple.

    `score` is a log-odds (of Yes against No); `media` and `time_s` say which picture it is highest on, None where
    the answer came from text alone; `mass` is the probability that Yes and No had together, where that is known.
    Where pictures are read in tiles as well, `whole` is what the whole alone gave, and `box` is the tile that the
    score comes from, None where it comes from the whole.
    """

    question: str
    score: float
    media: int | None = None
    time_s: float | None = None
    mass: float | None = None
    whole: float | None = None
    box: Box | None = None


#: What a reason is made of, as far as a model can be asked back about it.
ReasonPart = Literal["clause", "text", "box"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rationale:
    """A classifier's reason for one finding, for people; untrusted text, never a source of confidence.

    `box` is left, top, right, bottom as shares (0 to 1) of the picture. `supported` says that clause, words and place,
    as they are shown, were each confirmed when asked back; it is False where the reason contradicts the score, names no
    clause or could not be parsed. `denied` names which parts of what the model wrote it denied when asked back, also
    those that something confirmed now stands for. `agreement` is the share of further drawn reasons that say the same,
    None where none were drawn.
    """

    question: str
    clause: str | None
    text: str
    supported: bool
    denied: tuple[ReasonPart, ...] = ()
    media: int | None = None
    box: Box | None = None
    agreement: float | None = None


class Classifier(Protocol):
    """Answers yes/no questions about uploads, many questions and many uploads a call."""

    @property
    def name(self) -> str:
        """The name that configuration gives this classifier."""
        ...

    @property
    def digest(self) -> str:
        """`sha256:…` of all that a calibration depends on: model, revision, dtype, quantisation, prompt, …."""
        ...

    @property
    def reads(self) -> frozenset[Part]:
        """Which parts of an upload this classifier can look at."""
        ...

    def covers(self, question: Question) -> bool:
        """Return whether this classifier can judge the question at all; what is not covered is never a No."""
        ...

    def classify(
        self, items: Sequence[Item], questions: Sequence[Question]
    ) -> list[list[Classification]]:
        """Return one list of classifications an item, in the items' order.

        Each list holds an answer for every question that is covered and has something to read in that item: a
        question that reads only images is not asked of a text.
        """
        ...

    def explain(
        self, item: Item, findings: Sequence[tuple[Question, Classification]]
    ) -> list[Rationale]:
        """Return a rationale for each finding, in order; empty where this classifier cannot give reasons."""
        ...


def outdoes(score: float, held: float) -> bool:
    """Return whether a reading counts instead of one that is held: the higher does, and what is no number over any.

    A model that broke on one picture of several would else be believed about the others, and an error become a pass.
    """
    return score > held or math.isnan(score)


def asked(question: Question, item: Item, reads: frozenset[Part]) -> bool:
    """Return whether the question has anything to read in the item with a classifier that reads these parts."""
    parts = question.reads & reads
    return ("image" in parts and bool(item.pictures)) or (
        "caption" in parts and bool(item.caption or item.text_in_image)
    )
