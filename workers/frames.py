"""Which frames of an animation are looked at: those that differ most, so that one short flash is not missed."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Frames are compared at this size.
_THUMBNAIL: Final = (16, 16)
#: Mean difference (of 255) below which two frames count as the same.
_SAME: Final = 0.5


class FrameSample:
    """Keeps the `limit` frames that differ most of all that are offered, in one pass and bounded memory."""

    def __init__(self, limit: int) -> None:
        self._limit = max(1, limit)
        self._frames: list[tuple[float, Image.Image]] = []
        self._thumbnails: list[NDArray[np.float32]] = []
        #: How far apart each two kept frames are.
        self._apart = np.full((self._limit, self._limit), np.inf, dtype=np.float32)

    def offer(self, frame: Image.Image, time_s: float) -> None:
        """Keep the frame if it differs from those kept more than two of them differ from each other."""
        small = np.asarray(frame.resize(_THUMBNAIL, Image.Resampling.BOX), dtype=np.float32)
        distances = [float(np.abs(small - other).mean()) for other in self._thumbnails]
        if distances and min(distances) < _SAME:
            return
        place = len(self._frames)
        if place == self._limit:
            first, second = np.unravel_index(int(self._apart.argmin()), self._apart.shape)
            if min(distances) <= self._apart[first, second]:
                return
            # The earlier of the two stays: the first frame is what a still preview shows.
            place = int(max(first, second))
            self._frames[place], self._thumbnails[place] = (time_s, frame), small
        else:
            self._frames.append((time_s, frame))
            self._thumbnails.append(small)
        for other, distance in enumerate(distances):
            if other != place:
                self._apart[place, other] = self._apart[other, place] = distance

    def frames(self) -> list[tuple[float, Image.Image]]:
        """Return the kept frames with their times, in order."""
        return sorted(self._frames, key=lambda frame: frame[0])
