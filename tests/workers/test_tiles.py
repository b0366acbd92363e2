"""Pictures read whole and in tiles."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from policies.question import Question
from workers.actors import Judge, Place, Seen, Watch
from workers.classifier import Classification, Item, Picture, Pixels
from workers.errors import CheckpointError
from workers.loading import load
from workers.mini.samples import Piece, Sample, picture
from workers.probe import shows
from workers.spec import ClassifierSpec
from workers.stub import StubClassifier
from workers.tiles import TiledClassifier, tiles_of

GROUND = ("#dfe8ef", "#f7f3ea")


def noise(height: int, width: int) -> Picture:
    """Return a picture with edges everywhere."""
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Picture(media=3, pixels=pixels, time_s=1.5)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(16, 90))
def test_tiles_cover_the_picture(height: int, width: int, px: int) -> None:
    """Every point of a busy picture lies in a tile, no tile is larger than wanted, and boxes say where it is."""
    whole = noise(height, width)
    tiles = tiles_of(whole, px=px, most=10_000)
    if max(height, width) <= px:
        assert tiles == []
        return
    seen = np.zeros((height, width), dtype=bool)
    for tile in tiles:
        left, top, right, bottom = tile.box
        rows = slice(round(top * height), round(bottom * height))
        columns = slice(round(left * width), round(right * width))
        assert np.array_equal(tile.picture.pixels, whole.pixels[rows, columns])
        assert max(tile.picture.pixels.shape[:2]) <= px
        assert (tile.picture.media, tile.picture.time_s) == (3, 1.5)
        seen[rows, columns] = True
    assert seen.all()


def test_flat_ground_is_not_read() -> None:
    """A gradient has no tiles; of a busy picture at most so many are read, those with most edges first."""
    ramp = np.linspace(0, 255, 900).astype(np.uint8)
    flat = np.broadcast_to(ramp[None, :, None], (900, 900, 3)).copy()
    assert tiles_of(Picture(media=0, pixels=flat), px=64, most=64) == []
    flat[500:520, 700:720] = noise(20, 20).pixels
    (first, *_) = tiles_of(Picture(media=0, pixels=flat), px=64, most=2)
    left, top, right, bottom = (edge * 900 for edge in first.box)
    assert left <= 700
    assert right >= 720
    assert top <= 500
    assert bottom >= 520


def small_in_large(thing: str) -> Picture:
    """Return a picture of 2,000 pixels with one thing of 24."""
    large = picture(Sample(name="x", caption="", pieces=(), colours=GROUND)).resize((2000, 2000))
    piece = Piece(drawing=thing, x=0.5, y=0.5, size=1.0, angle=0)
    thing_alone = picture(Sample(name="x", caption="", pieces=(piece,), colours=GROUND))
    large.paste(thing_alone.resize((24, 24), Image.Resampling.LANCZOS), (1213, 707))
    return Picture(media=0, pixels=np.asarray(large.convert("RGB")))


def test_a_small_thing_is_found_in_tiles() -> None:
    """24 pixels in a picture of 2,000 are missed whole and found with tiles, at their place; others are not."""
    things = ("dog", "guitar", "skull", "football", "sword", "laptop")
    spec = ClassifierSpec(rationales=False)
    closer = load(replace(spec, options={"tile_px": 64}))
    assert isinstance(closer, TiledClassifier)
    items = [Item(pictures=(small_in_large(thing),)) for thing in things]
    asked = [shows(thing) for thing in things]
    plain = closer.inner.classify(items, asked)
    found = closer.classify(items, asked)
    for number, (before, after) in enumerate(zip(plain, found, strict=True)):
        assert before[number].score < 0
        assert after[number].score > 0
        assert after[number].whole == pytest.approx(before[number].score, abs=1e-3)
        left, top, right, bottom = after[number].box or (0, 0, 0, 0)
        assert left * 2000 < 1237 < right * 2000 + 24
        assert top * 2000 < 731 < bottom * 2000 + 24
    others = [one.score for row, r in enumerate(found) for n, one in enumerate(r) if n != row]
    assert sum(score > 0 for score in others) <= len(others) * 0.15
    assert closer.digest != closer.inner.digest
    assert closer.digest != load(replace(spec, options={"tile_px": 64, "tiles": 9})).digest


def test_tiles_travel_with_the_answer() -> None:
    """What a worker sends says what the whole gave and where the tile lies; captions have no tiles."""
    stub = load(ClassifierSpec(kind="stub", model="stub", options={"tile_px": 32}))
    questions = (shows("dog"), replace(shows("cat"), reads=frozenset({"caption"})))
    drawn = Image.fromarray(noise(100, 100).pixels)
    ImageDraw.Draw(drawn).rectangle((0, 0, 50, 100), fill="white")
    one = (Picture(media=0, pixels=np.asarray(drawn)),)
    judge = Judge(
        stub, watch=Watch(60.0, lambda: None), node="", borrow=lambda refs: [[one] for _ in refs]
    )
    judge.learn(0, "set", questions)
    answers = judge.classify(1, "set", (0, 1), [Seen(Place("ref", 0, 0), "a caption")])
    rows = answers.by_upload[0]  # type: ignore[union-attr]
    seen, read = (Classification(*row) for row in rows)  # type: ignore[union-attr]
    assert seen.whole is not None
    assert seen.score >= seen.whole
    assert (seen.box is None) == (seen.score == seen.whole)
    assert read == Classification(question=questions[1].id, score=read.score)


class Breaking(StubClassifier):
    """A stub that has no number for some pictures, and a low one for all others."""

    def __init__(self, broken: Callable[[Pixels], bool]) -> None:
        super().__init__(ClassifierSpec(kind="stub"))
        self._broken = broken

    def classify(
        self, items: Sequence[Item], questions: Sequence[Question]
    ) -> list[list[Classification]]:
        """Return one answer an item and question."""
        broken = [self._broken(item.pictures[0].pixels) for item in items]
        scores = [float("nan") if one else -5.0 for one in broken]
        return [[Classification(q.id, score, media=3) for q in questions] for score in scores]


@pytest.mark.parametrize("where", ["whole", "first", "last"])
def test_what_is_no_number_counts(where: str) -> None:
    """A reading that broke, of the whole or of any tile, is not hidden by one that did not."""
    seen = noise(100, 100)
    read = [seen, *(tile.picture for tile in tiles_of(seen, px=40, most=64))]
    broken = {"whole": read[0], "first": read[1], "last": read[-1]}[where].pixels
    closer = TiledClassifier(
        Breaking(lambda pixels: np.array_equal(pixels, broken)), tile_px=40, most=64
    )
    ((found,),) = closer.classify([Item(pictures=(seen,))], [shows("dog")])
    assert np.isnan(found.score)
    assert (found.box is None) == (where == "whole")
    assert found.whole == pytest.approx(np.nan if where == "whole" else -5.0, nan_ok=True)


def test_wrong_numbers_are_refused() -> None:
    """A size or number of tiles that makes no sense is refused in words."""
    for options in ({"tile_px": 4}, {"tile_px": "big"}, {"tiles": 4}, {"tile_px": 64, "tiles": 0}):
        with pytest.raises(CheckpointError, match="tile_px is a number"):
            load(ClassifierSpec(kind="stub", model="stub", options=options))


def test_reasons_come_from_the_tile() -> None:
    """A reason for what a tile showed has its place in the whole picture."""
    stub = load(ClassifierSpec(kind="stub", model="stub", options={"tile_px": 50}))
    question: Question = shows("dog")
    found = Classification(
        question=question.id, score=1.0, media=3, time_s=1.5, whole=-1.0, box=(0.5, 0.0, 1.0, 0.5)
    )
    (reason,) = stub.explain(Item(pictures=(noise(100, 100),)), [(question, found)])
    assert reason.box == (0.5, 0.0, 1.0, 0.5)
