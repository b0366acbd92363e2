"""The two copies of a medium that a browser ever gets: one so blurred that it tells nothing, and a clear one.

Both are made anew from decoded pixels, so nothing of the uploaded bytes (metadata, tricks in the format) reaches
anybody's browser.
"""

from functools import cache
from io import BytesIO
from typing import Final

from PIL import Image, ImageFilter

from pipeline.messages import UploadEvent
from workers.bounds import Bounds
from workers.media import prepare
from workers.store import Store
from workers.upload import Location, Upload

#: The longest side of what is shown.
_SIDE: Final = 1600
#: A blurred copy has as much in it as a picture of this size.
_TRACES: Final = 24
_BLURRED_SIDE: Final = 480


def copy(event: UploadEvent, index: int, store: Store, bounds: Bounds, *, clear: bool) -> bytes:
    """Return a copy of one medium of an upload as JPEG; of an animation, its frames side by side.

    Raises:
        IndexError: there is no such medium.
        WorkerError: it cannot be fetched or decoded.
    """
    medium = event.media[index]
    location = Location(uri=medium.uri, sha256=medium.sha256, content_type=medium.content_type)
    prepared = prepare(Upload(key=0, media=(location,)), store, bounds)
    frames = [Image.fromarray(picture.pixels) for picture in prepared.pictures]
    for frame in frames:
        frame.thumbnail((_SIDE, _SIDE))
    width, height = sum(frame.width for frame in frames), max(frame.height for frame in frames)
    sheet = Image.new("RGB", (width, height))
    left = 0
    for frame in frames:
        sheet.paste(frame, (left, 0))
        left += frame.width
    sheet.thumbnail((_SIDE, _SIDE))
    out = BytesIO()
    (sheet if clear else _blurred(sheet)).save(out, "JPEG", quality=88)
    return out.getvalue()


@cache
def nothing() -> bytes:
    """Return what stands in the place of a medium of which not even a blurred copy is made."""
    out = BytesIO()
    Image.new("RGB", (_BLURRED_SIDE, _BLURRED_SIDE * 3 // 4), "grey").save(out, "JPEG")
    return out.getvalue()


def _blurred(picture: Image.Image) -> Image.Image:
    scale = _BLURRED_SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    traces = picture.copy()
    traces.thumbnail((_TRACES, _TRACES))
    return traces.resize(size, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(12))
