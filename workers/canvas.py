"""Pictures made plain, small and opaque: whatever its mode, size and transparency, a picture ends as small RGB.

Alpha is over white, as most viewers show it. A picture with light ink on transparency shows only in a dark
application, so it also gets a second look over black.
"""

import math
from typing import Final

import numpy as np
from PIL import Image

#: From here on a value (of 255) is light; from here on an alpha shows something.
_LIGHT: Final = 235
_SHOWN: Final = 32
#: Shares of a picture: of light ink, and of transparency around it, that make it worth a look over black.
_INK_SHARE: Final = 0.005
_CLEAR_SHARE: Final = 0.02
#: Large pictures are converted and reduced in bands of so many pixels.
_BAND_PIXELS: Final = 2_000_000


def plain(image: Image.Image) -> Image.Image:
    """Load the picture and return it as L, RGB or RGBA, in modes that can be reduced well."""
    image.load()
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    return image if image.mode in {"L", "RGB"} else image.convert("RGB")


def fitting(size: tuple[int, int], max_side: int, max_pixels: int) -> tuple[int, int]:
    """Return the size reduced so that it keeps to both bounds; never enlarged, never zero."""
    width, height = size
    scale = min(1.0, max_side / max(size), math.sqrt(max_pixels / (width * height)))
    return max(1, int(width * scale)), max(1, int(height * scale))


def shrunk(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the picture plain and reduced, without a plain copy of all of it on the way where it is large."""
    factor = min(image.width // size[0], image.height // size[1])
    image.load()
    if factor < 2:  # noqa: PLR2004 -- nothing to halve
        return reduced(plain(image), size)
    rows = max(1, _BAND_PIXELS // image.width // factor) * factor
    bands = [
        plain(image.crop((0, top, image.width, min(top + rows, image.height)))).reduce(factor)
        for top in range(0, image.height, rows)
    ]
    whole = Image.new(bands[0].mode, (bands[0].width, sum(band.height for band in bands)))
    for number, band in enumerate(bands):
        whole.paste(band, (0, number * rows // factor))
    return reduced(whole, size)


def reduced(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the plain picture in that size; itself where it has it."""
    if image.size == size:
        return image
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def flattened(image: Image.Image) -> list[Image.Image]:
    """Return the picture over white, and over black too where it has ink that white swallows; an opaque one itself."""
    if image.mode != "RGBA":
        return [image if image.mode == "RGB" else image.convert("RGB")]
    over_white = _over(image, (255, 255, 255, 255))
    alpha = np.asarray(image.getchannel("A"))
    swallowed = (alpha >= _SHOWN) & (np.asarray(over_white).min(axis=2) >= _LIGHT)
    if swallowed.mean() < _INK_SHARE or (alpha < _SHOWN).mean() < _CLEAR_SHARE:
        return [over_white]
    return [over_white, _over(image, (0, 0, 0, 255))]


def _over(image: Image.Image, colour: tuple[int, int, int, int]) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, colour), image).convert("RGB")
