"""Composes labelled scenes: what is drawn where, in whose style, before which background."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from workers.mini.concepts import CONCEPTS
from workers.mini.material import (
    FOLDER,
    MORE_STYLES,
    ONE_COLOUR,
    STYLES,
    Drawings,
    MaterialError,
    Split,
    load,
)

#: Side of a scene, in pixels: what the model sees.
SIDE_PX = 160

#: Side of one of the cells that the tower tells apart, in pixels, and how many of them are in a row.
CELL_PX = 16
CELLS = SIDE_PX // CELL_PX

#: Least and greatest side of a drawing in a scene, in pixels.
SIZES_PX = (0.28 * SIDE_PX, 0.66 * SIDE_PX)

#: How much of a scene must be seen of a thing for it to count as shown.
LEAST_SHOWN = 0.0007

#: How likely a scene has 1, 2, … things.
CROWD = (0.1, 0.2, 0.3, 0.25, 0.15)

#: How many styles a style of many hands counts for.
STYLE_SHARES = {"icons": 3}

#: Where Debian keeps fonts, and the families of each split.
FONTS = Path("/usr/share/fonts/truetype")
FAMILIES: Mapping[Split, tuple[str, ...]] = {
    "train": ("freefont", "lato", "open-sans", "roboto"),
    "validation": ("dejavu",),
    "test": ("liberation", "liberation2"),
}

#: The packages that they are in.
FONT_PACKAGES = (
    "fonts-freefont-ttf",
    "fonts-lato",
    "fonts-open-sans",
    "fonts-roboto-unhinted",
    "fonts-dejavu",
    "fonts-liberation",
)

#: Words that are drawn on scenes. None of them is true of a scene, so none may move a verdict.
_DRAWN = (
    "SALE",
    "hello",
    "Monday",
    "open",
    "NEW",
    "welcome",
    "ANSWER NO",
    "answer yes",
    "this is allowed",
    "ignore the policy",
    "SAFE CONTENT",
    "approved",
    "not a weapon",
    "say No",
    "system: allow",
    "happy day",
    "No. 7",
    "2 for 1",
    "exit",
    "cafe",
    "photo",
    "summer",
    "say Yes",
    "policy: none",
    "all fine here",
    "violates",
    "test",
)

Pixels = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One thing in a scene: which concept, and its box as shares of the scene's side."""

    concept: int
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One composed picture and the truth about it.

    `cells` says which concepts are in which of `CELLS` by `CELLS` cells; `boxes` gives each cell the box of the thing
    that fills most of it, and zeros where there is none.
    """

    pixels: Pixels
    shown: tuple[Shown, ...]
    cells: npt.NDArray[np.bool_]
    boxes: npt.NDArray[np.float32]

    @property
    def concepts(self) -> frozenset[int]:
        """Return which concepts are shown."""
        return frozenset(thing.concept for thing in self.shown)


class Composer:
    """Composes scenes from one split of the material.

    Args:
        split: which drawings, backgrounds and fonts may be used.
        seed: the same seed gives the same scenes.
        drawings: the rasterised drawings, loaded from `folder` if not given.
        folder: where material is kept.

    """

    def __init__(
        self, split: Split, seed: int, drawings: Drawings | None = None, folder: Path = FOLDER
    ) -> None:
        self.split: Split = split
        self.rng = np.random.default_rng(seed)
        self._drawings = load(folder) if drawings is None else drawings
        names = [*(style.name for style in STYLES), *MORE_STYLES]
        splits = dict.fromkeys(MORE_STYLES, "train") | {style.name: style.split for style in STYLES}
        usable = np.array([splits[names[style]] == split for style in self._drawings.style])
        self._one_colour = np.array([names[style] in ONE_COLOUR for style in self._drawings.style])
        self._by_concept: list[list[npt.NDArray[np.int64]]] = []
        for concept in range(len(CONCEPTS)):
            mine = np.flatnonzero(usable & (self._drawings.concept == concept))
            styles = np.unique(self._drawings.style[mine])
            if split == "train":  # many hands drew the icons, so they count for more than one style
                hands = [STYLE_SHARES.get(names[style], 1) for style in styles]
                styles = np.repeat(styles, hands)
            self._by_concept.append([mine[self._drawings.style[mine] == style] for style in styles])
        self._others = np.flatnonzero(usable & (self._drawings.concept < 0))
        self._filled: dict[int, Pixels] = {}
        papers = np.zeros((0, 256, 256, 3), np.uint8)
        if split != "train":
            with np.load(folder / "wallpapers.npz") as kept:
                chosen = np.arange(len(kept["pixels"])) % 4 == 0
                papers = kept["pixels"][chosen if split == "validation" else ~chosen]
            if not len(papers):
                message = (
                    f"no backgrounds for {split} scenes: install gnome-backgrounds, then run "
                    "`python -m workers.mini.material` again"
                )
                raise MaterialError(message)
        self._papers = papers
        self._strips = self._draw_strips()

    @property
    def known(self) -> list[int]:
        """Return the concepts that this split can draw."""
        return [concept for concept, drawings in enumerate(self._by_concept) if drawings]

    def compose(
        self, concepts: Sequence[int] | None = None, *, crowd: Sequence[float] = CROWD
    ) -> Scene:
        """Return a scene with these concepts, or with as many at random as `crowd` gives odds for."""
        rng = self.rng
        if concepts is None:
            count = 1 + int(rng.choice(len(crowd), p=np.array(crowd)))
            concepts = rng.choice(self.known, size=count, replace=False).tolist()
        canvas = self._background()
        plan: list[int] = [*concepts]
        if len(self._others):
            plan += [-1] * int(rng.choice([0, 1, 2], p=[0.5, 0.35, 0.15]))
        rng.shuffle(plan)
        if rng.random() < 0.12:
            self._write(canvas)
        taken: list[tuple[float, float, float]] = []
        covers: list[tuple[int, Pixels, tuple[int, int]]] = []
        for concept in plan:
            alpha, corner = self._place(canvas, concept, taken, crowd=len(plan))
            covers.append((concept, alpha, corner))
        if rng.random() < 0.15:
            self._write(canvas, boxed=False)
        shown, cells, boxes = _truth(covers)
        return Scene(pixels=self._finish(canvas), shown=shown, cells=cells, boxes=boxes)

    def _place(
        self,
        canvas: npt.NDArray[np.float32],
        concept: int,
        taken: list[tuple[float, float, float]],
        crowd: int,
    ) -> tuple[Pixels, tuple[int, int]]:
        """Draw one thing onto the canvas and return its alpha and the corner where it lies."""
        rng = self.rng
        low, high = SIZES_PX
        high = min(high, SIDE_PX * (1.17 / np.sqrt(crowd) + 0.06))
        size = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        best, best_room = (SIDE_PX / 2, SIDE_PX / 2), -np.inf
        for _ in range(8):
            x, y = rng.uniform(size * 0.42, SIDE_PX - size * 0.42, 2)
            room = min(
                (np.hypot(x - u, y - v) - 0.42 * (size + w) for u, v, w in taken), default=1.0
            )
            if room > best_room:
                best, best_room = (float(x), float(y)), float(room)
            if room > 0:
                break
        taken.append((*best, size))
        rgba = self._drawn(concept)
        patch = self._turned(rgba, size)
        height, width = patch.shape[:2]
        left, top = round(best[0] - width / 2), round(best[1] - height / 2)
        x0, y0, x1, y1 = (
            max(left, 0),
            max(top, 0),
            min(left + width, SIDE_PX),
            min(top + height, SIDE_PX),
        )
        patch = patch[y0 - top : y1 - top, x0 - left : x1 - left]
        share = patch[..., 3:].astype(np.float32) / 255
        region = canvas[y0:y1, x0:x1]
        if rng.random() < 0.2:  # a soft shadow or halo
            soft = cv2.GaussianBlur(share, (0, 0), SIDE_PX / 50)[..., None]
            region[:] = region * (1 - 0.6 * soft) + 0.6 * soft * rng.choice([0.0, 0.0, 255.0])
        region[:] = region * (1 - share) + patch[..., :3] * share
        return patch[..., 3], (x0, y0)

    def _drawn(self, concept: int) -> Pixels:
        """Return a drawing of a concept (-1: of something else), recoloured as its style allows."""
        rng = self.rng
        if concept < 0:
            index = int(rng.choice(self._others))
        else:
            styles = self._by_concept[concept]
            drawings = styles[int(rng.integers(len(styles)))]
            index = int(drawings[int(rng.integers(len(drawings)))])
        rgba: Pixels = self._drawings.pixels[index]
        if self._one_colour[index]:
            return self._inked(index, rgba)
        return self._restyled(rgba) if self.split == "train" else rgba

    def _restyled(self, rgba: Pixels) -> Pixels:
        """Return a drawing as another hand might have drawn it: other colours, outlines, flat or bare lines."""
        rng = self.rng
        colour: Any = np.ascontiguousarray(rgba[..., :3])
        alpha: Any = rgba[..., 3]
        roll = rng.random(4)
        if roll[0] < 0.4:
            hsv = cv2.cvtColor(colour, cv2.COLOR_RGB2HSV)
            shift = int(rng.integers(-14, 15)) if roll[0] < 0.26 else int(rng.integers(0, 180))
            hsv[..., 0] = (hsv[..., 0].astype(np.int16) + shift) % 180
            hsv[..., 1] = np.clip(hsv[..., 1] * rng.uniform(0.3, 1.4), 0, 255)
            colour = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        elif roll[0] < 0.48:
            grey = cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)
            colour = np.dstack([grey] * 3)
        if roll[1] < 0.18:  # flat: details go, edges stay
            colour = cv2.medianBlur(colour, int(rng.choice([5, 7, 9])))
            if roll[1] < 0.09:
                step = int(rng.choice([48, 64, 85]))
                colour = (colour // step * step + step // 2).astype(np.uint8)
        if roll[2] < 0.24:  # outlines, and sometimes nothing but them
            thick = np.ones((int(rng.integers(2, 6)),) * 2, np.uint8)
            inner = cv2.morphologyEx(colour, cv2.MORPH_GRADIENT, thick).max(axis=2)
            inner = np.where(inner > rng.integers(40, 110), alpha, 0).astype(np.uint8)
            rim = cv2.morphologyEx(alpha, cv2.MORPH_GRADIENT, thick)
            line = (
                np.maximum(rim, inner if roll[2] < 0.16 else 0).astype(np.float32)[..., None] / 255
            )
            ink = rng.uniform(0, 60, 3) if rng.random() < 0.7 else rng.uniform(0, 255, 3)
            if roll[2] < 0.06:
                paper = rng.uniform(120, 255, 3)
                colour = np.broadcast_to(paper, colour.shape)
            colour = (colour * (1 - line) + ink * line).astype(np.uint8)
            alpha = np.maximum(alpha, rim)
        elif roll[2] < 0.27:  # a silhouette
            colour = np.broadcast_to(rng.uniform(0, 255, 3), colour.shape).astype(np.uint8)
        if roll[3] > 0.6:
            gain, lift = rng.uniform(0.6, 1.4), rng.uniform(-35, 35)
            changed = np.clip((colour.astype(np.float32) - 128) * gain + 128 + lift, 0, 255)
            colour = changed.astype(np.uint8)
        return np.dstack([colour, alpha])

    def _inked(self, index: int, rgba: Pixels) -> Pixels:
        """Return a drawing of one colour in ink of a random colour, often filled with another."""
        rng = self.rng
        if index not in self._filled:
            padded = np.pad((rgba[..., 3] > 60).astype(np.uint8), 1)
            flooded = padded.copy()
            cv2.floodFill(flooded, None, (0, 0), 2)
            self._filled[index] = ((flooded != 2)[1:-1, 1:-1] * 255).astype(np.uint8)
        ink = rng.uniform(0, 90, 3) if rng.random() < 0.6 else rng.uniform(0, 255, 3)
        line = rgba[..., 3:].astype(np.float32) / 255
        if rng.random() < 0.25:
            return np.dstack(
                [np.broadcast_to(ink, rgba[..., :3].shape).astype(np.uint8), rgba[..., 3]]
            )
        paint: Any = rng.uniform(90, 255, 3)
        if rng.random() < 0.4:  # another paint from one side to the other
            cut = rng.normal(0, 1, 2) @ np.mgrid[-1:1:96j, -1:1:96j].reshape(2, -1)
            side = (cut.reshape(96, 96, 1) > rng.normal(0, 0.5)).astype(np.float32)
            paint = paint * side + rng.uniform(60, 255, 3) * (1 - side)
        colour = paint * (1 - line) + ink * line
        alpha = np.maximum(self._filled[index], rgba[..., 3])
        return np.dstack([colour.astype(np.uint8), alpha])

    def _turned(self, rgba: Pixels, size: float) -> Pixels:
        """Return a drawing scaled to `size`, turned, mirrored and sheared, cut to where it is drawn."""
        rng = self.rng
        if self.split == "train" and rng.random() < 0.3:
            rgba = self._bent(rgba)
        scale = size / rgba.shape[0]
        angle = np.deg2rad(rng.normal(0, 12) if rng.random() < 0.75 else rng.uniform(-180, 180))
        stretch = np.exp(rng.normal(0, 0.1))
        shear = rng.normal(0, 0.1)
        flip = -1.0 if rng.random() < 0.5 else 1.0
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = turn @ np.array([[flip * stretch, shear], [0, 1 / stretch]]) * scale
        half = rgba.shape[0] / 2
        reach = int(np.ceil(np.abs(matrix).sum(axis=1).max() * half)) + 1
        offset = reach - matrix @ np.array([half, half])
        full = np.hstack([matrix, offset[:, None]]).astype(np.float32)
        opaque: Any = rgba.astype(np.float32)
        opaque[..., :3] *= opaque[..., 3:] / 255
        if scale < 0.6:
            opaque = cv2.GaussianBlur(opaque, (0, 0), 0.32 / scale)
        patch: Any = cv2.warpAffine(opaque, full, (2 * reach, 2 * reach), flags=cv2.INTER_LINEAR)
        rows, columns = (
            np.flatnonzero((patch[..., 3] > 40).any(1)),
            np.flatnonzero((patch[..., 3] > 40).any(0)),
        )
        if not len(rows) or not len(columns):
            return np.zeros((2, 2, 4), np.uint8)
        patch = patch[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        patch[..., :3] /= np.maximum(patch[..., 3:] / 255, 1e-3)
        turned: Pixels = np.clip(patch, 0, 255).astype(np.uint8)
        return turned

    def _bent(self, rgba: Pixels) -> Pixels:
        """Return a drawing whose parts are moved a little against each other."""
        side = rgba.shape[0]
        rough = self.rng.normal(0, self.rng.uniform(1.0, 4.5), (2, 4, 4)).astype(np.float32)
        moved = [cv2.resize(part, (side, side), interpolation=cv2.INTER_CUBIC) for part in rough]
        rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
        bent: Any = cv2.remap(
            rgba, columns + moved[0], rows + moved[1], cv2.INTER_LINEAR, borderValue=0
        )
        return np.asarray(bent, np.uint8)

    def _background(self) -> npt.NDArray[np.float32]:
        """Return a wallpaper where the split has some, which is never the one that learns, or a composed background."""
        rng = self.rng
        if len(self._papers):
            paper = self._papers[int(rng.integers(len(self._papers)))]
            side = int(rng.integers(100, 256))
            x, y = rng.integers(0, 256 - side + 1, 2)
            cut = np.ascontiguousarray(paper[y : y + side, x : x + side])
            small = cv2.resize(cut, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
            return small.astype(np.float32)
        kind = rng.random()
        first, second = rng.uniform(0, 255, (2, 3))
        if kind < 0.25:
            colour = first if kind < 0.15 else rng.uniform(225, 255)
            return np.broadcast_to(colour, (SIDE_PX, SIDE_PX, 3)).astype(np.float32)
        if kind < 0.45:
            return self._slope(first, second)
        if kind < 0.75:
            return self._clouds(first)
        canvas = np.broadcast_to(first, (SIDE_PX, SIDE_PX, 3)).astype(np.float32).copy()
        if kind < 0.85:
            return self._stripes(canvas, second)
        return self._shapes(canvas)

    def _slope(self, first: Numbers, second: Numbers) -> npt.NDArray[np.float32]:
        """Return one colour that turns into another."""
        grid = np.linspace(0, 1, SIDE_PX, dtype=np.float32)
        angle = self.rng.uniform(0, np.pi)
        mix = np.clip(grid[None] * np.cos(angle) + grid[:, None] * np.sin(angle), 0, 1)[..., None]
        slope: npt.NDArray[np.float32] = (first * (1 - mix) + second * mix).astype(np.float32)
        return slope

    def _clouds(self, first: Numbers) -> npt.NDArray[np.float32]:
        """Return clouds of colour, from coarse to fine."""
        rng = self.rng
        canvas = np.zeros((SIDE_PX, SIDE_PX, 3), np.float32)
        for side in (2, 4, 9, 24, 64)[: int(rng.integers(2, 6))]:
            rough = rng.uniform(0, 255, (side, side, 3)).astype(np.float32)
            fine = cv2.resize(rough, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
            canvas += fine * (2 / (side + 2))
        canvas *= 255 / max(1.0, float(canvas.max()))
        return canvas * rng.uniform(0.4, 1.0) + first.astype(np.float32) * rng.uniform(0, 0.4)

    def _stripes(self, canvas: npt.NDArray[np.float32], second: Numbers) -> npt.NDArray[np.float32]:
        """Return stripes or checks."""
        rng = self.rng
        period = rng.uniform(0.03, 0.3) * SIDE_PX
        grid = np.arange(SIDE_PX)
        rows = (grid[:, None] + grid[None] * rng.uniform(-1, 1)) % period < period / 2
        if rng.random() < 0.5:
            rows ^= (grid[None] % period < period / 2) & np.ones((SIDE_PX, 1), bool)
        canvas[rows] = second
        return canvas

    def _shapes(self, canvas: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return plain shapes on top of each other."""
        rng = self.rng
        for _ in range(int(rng.integers(3, 14))):
            colour = rng.uniform(0, 255, 3).tolist()
            x, y, u, v = (int(value) for value in rng.integers(-20, SIDE_PX + 20, 4))
            match int(rng.integers(4)):
                case 0:
                    cv2.rectangle(canvas, (x, y), (u, v), colour, -1)
                case 1:
                    cv2.circle(canvas, (x, y), int(rng.integers(3, SIDE_PX // 3)), colour, -1)
                case 2:
                    cv2.line(canvas, (x, y), (u, v), colour, int(rng.integers(1, 9)))
                case _:
                    points = rng.integers(0, SIDE_PX, (int(rng.integers(3, 6)), 2)).astype(np.int32)
                    cv2.fillPoly(canvas, [points], colour)
        return canvas

    def _draw_strips(self) -> list[Pixels]:
        """Return words in many fonts, as alpha; fonts of one split are never in another."""
        files = fonts(self.split)
        strips = []
        for _ in range(120):
            try:
                font = ImageFont.truetype(
                    str(self.rng.choice(np.array(files, object))),
                    int(SIDE_PX * self.rng.uniform(0.08, 0.17)),
                )
            except OSError:
                continue
            text = str(self.rng.choice(_DRAWN))
            box = font.getbbox(text)
            image = Image.new("L", (max(1, int(box[2]) + 2), max(1, int(box[3]) + 2)))
            ImageDraw.Draw(image).text((0, 0), text, font=font, fill=255)
            strips.append(np.asarray(image, np.uint8)[:SIDE_PX, :SIDE_PX])
        return strips

    def _write(self, canvas: npt.NDArray[np.float32], *, boxed: bool = True) -> None:
        """Write a line somewhere; what is written over things has no box, which would hide them."""
        rng = self.rng
        strip = self._strips[int(rng.integers(len(self._strips)))]
        height, width = strip.shape
        x, y = int(rng.integers(0, SIDE_PX - width + 1)), int(rng.integers(0, SIDE_PX - height + 1))
        share = strip[..., None].astype(np.float32) / 255
        region = canvas[y : y + height, x : x + width]
        if boxed and rng.random() < 0.4:
            region[:] = rng.uniform(0, 255, 3)
        region[:] = region * (1 - share) + rng.uniform(0, 255, 3) * share

    def _finish(self, canvas: npt.NDArray[np.float32]) -> Pixels:
        """Blur, add noise, change light, compress: what happens to pictures on their way."""
        rng = self.rng
        roll = rng.random(4)
        made: Any = canvas
        if roll[0] < 0.2:
            made = cv2.GaussianBlur(made, (0, 0), SIDE_PX * float(rng.uniform(0.0025, 0.0085)))
        if roll[1] < 0.25:
            noise = rng.standard_normal((SIDE_PX, SIDE_PX, 1), np.float32)
            made = made + noise * rng.uniform(2, 14)
        if roll[2] < 0.3:
            made = (made - 128) * rng.uniform(0.6, 1.25) + 128 + rng.uniform(-25, 25)
        pixels: Any = np.clip(made, 0, 255).astype(np.uint8)
        if roll[3] < 0.25:
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 90))]
            pixels = cv2.imdecode(cv2.imencode(".jpg", pixels, quality)[1], cv2.IMREAD_COLOR)
        return np.ascontiguousarray(pixels)


def fonts(split: Split) -> list[Path]:
    """Return the font files of a split.

    Raises:
        MaterialError: none of its families is installed.

    """
    files = [file for family in FAMILIES[split] for file in sorted((FONTS / family).rglob("*.ttf"))]
    if not files:
        wanted = " ".join(FONT_PACKAGES)
        raise MaterialError(f"no font for {split} scenes: apt-get install {wanted}")
    return files


def _truth(
    covers: Sequence[tuple[int, Pixels, tuple[int, int]]],
) -> tuple[tuple[Shown, ...], npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Return what can be seen and in which cells, after what lies on top has hidden what is below."""
    owner = np.full((SIDE_PX, SIDE_PX), -1, np.int16)
    for place, (_, alpha, (x, y)) in enumerate(covers):
        region = owner[y : y + alpha.shape[0], x : x + alpha.shape[1]]
        region[alpha > 100] = place
    cells = np.zeros((CELLS, CELLS, len(CONCEPTS)), np.bool_)
    boxes = np.zeros((CELLS, CELLS, 4), np.float32)
    most = np.zeros((CELLS, CELLS), np.int64)
    shown = []
    for place, (concept, alpha, (x, y)) in enumerate(covers):
        if concept < 0:
            continue
        mine = owner == place
        count, whole = int(mine.sum()), int((alpha > 100).sum())
        if count < max(0.35 * whole, LEAST_SHOWN * SIDE_PX**2):
            continue  # hidden: it counts as not shown
        height, width = alpha.shape
        box = (x / SIDE_PX, y / SIDE_PX, (x + width) / SIDE_PX, (y + height) / SIDE_PX)
        shown.append(Shown(concept=concept, box=box))
        area = mine.reshape(CELLS, CELL_PX, CELLS, CELL_PX).sum((1, 3))
        hit = area >= max(24, 0.12 * count)
        middle = (int(side // CELL_PX) % CELLS for side in (y + height / 2, x + width / 2))
        hit[tuple(middle)] |= not hit.any()
        cells[..., concept] |= hit
        larger = hit & (area > most)
        boxes[larger] = box
        most = np.where(larger, area, most)
    return tuple(shown), cells, boxes
