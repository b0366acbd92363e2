"""Whose word is enough: what a cheap classifier settles inside its calibrated bands, and what goes on. Pure.

The order of the configured classifiers is the cascade. An answer settles its question where a fresh calibration puts it
clearly below every band of the policy, or clearly at or above every band at which it would act, whatever context an
override names. Everything else, and everything without a fresh calibration, reaches the next classifier that covers it.

Being below a band is not enough where violations are rare: there a classifier that only guesses is below it with
everything. So what passes must also be far less likely than an upload that nobody has looked at (`SURE`).
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from pipeline.calibration import Calibration, Calibrations
from pipeline.decide import Answer
from policies.question import Question
from policies.schema import MissRate, PolicySet, Precision, Rule
from workers.classifier import Classification
from workers.upload import Settle

#: What passes early is at least this many times less likely to violate than an average upload: so at most one
#: violation in as many is lost to it, however much it settles.
SURE: Final = 20.0


def settling(
    calibrations: Callable[[], Calibrations], policies: PolicySet, now: Callable[[], datetime]
) -> Settle:
    """Return the function that says whether a classifier's answer to a question is enough."""
    # Merging a policy's rules takes longer than all the rest.
    merged: dict[str, list[Rule]] = {}

    def settles(question: Question, found: Classification, digest: str) -> bool:
        policy = policies.by_name.get(question.policy)
        if policy is None:
            return False
        known = calibrations()
        calibration = known.find(question, digest)
        if calibration is None:
            return False
        answer = known.answer(question, found, digest, now=now())
        rules = merged.get(question.id)
        if rules is None:
            rules = merged[question.id] = [
                policy.rule_under(question.clause, override)
                for override in (None, *policy.overrides)
            ]
        return clear(answer, rules, rare=rare(calibration))

    return settles


def rare(calibration: Calibration) -> float:
    """Return the probability up to which an upload may pass unseen by later classifiers."""
    labels = calibration.labels
    share = labels.violates / max(1, labels.violates + labels.allowed)
    return (share if calibration.prior is None else calibration.prior) / SURE


def clear(answer: Answer, rules: Sequence[Rule], *, rare: float) -> bool:
    """Return whether the answer leads to the same under all of these rules, doubts of its calibration included.

    `rare` is the highest probability at which an upload may pass by a number alone; a kept promise needs none.
    """
    if answer.calibration != "fresh" or not 0.0 <= answer.probability <= 1.0:
        return False
    low, high = answer.interval or (answer.probability, answer.probability)
    return all(_below(rule, answer, max(high, answer.probability), rare) for rule in rules) or all(
        _above(rule, answer, low) for rule in rules
    )


def _below(rule: Rule, answer: Answer, high: float, rare: float) -> bool:
    promised = isinstance(rule.review_at, MissRate)
    if not promised and answer.probability > rare:
        return False
    bands = (rule.review_at, rule.act_at)
    return all(_passes(band, answer, high) for band in bands if band is not None)


def _passes(band: float | Precision | MissRate, answer: Answer, high: float) -> bool:
    if isinstance(band, (Precision, MissRate)):
        # A promise has its doubts in its threshold already; one that is not kept is never clear.
        kept = answer.thresholds.get(band)
        return kept is not None and answer.probability < kept
    return high < band


def _above(rule: Rule, answer: Answer, low: float) -> bool:
    if rule.act_at is None:
        return False
    if isinstance(rule.act_at, (Precision, MissRate)):
        kept = answer.thresholds.get(rule.act_at)
        return kept is not None and answer.probability >= kept
    return low >= rule.act_at
