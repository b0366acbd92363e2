"""What changed between two policies, in words."""

from typing import Any

import pytest

from policies.diff import Change, compare
from policies.queues import Queue
from policies.schema import Policy, PolicySet

VALUES: dict[str, Any] = {
    "policy": "weapons",
    "title": "Weapons",
    "version": 1,
    "status": "live",
    "question": "Does this show a weapon?",
    "clauses": {
        "W1": {"text": "Shows a weapon."},
        "W2": {"text": "Threatens with one.", "bands": {"act": "never"}},
    },
    "allowed": {"A1": {"text": "Toys."}},
    "severity": "high",
    "action": "remove",
    "bands": {"review": 0.3, "act": 0.9},
    "review": {"queue": "weapons", "meanwhile": "hold", "due": "4h"},
    "overrides": [
        {"when": {"audience": "teens"}, "bands": {"review": 0.1}},
        {"when": {"surface": "news"}, "action": "label"},
    ],
}


def changes(**new: Any) -> list[Change]:
    """Return what changes when the policy gets other values."""
    old, after = (Policy.model_validate(v) for v in (VALUES, {**VALUES, **new}))
    return list(compare(PolicySet((old,)), PolicySet((after,))))


@pytest.mark.parametrize(
    ("new", "where", "what", "effect"),
    [
        ({"status": "draft"}, "status", "live → draft", "no longer asked"),
        ({"version": 2}, "version", "1 → 2", "labels of before stop counting"),
        (
            {"bands": {"review": 0.3, "act": 0.95}},
            "weapons",
            "acts by itself: from 0.9 → from 0.95",
            "less is acted on by itself",
        ),
        (
            {"bands": {"review": 0.2, "act": 0.9}},
            "weapons",
            "review: from 0.3 → from 0.2",
            "more goes to people",
        ),
        (
            {"bands": {"review": 0.3, "act": "never"}},
            "weapons",
            "acts by itself: from 0.9 → never",
            "less is acted on by itself",
        ),
        ({"action": "hold"}, "weapons", "action: remove → hold", ""),
        (
            {"review": {"queue": "arms", "meanwhile": "hold", "due": "90m"}},
            "weapons",
            "due: 4h → 90m",
            "",
        ),
        (
            {"allowed": {"A1": {"text": "Toys and games."}}},
            "question weapons",
            "carve-out A1 was “Toys.”, is “Toys and games.”",
            "its calibration is stale until it is fitted again; labels go on counting",
        ),
        (
            {"allowed": {"A1": {"text": "Toys.", "unless": ["W1"]}}},
            "question weapons",
            "carve-out A1 is gone",
            "labels go on counting",
        ),
        (
            {"clauses": {"W1": {"text": "Shows a weapon."}}},
            "question weapons/W2",
            "no longer asked",
            "",
        ),
        (
            {"overrides": VALUES["overrides"][:1]},
            "where surface is news",
            "no longer: weapons: action: remove → label",
            "",
        ),
        (
            {"overrides": VALUES["overrides"][::-1]},
            "overrides",
            "another order",
            "the first that matches counts",
        ),
        (
            {
                "overrides": [
                    {"when": {"audience": "teens"}, "bands": {"review": 0.2}},
                    VALUES["overrides"][1],
                ]
            },
            "where audience is teens",
            "review: from 0.1 → from 0.2",
            "less goes to people",
        ),
        (
            {"reads": ["image"]},
            "question weapons",
            "it reads other parts of an upload",
            "its calibration is stale until it is fitted again; labels go on counting",
        ),
        (
            {"maps_to": {"llavaguard": "O6"}},
            "question weapons",
            "guards know it by other names",
            "its calibration is stale until it is fitted again; labels go on counting",
        ),
        ({"title": "Arms"}, "title", "Weapons → Arms", "words for people only"),
        (
            {"when_unavailable": {"action": "allow"}},
            "when_unavailable",
            "action hold, then rescore → after 15m, action allow, then rescore",
            "only while no classifier answers",
        ),
    ],
)
def test_change(new: dict[str, Any], where: str, what: str, effect: str) -> None:
    """A change is said with where it is, what it is, and what follows from it."""
    found = changes(**new)

    matching = [c for c in found if c.where == where and what in c.what]
    assert len(matching) == 1, found
    assert effect in matching[0].effect


def test_nothing() -> None:
    """Another layout of the same words is no change."""
    assert changes(question="Does this  show a\nweapon?") == []


def test_said_once() -> None:
    """A band that changes everywhere is not said again for each override that leaves it alone."""
    found = changes(bands={"review": 0.3, "act": 0.95})

    assert [change.where for change in found] == ["weapons"]


def test_sets() -> None:
    """Between two sets, policies and queues that came or went are named."""
    weapons = Policy.model_validate(VALUES)
    other = weapons.model_copy(update={"policy": "other"})
    before = PolicySet((weapons, other), {"a": Queue(), "b": Queue()})
    after = PolicySet((weapons, weapons.model_copy(update={"policy": "third"})), {"a": Queue()})

    found = [(change.policy, change.what) for change in compare(before, after)]

    assert ("other", "removed, was live") in found
    assert ("third", "added, live") in found
    assert ("queues.yaml", "removed") in found
