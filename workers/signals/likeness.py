"""Perceptual hashes: pictures that look alike have hashes that differ in few of their 64 bits.

It is the usual pHash: the lowest waves of a small grey copy, each above or below their median. `imagehash` makes the
same one, and would bring SciPy and PyWavelets for these lines.
"""

from typing import Final

import numpy as np
from PIL import Image

#: The side of the small copy, and of the square of lowest waves that is kept of it.
_SIDE: Final = 32
_KEPT: Final = 8
#: A copy with less contrast than this has no waves that are more than noise.
_FLAT: Final = 2.0
_WAVES: Final = np.cos(np.pi / _SIDE * np.outer(np.arange(_KEPT), np.arange(_SIDE) + 0.5))


def perceptual_hash(picture: Image.Image) -> str:
    """Return the hash of a picture as 16 hexadecimal digits; of one without contrast the empty string."""
    # Each of its pixels is a plain mean, which copies of another size have, too. Steps in between would be faster, and
    # copies would differ in more bits.
    small = picture.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    grey = np.asarray(small.convert("L"), dtype=np.float64)
    if grey.std() < _FLAT:
        return ""
    waves = (_WAVES @ grey @ _WAVES.T).ravel()
    # The first is the mean brightness, which says nothing of what is seen.
    bits = waves > np.median(waves[1:])
    return np.packbits(bits).tobytes().hex()
