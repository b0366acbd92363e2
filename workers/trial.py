"""A trial of sharing on the loaded weights: shared and separate scores must agree."""

import numpy as np
import structlog
import torch
from PIL import Image

from workers import prompt
from workers.passes import Row
from workers.scoring import Scorer

_log = structlog.get_logger(__name__)

_ASKS = (
    "Policy: Does this upload sell a weapon?\nForbidden:\nW1: Offers a weapon.\n" + prompt.ASK,
    "Policy: Is it a scam?\nForbidden:\nS1: Promises money.\nS2: Asks for a code.\n" + prompt.ASK,
)


def holds(scorer: Scorer, *, images: bool) -> bool:
    """Return whether this model's family entry is right for it; a wrong one is logged.

    16-bit weights round differently in different shapes, so there the bound is wider.
    """
    bound = 1e-3 if scorer.model.dtype == torch.float32 else 0.5
    image = None
    if images:
        seed = np.random.default_rng(7).integers(0, 255, (9, 12, 3), dtype=np.uint8)
        image = Image.fromarray(seed).resize((144, 108), Image.Resampling.BICUBIC)
    row = Row(
        shared=prompt.prefix(images=int(images), caption="For sale, as new."),
        image=image,
        asked=tuple(range(len(_ASKS))),
    )
    try:
        together = [odds.score for odds in scorer.score([row], _ASKS)[0]]
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as fault:
        _log.warning("sharing_failed", model=type(scorer.model).__name__, error=str(fault))
        return False
    texts = [scorer.dialogue.whole(row.shared, ask) for ask in _ASKS]
    with torch.inference_mode():
        apart = [scorer.whole([row], [text])[0].score for text in texts]
    worst = max(abs(a - b) for a, b in zip(together, apart, strict=True))
    if not worst <= bound:
        _log.warning("sharing_differs", model=type(scorer.model).__name__, by=worst)
    return worst <= bound
