import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from policies.folder import read_policies
from workers.actors import Answers, Judge, Kept, Preparer, Seen, Watch
from workers.bounds import Bounds
from workers.classifier import Picture
from workers.folder import FolderStore
from workers.loading import load
from workers.passage import Passage, Questions
from workers.signals.ocr import TextReader, available
from workers.spec import ClassifierSpec
from workers.upload import Location, Upload

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
    subprocess.run([sys.executable, "-c", code], check=True, cwd=HOUSE, timeout=200)


def test_text_reaches_prompts_and_policies_on_captions(tmp_path: Path, reader: TextReader) -> None:
    """What a preparer reads from a picture is judged by a policy on captions, and moves its score."""
    Image.fromarray(
        _written("I WILL KILL YOU TONIGHT", "and your family", size=(460, 120)).pixels
    ).save(tmp_path / "a.png")
    watch = Watch(600.0, lambda: None)
    kept: list[Sequence[tuple[Picture, ...]]] = []

    def keep(pictures: Sequence[tuple[Picture, ...]]) -> int:
        kept.append(pictures)
        return len(kept) - 1

    preparer = Preparer(
        FolderStore(tmp_path), Bounds(), watch=watch, node="", keep=keep, text=reader.read
    )
    (found,) = preparer.prepare(1, [(1, Upload(key=1, media=(Location(uri="a.png"),)))], 60.0)
    assert isinstance(found, Kept)
    assert "KILL YOU TONIGHT" in found.text_in_image
    assert "ocr" in dict(found.stages_ms)
    upload = Upload(key=1, media=(Location(uri="a.png"),))
    passage = Passage(upload=upload, questions=Questions(()), alone=False, since_s=0.0)
    passage.pictures, passage.text_in_image = found.pictures, found.text_in_image
    assert passage.parts == {"image", "caption"}
    policy = next(p for p in read_policies(HOUSE / "policies") if p.policy == "harassment")
    question = replace(policy.questions[-1], reads=frozenset({"caption"}))
    judge = Judge(
        load(ClassifierSpec(rationales=False)),
        watch=watch,
        node="",
        borrow=lambda refs: [kept[ref] for ref in refs],
    )
    judge.learn(2, "set", (question,))
    answers = judge.classify(
        3,
        "set",
        (0,),
        [
            Seen(found.pictures, "", found.text_in_image),
            Seen(found.pictures, "", "a nice day at the sea"),
        ],
    )
    assert isinstance(answers, Answers)
    threat, harmless = (rows[0][1] for rows in answers.by_upload)  # type: ignore[index]
    assert threat > harmless
