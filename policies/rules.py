"""The small parts of a policy: what is in force, how bad it is, and who looks at it by when."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, StrictBool

from policies.bands import MissRate, Precision
from policies.notation import Duration, Language, Share, Slug, Strict, nearest, refusal


class Action(StrEnum):
    """What is in force for an upload, in rising strictness."""

    ALLOW = "allow"
    RESTRICT = "restrict"
    HOLD = "hold"
    REMOVE = "remove"

    def __init__(self, *_: str) -> None:
        #: The strictness: a larger number is stricter.
        self.rank: int = len(type(self).__members__)


class Severity(StrEnum):
    """How bad a violation is; the weight is part of a review job's priority."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    def __init__(self, *_: str) -> None:
        #: How much one violation counts against another.
        self.weight: int = (1, 3, 10, 30)[len(type(self).__members__)]


class Status(StrEnum):
    """Whether a policy is asked, and whether it acts."""

    DRAFT = "draft"
    SHADOW = "shadow"
    LIVE = "live"


_DEEDS: Final = (*(action.value for action in Action), "label")


def _deed(value: Any) -> Any:
    if value in _DEEDS:
        return value
    meant = nearest(str(value), _DEEDS)
    hint = f"did you mean {meant}?" if meant else f"write one of {', '.join(_DEEDS)}"
    raise refusal(f"{value!r} is not an action", hint)


#: An action, or `label`: shorthand for allow with the policy's label.
Deed = Annotated[Action | Literal["label"], BeforeValidator(_deed)]


class Limits(Strict):
    """Limits on who sees an upload and how it spreads, beside the action."""

    age: Annotated[int, Field(ge=0, le=21, strict=True)] | None = None
    """Youngest age, in years, at which somebody may see it."""
    no_recommend: StrictBool = False
    """Whether it is kept out of recommendations."""
    no_ads: StrictBool = False
    """Whether it is kept away from advertisements."""


class ReviewRule(Strict):
    """Where a person looks at it, what holds meanwhile, and by when."""

    queue: Slug | None = None
    """Name of the queue, declared in queues.yaml."""
    meanwhile: Action | None = None
    """Action that is in force until a person has looked: allow, restrict, hold or remove."""
    due: Duration | None = None
    """By when a person should have looked, like 15m or 4h; without it the queue's own due time."""
    reviewers: Annotated[int, Field(ge=1, le=2, strict=True)] | None = None
    """How many people answer independently: 1 or 2."""
    approval: StrictBool | None = None
    """Whether an automatic action waits for a person's approval."""


class Audit(Strict):
    """Which share of passed and of acted-on decisions a person looks at, to measure what is missed."""

    passed: Share = 0.0
    """Share of uploads that passed that a person looks at, like 0.5%."""
    acted: Share = 0.0
    """Share of automatic actions that a person looks at, like 2%."""


class WhenUnavailable(Strict):
    """What happens to an upload that no classifier could judge for a while; it is always scored again."""

    after: Duration = timedelta(minutes=15)
    """How long the classifier may be away before this applies, like 15m."""
    action: Action = Action.HOLD
    """Action that is in force until the upload is scored: hold, restrict, remove, or (at your own risk) allow."""
    then: Literal["rescore", "review"] = "rescore"
    """`rescore`: scored again later; `review`: that, and a person looks at it now."""


class RationaleRule(Strict):
    """How reasons are written for reviewers."""

    language: Language = "en"
    """Language of the reason, like en."""
    samples: Annotated[int, Field(ge=1, le=8, strict=True)] = 1
    """How many reasons are drawn to see whether they agree: 1 to 8."""


class Ground(Strict):
    """The rule or law that a decision rests on, as it is stated to authorities and authors."""

    terms: str | None = None
    """Address of the rule in the platform's terms."""
    law: str | None = None
    """The law, where the decision rests on one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a policy (and clause) says for one upload, once clause, override and defaults are merged."""

    severity: Severity
    action: Action
    label: str | None
    limits: Limits
    review_at: float | MissRate
    act_at: float | Precision | None  # None: never
    acts_uncalibrated: bool
    queue: str
    meanwhile: Action
    due: timedelta | None  # None: the queue's own
    reviewers: int
    approval: bool


def meets(value: Any, wanted: Any) -> bool:
    """Return whether a value of the context, or one of a list of them, is what an override wants, or one of a list."""
    have = value if isinstance(value, (list, tuple)) else [value]
    want = wanted if isinstance(wanted, (list, tuple)) else [wanted]
    return any(v == w and isinstance(v, bool) == isinstance(w, bool) for v in have for w in want)


def matches(when: Mapping[str, Any], context: Mapping[str, Any]) -> bool:
    """Return whether every key of `when` stands in the context with that value; missing context never matches."""
    return all(key in context and meets(context[key], wanted) for key, wanted in when.items())
