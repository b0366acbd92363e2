"""The policy format: what a policy author may write, and what follows from it for one upload.

Files are YAML 1.2, one policy a file; unknown fields are refused. See README.md beside this file.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from string import Formatter
from typing import Annotated, Any, Final, Self

from pydantic import Field, WithJsonSchema, field_validator, model_validator
from pydantic_core import PydanticCustomError

from policies.bands import Bands, MissRate, Precision
from policies.context import ContextFile
from policies.errors import Fault
from policies.notation import (
    ClauseId,
    Language,
    PrimaryLanguage,
    Region,
    Share,
    Slug,
    Strict,
    Wording,
    nearest,
    refusal,
    share_of,
)
from policies.question import Exempt, Forbidden, Part, Question
from policies.queues import Queue
from policies.rules import (
    Action,
    Audit,
    Deed,
    Ground,
    Limits,
    RationaleRule,
    ReviewRule,
    Rule,
    Severity,
    Status,
    WhenUnavailable,
    matches,
)

__all__ = [
    "Action",
    "Allowed",
    "Audit",
    "Bands",
    "Clause",
    "Ground",
    "Limits",
    "MissRate",
    "Override",
    "Policy",
    "PolicySet",
    "Precision",
    "RationaleRule",
    "ReviewRule",
    "Rule",
    "Severity",
    "Status",
    "WhenUnavailable",
]


_PLAIN: Final = {"type": ["string", "number", "boolean"]}
_CONDITION: Final = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {"anyOf": [_PLAIN, {"type": "array", "minItems": 1, "items": _PLAIN}]},
}


class Clause(Strict):
    """One thing that is forbidden; with rules of its own it is asked by itself."""

    text: Wording
    """What is forbidden, as one sentence; it stands in the prompt."""
    examples: tuple[Wording, ...] = ()
    """Short examples of it; they stand in the prompt."""
    severity: Severity | None = None
    """How bad it is, where that differs from the policy."""
    action: Deed | None = None
    """What happens, where that differs from the policy."""
    bands: Bands | None = None
    """Bands of its own; what they leave out comes from the policy. `act: never` holds in every override."""
    review: ReviewRule | None = None
    """Where a person looks at it, where that differs from the policy."""
    regions: tuple[Region, ...] = ()
    """Regions in which alone it binds; empty: everywhere."""
    label: Slug | None = None
    """Label when it acts, where that differs from the policy."""
    limits: Limits | None = None
    """Limits when it acts, where they differ from the policy."""

    @property
    def asked_by_itself(self) -> bool:
        """Return whether the clause differs from its policy, so that it needs a question of its own."""
        own = (self.severity, self.action, self.bands, self.review, self.label, self.limits)
        return bool(self.regions) or any(value is not None for value in own)


class Allowed(Strict):
    """One carve-out; a clause named in `unless` beats it."""

    text: Wording
    """What is allowed all the same; it stands in the prompt."""
    unless: tuple[ClauseId, ...] = ()
    """Ids of clauses that beat this carve-out."""


class Override(Strict):
    """Other rules for uploads whose context matches; the first override that matches counts."""

    when: Annotated[Mapping[str, Any], Field(min_length=1), WithJsonSchema(_CONDITION)]
    """Keys of the context with the value, or the list of values, that each must have; all must match."""
    bands: Bands | None = None
    """Bands in this context; they cannot lift a clause's own `act: never`."""
    action: Deed | None = None
    """What happens in this context."""
    severity: Severity | None = None
    """How bad it is in this context."""
    label: Slug | None = None
    """Label when it acts in this context."""
    limits: Limits | None = None
    """Limits when it acts in this context."""
    review: ReviewRule | None = None
    """Where a person looks at it in this context."""

    @field_validator("when")
    @classmethod
    def _plain(cls, when: Mapping[str, Any]) -> Mapping[str, Any]:
        for key, wanted in when.items():
            values = wanted if isinstance(wanted, (list, tuple)) else [wanted]
            if not values:
                raise refusal(f"{key} has an empty list, so this never matches", "name a value")
            plain = (str,) if key == "region" else (str, int, float, bool)
            if not all(isinstance(value, plain) for value in values):
                raise refusal(
                    f"{key} is no plain value", "write one value, or a list of them like [a, b]"
                )
        return when

    def matches(self, context: Mapping[str, Any]) -> bool:
        """Return whether every key of `when` stands in the context with that value, or one of a list of values.

        Missing context never matches. A context value that is itself a list matches where one member does.
        """
        return matches(self.when, context)

    @property
    def regions(self) -> tuple[str, ...]:
        """Return the regions that this override names."""
        named = self.when.get("region", ())
        return (named,) if isinstance(named, str) else tuple(named)


class Policy(Strict):
    """One policy file."""

    policy: Slug
    """Name of the policy: that of its file, without .yaml."""
    title: Wording
    """Title for people; not in the prompt."""
    version: Annotated[int, Field(ge=1, strict=True)]
    """Raised by hand when the meaning changes: older labels then stop counting. Not for typos."""
    status: Status
    """draft: not asked; shadow: asked and recorded, never acts; live: asked, acts."""
    reads: Annotated[tuple[Part, ...], Field(min_length=1)] = ("image", "caption")
    """What of an upload the policy is about: image, caption, or both."""
    languages: tuple[PrimaryLanguage, ...] = ("en",)
    """Languages of captions that it is tested for; in others it never acts by itself. Empty: every language."""
    definitions: Mapping[Wording, Wording] = Field(default_factory=dict)
    """What words in this policy mean; they stand in the prompt."""
    question: Wording
    """The yes/no question as a whole, for the prompt; Yes means that the policy is broken."""
    clauses: Annotated[Mapping[ClauseId, Clause], Field(min_length=1)]
    """What is forbidden, by the clause's id."""
    allowed: Mapping[ClauseId, Allowed] = Field(default_factory=dict)
    """Carve-outs: what is allowed all the same, by id."""
    severity: Severity
    """How bad a violation is: low, medium, high or critical, weighing 1, 3, 10, 30."""
    action: Deed
    """What happens when the policy acts: restrict, hold, remove, or label (allow with a label)."""
    label: Slug | None = None
    """Label that is added to the decision when the policy acts; without it the policy's name."""
    limits: Limits = Limits()
    """Limits that are added to the decision when the policy acts."""
    rollout: Share = 1.0
    """Share of content ids on which the policy acts, like 5%."""
    bands: Bands
    """Where on the calibrated probability a person looks, and where the policy acts by itself."""
    review: ReviewRule
    """Where a person looks at it, what holds meanwhile, and by when."""
    audit: Audit = Audit()
    """Which share of passed and of acted-on decisions a person looks at."""
    daily_cap: Annotated[int, Field(ge=0, strict=True)] | None = None
    """Most automatic actions a day; beyond it a person decides."""
    when_unavailable: WhenUnavailable = WhenUnavailable()
    """What happens to an upload that no classifier could judge for a while."""
    overrides: tuple[Override, ...] = ()
    """Other rules by context, from the top; the first that matches counts."""
    ground: Ground = Ground()
    """The rule or law that a decision rests on."""
    notice: Mapping[Language, Wording] = Field(default_factory=dict)
    """Words for the author by language; {clause} stands for the clause's id."""
    rationale: RationaleRule = RationaleRule()
    """How reasons are written for reviewers."""
    maps_to: Mapping[str, str] = Field(default_factory=dict)
    """Names of this policy in other systems' taxonomies, like llavaguard: O6."""

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
            samples=self.rationale.samples,
        )

    def rule(self, clause: str | None, context: Mapping[str, Any]) -> Rule:
        """Return what holds for this policy, or for this clause of it, in this context."""
        key = (clause, self._matching(context) if self.overrides else None)
        found = self.merged_rules.get(key)
        if found is None:
            override = None if key[1] is None else self.overrides[key[1]]
            found = self.merged_rules[key] = self.rule_under(clause, override)
        return found

    def _matching(self, context: Mapping[str, Any]) -> int | None:
        return next((n for n, one in enumerate(self.overrides) if one.matches(context)), None)

    @cached_property
    def merged_rules(self) -> dict[tuple[str | None, int | None], Rule]:
        """Rules by clause and override once they were asked for: merging takes longer than judging."""
        return {}

    def rule_under(self, clause: str | None, override: Override | None) -> Rule:
        """Return what holds for this policy, or for this clause of it, under one override or none."""
        own = self.clauses[clause] if clause else None
        layers = [layer for layer in (override, own, self) if layer]

        def first(field: str) -> Any:
            return next((v for layer in layers if (v := getattr(layer, field)) is not None), None)

        def inner(field: str, part: str) -> Any:
            parts = (getattr(layer, field) for layer in layers)
            return next(
                (v for p in parts if p is not None and (v := getattr(p, part)) is not None), None
            )

        action = first("action")
        # Where an author wrote that a person decides this clause, no context makes it act by itself.
        forbidden = own is not None and own.bands is not None and own.bands.act == "never"
        act: Any = "never" if forbidden else inner("bands", "act")
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

    def acts_on(self, content_id: str) -> bool:
        """Return whether this content is in the policy's rollout: always the same, and a larger share adds."""
        if self.rollout >= 1:
            return True
        return share_of(self.policy, content_id) < self.rollout

    @cached_property
    def regions(self) -> frozenset[str]:
        """Return every region for which this policy says something of its own."""
        named = {region for clause in self.clauses.values() for region in clause.regions}
        return frozenset(named.union(*(override.regions for override in self.overrides)))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = tuple(self._faults())
        if faults:
            words = "; ".join(f"{fault.what}; {fault.remedy}" for fault in faults)
            raise PydanticCustomError("policy", "{words}", {"words": words, "faults": faults})
        return self

    def _faults(self) -> Iterator[Fault]:
        for key, allowed in self.allowed.items():
            for index, clause in enumerate(allowed.unless):
                if clause not in self.clauses:
                    meant = nearest(clause, self.clauses) or ", ".join(self.clauses)
                    yield Fault(
                        path=("allowed", key, "unless", index),
                        what=f"there is no clause {clause}",
                        remedy=f"name a clause of this policy, like {meant}",
                    )
            if key in self.clauses:
                yield Fault(
                    path=("allowed", key),
                    what=f"{key} is a clause and a carve-out",
                    remedy="give the carve-out an id of its own, like A1",
                )
        if self.review.queue is None:
            held = Action.HOLD in {self.action, self.review.meanwhile}
            yield Fault(
                path=("review", "queue"),
                what="what is held has no exit: no queue is named"
                if held
                else "no queue is named, so nobody would look at this",
                remedy="add queue: NAME, one of queues.yaml",
            )
        if self.bands.review is None:
            yield Fault(
                path=("bands", "review"),
                what="nothing says from which probability on people look at this",
                remedy="add review: 0.3 (or another number)",
            )
        for language, words in self.notice.items():
            if unknown := _placeholders(words) - {"clause"}:
                yield Fault(
                    path=("notice", language),
                    what=f"{{{min(unknown)}}} stands for nothing",
                    remedy="only {clause} is filled in; write braces twice to have them as they are",
                )
        if self.policy in {"queues", "context"}:
            yield Fault(
                path=("policy",),
                what=f"{self.policy}.yaml is a file of its own",
                remedy="give the policy another name",
            )


@dataclass(frozen=True)
class PolicySet:
    """All policies of one folder at one moment, with the queues and context keys that they speak of."""

    policies: tuple[Policy, ...]
    queues: Mapping[str, Queue] = field(default_factory=dict)
    context: ContextFile = field(default_factory=ContextFile)
    #: The files as written, by name; layout and comments are no part of what a set says.
    files: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def by_name(self) -> Mapping[str, Policy]:
        """Return the policies by name."""
        return {policy.policy: policy for policy in self.policies}

    @cached_property
    def content(self) -> dict[str, Any]:
        """Return everything that the files say as plain values, whatever their order and layout."""
        policies = sorted(
            (p.model_dump(mode="json") for p in self.policies), key=lambda p: str(p["policy"])
        )
        queues = {name: queue.model_dump(mode="json") for name, queue in self.queues.items()}
        return {
            "policies": policies,
            "queues": queues,
            "context": self.context.model_dump(mode="json"),
        }

    @cached_property
    def digest(self) -> str:
        """`sha256:…` of everything that the files say, whatever their order and layout."""
        text = json.dumps(self.content, ensure_ascii=False, sort_keys=True)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """Return the questions of every policy that is asked at all (live or shadow)."""
        return tuple(q for p in self.policies if p.status is not Status.DRAFT for q in p.questions)

    @cached_property
    def regions(self) -> tuple[str, ...]:
        """Return every region that a policy names, sorted."""
        return tuple(sorted(frozenset().union(*(p.regions for p in self.policies))))

    @cached_property
    def remembered(self) -> dict[Any, Any]:
        """What others worked out from this set and need again for every upload; it never changes the set."""
        return {}

    def __iter__(self) -> Iterator[Policy]:
        return iter(self.policies)


def _placeholders(words: str) -> set[str]:
    try:
        return {name for _, name, _, _ in Formatter().parse(words) if name is not None}
    except ValueError:
        return {"{"}
