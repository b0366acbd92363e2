"""How small things are written in a policy file: durations, shares, names, codes and wording."""

import hashlib
import re
from datetime import timedelta
from difflib import get_close_matches
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

#: Longest wording of one clause, definition, example or question, in characters.
MAX_WORDING: Final = 4_000
#: Longest duration: a year and a day.
MAX_DURATION: Final = timedelta(days=366)

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION: Final = r"^[0-9]{1,8}[smhd]$"
_SHARE: Final = r"^[0-9]{1,3}(\.[0-9]+)?%$"
_SLUG: Final = r"^[a-z0-9][a-z0-9_-]{0,62}$"
_CLAUSE: Final = r"^[A-Za-z0-9][A-Za-z0-9.]{0,15}$"
_REGION: Final = r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$"
_LANGUAGE: Final = r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$"
_PRIMARY: Final = r"^[a-z]{2,3}$"


class Strict(BaseModel):
    """A part of a policy file: frozen, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def refusal(what: str, remedy: str) -> PydanticCustomError:
    """Return the error by which a validator refuses a value: what is wrong, and what to do."""
    return PydanticCustomError("notation", "{what}; {remedy}", {"what": what, "remedy": remedy})


def nearest(word: str, known: Any) -> str | None:
    """Return the known word that a typo most likely meant, or None."""
    close = get_close_matches(word.lower(), [str(name) for name in known], n=1, cutoff=0.6)
    return close[0] if close else None


def parse_duration(value: object) -> timedelta:
    """Return a timedelta for `90s`, `15m`, `4h` or `2d`."""
    if isinstance(value, timedelta):
        return value
    text = str(value).strip()
    if not re.fullmatch(_DURATION, text):
        raise refusal(
            f"{text!r} is not a duration", "write a whole number and s, m, h or d, like 15m"
        )
    duration = timedelta(**{_UNITS[text[-1]]: int(text[:-1])})
    if duration > MAX_DURATION:
        raise refusal(f"{text} is longer than a year", "write a duration of at most 366d")
    return duration


def format_duration(value: timedelta) -> str:
    """Return a duration as a policy author writes it, in the largest unit that needs no fraction."""
    seconds = round(value.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def parse_share(value: object) -> float:
    """Return a share between 0 and 1 for `5%` or `0.05`."""
    text = str(value).strip()
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise refusal(f"{text!r} is not a share", "write it like 5% or 0.05") from None
    if not 0 <= share <= 1:
        raise refusal(f"{text} is out of range", "write a share between 0% and 100%")
    return share


def _slug(value: str) -> str:
    if not re.fullmatch(_SLUG, value):
        raise refusal(
            f"{value!r} is not a name", "use small letters a to z, digits, - and _, at most 63"
        )
    return value


def _clause_id(value: str) -> str:
    if not re.fullmatch(_CLAUSE, value):
        raise refusal(
            f"{value!r} is not an id of a clause", "use up to 16 letters, digits and dots, like W1"
        )
    return value


def check_region(value: str) -> str:
    """Return a code of a region, or refuse what is none."""
    if value == "UK":
        raise refusal("'UK' is not a code of ISO 3166", "write GB")
    if not re.fullmatch(_REGION, value):
        raise refusal(f"{value!r} is not a region", "write a code of ISO 3166 in capitals, like GB")
    return value


def _language(value: str) -> str:
    if not re.fullmatch(_LANGUAGE, value):
        raise refusal(f"{value!r} is not a language", "write a code of BCP 47, like en or pt-BR")
    return value


def _primary(value: str) -> str:
    language = _language(value)
    if not re.fullmatch(_PRIMARY, language):
        raise refusal(f"{value!r} names more than a language", f"write {value.partition('-')[0]}")
    return language


def _wording(value: str) -> str:
    # Layout is not meaning: `|`, `>` and a plain line say the same, and a line break could forge a line of the prompt.
    text = " ".join(value.split())
    if not text:
        raise refusal("there is no text", "write some, or delete the field")
    if len(text) > MAX_WORDING:
        raise refusal(
            f"the text has {len(text)} characters", f"write at most {MAX_WORDING}, or split it"
        )
    return text


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": _DURATION}),
]
Share = Annotated[
    float,
    BeforeValidator(parse_share),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": _SHARE},
                {"type": "number", "minimum": 0, "maximum": 1},
            ]
        }
    ),
]


def share_of(name: str, content_id: str) -> float:
    """Return where a content stands between 0 and 1 in what is called so: always the same, and evenly spread."""
    told = f"{name}\0{content_id}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.sha256(told).digest()[:8], "big") / 2**64


Slug = Annotated[str, AfterValidator(_slug), WithJsonSchema({"type": "string", "pattern": _SLUG})]
ClauseId = Annotated[
    str, AfterValidator(_clause_id), WithJsonSchema({"type": "string", "pattern": _CLAUSE})
]
Region = Annotated[
    str, AfterValidator(check_region), WithJsonSchema({"type": "string", "pattern": _REGION})
]
Language = Annotated[
    str, AfterValidator(_language), WithJsonSchema({"type": "string", "pattern": _LANGUAGE})
]
#: A language as captions are told apart by: without a region or script.
PrimaryLanguage = Annotated[
    str, AfterValidator(_primary), WithJsonSchema({"type": "string", "pattern": _PRIMARY})
]
#: Words that are put to a model or a person: one line, never empty.
Wording = Annotated[
    str,
    AfterValidator(_wording),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_WORDING}),
]
Probability = Annotated[float, Field(ge=0, le=1, strict=True)]
OpenShare = Annotated[float, Field(gt=0, lt=1, strict=True)]
