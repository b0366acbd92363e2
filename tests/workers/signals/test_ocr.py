import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from workers.classifier import Picture
from workers.signals.ocr import TextReader, available

pytestmark = pytest.mark.skipif(not available(), reason="needs the extra `ocr`")

HOUSE = Path(__file__).resolve().parents[3]
PHOTOS = HOUSE.parent / "shared" / "data" / "ocr-easyocr-photos"


@pytest.fixture(scope="module")
def reader() -> TextReader:
    """Return one reader: its models take a while to load."""
    return TextReader()


def _written(*lines: str, size: tuple[int, int] = (320, 120)) -> Picture:
    image = Image.new("RGB", size, "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(image).text(
            (10, 10 + 45 * number), line, fill="black", font=ImageFont.load_default(26)
        )
    return Picture(media=0, pixels=np.asarray(image))


def test_lines_in_order(reader: TextReader) -> None:
    """Text is read line by line, from top to bottom, and a repeated line counts once."""
    picture = _written("BUY MY PISTOL", "call 555 1234")
    assert reader.read([picture, picture]).splitlines() == ["BUY MY PISTOL", "call 555 1234"]


def test_no_text(reader: TextReader) -> None:
    """A picture without text, however small or long, has none, and no pictures have none."""
    shapes = [(1, 1, 3), (200, 200, 3), (1, 600, 3), (600, 7, 3)]
    pictures = [Picture(media=0, pixels=np.full(shape, 200, np.uint8)) for shape in shapes]
    assert reader.read(pictures) == ""
    assert reader.read([]) == ""


def test_what_is_read_is_bounded() -> None:
    """No more text is handed on than the bound."""
    assert TextReader(max_chars=5).read([_written("BUY MY PISTOL")]) == "BUY M"


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs ../shared/data")
def test_a_photograph(reader: TextReader) -> None:
    """An English poster is read nearly as a person does."""
    truth = json.loads((PHOTOS / "truth.json").read_text())
    pixels = np.asarray(Image.open(PHOTOS / "english.png").convert("RGB"))
    read = set(reader.read([Picture(media=0, pixels=pixels)]).splitlines())
    lines = truth["english.png"]["lines"]
    assert len(read & set(lines)) >= len(lines) - 2


def test_loaded_only_when_used() -> None:
    """Importing the module loads neither the reader nor its runtime."""
    code = (
        "import sys, workers.signals.ocr as o; o.TextReader();"
        "sys.exit('rapidocr' in sys.modules or 'onnxruntime' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=HOUSE, timeout=60)
