"""Text in images, read by RapidOCR (the optional extra `ocr`), whose wheel carries its models.

What is read is content of the upload, as a caption is: a classifier gets it quoted, and nothing obeys it.
"""

import threading
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Final

import numpy as np

from workers.classifier import Picture, Pixels
from workers.errors import CheckpointError

#: Larger pictures are reduced to this side before text is looked for.
_MAX_SIDE: Final = 960
#: A picture is padded to this side: letters that touch the rim are not found.
_MIN_SIDE: Final = 32
#: Lines read with less confidence are noise more often than text.
_MIN_CONFIDENCE: Final = 0.5


class TextReader:
    """Reads text from pictures; loads its models at the first picture, and may be shared between threads."""

    def __init__(self, *, threads: int = 1, max_chars: int = 2000) -> None:
        if not available():
            raise CheckpointError(
                "ocr_missing", "text in images needs `pip install 'weir-moderation[ocr]'`"
            )
        self._threads = threads
        self._max_chars = max_chars
        self._engine: Any = None
        self._loading = threading.Lock()

    def read(self, pictures: Sequence[Picture]) -> str:
        """Return the lines found in the pictures, each once, cut at `max_chars`."""
        lines: dict[str, None] = {}
        for picture in pictures:
            lines |= dict.fromkeys(self._lines(picture.pixels))
            if sum(map(len, lines)) > self._max_chars:
                break
        return "\n".join(lines)[: self._max_chars]

    def _lines(self, pixels: Pixels) -> list[str]:
        height, width, _ = pixels.shape
        rim = [(0, max(0, _MIN_SIDE - height)), (0, max(0, _MIN_SIDE - width)), (0, 0)]
        padded = (
            np.pad(pixels, rim, constant_values=255) if min(height, width) < _MIN_SIDE else pixels
        )
        # OpenCV's order of colours.
        found = self._loaded()(np.ascontiguousarray(padded[:, :, ::-1]))
        return [
            " ".join(text.split())
            for text, confidence in zip(found.txts or (), found.scores or (), strict=True)
            if confidence >= _MIN_CONFIDENCE and text.strip()
        ]

    def _loaded(self) -> Any:
        with self._loading:
            if self._engine is None:
                from rapidocr import RapidOCR

                engine = "EngineConfig.onnxruntime"
                self._engine = RapidOCR(
                    params={
                        "Global.log_level": "error",
                        "Det.limit_type": "max",
                        "Det.limit_side_len": _MAX_SIDE,
                        f"{engine}.intra_op_num_threads": self._threads,
                        f"{engine}.inter_op_num_threads": 1,
                    }
                )
            return self._engine


def available() -> bool:
    """Return whether the extra `ocr` is installed."""
    return find_spec("rapidocr") is not None and find_spec("onnxruntime") is not None
