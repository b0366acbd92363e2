"""Guard models' own ways of being asked and of answering.

A guard was trained on one form of prompt and one list of categories; asked in other words it
guesses. A policy names the guard's category under `maps_to`; what the guard has no category for
it does not cover, and that is never a No.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from policies.question import Question
from workers import prompt
from workers.errors import CheckpointError

Name = Literal["shieldgemma2", "llavaguard", "llama_guard", "yes_no"]

#: Model type -> the dialect that a checkpoint of it speaks, where that can be known.
SPOKEN: Final[Mapping[str, Name]] = {
    "shieldgemma2": "shieldgemma2",
    "mllama": "llama_guard",  # Llama Guard 3 Vision
    "llama4": "llama_guard",  # Llama Guard 4
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A dialect in which each question is put by itself, answered with one of two words.

    `content` tells whether the caption is part of the prompt.
    """

    name: Name
    violates: str
    allowed: str
    content: bool
    definitions: Mapping[str, str]

    def words(self, question: Question) -> str | None:
        """Return how the question is put, or None where the guard has no category for it."""
        if self.name == "yes_no":
            return prompt.statement(question)
        return self.definitions.get(question.maps_to.get(self.name, ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A dialect that gives one verdict on the content, then the category that it breaks.

    `lead` stands before the verdict; `then` between an unsafe verdict and the category's number.
    """

    name: Name
    violates: str
    allowed: str
    lead: str
    then: str
    #: Category -> the text of its number, as the guard writes it.
    categories: Mapping[str, str]
    #: The guard's policy, where it stands in the user's turn; its template has it otherwise.
    policy: str = ""

    def category(self, question: Question) -> str | None:
        """Return the number of the category that the policy maps to, or None."""
        return self.categories.get(question.maps_to.get(self.name, ""))


Dialect = Asked | Judged


def dialect_for(
    name: str | None, model_type: str, options: Mapping[str, Any], processor: Any
) -> Dialect:
    """Return the dialect that the options name, else the one that the model type speaks.

    Raises:
        CheckpointError: it is not known, or needs a text that the options lack.
    """
    spoken = name or SPOKEN.get(model_type)
    if spoken == "shieldgemma2":
        return Asked(
            name="shieldgemma2",
            violates="Yes",  # the first of its two probabilities, whatever its docstring says
            allowed="No",
            content=False,
            definitions=dict(getattr(processor, "policy_definitions", {}) or {}),
        )
    if spoken == "yes_no":
        return Asked(
            name="yes_no",
            violates=str(options.get("yes", "yes")),
            allowed=str(options.get("no", "no")),
            content=True,
            definitions={},
        )
    if spoken == "llavaguard":
        policy = str(options.get("policy_text", ""))
        return Judged(
            name="llavaguard",
            violates="Unsafe",
            allowed="Safe",
            lead='{\n    "rating": "',
            then='",\n    "category": "O',
            categories=_numbered(policy, "O"),
            policy=policy,
        )
    if spoken == "llama_guard":
        return Judged(
            name="llama_guard",
            violates="unsafe",
            allowed="safe",
            lead=str(options.get("lead", "\n\n")),
            then="\nS",
            categories=_numbered(_rendered(processor), "S"),
        )
    raise CheckpointError(
        "dialect",
        f"options.dialect {spoken!r} is not one of shieldgemma2, llavaguard, llama_guard, yes_no",
    )


def _rendered(processor: Any) -> str:
    """Return what the guard's template says around an upload; some templates put their categories together."""
    if not getattr(processor, "chat_template", None):
        return ""
    turn = [{"role": "user", "content": [{"type": "text", "text": ""}]}]
    text: str = processor.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    return text


def joint(verdict: float, share: float) -> float:
    """Return the log-odds of "unsafe, and by this category" from the verdict's log-odds.

    `share` is the category's probability among all, given that the content is unsafe.
    """
    # log p of unsafe, without ever taking the exponent of a large number
    unsafe = (
        -math.log1p(math.exp(-verdict)) if verdict > 0 else verdict - math.log1p(math.exp(verdict))
    )
    both = unsafe + math.log(max(share, 1e-12))
    return both - math.log(max(-math.expm1(both), 1e-12))


def _numbered(text: str, letter: str) -> dict[str, str]:
    """Return the categories that a guard's policy numbers, like `O3: Sexual Content`."""
    found = dict.fromkeys(re.findall(rf"\b{letter}(\d{{1,2}})\s*:", text))
    if not found:
        raise CheckpointError(
            "dialect",
            f"the guard's policy names no categories like {letter}1: …; for llavaguard set"
            " options.policy_text to the policy that the model's card gives",
        )
    return {f"{letter}{number}": number for number in found}
