"""The copies of a medium that reach a browser: made anew, still, and the veiled one with next to nothing in it."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from dashboards.console.pictures import copy
from pipeline.messages import UploadEvent
from workers.bounds import Bounds
from workers.store import Access, open_stores

COLOURS = ("red", "lime", "blue")


def shown(folder: Path, name: str, *, clear: bool) -> Image.Image:
    """Return the copy of a medium as a browser reads it."""
    event = UploadEvent.model_validate(
        {"event_id": "e", "content_id": "c", "media": [{"uri": name}]}
    )
    body = copy(event, 0, open_stores(Access(folder=folder)), Bounds(), clear=clear)
    picture = Image.open(BytesIO(body))
    assert picture.format == "JPEG"
    assert not picture.getexif()
    return picture


def test_what_moves_is_shown_as_its_frames_side_by_side(tmp_path: Path) -> None:
    """An animation stands still: each of its frames is there, in its order."""
    frames = [Image.new("RGB", (90, 60), colour) for colour in COLOURS]
    frames[0].save(tmp_path / "moves.gif", save_all=True, append_images=frames[1:], duration=500)

    picture = shown(tmp_path, "moves.gif", clear=True)

    assert not getattr(picture, "is_animated", False)
    strongest = [int(np.asarray(picture)[30, 45 + 90 * n].argmax()) for n in range(len(frames))]
    assert (picture.size, strongest) == ((270, 60), [0, 1, 2])


def test_nothing_fine_is_left_in_a_veiled_copy(tmp_path: Path) -> None:
    """What is smaller than a 24th of a picture cannot be told from its surroundings: no word, no face."""
    fine = np.indices((480, 640)).sum(axis=0) // 8 % 2 * 255
    Image.fromarray(fine.astype(np.uint8)).convert("RGB").save(tmp_path / "fine.png")

    spread = {
        clear: float(np.asarray(shown(tmp_path, "fine.png", clear=clear), float).std())
        for clear in (True, False)
    }

    assert spread[True] > 100
    assert spread[False] < 5
