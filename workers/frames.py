"""Which frames of an animation are looked at: those that differ most, so that one short flash is not missed."""

from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image

#: Frames are compared at this size, with their transparency.
_THUMBNAIL: Final = (16, 16)
#: Mean difference (of 255) below which two frames count as the same.
_SAME: Final = 0.5


class FrameSample:
    """Keeps the `limit` frames that differ most of all that are offered, in one pass and bounded memory."""

    def __init__(self, limit: int) -> None:
        limit = max(1, limit)
        self._limit = limit
        self._frames: list[tuple[float, Image.Image]] = []
        self._thumbnails = np.zeros((limit, *_THUMBNAIL, 4), dtype=np.float32)
        #: How far apart each two kept frames are.
        self._apart = np.full((limit, limit), np.inf, dtype=np.float32)

    def offer(self, frame: Image.Image, time_s: float, keep: Callable[[], Image.Image]) -> None:
        """Take what `keep` makes of the frame if it differs more from those kept than two of them do."""
        thumbnail = np.asarray(
            frame.resize(_THUMBNAIL, Image.Resampling.BOX).convert("RGBA"), dtype=np.float32
        )
        place = len(self._frames)
        away = np.abs(self._thumbnails[:place] - thumbnail).mean(axis=(1, 2, 3))
        nearest = away.min(initial=np.inf)
        if nearest < _SAME:
            return
        if place < self._limit:
            self._frames.append((time_s, keep()))
        else:
            first, second = divmod(int(self._apart.argmin()), self._limit)
            if nearest <= self._apart[first, second]:
                return
            # The earlier of the two stays: the very first frame is what a preview shows.
            place = max(first, second)
            self._frames[place] = (time_s, keep())
        self._thumbnails[place] = thumbnail
        self._apart[place, : len(away)] = self._apart[: len(away), place] = away
        self._apart[place, place] = np.inf

    def frames(self) -> list[tuple[float, Image.Image]]:
        """Return the kept frames with their times, in order."""
        return sorted(self._frames, key=lambda frame: frame[0])
