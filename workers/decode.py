"""From hostile bytes to small RGB arrays, with six named readers of Pillow and nothing else.

Pictures are as a viewer shows them, turned by EXIF. Colour profiles are not applied.
"""

import io
import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Final, NamedTuple

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from workers.bounds import Bounds, Effort
from workers.canvas import fitting, flattened, plain, reduced, shrunk
from workers.classifier import Picture
from workers.errors import MediaRefusedError
from workers.frames import FrameSample
from workers.refusal import Refusal
from workers.room import Room
from workers.signals.likeness import perceptual_hash

#: By type. They are called directly: `Image.open` would go on to try every reader that anybody registered.
_READERS: Final[Mapping[str, type[ImageFile.ImageFile]]] = {
    "image/jpeg": JpegImagePlugin.JpegImageFile,
    "image/png": PngImagePlugin.PngImageFile,
    "image/gif": GifImagePlugin.GifImageFile,
    "image/webp": WebPImagePlugin.WebPImageFile,
    "image/avif": AvifImagePlugin.AvifImageFile,
    "image/bmp": BmpImagePlugin.BmpImageFile,
}
# A worker has its share of the cores, and CPU time in threads that we do not see would escape its bound.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
#: What each reader takes for a pixel at its worst, copies of its own included (measured).
_PIXEL_BYTES: Final = {
    "image/jpeg": 4,
    "image/png": 6,
    "image/gif": 14,
    "image/webp": 17,
    "image/avif": 12,
    "image/bmp": 6,
}
#: All decoding of this process at once; one picture may need more, and then is alone.
_ROOM: Final = Room(300_000_000)
#: Readers that hold several copies of a picture at once get this part of `max_pixels`.
_COPYING: Final = {"image/webp": 2, "image/avif": 2}
#: A canvas that moves may have this part of `max_pixels`: several copies of it are kept.
_MOVING: Final = 4
#: What Pillow's readers are known to raise on broken bytes.
_PILLOW_RAISES: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION: Final = 0x0112
#: A JPEG's scans each pass over all of its pixels: together at most this many times `max_pixels`.
_SCANS: Final = 20
_USUAL_SCANS: Final = 16
#: A picture longer than this many times its width is also looked at in pieces.
_STRIP: Final = 4
_STRIP_SIDE: Final = 1024
#: A share of the wanted size from which on a reduced JPEG is not decoded larger.
_NEARLY: Final = 0.75
#: The time of a frame that claims to take none, as browsers have it.
_FRAME_S: Final = 0.1
_MS: Final = 1000.0


class Decoded(NamedTuple):
    """The pictures of an image, and the perceptual hash of the first."""

    pictures: list[Picture]
    perceptual_hash: str


def decode(
    data: bytes, mime: str, *, media: int, bounds: Bounds, share_pixels: int, effort: Effort
) -> Decoded:
    """Return the pictures of an image: one; for animations and long strips up to `max_frames`.

    `share_pixels` is how many pixels they may have together.

    Raises:
        MediaRefusedError: The bytes are broken or out of bounds.
    """
    with _refusing(mime):
        _check_before(data, mime, bounds)
        with _READERS[mime](_Watched(data, effort)) as image:
            _check_pixels(*image.size, bounds.max_pixels // _COPYING.get(mime, 1))
            if mime == "image/jpeg":
                _check_scans(data, image, bounds)
            with _ROOM.taken(math.prod(image.size) * _PIXEL_BYTES[mime]):
                if mime != "image/jpeg" and getattr(image, "is_animated", False):
                    shown = _animation(image, bounds, share_pixels, effort)
                else:
                    shown = [(None, still) for still in _still(image, bounds, share_pixels)]
            turn = _TURNS.get(_orientation(image))
        if turn is not None:
            shown = [(time_s, picture.transpose(turn)) for time_s, picture in shown]
        pictures = [
            Picture(media=media, pixels=np.asarray(picture), time_s=time_s)
            for time_s, picture in shown
        ]
        # From Pillow's own picture, while it is there: to make one of the pixels again takes as long as the hash.
        return Decoded(pictures, perceptual_hash(shown[0][1]))


class _Watched(io.BytesIO):
    """Bytes that are refused when reading them takes too long, as all loops of Pillow's readers read."""

    def __init__(self, data: bytes, effort: Effort) -> None:
        super().__init__(data)
        self._effort = effort
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if not self._reads & 0xFF:
            self._effort.check_time()
        return super().read(size)


@contextmanager
def _refusing(mime: str) -> Iterator[None]:
    """Turn whatever a reader raises into a refusal."""
    try:
        yield
    except MediaRefusedError:
        raise
    except MemoryError as error:
        raise MediaRefusedError(Refusal.TOO_COMPLEX, f"{mime}: no memory for it") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaRefusedError(Refusal.TOO_MANY_PIXELS, f"{mime}: {error}") from error
    except _PILLOW_RAISES as error:
        words = str(error)
        if "too large" in words or "Too much memory" in words:
            reason = Refusal.TOO_COMPLEX
        elif isinstance(error, EOFError) or "runcated" in words:
            reason = Refusal.TRUNCATED
        else:
            reason = Refusal.BROKEN
        if isinstance(error, UnidentifiedImageError) or not words:
            words = type(error).__name__
        raise MediaRefusedError(reason, f"{mime}: {words}"[:300]) from error


def _check_before(data: bytes, mime: str, bounds: Bounds) -> None:
    """Refuse what its reader would spend too much on before it tells a size."""
    if mime == "image/webp" and data[12:16] == b"VP8X":
        # Its reader allocates the whole canvas, twice, when it opens the file.
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        _check_pixels(width, height, bounds.max_pixels)
    if mime == "image/bmp" and data[14] >= 40 and data[30] in {1, 2}:  # noqa: PLR2004 -- the format's
        raise MediaRefusedError(
            Refusal.UNSUPPORTED_TYPE, "image/bmp with run lengths; its reader is too slow"
        )


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise MediaRefusedError(
            Refusal.TOO_MANY_PIXELS, f"{width:,} × {height:,} is more than {max_pixels:,}"
        )
    if width < 1 or height < 1:
        raise MediaRefusedError(Refusal.BROKEN, f"{width} × {height} pixels")


def _check_scans(data: bytes, image: Image.Image, bounds: Bounds) -> None:
    # No other bytes can look like this marker: inside of scans FF is always followed by 00.
    scans = data.count(b"\xff\xda")
    if scans > _USUAL_SCANS and scans * math.prod(image.size) > _SCANS * bounds.max_pixels:
        raise MediaRefusedError(Refusal.TOO_COMPLEX, f"image/jpeg with {scans:,} scans")


def _still(image: ImageFile.ImageFile, bounds: Bounds, share_pixels: int) -> list[Image.Image]:
    width, height = image.size
    strip = max(width, height) > max(_STRIP_SIDE, _STRIP * min(width, height))
    if not strip:
        size = fitting(image.size, bounds.max_side, share_pixels)
        # A JPEG is decoded at an eighth, a quarter or half of its size where that is (nearly) enough.
        image.draft("RGB", fitting(size, max(size), int(math.prod(size) * _NEARLY**2)))
        return flattened(shrunk(image, fitting(image.size, bounds.max_side, share_pixels)))
    # Reduced as a whole, a long strip (a chat, a comic) would be unreadable.
    image.load()
    count = min(bounds.max_frames, 1 + math.ceil(max(width, height) / min(width, height) / 2))
    pictures = []
    for view in chain([image], _pieces(image, count - 1)):
        size = fitting(view.size, bounds.max_side, share_pixels // count)
        pictures += flattened(shrunk(view, size))
    return pictures


def _pieces(image: Image.Image, count: int) -> Iterator[Image.Image]:
    width, height = image.size
    for at in range(count):
        if width > height:
            yield image.crop((at * width // count, 0, (at + 1) * width // count, height))
        else:
            yield image.crop((0, at * height // count, width, (at + 1) * height // count))


def _animation(
    image: ImageFile.ImageFile, bounds: Bounds, share_pixels: int, effort: Effort
) -> list[tuple[float | None, Image.Image]]:
    if math.prod(image.size) * _MOVING > bounds.max_pixels:
        raise MediaRefusedError(
            Refusal.TOO_MANY_PIXELS,
            f"{image.width:,} × {image.height:,} is too large for an animation",
        )
    sample = FrameSample(bounds.max_frames)
    time_s = 0.0
    for _ in _each_frame(image):
        # A frame of a GIF may enlarge the picture.
        _check_pixels(*image.size, bounds.max_pixels)
        effort.frame(math.prod(image.size))
        frame = plain(image)
        size = fitting(image.size, bounds.max_side, share_pixels // bounds.max_frames)
        sample.offer(frame, time_s, partial(_own, frame, size))
        duration_s = float(image.info.get("duration") or 0) / _MS
        time_s += duration_s if 0 < duration_s < math.inf else _FRAME_S
    return [
        (round(at_s, 3), picture) for at_s, frame in sample.frames() for picture in flattened(frame)
    ]


def _own(frame: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the frame reduced, and a copy in any case: its reader draws the next one over it."""
    return frame.copy() if frame.size == size else reduced(frame, size)


def _each_frame(image: ImageFile.ImageFile) -> Iterator[None]:
    # A GIF does not say how many frames it has: counting them would read it twice.
    expected = None if image.format == "GIF" else getattr(image, "n_frames", None)
    number = 0
    while True:
        try:
            image.seek(number)
        except EOFError:
            if number == 0 or (expected is not None and number < expected):
                raise
            return
        yield
        number += 1


def _orientation(image: Image.Image) -> int:
    if "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except _PILLOW_RAISES:
        return 1  # viewers show a picture with broken EXIF as it lies
