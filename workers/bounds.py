"""How much one upload's media may cost: bytes, pixels, frames, seconds."""

import time
from dataclasses import dataclass
from typing import Final

from workers.errors import MediaRefusedError
from workers.refusal import Refusal

#: An animation may hold this many times `max_pixels`, all frames together: 250 frames of 1,000 by 1,000.
_ANIMATED: Final = 5
#: What a frame costs beside its pixels, in pixels.
_FRAME_PIXELS: Final = 20_000
#: An upload's pictures hold this many times `max_side` squared at most, however many media it has.
_UPLOAD_SHARES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Bounds on the media of one upload.

    Args:
        max_bytes: Of one medium as stored.
        max_pixels: Of one medium as stored; checked before anything is decoded. WebP and AVIF may have half of it,
            animations a quarter, because their readers hold several copies.
        max_frames: How many frames of an animation are looked at: those that differ most.
        max_media: How many media an upload may have.
        max_side: The longest side of a picture as classifiers get it; larger ones are reduced.
        fetch_timeout_s: For all media of the upload together, by the clock.
        max_decode_s: For all media of the upload together, in CPU time.
    """

    max_bytes: int = 25_000_000
    max_pixels: int = 50_000_000
    max_frames: int = 8
    max_media: int = 10
    max_side: int = 2048
    fetch_timeout_s: float = 10.0
    max_decode_s: float = 10.0

    def share_pixels(self, media: int) -> int:
        """Return how many pixels the pictures of one medium may have, where the upload has so many media.

        With the default bounds an upload's pictures stay under 4 × 2,048² pixels (50 MB), or twice that where light
        ink on transparency is looked at twice.
        """
        return max(1, self.max_side**2 * min(_UPLOAD_SHARES, media) // max(1, media))


class Effort:
    """What decoding the media of one upload may still cost; used up, they are refused."""

    def __init__(self, bounds: Bounds) -> None:
        self._pixels_left = bounds.max_pixels * _ANIMATED
        self._until_s = time.thread_time() + bounds.max_decode_s

    def frame(self, pixels: int) -> None:
        """Pay for one more frame of an animation."""
        self._pixels_left -= pixels + _FRAME_PIXELS
        if self._pixels_left < 0:
            raise MediaRefusedError(
                Refusal.ANIMATION_TOO_LONG, "its frames together have too many pixels to look at"
            )
        self.check_time()

    def check_time(self) -> None:
        """Raise if decoding took too long.

        It counts this thread's CPU time and not the clock's, so that a busy machine refuses nothing.
        """
        if time.thread_time() > self._until_s:
            raise MediaRefusedError(Refusal.TOO_COMPLEX, "it takes too long to decode")
