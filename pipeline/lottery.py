"""Audit by lot: which decided uploads a person looks at all the same, so that what is missed can be measured. Pure.

The lot hangs on the content alone: the same content is always drawn or never, whatever runs where, and a larger share
only adds. One lot serves all policies, so that somebody who looks at an upload answers for all that want to know.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pipeline.messages import Review


@dataclass(frozen=True, slots=True, kw_only=True)
class Stake:
    """A question that was decided without a person, and the share of such decisions that its policy has audited."""

    question: str
    share: float


def lot(content_id: str) -> float:
    """Return the content's lot between 0 and 1."""
    digest = hashlib.sha256(f"audit\0{content_id}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def drawn(content_id: str, stakes: Collection[Stake]) -> Mapping[str, float]:
    """Return the questions that a person answers by lot, each with the chance that it had."""
    if not any(stake.share for stake in stakes):
        return {}
    number = lot(content_id)
    return {stake.question: stake.share for stake in stakes if number < stake.share}


def with_audit(review: Review | None, audit: Review, chances: Mapping[str, float]) -> Review:
    """Return the job with the audited questions beside those that a person sees anyway, and every chance."""
    if review is None:
        return audit.model_copy(
            update={
                "propensity": max(chances.values()),
                "questions": tuple(chances),
                "propensities": tuple(chances.values()),
            }
        )
    more = {name: chance for name, chance in chances.items() if name not in review.questions}
    return review.model_copy(
        update={
            "questions": (*review.questions, *more),
            "propensities": (*(1.0 for _ in review.questions), *more.values()),
        }
    )
