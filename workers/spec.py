"""What configuration says about one classifier, in the words of the workers' floor."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from policies.question import Part, Question

Kind = Literal["generative", "contrastive", "image", "text", "guard", "remote", "gemini", "stub"]
Dtype = Literal["float32", "bfloat16", "float16", "auto"]

#: How long a remote classifier's whole call may take unless its options say otherwise, and what it tidies up after it.
REMOTE_DEADLINE_S: Final = 40.0
TIDY_S: Final = 5.0
#: The checkpoint that ships with the house.
BUNDLED: Final = Path(__file__).resolve().parent / "mini"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierSpec:
    """What configuration says about one classifier; plain data, so that it travels to an actor."""

    name: str = "bundled"
    #: A hub name, a folder, `bundled`, or `stub`.
    model: str = "bundled"
    kind: Kind = "generative"
    revision: str | None = None
    dtype: Dtype = "auto"
    reads: tuple[Part, ...] = ("image", "caption")
    #: The only policies that it is asked about; None: every one.
    policies: tuple[str, ...] | None = None
    #: A plain model's label -> policy.
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    rationales: bool = True

    @property
    def deadline_s(self) -> float:
        """How long a call of it may last before it ends by itself; 0 where it has no deadline."""
        if self.kind not in {"remote", "gemini"}:
            return 0.0
        return float(self.options.get("deadline_s", REMOTE_DEADLINE_S))

    def asks(self, question: Question) -> bool:
        """Return whether configuration lets this classifier be asked, and it reads what counts."""
        wanted = self.policies is None or question.policy in self.policies
        return wanted and bool(question.reads & frozenset(self.reads))
