import numpy as np
from PIL import Image

from workers.frames import FrameSample


def _kept(greys: list[int], limit: int) -> list[int]:
    sample = FrameSample(limit)
    for number, grey in enumerate(greys):
        frame = Image.new("RGB", (40, 30), (grey, grey, grey))
        sample.offer(frame, float(number), frame.copy)
    assert [int(np.asarray(frame)[0, 0, 0]) for _, frame in sample.frames()] == [
        greys[int(at_s)] for at_s, _ in sample.frames()
    ]
    return [int(at_s) for at_s, _ in sample.frames()]


def test_few_frames_are_all_kept() -> None:
    """Up to the limit every frame that differs is kept, in order."""
    assert _kept([0, 100, 200], 4) == [0, 1, 2]


def test_still_frames_count_once() -> None:
    """Frames that show the same are one."""
    assert _kept([7] * 50, 4) == [0]


def test_a_flash_is_kept() -> None:
    """One odd frame among thousands is kept, wherever it stands."""
    for place in (1, 500, 1234, 1999):
        greys = [number % 20 for number in range(2000)]
        greys[place] = 255
        assert place in _kept(greys, 4)


def test_the_first_frame_stays() -> None:
    """The first frame is always among those kept."""
    assert _kept([number % 256 for number in range(0, 5000, 37)], 3)[0] == 0


def test_one_frame() -> None:
    """A limit of one keeps the first frame."""
    assert _kept([0, 100, 200], 1) == [0]


def test_transparency_is_a_difference() -> None:
    """Frames that differ in transparency only are two."""
    sample = FrameSample(4)
    for alpha in (0, 255):
        frame = Image.new("RGBA", (4, 4), (0, 0, 0, alpha))
        sample.offer(frame, float(alpha), frame.copy)
    assert len(sample.frames()) == 2
