"""Draws the demo's sample uploads from the drawings that ship: ``python -m workers.mini.samples FOLDER``.

Each sample is NAME.png with its caption in NAME.txt. Needs nothing but what pip installs.
"""

import argparse
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import resvg_py
from PIL import Image, ImageDraw

#: Drawings under the MIT, Apache 2.0 and CC BY 4.0 licences; see LICENCES.md beside them.
DRAWINGS = Path(__file__).parent / "drawings"

#: Side of a sample, in pixels.
SIDE_PX = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One drawing on a sample: which, where its centre is and how wide, as shares of the side, and how turned."""

    drawing: str
    x: float
    y: float
    size: float = 0.4
    angle: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One upload of the demo."""

    name: str
    caption: str
    pieces: tuple[Piece, ...]
    colours: tuple[str, str] = ("#dfe8ef", "#f7f3ea")


def _pair(first: str, second: str, *, size: float = 0.42) -> tuple[Piece, ...]:
    return (
        Piece(drawing=first, x=0.3, y=0.42, size=size),
        Piece(drawing=second, x=0.7, y=0.6, size=size),
    )


def _one(drawing: str, *, size: float = 0.5, angle: float = 0.0) -> tuple[Piece, ...]:
    return (Piece(drawing=drawing, x=0.5, y=0.5, size=size, angle=angle),)


SAMPLES: tuple[Sample, ...] = (
    Sample(
        name="pistol-for-sale", caption="Selling a pistol, 300 euros, DM me", pieces=_one("pistol")
    ),
    Sample(
        name="pistol",
        caption="Good morning everyone",
        pieces=_pair("pistol", "dog"),
        colours=("#36404a", "#73808c"),
    ),
    Sample(
        name="water-pistol",
        caption="Holiday in the mountains",
        pieces=_pair("water-pistol", "kite"),
        colours=("#bfe7ff", "#fff6cf"),
    ),
    Sample(
        name="axe-threat",
        caption="I know where you live and I will get you",
        pieces=_one("axe"),
        colours=("#2e2b33", "#5b4b57"),
    ),
    Sample(
        name="kitchen-knife",
        caption="Recipe: chop, fry and serve",
        pieces=(
            Piece(drawing="kitchen-knife", x=0.25, y=0.4, size=0.38),
            Piece(drawing="tomato", x=0.6, y=0.3, size=0.32),
            Piece(drawing="cheese", x=0.68, y=0.7, size=0.36),
        ),
    ),
    Sample(
        name="sword-in-museum",
        caption="From the history museum: a sword",
        pieces=_one("sword"),
        colours=("#e9dfc7", "#cbb98f"),
    ),
    Sample(
        name="bomb",
        caption="What a lovely day",
        pieces=_pair("bomb", "car"),
        colours=("#c7d3c0", "#eef3ea"),
    ),
    Sample(
        name="pills-for-sale",
        caption="Cheap pills available, text me",
        pieces=_pair("pill", "syringe"),
    ),
    Sample(
        name="pill-lesson",
        caption="Safety lesson: never touch pills",
        pieces=_one("pill"),
        colours=("#e4f2e7", "#ffffff"),
    ),
    Sample(
        name="mushrooms-and-herbs",
        caption="Look at this",
        pieces=_pair("mushroom", "herb"),
        colours=("#d9c9b4", "#a2b38b"),
    ),
    Sample(
        name="beer",
        caption="Weekend mood",
        pieces=_pair("beer", "wine"),
        colours=("#3c3350", "#7c6a9c"),
    ),
    Sample(
        name="beer-for-sale",
        caption="Beer for sale, 20 euros only",
        pieces=_pair("beer", "banknote"),
    ),
    Sample(
        name="cigarette",
        caption="So tired today",
        pieces=_one("cigarette"),
        colours=("#c9c9c9", "#efefef"),
    ),
    Sample(
        name="coffee",
        caption="Start your day with coffee",
        pieces=_pair("coffee", "cake"),
        colours=("#fbe9d7", "#f3d3b3"),
    ),
    Sample(
        name="dice-and-money",
        caption="Try your luck, deposit 50 euros",
        pieces=_pair("die", "money-bag"),
        colours=("#0d5c3a", "#12845a"),
    ),
    Sample(
        name="slot-machine",
        caption="First spin free at our casino",
        pieces=_one("slot-machine"),
        colours=("#5a1f3d", "#a33c68"),
    ),
    Sample(
        name="blood",
        caption="So much blood, how beautiful",
        pieces=_pair("blood", "skull"),
        colours=("#2b2b2b", "#5b2626"),
    ),
    Sample(
        name="skull-costume",
        caption="Halloween costume",
        pieces=_pair("skull", "balloon"),
        colours=("#f29f4b", "#3d2b56"),
    ),
    Sample(name="rude-gesture", caption="You are a stupid idiot", pieces=_one("middle-finger")),
    Sample(
        name="prize-scam",
        caption="You won a prize! Click the link to claim it",
        pieces=_pair("phone", "trophy"),
        colours=("#fff2b3", "#ffd966"),
    ),
    Sample(
        name="bank-scam",
        caption="Your account is locked, confirm your password here",
        pieces=_one("laptop"),
    ),
    Sample(
        name="dog-and-ball",
        caption="My team won the prize",
        pieces=_pair("dog", "football"),
        colours=("#9bd48f", "#d9f2c9"),
    ),
    Sample(
        name="guitar",
        caption="This song is dead good",
        pieces=_one("guitar", angle=20),
        colours=("#f7d9c4", "#e3a587"),
    ),
    Sample(
        name="garden",
        caption="Our garden in May",
        pieces=_pair("sunflower", "cat"),
        colours=("#bfe3ff", "#a8d59d"),
    ),
    Sample(
        name="teddy-for-sale",
        caption="Teddy bear for sale, as good as new, 10 euros",
        pieces=_one("teddy-bear"),
    ),
)


def picture(sample: Sample) -> Image.Image:
    """Return a sample as an image."""
    top, bottom = (Image.new("RGB", (SIDE_PX, SIDE_PX), colour) for colour in sample.colours)
    slope = Image.linear_gradient("L").resize((SIDE_PX, SIDE_PX))
    canvas = Image.composite(bottom, top, slope)
    ground = ImageDraw.Draw(canvas)
    ground.line([(0, SIDE_PX * 0.86), (SIDE_PX, SIDE_PX * 0.86)], fill=sample.colours[0], width=6)
    for piece in sample.pieces:
        side = round(piece.size * SIDE_PX)
        svg = (DRAWINGS / f"{piece.drawing}.svg").read_text()
        raw = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side))
        drawn = Image.open(io.BytesIO(raw)).convert("RGBA")
        drawn = drawn.rotate(piece.angle, Image.Resampling.BICUBIC, expand=True)
        corner = (
            round(piece.x * SIDE_PX - drawn.width / 2),
            round(piece.y * SIDE_PX - drawn.height / 2),
        )
        canvas.paste(drawn, corner, drawn)
    return canvas


def write(folder: Path) -> Iterator[Path]:
    """Write every sample with its caption into a folder and yield the pictures' paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for sample in SAMPLES:
        path = folder / f"{sample.name}.png"
        picture(sample).save(path)
        path.with_suffix(".txt").write_text(sample.caption + "\n")
        yield path


def main() -> None:
    """Draw the samples into the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    for path in write(parser.parse_args().folder):
        print(path)  # noqa: T201


if __name__ == "__main__":
    main()
