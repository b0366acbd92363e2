"""What a policy says, in words."""

from collections.abc import Iterator, Sequence

from policies.bands import MissRate, Precision
from policies.notation import format_duration
from policies.rules import Action, Limits, Rule
from policies.schema import Override, Policy


def account(policy: Policy) -> Sequence[str]:
    """Return lines that say what a policy asks and what follows from the answers."""
    return tuple(_lines(policy))


def _lines(policy: Policy) -> Iterator[str]:
    yield f"{policy.policy}: {policy.title}, version {policy.version}, {policy.status}"
    languages = ", ".join(policy.languages) or "every language"
    yield f"  reads {' and '.join(policy.reads)}; acts by itself in {languages}"
    yield f"  asks: {policy.question}"
    for term, meaning in policy.definitions.items():
        yield f"    {term}: {meaning}"
    for key, clause in policy.clauses.items():
        where = f" (in {', '.join(clause.regions)} only)" if clause.regions else ""
        yield f"  forbids {key}{where}: {clause.text}"
    for key, allowed in policy.allowed.items():
        unless = f" (not where {' or '.join(allowed.unless)} is broken)" if allowed.unless else ""
        yield f"  allows {key}{unless}: {allowed.text}"
    for question in policy.questions:
        yield f"  question {question.id} {question.digest[:19]}"
        yield f"    {rule_words(policy.rule_under(question.clause, None))}"
        for override in policy.overrides:
            rule = policy.rule_under(question.clause, override)
            if rule != policy.rule_under(question.clause, None):
                yield f"    where {condition(override)}: {rule_words(rule)}"
    away = policy.when_unavailable
    yield (
        f"  without a classifier for {format_duration(away.after)}: {away.action}, "
        f"and scored again later{', and a person looks' if away.then == 'review' else ''}"
    )


def condition(override: Override) -> str:
    """Return when an override applies, in words."""

    def value(wanted: object) -> str:
        if isinstance(wanted, (list, tuple)):
            return " or ".join(value(one) for one in wanted)
        return str(wanted).lower() if isinstance(wanted, bool) else str(wanted)

    return " and ".join(f"{key} is {value(wanted)}" for key, wanted in override.when.items())


def band(value: float | Precision | MissRate | None) -> str:
    """Return one band in words."""
    if value is None:
        return "never"
    if isinstance(value, Precision):
        return f"where {value.precision:.4g} are right ({value.confidence:.4g} sure)"
    if isinstance(value, MissRate):
        return f"so that at most {value.miss_rate:.4g} are missed ({value.confidence:.4g} sure)"
    return f"from {value:g}"


def deed(action: Action, label: str | None) -> str:
    """Return what happens, in words."""
    return f"label {label}" if action is Action.ALLOW else f"{action}, label {label}"


def limits_words(limits: Limits) -> str:
    """Return limits in words, empty where there are none."""
    parts = [] if limits.age is None else [f"from age {limits.age}"]
    parts += ["not recommended"] if limits.no_recommend else []
    parts += ["no advertisements"] if limits.no_ads else []
    return ", ".join(parts)


def rule_words(rule: Rule) -> str:
    """Return what a rule does, in words."""
    acts = f"acts {band(rule.act_at)}"
    if rule.act_at is not None:
        further = limits_words(rule.limits)
        acts += f" ({deed(rule.action, rule.label)}{f', {further}' if further else ''})"
        acts += ", calibrated or not" if rule.acts_uncalibrated else ", once calibrated"
    due = f" in {format_duration(rule.due)}" if rule.due is not None else ""
    people = f" by {rule.reviewers} people" if rule.reviewers > 1 else ""
    return (
        f"{rule.severity}: review {band(rule.review_at)} in {rule.queue}{due}{people}, "
        f"meanwhile {rule.meanwhile}; {acts}"
    )
