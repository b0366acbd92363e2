"""Agreement between people: how often two who answered the same say the same, beyond what chance would give. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How two sets of answers to the same questions agree."""

    pairs: int
    percent: float | None  # None: there is nothing to compare
    kappa: float | None  # None: nothing to compare, or both always say the same one thing


def agreement(pairs: Sequence[tuple[str, str]]) -> Agreement:
    """Return the share of equal answers, and Cohen's kappa: 0 is what chance would give, 1 is always."""
    if not pairs:
        return Agreement(pairs=0, percent=None, kappa=None)
    count = len(pairs)
    observed = sum(one == other for one, other in pairs) / count
    first = Counter(one for one, _ in pairs)
    second = Counter(other for _, other in pairs)
    expected = sum(first[answer] * second[answer] for answer in first) / count**2
    kappa = None if expected == 1 else (observed - expected) / (1 - expected)
    return Agreement(
        pairs=count, percent=100 * observed, kappa=None if kappa is None else round(kappa, 4)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One answer of a reviewer, beside the one that counts: known beforehand, or found in the end."""

    reviewer: str
    policy: str
    said: str
    right: str


def reliability(answers: Iterable[Checked]) -> Mapping[tuple[str, str], Agreement]:
    """Return, for each reviewer and policy, how their answers agree with those that count."""
    by_both: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for answer in answers:
        by_both.setdefault((answer.reviewer, answer.policy), []).append((answer.said, answer.right))
    return {both: agreement(pairs) for both, pairs in sorted(by_both.items())}
