"""What a model gives as its reason, read from its JSON. Pure."""

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from policies.question import Question

#: Longest reason, in characters.
MAX_TEXT: Final = 160
#: Boxes are written in hundredths of the picture.
GRID: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """What the model wrote, read; boxes as shares of the picture."""

    clause: str
    text: str
    seen: bool
    box: tuple[float, float, float, float] | None


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
