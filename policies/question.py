"""The yes/no questions that a policy puts to a classifier."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

#: What of an upload a question is about.
Part = Literal["image", "caption"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forbidden:
    """One clause as a classifier reads it."""

    id: str
    text: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exempt:
    """One carve-out as a classifier reads it; `unless` names clauses that beat it."""

    id: str
    text: str
    unless: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Question:
    """One yes/no question: "does this upload break the policy, or this clause of it?".

    `id` is the policy's name, or `policy/clause` for a clause that is asked by itself.
    """

    id: str
    policy: str
    clause: str | None = None
    reads: frozenset[Part] = frozenset({"image", "caption"})
    question: str
    definitions: tuple[tuple[str, str], ...] = ()
    forbidden: tuple[Forbidden, ...]
    allowed: tuple[Exempt, ...] = ()
    maps_to: Mapping[str, str] = field(default_factory=dict, hash=False)
    #: How many reasons are drawn to see whether they agree.
    samples: int = 1

    @cached_property
    def digest(self) -> str:
        """`sha256:…` of everything of it that a score depends on, and of nothing else.

        `reads` decides what stands in the prompt beside the words; of a guard's prompt `maps_to` is all that counts.
        """
        asked = {
            "question": self.question,
            "definitions": self.definitions,
            "forbidden": [(clause.id, clause.text, clause.examples) for clause in self.forbidden],
            "allowed": [(exempt.id, exempt.text, exempt.unless) for exempt in self.allowed],
            "reads": sorted(self.reads),
            "maps_to": sorted(self.maps_to.items()),
        }
        text = json.dumps(asked, ensure_ascii=False, sort_keys=True)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
