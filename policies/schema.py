"""The policy format: what a policy author may write, and what follows from it for one upload.

Files are YAML 1.2, one policy a file; unknown fields are refused. See README.md beside this file.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from policies.question import Exempt, Forbidden, Part, Question


class Action(StrEnum):
    """What is in force for an upload, in rising strictness."""

    ALLOW = "allow"
    RESTRICT = "restrict"
    HOLD = "hold"
    REMOVE = "remove"

    @property
    def rank(self) -> int:
        """Return the strictness: a larger number is stricter."""
        return list(Action).index(self)


class Severity(StrEnum):
    """How bad a violation is; the weight is part of a review job's priority."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def weight(self) -> int:
        """Return how much one violation counts against another: 1, 3, 10 or 30."""
        return {"low": 1, "medium": 3, "high": 10, "critical": 30}[self.value]


class Status(StrEnum):
    """Whether a policy is asked, and whether it acts."""

    DRAFT = "draft"
    SHADOW = "shadow"
    LIVE = "live"


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_duration(value: object) -> object:
    """Return a timedelta for `90s`, `15m`, `4h` or `2d`.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(value, timedelta):
        return value
    text = str(value).strip()
    unit = _UNITS.get(text[-1:])
    if unit is None or not text[:-1].isdigit():
        raise ValueError(
            f"{text!r} is not a duration: write a whole number and s, m, h or d, like 15m"
        )
    return timedelta(**{unit: int(text[:-1])})


def parse_share(value: object) -> object:
    """Return a share between 0 and 1 for `5%` or `0.05`.

    Raises:
        ValueError: it is neither, or out of range.
    """
    text = str(value).strip()
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a share: write 5% or 0.05") from None
    if not 0 <= share <= 1:
        raise ValueError(f"{text!r} is out of range: a share lies between 0% and 100%")
    return share


def _slug(value: str) -> str:
    if not value or not all(c.islower() or c.isdigit() or c in "_-" for c in value):
        raise ValueError(f"{value!r} is not a name: use small letters, digits, - and _")
    return value


def _identifier(value: str) -> str:
    if not value.isalnum() or not value.isascii():
        raise ValueError(f"{value!r} is not a clause id: use letters and digits, like W1")
    return value


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Share = Annotated[float, BeforeValidator(parse_share)]
Slug = Annotated[str, AfterValidator(_slug)]
ClauseId = Annotated[str, AfterValidator(_identifier)]
Probability = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Strict):
    """Limits on who sees an upload and how it spreads, beside the action."""

    age: Annotated[int, Field(ge=0, le=21)] | None = None
    no_recommend: bool = False
    no_ads: bool = False


class Precision(_Strict):
    """A promise: of what acts by itself, at least this share is right, with this confidence."""

    precision: Annotated[float, Field(gt=0, lt=1)]
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95


class MissRate(_Strict):
    """A promise: of what violates, at most this share passes unreviewed, with this confidence."""

    miss_rate: Annotated[float, Field(gt=0, lt=1)]
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95


class Bands(_Strict):
    """Where on the calibrated probability a person looks, and where the policy acts by itself."""

    review: Probability | MissRate | None = None
    act: Probability | Precision | Literal["never"] | None = None
    uncalibrated: Literal["act"] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if (
            isinstance(self.review, float)
            and isinstance(self.act, float)
            and self.act < self.review
        ):
            raise ValueError(
                f"act ({self.act}) lies below review ({self.review}): raise act or lower review"
            )
        return self


class ReviewRule(_Strict):
    """Where a person looks at it, what holds meanwhile, and by when."""

    queue: Slug | None = None
    meanwhile: Action | None = None
    due: Duration | None = None
    reviewers: Annotated[int, Field(ge=1, le=2)] | None = None
    approval: bool | None = None


class Clause(_Strict):
    """One thing that is forbidden; with rules of its own it is asked by itself."""

    text: Annotated[str, Field(min_length=1)]
    examples: tuple[str, ...] = ()
    severity: Severity | None = None
    action: Action | Literal["label"] | None = None
    bands: Bands | None = None
    review: ReviewRule | None = None
    regions: tuple[str, ...] = ()
    label: Slug | None = None
    limits: Limits | None = None

    @property
    def asked_by_itself(self) -> bool:
        """Return whether the clause differs from its policy, so that it needs a question of its own."""
        own = (self.severity, self.action, self.bands, self.review, self.label, self.limits)
        return bool(self.regions) or any(value is not None for value in own)


class Allowed(_Strict):
    """One carve-out; a clause named in `unless` beats it."""

    text: Annotated[str, Field(min_length=1)]
    unless: tuple[ClauseId, ...] = ()


class Override(_Strict):
    """Other rules for uploads whose context matches; the first override that matches counts."""

    when: Annotated[Mapping[str, Any], Field(min_length=1)]
    bands: Bands | None = None
    action: Action | Literal["label"] | None = None
    severity: Severity | None = None
    label: Slug | None = None
    limits: Limits | None = None
    review: ReviewRule | None = None

    def matches(self, context: Mapping[str, Any]) -> bool:
        """Return whether every key of `when` stands in the context with that value, or one of a list of values.

        Missing context never matches. A context value that is itself a list matches where one member does.
        """
        return all(
            key in context and _meets(context[key], wanted) for key, wanted in self.when.items()
        )

    @property
    def regions(self) -> tuple[str, ...]:
        """Return the regions that this override names."""
        named = self.when.get("region", ())
        return (named,) if isinstance(named, str) else tuple(named)


class Audit(_Strict):
    """Which share of passed and of acted-on decisions a person looks at, to measure what is missed."""

    passed: Share = 0.0
    acted: Share = 0.0


class WhenUnavailable(_Strict):
    """What happens to an upload that no classifier could judge for a while; it is always scored again."""

    after: Duration = timedelta(minutes=15)
    action: Action = Action.HOLD
    then: Literal["rescore", "review"] = "rescore"


class RationaleRule(_Strict):
    """How reasons are written for reviewers."""

    language: str = "en"
    samples: Annotated[int, Field(ge=1, le=8)] = 1


class Ground(_Strict):
    """The rule or law that a decision rests on, as it is stated to authorities and authors."""

    terms: str | None = None
    law: str | None = None


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


class Policy(_Strict):
    """One policy file."""

    policy: Slug
    title: str
    version: Annotated[int, Field(ge=1)]
    status: Status
    reads: Annotated[tuple[Part, ...], Field(min_length=1)] = ("image", "caption")
    languages: tuple[str, ...] = ("en",)
    definitions: Mapping[str, str] = Field(default_factory=dict)
    question: Annotated[str, Field(min_length=1)]
    clauses: Annotated[Mapping[ClauseId, Clause], Field(min_length=1)]
    allowed: Mapping[ClauseId, Allowed] = Field(default_factory=dict)
    severity: Severity
    action: Action | Literal["label"]
    label: Slug | None = None
    limits: Limits = Limits()
    rollout: Share = 1.0
    bands: Bands
    review: ReviewRule
    audit: Audit = Audit()
    daily_cap: Annotated[int, Field(ge=0)] | None = None
    when_unavailable: WhenUnavailable = WhenUnavailable()
    overrides: tuple[Override, ...] = ()
    ground: Ground = Ground()
    notice: Mapping[str, str] = Field(default_factory=dict)
    rationale: RationaleRule = RationaleRule()
    maps_to: Mapping[str, str] = Field(default_factory=dict)

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """Return the policy's own question, and one more for each clause that is asked by itself.

        The policy's own question leaves out the clauses that are asked by themselves: otherwise a clause that must
        not act (`act: never`) would act through its policy.
        """
        joint = [
            (key, clause) for key, clause in self.clauses.items() if not clause.asked_by_itself
        ]
        alone = [(key, clause) for key, clause in self.clauses.items() if clause.asked_by_itself]
        questions = [self._ask(None, joint)] if joint else []
        return (*questions, *(self._ask(key, [(key, clause)]) for key, clause in alone))

    def _ask(self, clause: str | None, clauses: Sequence[tuple[str, Clause]]) -> Question:
        asked = {key for key, _ in clauses}
        return Question(
            id=self.policy if clause is None else f"{self.policy}/{clause}",
            policy=self.policy,
            clause=clause,
            reads=frozenset(self.reads),
            question=self.question,
            definitions=tuple(self.definitions.items()),
            forbidden=tuple(Forbidden(id=k, text=c.text, examples=c.examples) for k, c in clauses),
            allowed=tuple(
                Exempt(id=k, text=a.text, unless=tuple(u for u in a.unless if u in asked))
                for k, a in self.allowed.items()
                # A question about one clause alone has no use for carve-outs that this clause beats.
                if not asked <= set(a.unless)
            ),
            maps_to=self.maps_to,
        )

    def rule(self, clause: str | None, context: Mapping[str, Any]) -> Rule:
        """Return what holds for this policy, or for this clause of it, in this context."""
        override = next((o for o in self.overrides if o.matches(context)), None)
        layers = [
            layer for layer in (override, self.clauses[clause] if clause else None, self) if layer
        ]

        def first(field: str) -> Any:
            return next((v for layer in layers if (v := getattr(layer, field)) is not None), None)

        def inner(field: str, part: str) -> Any:
            parts = (getattr(layer, field) for layer in layers)
            return next(
                (v for p in parts if p is not None and (v := getattr(p, part)) is not None), None
            )

        action = first("action")
        act = inner("bands", "act")
        review = inner("bands", "review")
        return Rule(
            severity=first("severity"),
            action=Action.ALLOW if action == "label" else Action(action),
            label=first("label") or self.policy,
            limits=first("limits"),
            review_at=1.0 if review is None else review,
            act_at=None if act in {None, "never"} else act,
            acts_uncalibrated=inner("bands", "uncalibrated") == "act",
            queue=inner("review", "queue"),
            meanwhile=inner("review", "meanwhile") or Action.ALLOW,
            due=inner("review", "due"),
            reviewers=inner("review", "reviewers") or 1,
            approval=bool(inner("review", "approval")),
        )

    def binds(self, clause: str | None, region: str | None) -> bool:
        """Return whether the clause is in force in this region; None stands for everywhere else."""
        regions = self.clauses[clause].regions if clause else ()
        return not regions or region in regions

    @property
    def regions(self) -> frozenset[str]:
        """Return every region for which this policy says something of its own."""
        named = {region for clause in self.clauses.values() for region in clause.regions}
        return frozenset(named.union(*(override.regions for override in self.overrides)))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for key, allowed in self.allowed.items():
            for clause in allowed.unless:
                if clause not in self.clauses:
                    raise ValueError(
                        f"allowed.{key}.unless names the clause {clause}, which does not exist"
                    )
        if shared := set(self.clauses) & set(self.allowed):
            raise ValueError(f"{', '.join(sorted(shared))}: a clause and a carve-out share an id")
        if self.review.queue is None:
            raise ValueError("review.queue is missing: say in which queue people look at this")
        if self.bands.review is None:
            raise ValueError(
                "bands.review is missing: say from which probability on people look at this"
            )
        return self


@dataclass(frozen=True)
class PolicySet:
    """All policies of one folder at one moment."""

    policies: tuple[Policy, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Policy]:
        """Return the policies by name."""
        return {policy.policy: policy for policy in self.policies}

    @cached_property
    def digest(self) -> str:
        """`sha256:…` of everything that the policies say, whatever their order and layout."""
        content = sorted(
            (p.model_dump(mode="json") for p in self.policies), key=lambda p: str(p["policy"])
        )
        text = json.dumps(content, ensure_ascii=False, sort_keys=True)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """Return the questions of every policy that is asked at all (live or shadow)."""
        return tuple(q for p in self.policies if p.status is not Status.DRAFT for q in p.questions)

    @cached_property
    def regions(self) -> tuple[str, ...]:
        """Return every region that a policy names, sorted."""
        return tuple(sorted(frozenset().union(*(p.regions for p in self.policies))))

    def __iter__(self) -> Iterator[Policy]:
        return iter(self.policies)


def _meets(value: Any, wanted: Any) -> bool:
    have = value if isinstance(value, (list, tuple)) else [value]
    want = wanted if isinstance(wanted, (list, tuple)) else [wanted]
    return any(v == w and isinstance(v, bool) == isinstance(w, bool) for v in have for w in want)
