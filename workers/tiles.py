"""Pictures read at two scales: whole, and in overlapping tiles at their full sharpness.

A model sees a picture at a fixed size, so a small thing in a large picture is a few blurred pixels to it. In a tile
the thing is as large as the model needs. The higher of the two readings counts; `Classification.whole` keeps what
the whole alone gave, so that a decision can send to a person what only one of them saw.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from policies.question import Part, Question
from workers.classifier import (
    Box,
    Classification,
    Classifier,
    Item,
    Picture,
    Pixels,
    Rationale,
    outdoes,
)
from workers.errors import CheckpointError

#: Options of a classifier of any kind that is read in tiles.
OPTIONS: Final = frozenset({"tile_px", "tiles"})
#: How many tiles of one picture are read, unless set.
_MOST: Final = 64
_LEAST_PX: Final = 16
#: Neighbours share this part of their side, so that what lies on one's edge lies inside of the other.
_OVERLAP: Final = 0.4
#: From here on two neighbouring points (of 255) have an edge between them.
_EDGE: Final = 12
#: A tile in which a smaller share of the points has an edge shows nothing.
_LEAST_EDGES: Final = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A part of a picture, and where it lies, as shares of the picture."""

    picture: Picture
    box: Box


class TiledClassifier:
    """A classifier whose pictures are also read in tiles."""

    def __init__(self, inner: Classifier, *, tile_px: int, most: int) -> None:
        self.inner = inner
        self._px = tile_px
        self._most = most

    @property
    def name(self) -> str:
        """The name that configuration gives this classifier."""
        return self.inner.name

    @property
    def digest(self) -> str:
        """`sha256:…` of the classifier's own digest and of how pictures are cut."""
        told = f"tiles-1 {self.inner.digest} {self._px} {self._most}"
        return "sha256:" + hashlib.sha256(told.encode()).hexdigest()

    @property
    def reads(self) -> frozenset[Part]:
        """Which parts of an upload this classifier can look at."""
        return self.inner.reads

    @property
    def family(self) -> Any:
        """The family of the model behind it, where it has one."""
        return getattr(self.inner, "family", None)

    def covers(self, question: Question) -> bool:
        """Return whether this classifier can judge the question at all."""
        return self.inner.covers(question)

    def classify(
        self, items: Sequence[Item], questions: Sequence[Question]
    ) -> list[list[Classification]]:
        """Return one list of classifications an item: of each question the highest over whole and tiles."""
        whole = self.inner.classify(items, questions)
        looking = [question for question in questions if "image" in question.reads]
        if not looking or "image" not in self.reads:
            return whole
        return [
            self._closer(item, found, looking) for item, found in zip(items, whole, strict=True)
        ]

    def explain(
        self, item: Item, findings: Sequence[tuple[Question, Classification]]
    ) -> list[Rationale]:
        """Return a rationale for each finding; what a tile showed is explained on that tile."""
        reasons: list[Rationale] = []
        for question, found in findings:
            seen = _crop(item, found)
            told = self.inner.explain(seen or item, [(question, found)])
            reasons += [_placed(reason, found) if seen else reason for reason in told]
        return reasons

    def _closer(
        self, item: Item, found: Sequence[Classification], questions: Sequence[Question]
    ) -> list[Classification]:
        tiles = [
            tile
            for picture in item.pictures
            for tile in tiles_of(picture, px=self._px, most=self._most)
        ]
        if not tiles:
            return list(found)
        near = self.inner.classify(
            [replace(item, pictures=(tile.picture,)) for tile in tiles], questions
        )
        best: dict[str, tuple[Classification, Tile]] = {}
        for tile, answers in zip(tiles, near, strict=True):
            for answer in answers:
                known = best.get(answer.question)
                if known is None or outdoes(answer.score, known[0].score):
                    best[answer.question] = answer, tile
        return [_higher(one, *best[one.question]) if one.question in best else one for one in found]


def tiled(inner: Classifier, options: Mapping[str, Any]) -> Classifier:
    """Return the classifier, read in tiles where these options say so.

    Raises:
        CheckpointError: an option is no usable number.
    """
    px, most = options.get("tile_px"), options.get("tiles", _MOST)
    if px is None and "tiles" not in options:
        return inner
    if not (isinstance(px, int) and px >= _LEAST_PX and isinstance(most, int) and most > 0):
        raise CheckpointError(
            "options",
            f"classifier {inner.name}: tile_px is a number of pixels from {_LEAST_PX} on and tiles"
            f" a number from 1 on, not {px!r} and {most!r}",
        )
    return TiledClassifier(inner, tile_px=px, most=most)


def tiles_of(picture: Picture, *, px: int, most: int) -> list[Tile]:
    """Return the tiles of a picture that show something, at most so many: those with the most detail."""
    height, width, _ = picture.pixels.shape
    if max(height, width) <= px:
        return []
    ranked = []
    edges = _edges(picture.pixels)
    for top in _starts(height, px):
        bottom = min(top + px, height)
        for left in _starts(width, px):
            right = min(left + px, width)
            inside = edges[bottom, right] - edges[top, right] - edges[bottom, left]
            share = (inside + edges[top, left]) / ((bottom - top) * (right - left))
            if share >= _LEAST_EDGES:
                ranked.append((-float(share), top, left))
    tiles = []
    for _, top, left in sorted(ranked)[:most]:
        bottom, right = min(top + px, height), min(left + px, width)
        part = replace(picture, pixels=picture.pixels[top:bottom, left:right])
        box = (left / width, top / height, right / width, bottom / height)
        tiles.append(Tile(picture=part, box=box))
    return tiles


def _starts(length: int, px: int) -> list[int]:
    if length <= px:
        return [0]
    steps = -(-(length - px) // max(1, int(px * (1 - _OVERLAP))))
    return [round(step * (length - px) / steps) for step in range(steps + 1)]


def _edges(pixels: Pixels) -> NDArray[np.int64]:
    """Return how many points with an edge lie above and to the left of each: a gradient has none."""
    height, width, colours = pixels.shape
    edge = np.zeros((height, width), dtype=bool)
    for colour in range(colours):
        light = pixels[:, :, colour].astype(np.int16)
        edge[:, 1:] |= np.abs(np.diff(light, axis=1)) >= _EDGE
        edge[1:] |= np.abs(np.diff(light, axis=0)) >= _EDGE
    counted = np.zeros((height + 1, width + 1), dtype=np.int64)
    counted[1:, 1:] = edge.cumsum(axis=0).cumsum(axis=1)
    return counted


def _higher(whole: Classification, near: Classification, tile: Tile) -> Classification:
    if outdoes(near.score, whole.score):
        return near._replace(whole=whole.score, box=tile.box)
    return whole._replace(whole=whole.score)


def _crop(item: Item, found: Classification) -> Item | None:
    """Return the item with the one tile that a finding comes from, or None where it comes from the whole."""
    if found.box is None:
        return None
    for picture in item.pictures:
        if (picture.media, picture.time_s) == (found.media, found.time_s):
            height, width, _ = picture.pixels.shape
            left, top, right, bottom = found.box
            rows = slice(round(top * height), round(bottom * height))
            columns = slice(round(left * width), round(right * width))
            part = replace(picture, pixels=picture.pixels[rows, columns])
            return replace(item, pictures=(part,))
    return None


def _placed(reason: Rationale, found: Classification) -> Rationale:
    """Return the reason with its place as shares of the whole picture."""
    if found.box is None or reason.media is None:
        return reason
    left, top, right, bottom = found.box
    inner = reason.box or (0.0, 0.0, 1.0, 1.0)
    wide, high = right - left, bottom - top
    box = (
        left + inner[0] * wide,
        top + inner[1] * high,
        left + inner[2] * wide,
        top + inner[3] * high,
    )
    return replace(reason, box=box)
