"""The demo's samples need nothing but what ships."""

from pathlib import Path

import numpy as np
from PIL import Image

from workers.mini import samples


def test_samples_are_pictures_with_captions(tmp_path: Path) -> None:
    """Every sample is a picture that differs from the others, with a caption beside it."""
    paths = list(samples.write(tmp_path))
    assert 20 <= len(paths) <= 30
    looks = set()
    for path in paths:
        image = Image.open(path)
        assert image.size == (samples.SIDE_PX, samples.SIDE_PX)
        assert path.with_suffix(".txt").read_text().strip()
        looks.add(np.asarray(image).tobytes())
    assert len(looks) == len(paths)


def test_every_drawing_is_used_and_small() -> None:
    """No drawing ships that no sample uses, and all together stay under 150 kB."""
    used = {piece.drawing for sample in samples.SAMPLES for piece in sample.pieces}
    files = sorted(samples.DRAWINGS.glob("*.svg"))
    assert used == {file.stem for file in files}
    assert sum(file.stat().st_size for file in files) < 150_000
