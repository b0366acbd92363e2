"""The proof of a reason: its evidence is put back as yes/no questions. Pure but for the asking.

The clause alone and the reason's own words are asked about the upload, and the clause alone about the place. What is
denied is never shown as supported: words that are denied give way to the clause's own, which the question about the
clause has just confirmed; a place gives way to a surer one, which is asked about in its turn. Where the model named no
place of a picture whose text alone would not break the clause, one is looked for. Where nothing is confirmed that could
stand instead, the reason is unsupported. Either way it is said which parts the model denied.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from PIL import Image, ImageStat

from policies.question import Question
from workers.classifier import Box, ReasonPart
from workers.reason import Reason, ask_alone, ask_back, shown

#: Asks every question about every picture (None: about the text alone); log-odds, one row a picture.
Ask = Callable[[Sequence[Image.Image | None], Sequence[Question]], Sequence[Sequence[float]]]

#: A place is looked at with this share of its size on every side.
MARGIN: Final = 0.15

#: Where a thing is looked for: windows of a third of the side, five a row, each half over the next.
_WINDOW: Final = 1 / 3
_STEPS: Final = tuple(float(step) for step in np.linspace(0, 1 - _WINDOW, 5))
PLACES: Final = tuple(
    (left, top, left + _WINDOW, top + _WINDOW) for top in _STEPS for left in _STEPS
)
#: Of neighbouring windows the surer ones count more: by so many log-odds e times as much.
_SURER: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """What is shown of a reason, whether all of that was confirmed, and what of the model's own was denied."""

    reason: Reason
    supported: bool
    denied: tuple[ReasonPart, ...] = ()


def proven(ask: Ask, question: Question, reason: Reason, image: Image.Image | None) -> Proven:
    """Put the evidence back as questions, mend what is denied, and return what then stands and whether it does.

    A clause that is denied by itself, or in every place, has no support.
    """
    if reason.seen != (image is not None) and "image" not in question.reads:
        return Proven(reason=reason, supported=False)
    alone = ask_alone(question, reason.clause)
    ((clause, words),) = ask([image], [alone, ask_back(alone, reason)])
    supported = clause > 0
    denied: list[ReasonPart] = [] if supported else ["clause"]
    if not words > 0:
        denied.append("text")
        if supported:
            reason = replace(reason, text=shown(alone.forbidden[0].text))
    if image is None or not reason.seen:
        # Where no picture was judged, no place can be confirmed, and none is shown.
        return Proven(reason=replace(reason, box=None), supported=supported, denied=tuple(denied))
    if reason.box is None:
        box = _looked_for(ask, alone, image) if supported else None
        return Proven(reason=replace(reason, box=box), supported=supported, denied=tuple(denied))
    own, box, held = _place(ask, alone, image, reason.box)
    if not own > 0:
        denied.append("box")
    return Proven(
        reason=replace(reason, box=box), supported=supported and held, denied=tuple(denied)
    )


def _place(ask: Ask, alone: Question, image: Image.Image, box: Box) -> tuple[float, Box, bool]:
    """Return the log-odds of the model's own place, the place that stands, and whether that was confirmed alone."""
    (own, *confirmed), (at_own, *sure) = _looks(ask, alone, image, (box, *PLACES))
    if not all(map(math.isfinite, (at_own, *sure))):
        return own, box, False
    if at_own >= max(sure) and (own > 0 or max(confirmed) <= 0):
        return own, box, own > 0
    return own, *_surest(ask, alone, image, confirmed, sure)


def _looked_for(ask: Ask, alone: Question, image: Image.Image) -> Box | None:
    """Return where the evidence is though the model named no place; None where the text is evidence by itself."""
    ((text_alone,),) = ask([None], [alone])
    if not text_alone <= 0:
        return None
    confirmed, sure = _looks(ask, alone, image, PLACES)
    if not all(map(math.isfinite, sure)):
        return None
    box, held = _surest(ask, alone, image, confirmed, sure)
    return box if held else None


def _looks(
    ask: Ask, alone: Question, image: Image.Image, places: Sequence[Box]
) -> tuple[list[float], list[float]]:
    """Return for each place the log-odds of the clause there, and those by which places are compared."""
    # Carve-outs weigh against a thing wherever it is: asked without them as well, its place stands out more.
    asked = [alone, replace(alone, allowed=())] if alone.allowed else [alone]
    looks = ask([only(image, at) for at in places], asked)
    return [row[0] for row in looks], [sum(row) / len(row) for row in looks]


def _surest(
    ask: Ask, alone: Question, image: Image.Image, confirmed: Sequence[float], sure: Sequence[float]
) -> tuple[Box, bool]:
    """Return the place that the windows make, or the surest of them that was confirmed, and whether it was."""
    made = around(sure)
    ((again,),) = ask([only(image, made)], [alone])
    if again > 0 or max(confirmed) <= 0:
        return made, again > 0
    stands = max((at for at, odds in enumerate(confirmed) if odds > 0), key=sure.__getitem__)
    return PLACES[stands], True


def around(odds: Sequence[float]) -> Box:
    """Return where a thing is, by the log-odds of it in each of `PLACES`: about the surest one and its neighbours."""
    edges = np.array(PLACES)
    middles, sure = (edges[:, :2] + edges[:, 2:]) / 2, np.array(odds)
    near = np.abs(middles - middles[sure.argmax()]).max(axis=1) < _WINDOW
    weights = np.exp((sure - sure.max()) / _SURER) * near
    weights /= weights.sum()
    x, y = middle = weights @ middles
    # A large thing is seen in several windows, and its place is as wide as they lie apart.
    wide, high = _WINDOW / 2 + np.sqrt(weights @ (middles - middle) ** 2) / 2
    return (
        float(max(0.0, x - wide)),
        float(max(0.0, y - high)),
        float(min(1.0, x + wide)),
        float(min(1.0, y + high)),
    )


def only(image: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    """Return the picture with everything but one place, and a little around it, in one colour.

    The place keeps its size: enlarged, a thing looks unlike anything that small models were taught.
    """
    left, top, right, bottom = box
    wide, high = (right - left) * MARGIN, (bottom - top) * MARGIN
    width, height = image.size
    kept = (
        int(max(left - wide, 0) * width),
        int(max(top - high, 0) * height),
        max(int(min(right + wide, 1) * width), int(left * width) + 1),
        max(int(min(bottom + high, 1) * height), int(top * height) + 1),
    )
    red, green, blue = (round(value) for value in ImageStat.Stat(image.convert("RGB")).mean)
    alone = Image.new("RGB", image.size, (red, green, blue))
    alone.paste(image.crop(kept), kept[:2])
    return alone
