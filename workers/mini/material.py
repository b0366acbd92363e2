"""Fetches the drawings that scenes are made of and rasterises them once: ``python -m workers.mini.material``.

Everything lands in ``workers/mini/material/``, which git ignores. Needs npm, and the Debian packages ``fonts-symbola``,
``gnome-backgrounds`` and those of `scenes.FONT_PACKAGES` (``apt-get install`` them first); what is absent is named.
"""

import argparse
import io
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import resvg_py
from PIL import Image, ImageDraw, ImageFont
from rich.progress import track

from workers.mini import icons
from workers.mini.concepts import CONCEPTS, INDEX
from workers.mini.kin import is_kin

#: Where material is kept, apart from the repository.
FOLDER = Path(__file__).parent / "material"

#: Side of a rasterised drawing, in pixels.
SIDE = 96

#: What a drawing may be used for: weights are made from `train` alone, choices from `validation`, figures from `test`.
Split = Literal["train", "validation", "test"]

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """One whole set of drawings by one hand, and what it may be used for."""

    name: str
    package: str
    split: Split
    licence: str


STYLES: tuple[Style, ...] = (
    Style(name="noto", package="@iconify-json/noto@1.2.9", split="train", licence="Apache-2.0"),
    Style(
        name="noto-v1", package="@iconify-json/noto-v1@1.2.5", split="train", licence="Apache-2.0"
    ),
    Style(name="fluent", package="@iconify-json/fluent-emoji@1.2.7", split="train", licence="MIT"),
    Style(
        name="fluent-flat",
        package="@iconify-json/fluent-emoji-flat@1.2.6",
        split="train",
        licence="MIT",
    ),
    Style(
        name="fxemoji", package="@iconify-json/fxemoji@1.2.2", split="train", licence="Apache-2.0"
    ),
    Style(
        name="emojione", package="@iconify-json/emojione@1.2.3", split="train", licence="CC-BY-4.0"
    ),
    Style(
        name="streamline",
        package="@iconify-json/streamline-emojis@1.2.4",
        split="train",
        licence="CC-BY-4.0",
    ),
    Style(
        name="high-contrast",
        package="@iconify-json/fluent-emoji-high-contrast@1.2.6",
        split="train",
        licence="MIT",
    ),
    Style(
        name="monotone",
        package="@iconify-json/emojione-monotone@1.2.1",
        split="train",
        licence="CC-BY-4.0",
    ),
    Style(
        name="game-icons",
        package="@iconify-json/game-icons@1.2.4",
        split="train",
        licence="CC-BY-3.0",
    ),
    Style(
        name="openmoji",
        package="@iconify-json/openmoji@1.2.29",
        split="validation",
        licence="CC-BY-SA-4.0",
    ),
    Style(name="twemoji", package="@twemoji/svg@15.0.0", split="test", licence="CC-BY-4.0"),
    # Twemoji draws no pistol any more, so the unseen pistol comes from a second unseen style.
    Style(
        name="emojione-v1",
        package="@iconify-json/emojione-v1@1.2.3",
        split="test",
        licence="CC-BY-SA-4.0",
    ),
)

#: Styles, or single drawings of one, whose U+1F52B is a real gun; the others draw a water pistol.
REAL_PISTOLS = frozenset(
    {
        "noto-v1",
        "fxemoji",
        "emojione",
        "emojione-v1",
        "symbola",
        "streamline",
        "monotone",
        "game-icons",
        "openmoji:pistol",
    }
)

#: Styles of one colour, which is chosen when a drawing is placed.
ONE_COLOUR = frozenset({"high-contrast", "monotone", "game-icons", "symbola", "noto-font", "icons"})

#: Styles that are not in `STYLES`, in the order of their numbers after it; all of them are for training.
#: `icons` and `icons-coloured` are many sets of `icons.py` together: they are as one hand.
MORE_STYLES = ("symbola", "fluent-3d", "noto-font", "icons", "icons-coloured")

#: Fluent's rendered drawings (MIT), and Google's font of outlines (OFL-1.1) in three weights.
FLUENT_3D = "@lobehub/fluent-emoji-3d@1.1.0"
NOTO_FONT = "@fontsource/noto-emoji@5.3.2"

#: The one concept for which the second unseen style is used.
ONLY_PISTOL = "emojione-v1"

#: Debian's `fonts-symbola` (free for any use): outlines, coloured when they are placed.
SYMBOLA = Path("/usr/share/fonts/truetype/ancient-scripts/Symbola_hint.ttf")

#: Debian's `gnome-backgrounds` (CC BY-SA 3.0): never in training, where backgrounds are composed.
WALLPAPERS = Path("/usr/share/backgrounds/gnome")

#: Names that differ between sets, by code point; every one that a set has is taken.
_OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "1f5e1": (
        "daggerknife",
        "broad-dagger",
        "plain-dagger",
        "diving-dagger",
        "bowie-knife",
        "sacrificial-dagger",
    ),
    "2694": ("crossed-swords", "ancient-sword", "broadsword", "two-handed-sword", "swords-emblem"),
    "1f4a3": ("rolling-bomb", "sparky-bomb", "time-bomb"),
    "1f9e8": ("dynamite", "time-dynamite"),
    "1fa93": ("battle-axe", "war-axe", "stone-axe", "fire-axe", "wood-axe", "sharp-axe"),
    "1f3f9": ("bow-arrow", "pocket-bow"),
    "1f52a": ("meat-cleaver", "chef-knife", "kitchen-knives"),
    "1f33f": ("three-leaves", "vine-leaf", "herbs-bundle"),
    "1f344": ("grass-mushroom", "spotted-mushroom", "super-mushroom"),
    "1f37a": ("beer-stein",),
    "1f377": ("wine-glass",),
    "1f378": ("martini", "cocktail"),
    "1f37e": ("champagne-cork", "champagne-glass-1", "glass-celebration"),
    "1f376": ("sake-bottle", "sakebottleandcup"),
    "1f6ac": ("smokingsymbol",),
    "1f0cf": ("card-joker", "card-ace-spades", "card-king-hearts", "card-random"),
    "1f4b0": ("swap-bag",),
    "1f48e": ("cut-diamond", "emerald", "gems"),
    "1f480": ("death-skull", "skull-crossed-bones", "broken-skull"),
    "1f4a5": ("bright-explosion", "spiky-explosion", "mine-explosion"),
    "1f374": ("knife-fork", "forkandknife", "forkknife"),
    "1f373": ("camp-cooking-pot",),
    "1f35e": ("sliced-bread", "bread-slice"),
    "1f34e": ("shiny-apple",),
    "1f355": ("pizza-slice", "full-pizza", "sliceofpizza", "pizza-1", "pizza-2"),
    "1f354": ("hamburger-1", "hamburger-2", "hamburger-3"),
    "1f382": ("birthday-cake-1", "birthday-cake-2", "birthday-cake-3", "cake-slice"),
    "2615": ("hot-beverage-1", "hot-beverage-2", "coffee-cup"),
    "1f9f8": ("teddy-bear",),
    "1f3ae": ("console-controller", "retro-controller"),
    "1f476": ("baby-1", "baby-2", "baby-3", "baby-face"),
    "1f436": ("sitting-dog", "jumping-dog"),
    "1f431": ("cat",),
    "1f434": ("horse-head",),
    "1f41f": ("flatfish", "salmon"),
    "1f697": ("city-car", "race-car"),
    "1f6b2": ("cycling",),
    "1f3c0": ("basketball-ball", "basketballandhoop"),
    "1f3c6": ("trophy-cup",),
    "1f333": ("beech", "oak"),
    "1f332": ("pine-tree",),
    "1f33b": ("sunflower-1", "sunflower-2"),
    "1f335": ("cactus-1", "cactus-2", "cactus-pot"),
    "1f528": ("claw-hammer", "flat-hammer"),
    "2702": ("blackscissors",),
    "1f4d5": ("book-cover", "white-book", "closed-book"),
    "1f4f1": ("smartphone", "cellphone"),
    "1f4bb": ("laptop", "laptop-computer", "personalcomputer"),
    "1f4a1": ("light-bulb", "bulb"),
    "1f4f7": ("photo-camera",),
    "1f451": ("jewel-crown", "queen-crown"),
    "2764": ("hearts", "glass-heart"),
    "1f52b": (
        "pistol",
        "water-pistol",
        "pistol-gun",
        "revolver",
        "colt-m1911",
        "desert-eagle",
        "glock",
        "luger",
    ),
    "1f3b2": (
        "game-die",
        "gamedie",
        "game-dice",
        "rolling-dices",
        "dice-six-faces-five",
        "perspective-dice-six-faces-random",
    ),
    "1f4b5": ("dollar-banknote", "banknotedollar", "money-stack"),
    "1f46e": (
        "police-officer",
        "man-police-officer-1",
        "man-police-officer-2",
        "police-officer-head",
    ),
    "26bd": ("soccer-ball", "soccerball"),
    "2708": ("airplane",),
    "26f5": ("sailboat",),
    "1f595": ("middle-finger", "reversehandmiddlefinger"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawings:
    """Rasterised drawings: RGBA pixels, and for each its style and its concept (-1: none of ours)."""

    pixels: Pixels
    style: npt.NDArray[np.int64]
    concept: npt.NDArray[np.int64]


def rasterise(svg: str, side: int = SIDE) -> Pixels:
    """Return a drawing as RGBA pixels, cut to what is drawn and centred in a square."""
    image = Image.open(
        io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=side * 2, height=side * 2)))
    )
    return squared(image.convert("RGBA"), side)


def squared(image: Image.Image, side: int = SIDE) -> Pixels:
    """Return an RGBA image cut to what is drawn, shrunk to `side` and centred."""
    box = image.getchannel("A").getbbox()
    image = image.crop(box) if box else image
    ratio = side / max(image.size)
    size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
    image = image.resize(size, Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (side, side))
    canvas.paste(image, ((side - size[0]) // 2, (side - size[1]) // 2))
    return np.asarray(canvas, np.uint8)


class MaterialError(Exception):
    """Raised when something to compose scenes from is missing; the message says what, and what to do."""


def fetched(command: Sequence[str], cwd: Path) -> None:
    """Run a command that fetches a package.

    Raises:
        MaterialError: if it is not installed or fails; with its own words.

    """
    try:
        subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        message = f"`{command[0]}` is needed to fetch the drawings, and is not installed"
        raise MaterialError(message) from None
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout or "").strip()[-400:]
        message = f"`{' '.join(command)}` failed, is there a network?\n{said}"
        raise MaterialError(message) from None


def fetch(package: str, packs: Path) -> Path:
    """Return an npm archive, fetched with ``npm pack`` unless it is in `packs` already."""
    stem, version = package.lstrip("@").replace("/", "-").rsplit("@", 1)
    archive = packs / f"{stem}-{version}.tgz"
    if not archive.exists():
        packs.mkdir(parents=True, exist_ok=True)
        fetched(["npm", "pack", "--silent", package], cwd=packs)
    return archive


def _emoji_names(packs: Path) -> dict[str, str]:
    """Return the name of each code point, from the one set that lists them."""
    noto = next(style for style in STYLES if style.name == "noto")
    with tarfile.open(fetch(noto.package, packs)) as archive:
        chars: dict[str, str] = json.load(_member(archive, "package/chars.json"))
    return {point.replace("-fe0f", ""): name for point, name in chars.items()}


def _member(archive: tarfile.TarFile, name: str) -> io.BytesIO:
    found = archive.extractfile(name)
    if found is None:
        message = f"{archive.name!r} has no {name}: fetch the package again"
        raise MaterialError(message)
    return io.BytesIO(found.read())


#: Code points of flags and of shades of skin: neither is a thing of its own.
_VARIANT = re.compile("1f1[ef]|1f3f[b-f]")

#: The same shades in names.
_SHADED = re.compile(r"skin-tone|-(?:tone\d|dark|light|medium)$")


def _iconify(style: Style, packs: Path, names: dict[str, str]) -> dict[str, str]:
    """Return SVG texts by code point, `other:…` for drawings of other things."""
    with tarfile.open(fetch(style.package, packs)) as archive:
        whole = json.load(_member(archive, "package/icons.json"))
    table, aliases = whole["icons"], whole.get("aliases", {})
    points = {point for concept in CONCEPTS for point in concept.drawings}

    def svg(name: str) -> str | None:
        icon = table.get(name) or table.get(aliases.get(name, {}).get("parent", ""))
        if icon is None:
            return None
        width = icon.get("width", whole.get("width", 16))
        height = icon.get("height", whole.get("height", 16))
        body = icon["body"]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}">{body}</svg>'
        )

    found: dict[str, str] = {}
    ours: set[str] = set()
    for point in sorted(points):
        name = names.get(point, "")
        for candidate in dict.fromkeys((name, *_OTHER_NAMES.get(point, ()), name.replace("-", ""))):
            text = svg(candidate) if candidate and candidate not in ours else None
            if text:
                found[f"{point}:{candidate}"] = text
                ours.add(candidate)
    others = sorted(
        name
        for name in table
        if name not in ours and not _SHADED.search(name) and "flag" not in name and not is_kin(name)
    )
    if style.name == "game-icons":
        others = []  # its names are too free to tell what may be a weapon, an animal or a meal
    for name in others[:: max(1, len(others) // 120)]:
        text = svg(name)
        if text and not any(point in names and names[point] == name for point in points):
            found[f"other:{name}"] = text
    return found


def _twemoji(style: Style, packs: Path, called: dict[str, str]) -> dict[str, str]:
    """Return SVG texts by code point, `other:…` for drawings of other things."""
    points = {point for concept in CONCEPTS for point in concept.drawings}
    with tarfile.open(fetch(style.package, packs)) as archive:
        names = sorted(
            Path(member.name).stem for member in archive.getmembers() if member.name.endswith("svg")
        )
        others = [
            name
            for name in names
            if name not in points
            and not _VARIANT.search(name)
            and name.replace("-fe0f", "") in called
            and not is_kin(called[name.replace("-fe0f", "")])
        ]
        wanted = {name: name for name in names if name in points}
        wanted |= {f"other:{name}": name for name in others[:: max(1, len(others) // 120)]}
        return {
            key: _member(archive, f"package/{name}.svg").read().decode()
            for key, name in wanted.items()
        }


def _symbola() -> Iterator[tuple[str, Pixels]]:
    font = ImageFont.truetype(str(SYMBOLA), 160)
    absent = bytes(font.getmask("\U0010fffd", mode="L"))
    for point in sorted({point for concept in CONCEPTS for point in concept.drawings}):
        if bytes(font.getmask(chr(int(point, 16)), mode="L")) in {b"", absent}:
            continue
        canvas = Image.new("RGBA", (260, 260), (0, 0, 0, 0))
        ImageDraw.Draw(canvas).text((30, 20), chr(int(point, 16)), font=font, fill=(0, 0, 0, 255))
        yield point, squared(canvas)


def _fluent_3d(packs: Path) -> Iterator[tuple[int, Pixels]]:
    points = {point for concept in CONCEPTS for point in concept.drawings}
    with tarfile.open(fetch(FLUENT_3D, packs)) as archive:
        for member in archive.getmembers():
            point = Path(member.name).stem.removesuffix("-fe0f")
            if point in points and member.name.endswith(".webp"):
                image = Image.open(_member(archive, member.name)).convert("RGBA")
                yield concept_of(point, "fluent-3d"), squared(image)


def _noto_font(packs: Path) -> Iterator[tuple[int, Pixels]]:
    points = sorted({point for concept in CONCEPTS for point in concept.drawings})
    with tarfile.open(fetch(NOTO_FONT, packs)) as archive:
        names = [member.name for member in archive.getmembers()]
        for weight in (300, 400, 700):
            for name in names:
                if not name.endswith(f"-{weight}-normal.woff"):
                    continue
                raw = _member(archive, name).read()
                font = ImageFont.truetype(io.BytesIO(raw), 160)
                absent = bytes(font.getmask("\U0010fffd", mode="L"))
                for point in points:
                    if bytes(font.getmask(chr(int(point, 16)), mode="L")) in {b"", absent}:
                        continue
                    canvas = Image.new("RGBA", (260, 260), (0, 0, 0, 0))
                    draw = ImageDraw.Draw(canvas)
                    draw.text((20, 20), chr(int(point, 16)), font=font, fill=(0, 0, 0, 255))
                    yield concept_of(point, "noto-font"), squared(canvas)


def _icons(packs: Path, *, coloured: bool) -> Iterator[tuple[int, Pixels]]:
    shades = ("#b00000", "#d81e28", "#f03040", "#7a0008")
    number = 0
    for each in icons.SETS:
        for concept, svg in icons.icons(fetch(each.package, packs)):
            red = concept == INDEX[icons.RED]
            if (red or each.coloured) != coloured:
                continue
            number += 1
            try:
                yield concept, rasterise(svg.replace("#000", shades[number % 4]) if red else svg)
            except ValueError as error:  # left out, by name
                print(f"{each.package} {CONCEPTS[concept].name}: {error}")  # noqa: T201


def concept_of(drawing: str, style: str) -> int:
    """Return which concept a drawing (`code point` or `code point:name`) shows in a style, -1 for none of ours."""
    point, _, name = drawing.partition(":")
    if point == "1f52b":
        real = {style, f"{style}:{name}"} & REAL_PISTOLS
        wanted = "pistol" if real else "water pistol"
        return next(index for index, concept in enumerate(CONCEPTS) if concept.name == wanted)
    for index, concept in enumerate(CONCEPTS):
        if point in concept.drawings:
            return index
    return -1


def build(packs: Path, folder: Path = FOLDER) -> Path:
    """Rasterise every drawing and wallpaper into `folder` and return the file of drawings."""
    folder.mkdir(parents=True, exist_ok=True)
    names = _emoji_names(packs)
    pixels: list[Pixels] = []
    style_of: list[int] = []
    concepts: list[int] = []
    for index, style in enumerate(STYLES):
        read = _twemoji if style.name == "twemoji" else _iconify
        svgs = read(style, packs, names)
        for drawing, svg in track(sorted(svgs.items()), description=style.name):
            if style.name == ONLY_PISTOL and drawing.partition(":")[0] != "1f52b":
                continue
            try:
                drawn = rasterise(svg)
            except (
                ValueError
            ) as error:  # a drawing that the renderer cannot read is left out, by name
                print(f"{style.name} {drawing}: {error}")  # noqa: T201
                continue
            pixels.append(drawn)
            style_of.append(index)
            concepts.append(concept_of(drawing, style.name))
    if SYMBOLA.exists():
        for point, drawn in _symbola():
            pixels.append(drawn)
            style_of.append(len(STYLES))
            concepts.append(concept_of(point, "symbola"))
    else:
        print("fonts-symbola is absent: one style less")  # noqa: T201
    more: dict[str, Iterator[tuple[int, Pixels]]] = {
        "fluent-3d": _fluent_3d(packs),
        "noto-font": _noto_font(packs),
        "icons": _icons(packs, coloured=False),
        "icons-coloured": _icons(packs, coloured=True),
    }
    for name, drawings in more.items():
        for concept, drawn in track(drawings, description=name):
            pixels.append(drawn)
            style_of.append(len(STYLES) + MORE_STYLES.index(name))
            concepts.append(concept)
    papers = list(_wallpapers())
    if not papers:
        print("gnome-backgrounds is absent: nothing but training scenes can be composed")  # noqa: T201
    keep(
        folder / "wallpapers.npz",
        pixels=np.stack(papers) if papers else np.zeros((0, 256, 256, 3), np.uint8),
    )
    return keep(
        folder / "drawings.npz",
        pixels=np.stack(pixels),
        style=np.array(style_of),
        concept=np.array(concepts),
    )


def keep(path: Path, **arrays: npt.ArrayLike) -> Path:
    """Write arrays as an npz file, which is there whole or not at all."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return part.replace(path)


def _wallpapers() -> Iterator[Pixels]:
    for path in sorted(WALLPAPERS.glob("*")):
        if path.suffix == ".svg":
            raw = bytes(resvg_py.svg_to_bytes(svg_path=str(path), width=512))
            image = Image.open(io.BytesIO(raw))
        elif path.suffix in {".webp", ".jpg", ".png"}:
            image = Image.open(path)
        else:
            continue
        yield np.asarray(
            image.convert("RGB").resize((256, 256), Image.Resampling.BICUBIC), np.uint8
        )


def load(folder: Path = FOLDER) -> Drawings:
    """Return the rasterised drawings."""
    path = folder / "drawings.npz"
    if not path.exists():
        message = f"{path} is missing: run `python -m workers.mini.material` first"
        raise MaterialError(message)
    with np.load(path) as kept:
        return Drawings(pixels=kept["pixels"], style=kept["style"], concept=kept["concept"])


def main() -> None:
    """Fetch and rasterise the material."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--packs", type=Path, default=FOLDER / "packs", help="folder of npm archives"
    )
    arguments = parser.parse_args()
    try:
        print(build(arguments.packs))  # noqa: T201
    except MaterialError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
