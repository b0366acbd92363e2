"""What follows from a policy for one upload."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policies.notation import MAX_DURATION, format_duration, parse_duration
from policies.rules import Action, Severity
from policies.schema import Policy, PolicySet

VALUES: dict[str, Any] = {
    "policy": "weapons",
    "title": "Weapons",
    "version": 1,
    "status": "live",
    "definitions": {"weapon": "a firearm"},
    "question": "Does this show a weapon?",
    "clauses": {
        "W1": {"text": "Shows a weapon."},
        "W2": {"text": "Threatens with one.", "bands": {"act": "never"}},
        "W3": {"text": "Markets a knife.", "regions": ["GB"]},
    },
    "allowed": {
        "A1": {"text": "Toys."},
        "A2": {"text": "News.", "unless": ["W2"]},
        "A3": {"text": "Museums.", "unless": ["W1"]},
    },
    "severity": "high",
    "action": "remove",
    "bands": {"review": 0.3, "act": 0.9},
    "review": {"queue": "weapons", "meanwhile": "hold"},
    "overrides": [
        {"when": {"audience": "teens"}, "bands": {"review": 0.1, "act": 0.5}},
        {"when": {"surface": ["news", "art"], "press": True}, "action": "label"},
        {"when": {"region": "DE"}, "severity": "low"},
    ],
}


def policy(**changes: Any) -> Policy:
    """Return the policy with other values."""
    return Policy.model_validate({**VALUES, **changes})


def test_questions() -> None:
    """A clause with rules or regions of its own is asked by itself, and not within its policy."""
    joint, alone, regional = policy().questions

    assert [question.id for question in (joint, alone, regional)] == [
        "weapons",
        "weapons/W2",
        "weapons/W3",
    ]
    assert [clause.id for clause in joint.forbidden] == ["W1"]


def test_carve_outs_of_questions() -> None:
    """A question has the carve-outs that it needs, and names only the clauses that it asks about."""
    joint, alone, _ = policy().questions

    assert [(exempt.id, exempt.unless) for exempt in joint.allowed] == [("A1", ()), ("A2", ())]
    assert [(exempt.id, exempt.unless) for exempt in alone.allowed] == [("A1", ()), ("A3", ())]


def test_override_never_lifts_never() -> None:
    """A clause of which its author said `act: never` acts in no context."""
    teens = {"audience": "teens"}

    assert policy().rule("W1", teens).act_at == 0.5
    assert policy().rule("W2", teens).act_at is None
    assert policy().rule("W2", teens).review_at == 0.1


@pytest.mark.parametrize(
    ("context", "action"),
    [
        ({"surface": "news", "press": True}, Action.ALLOW),
        ({"surface": "art", "press": True}, Action.ALLOW),
        ({"surface": ["feed", "art"], "press": True}, Action.ALLOW),
        ({"surface": "news"}, Action.REMOVE),
        ({"surface": "news", "press": 1}, Action.REMOVE),
        ({"surface": "feed", "press": True}, Action.REMOVE),
        ({}, Action.REMOVE),
    ],
)
def test_overrides_match(context: dict[str, Any], action: Action) -> None:
    """An override matches where every key has its value or one of its values; what is missing never does."""
    assert policy().rule(None, context).action is action


def test_first_override_counts() -> None:
    """Of two overrides that match, the upper one counts alone."""
    rule = policy().rule(None, {"audience": "teens", "region": "DE"})

    assert (rule.review_at, rule.severity) == (0.1, Severity.HIGH)


def test_regions() -> None:
    """A policy names the regions of its clauses and overrides, and a clause binds in its own only."""
    weapons = policy()

    assert weapons.regions == {"GB", "DE"}
    assert weapons.binds("W3", "GB")
    assert not weapons.binds("W3", None)
    assert weapons.binds(None, None)


@given(st.text(max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_rollout_grows(content_id: str, one: float, other: float) -> None:
    """Content that is in a rollout stays in it when the share is raised, whatever its id."""
    less, more = (policy(rollout=share).acts_on(content_id) for share in sorted((one, other)))

    assert more or not less


def test_rollout_share() -> None:
    """A rollout takes in its share of content, and each policy another part of it."""
    ids = [f"content-{number}" for number in range(4000)]
    one, other = policy(rollout="25%"), policy(policy="other", rollout="25%")

    taken = {content for content in ids if one.acts_on(content)}
    both = {content for content in taken if other.acts_on(content)}

    assert 900 < len(taken) < 1100
    assert 180 < len(both) < 320
    assert all(policy().acts_on(content) for content in ids[:100])


def test_layout_is_no_meaning() -> None:
    """Line breaks and spaces in a text change neither the question nor its digest."""
    wide = policy(question="Does  this\n  show a\tweapon? ")

    assert wide.questions[0].digest == policy().questions[0].digest


@pytest.mark.parametrize(
    ("field", "value", "same"),
    [
        ("title", "Arms", True),
        ("review", {"queue": "other", "due": "1h"}, True),
        ("question", "Does this show arms?", False),
        ("definitions", {"weapon": "a blade"}, False),
        (
            "clauses",
            {**VALUES["clauses"], "W1": {"text": "Shows a weapon.", "examples": ["a pistol"]}},
            False,
        ),
        ("allowed", {"A1": {"text": "Toys."}}, False),
        ("reads", ["image"], False),
        ("maps_to", {"llavaguard": "O6"}, False),
    ],
)
def test_digest_of_a_question(field: str, value: Any, *, same: bool) -> None:
    """All that a score depends on makes a question's digest, and nothing else does."""
    asked = policy(**{field: value}).questions[0].digest

    assert (asked == policy().questions[0].digest) is same


def test_digest_of_a_set() -> None:
    """A set's digest changes with anything that a file says, and not with the order of files."""
    other = policy(policy="other")

    assert PolicySet((policy(), other)).digest == PolicySet((other, policy())).digest
    assert PolicySet((policy(),)).digest != PolicySet((policy(title="Arms"),)).digest


def test_frozen() -> None:
    """A policy cannot be changed after it is read."""
    with pytest.raises(ValidationError, match="frozen"):
        policy().version = 2  # type: ignore[misc]


@given(st.timedeltas(min_value=timedelta(0), max_value=MAX_DURATION))
def test_durations(duration: timedelta) -> None:
    """A duration that is written out and read again is the same, to the second."""
    whole = timedelta(seconds=round(duration.total_seconds()))

    assert parse_duration(format_duration(whole)) == whole
