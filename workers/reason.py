"""What a model gives as its reason, read from its JSON. Pure."""

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from policies.question import Question
from workers.classifier import Box

#: Longest reason, in characters.
MAX_TEXT: Final = 160
#: Two places are the same from this overlap on.
_SAME_PLACE: Final = 0.3
#: Boxes are written in hundredths of the picture.
GRID: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """What the model wrote, read; boxes as shares of the picture."""

    clause: str
    text: str
    seen: bool
    box: Box | None


def agreement(shown: Reason, drawn: Sequence[Reason | None]) -> float | None:
    """Return the share of drawn reasons that name the clause of the shown one, and no other place."""
    if not drawn:
        return None
    return sum(_same(shown, other) for other in drawn) / len(drawn)


def _same(one: Reason, other: Reason | None) -> bool:
    if other is None or one.clause != other.clause:
        return False
    return one.box is None or other.box is None or _overlap(one.box, other.box) >= _SAME_PLACE


def _overlap(one: Box, other: Box) -> float:
    """Return what two places share, as a share of both together."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def schema(question: Question) -> dict[str, Any]:
    """Return the JSON Schema of a reason under this question, for servers that hold models to it."""
    edge = {"type": "integer", "minimum": 0, "maximum": GRID}
    box = {"type": "array", "items": edge, "minItems": 4, "maxItems": 4}
    return {
        "type": "object",
        "properties": {
            "clause": {"type": "string", "enum": [clause.id for clause in question.forbidden]},
            "text": {"type": "string", "maxLength": MAX_TEXT},
            "media": {"type": ["integer", "null"]},
            "box": {"anyOf": [box, {"type": "null"}]},
        },
        "required": ["clause", "text", "media", "box"],
        "additionalProperties": False,
    }


def read(text: str, question: Question) -> Reason | None:
    """Return the reason that a text holds, or None where it holds none."""
    try:
        said = json.loads(text)
        clause, words = str(said["clause"]), shown(str(said["text"]))
        box = _shares(said["box"])
        seen = said["media"] is not None
    except (ValueError, KeyError, TypeError):
        return None
    if clause not in {known.id for known in question.forbidden} or not words:
        return None
    return Reason(clause=clause, text=words, seen=seen, box=box if seen else None)


def shown(text: str) -> str:
    """Return the text without what is invisible or moves other text about."""
    kept = "".join(char if unicodedata.category(char)[0] != "C" else " " for char in text)
    return " ".join(kept.split())[:MAX_TEXT]


def ask_alone(question: Question, clause: str) -> Question:
    """Return the same question about one clause alone, without the carve-outs that it beats."""
    return replace(
        question,
        forbidden=tuple(known for known in question.forbidden if known.id == clause),
        allowed=tuple(exempt for exempt in question.allowed if clause not in exempt.unless),
    )


def ask_back(alone: Question, reason: Reason) -> Question:
    """Return the question about one clause with the model's own words in the clause's place."""
    clause = alone.forbidden[0]
    return replace(alone, forbidden=(replace(clause, text=reason.text, examples=()),))


def _shares(box: Sequence[int] | None) -> tuple[float, float, float, float] | None:
    if box is None:
        return None
    left, top, right, bottom = (int(edge) / GRID for edge in box)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError("a box has its left before its right and its top above its bottom")
    return left, top, right, bottom
