"""Bands: where on the calibrated probability a person looks, and where a policy acts by itself."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Tag, model_validator

from policies.notation import OpenShare, Probability, Strict, refusal


class Precision(Strict):
    """A promise: of what acts by itself, at least this share is right, with this confidence."""

    precision: OpenShare
    """Smallest share of automatic actions that is right, like 0.99."""
    confidence: OpenShare = 0.95
    """How sure the promise is, like 0.95."""


class MissRate(Strict):
    """A promise: of what violates, at most this share passes unreviewed, with this confidence."""

    miss_rate: OpenShare
    """Largest share of violations that passes unseen, like 0.02."""
    confidence: OpenShare = 0.95
    """How sure the promise is, like 0.95."""


def _kind(value: Any) -> str | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "number"
    if isinstance(value, (Mapping, Precision, MissRate)):
        return "promise"
    return "never" if value == "never" else None


def _kind_for(message: str) -> Discriminator:
    # No context here, where dicts would make the annotation unhashable: what is wrong ends at the semicolon.
    return Discriminator(_kind, custom_error_type="notation", custom_error_message=message)


#: From which probability on people look at it.
ReviewBand = Annotated[
    Annotated[Probability, Tag("number")] | Annotated[MissRate, Tag("promise")],
    _kind_for("this is no band; write a probability like 0.3, or a promise like {miss_rate: 0.02}"),
]

#: From which probability on the policy acts by itself.
ActBand = Annotated[
    Annotated[Probability, Tag("number")]
    | Annotated[Precision, Tag("promise")]
    | Annotated[Literal["never"], Tag("never")],
    _kind_for(
        "this is no band; write a probability like 0.95, a promise like {precision: 0.99}, or never"
    ),
]


class Bands(Strict):
    """Where on the calibrated probability a person looks, and where the policy acts by itself."""

    review: ReviewBand | None = None
    """From this probability on a person looks at it: a number from 0 to 1, or a promise like {miss_rate: 0.02}."""
    act: ActBand | None = None
    """From this probability on it acts by itself: a number, a promise like {precision: 0.99}, or never."""
    uncalibrated: Literal["act"] | None = None
    """`act` permits acting on scores that are not calibrated (yet); without it a person decides until they are."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if disorder := out_of_order(self.review, self.act):
            raise refusal(*disorder)
        return self


def out_of_order(review: object, act: object) -> tuple[str, str] | None:
    """Return what is wrong with two bands, and what to do, or None."""
    if isinstance(review, float) and isinstance(act, float) and act < review:
        return f"act ({act:g}) lies below review ({review:g})", "raise act or lower review"
    return None
