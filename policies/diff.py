"""What changed in meaning between two sets of policies, in words."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from policies.account import band, condition, limits_words
from policies.notation import format_duration
from policies.question import Question
from policies.rules import Rule
from policies.schema import Override, Policy, PolicySet, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change: of which policy (or file), where in it, what, and what follows from it."""

    policy: str
    where: str
    what: str
    effect: str = ""


#: What follows from a change of status.
_STATUS_EFFECTS: Final[Mapping[Status, str]] = {
    Status.DRAFT: "it is no longer asked",
    Status.SHADOW: "it is asked and recorded, and never acts",
    Status.LIVE: "it is asked, and acts or sends to review",
}

#: Parts of a rule -> how its values read.
_RULE_PARTS: Final[Mapping[str, Callable[[Any], str]]] = {
    "severity": str,
    "action": lambda action: "label" if action == "allow" else str(action),
    "label": str,
    "limits": lambda limits: limits_words(limits) or "none",
    "review_at": band,
    "act_at": band,
    "acts_uncalibrated": lambda acts: "yes" if acts else "no",
    "queue": str,
    "meanwhile": str,
    "due": lambda due: "the queue's own" if due is None else format_duration(due),
    "reviewers": str,
    "approval": lambda approval: "yes" if approval else "no",
}

_RULE_NAMES: Final[Mapping[str, str]] = {
    "review_at": "review",
    "act_at": "acts by itself",
    "acts_uncalibrated": "acts on scores that are not calibrated",
}

#: Fields of a policy beside its rules, and what follows when they change.
_OTHER_FIELDS: Final[Mapping[str, str]] = {
    "title": "words for people only: nothing is decided differently",
    "reads": "it is asked of other uploads",
    "languages": "it acts by itself on captions in these languages only",
    "rollout": "the share of content on which it acts",
    "audit": "what people look at to measure it",
    "daily_cap": "past it a person decides",
    "when_unavailable": "only while no classifier answers",
    "ground": "what decisions name as their ground",
    "notice": "words for the author only",
    "rationale": "words for reviewers only",
    "maps_to": "names in other taxonomies, by which guards know it",
}


def compare(old: PolicySet, new: PolicySet) -> tuple[Change, ...]:
    """Return every change in meaning from one set to another; layout and order of files are none."""
    changes: list[Change] = []
    if len(old.policies) == len(new.policies) == 1:
        # Two files: the same policy, whatever they are called.
        changes += compare_policies(old.policies[0], new.policies[0])
    else:
        for name in sorted(old.by_name.keys() | new.by_name.keys()):
            changes += _presence(name, old.by_name.get(name), new.by_name.get(name))
    changes += _entries("queues.yaml", old.queues, new.queues)
    changes += _entries("context.yaml", old.context.keys, new.context.keys)
    return tuple(changes)


def _presence(name: str, old: Policy | None, new: Policy | None) -> Iterator[Change]:
    if old is not None and new is not None:
        yield from compare_policies(old, new)
    elif new is not None:
        effect = "" if new.status is Status.DRAFT else _STATUS_EFFECTS[new.status]
        yield Change(policy=name, where="", what=f"added, {new.status}", effect=effect)
    elif old is not None:
        effect = "" if old.status is Status.DRAFT else _STATUS_EFFECTS[Status.DRAFT]
        yield Change(policy=name, where="", what=f"removed, was {old.status}", effect=effect)


def compare_policies(old: Policy, new: Policy) -> tuple[Change, ...]:
    """Return every change in meaning from one policy to another."""
    name = new.policy

    def change(where: str, what: str, effect: str = "") -> Change:
        return Change(policy=name, where=where, what=what, effect=effect)

    changes = []
    if old.policy != new.policy:
        changes.append(change("policy", f"{old.policy} → {new.policy}", "another policy"))
    if old.status is not new.status:
        changes.append(
            change("status", f"{old.status} → {new.status}", _STATUS_EFFECTS[new.status])
        )
    if old.version != new.version:
        changes.append(
            change("version", f"{old.version} → {new.version}", "labels of before stop counting")
        )
    changes += [change(*words) for words in _wording(old, new)]
    changes += [change(*words) for words in _clauses(old, new)]
    changes += [change(*words) for words in _rules(old, new)]
    changes += [change(*words) for words in _overrides(old, new)]
    for field, effect in _OTHER_FIELDS.items():
        was, now = getattr(old, field), getattr(new, field)
        if was != now:
            changes.append(change(field, f"{_plain(was)} → {_plain(now)}", effect))
    return tuple(changes)


_Words = tuple[str, str, str]


def _wording(old: Policy, new: Policy) -> Iterator[_Words]:
    before = {question.id: question for question in old.questions}
    labels = (
        f"labels go on counting (version {new.version})"
        if old.version == new.version
        else "labels of before stop counting"
    )
    for question in new.questions:
        was = before.pop(question.id, None)
        if was is None:
            yield f"question {question.id}", "asked from now on", "it has no calibration yet"
        elif was.digest != question.digest:
            digests = f"{was.digest[7:19]} → {question.digest[7:19]}"
            yield (
                f"question {question.id}",
                f"asked otherwise, digest {digests}: {'; '.join(_differently(was, question))}",
                f"its calibration is stale until it is fitted again; {labels}",
            )
    for gone in before:
        yield f"question {gone}", "no longer asked", ""


def _differently(was: Question, now: Question) -> Iterator[str]:
    if was.question != now.question:
        yield f"the question was “{was.question}”, is “{now.question}”"
    terms = dict(was.definitions), dict(now.definitions)
    yield from _text_changes("definition", *terms)
    clauses = ({c.id: c.text for c in q.forbidden} for q in (was, now))
    yield from _text_changes("clause", *clauses)
    examples = ({c.id: "; ".join(c.examples) for c in q.forbidden} for q in (was, now))
    yield from _text_changes("examples of", *examples, only_shared=True)
    texts = ({a.id: a.text for a in q.allowed} for q in (was, now))
    yield from _text_changes("carve-out", *texts)
    unless = ({a.id: ", ".join(a.unless) or "nothing" for a in q.allowed} for q in (was, now))
    yield from _text_changes("what beats", *unless, only_shared=True)
    if [c.id for c in was.forbidden] != [c.id for c in now.forbidden] and {
        c.id for c in was.forbidden
    } == {c.id for c in now.forbidden}:
        yield "the clauses stand in another order"
    if was.reads != now.reads:
        yield "it reads other parts of an upload"
    if was.maps_to != now.maps_to:
        yield "guards know it by other names"


def _text_changes(
    kind: str, was: Mapping[str, str], now: Mapping[str, str], *, only_shared: bool = False
) -> Iterator[str]:
    for key in dict.fromkeys((*was, *now)):
        if key in was and key in now:
            if was[key] != now[key]:
                yield f"{kind} {key} was “{was[key]}”, is “{now[key]}”"
        elif not only_shared:
            what = "gone" if key in was else "new"
            yield f"{kind} {key} is {what} (“{was.get(key) or now[key]}”)"


def _clauses(old: Policy, new: Policy) -> Iterator[_Words]:
    for key in (k for k in new.clauses if k in old.clauses):
        was, now = old.clauses[key], new.clauses[key]
        if was.regions != now.regions:
            where = [", ".join(clause.regions) or "everywhere" for clause in (was, now)]
            yield f"clauses.{key}.regions", " → ".join(where), "where it binds"
        if was.asked_by_itself is not now.asked_by_itself:
            how = "by itself" if now.asked_by_itself else "together with its policy"
            yield f"clauses.{key}", f"asked {how} from now on", ""


def _rules(old: Policy, new: Policy) -> Iterator[_Words]:
    shared = {q.id for q in old.questions}
    for question in new.questions:
        if question.id in shared:
            yield from _rule_changes(
                question.id,
                old.rule_under(question.clause, None),
                new.rule_under(question.clause, None),
            )


def _rule_changes(where: str, was: Rule, now: Rule) -> Iterator[_Words]:
    for part, words in _RULE_PARTS.items():
        before, after = getattr(was, part), getattr(now, part)
        if before != after:
            name = _RULE_NAMES.get(part, part.replace("_", " "))
            what = f"{name}: {words(before)} → {words(after)}"
            yield where, what, _rule_effect(part, before, after)


def _rule_effect(part: str, before: Any, after: Any) -> str:
    if part == "acts_uncalibrated":
        return (
            "it acts before anybody measured it"
            if after
            else "until it is calibrated people decide"
        )
    if part not in {"act_at", "review_at"}:
        return ""
    before, after = (2.0 if value is None else value for value in (before, after))
    if not isinstance(before, float) or not isinstance(after, float):
        return ""
    more = "less" if after > before else "more"
    return f"{more} is acted on by itself" if part == "act_at" else f"{more} goes to people"


def _overrides(old: Policy, new: Policy) -> Iterator[_Words]:
    before = {condition(override): override for override in old.overrides}
    after = {condition(override): override for override in new.overrides}
    for when, override in after.items():
        if when in before:
            yield from _override_changes(when, (old, before[when]), (new, override))
            continue
        differences = list(_differences(new, None, override))
        for where, what, effect in differences:
            yield f"where {when}", f"new: {where}: {what}", effect
        if not differences:
            yield f"where {when}", "new: as everywhere, whatever the overrides below it say", ""
    for when, override in before.items():
        if when not in after:
            for where, what, _ in _differences(old, None, override):
                yield f"where {when}", f"no longer: {where}: {what}", ""
    shared = [when for when in before if when in after]
    if shared != [when for when in after if when in before]:
        yield "overrides", "they stand in another order", "the first that matches counts"


def _override_changes(
    when: str, was: tuple[Policy, Override], now: tuple[Policy, Override]
) -> Iterator[_Words]:
    (old, old_override), (new, new_override) = was, now
    asked = {question.clause for question in old.questions}
    for clause in (q.clause for q in new.questions if q.clause in asked):
        # What changed everywhere has been said already.
        said = {
            (what, effect)
            for _, what, effect in _rule_changes(
                "", old.rule_under(clause, None), new.rule_under(clause, None)
            )
        }
        where = f"where {when}, {clause}" if clause else f"where {when}"
        for words in _rule_changes(
            where, old.rule_under(clause, old_override), new.rule_under(clause, new_override)
        ):
            if words[1:] not in said:
                yield words


def _differences(policy: Policy, was: Override | None, now: Override | None) -> Iterator[_Words]:
    for question in policy.questions:
        yield from _rule_changes(
            question.id,
            policy.rule_under(question.clause, was),
            policy.rule_under(question.clause, now),
        )


def _entries(file: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for name in sorted(old.keys() | new.keys()):
        if name not in new or name not in old:
            what = "added" if name in new else "removed"
            yield Change(policy=file, where=name, what=what)
            continue
        for field in type(new[name]).model_fields:
            was, now = getattr(old[name], field), getattr(new[name], field)
            if was != now:
                yield Change(
                    policy=file, where=f"{name}.{field}", what=f"{_plain(was)} → {_plain(now)}"
                )


def _plain(value: Any) -> str:
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json", exclude_none=True)
    elif hasattr(value, "total_seconds"):
        return format_duration(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items()) or "nothing"
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(inner) for inner in value) or "nothing"
    if isinstance(value, float) and 0 <= value <= 1:
        return f"{value:.4g}"
    return "nothing" if value is None else str(value)
