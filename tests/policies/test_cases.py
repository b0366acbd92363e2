"""Golden cases as their author writes them."""

from pathlib import Path

import pytest

from policies.cases import read_cases
from policies.errors import PolicyError
from policies.folder import read_policies

POLICY = """\
policy: knives
title: Knives
version: 1
status: live
question: Does this upload show a knife?
clauses:
  K1: {text: Shows a knife.}
severity: high
action: remove
bands: {review: 0.3, act: 0.9}
review: {queue: knives}
"""

CASES = """\
policy: knives
cases:
  sale: {text: Knife for sale, expect: violates, clause: K1, action: remove}
  spoon: {text: Spoon for sale, expect: allowed, unlike: sale, context: {surface: feed, regions: [DE]}}
"""


def folder(path: Path, cases: str = CASES, name: str = "knives") -> Path:
    """Write a folder of one policy with cases and return it."""
    (path / "cases").mkdir()
    (path / "knives.yaml").write_text(POLICY)
    (path / "cases" / f"{name}.yaml").write_text(cases)
    return path


def test_read(tmp_path: Path) -> None:
    """Cases are read by their policy, with what must come out."""
    path = folder(tmp_path)

    cases = read_cases(read_policies(path), path)["knives"].cases

    assert cases["sale"].expect == "violates"
    assert cases["spoon"].unlike == "sale"


def test_none(tmp_path: Path) -> None:
    """A folder without cases has none."""
    (tmp_path / "knives.yaml").write_text(POLICY)

    assert read_cases(read_policies(tmp_path), tmp_path) == {}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("policy: knives", "policy: knifes", ":1:9: policy: there is no policy knifes; did you"),
        (
            "expect: violates",
            "expect: violate",
            ":3:40: cases.sale.expect: 'violate' is none of its values; did you mean violates?",
        ),
        ("clause: K1", "clause: K2", ":3:58: cases.sale.clause: knives has no clause K2"),
        (
            "action: remove",
            "action: delete",
            ":3:70: cases.sale.action: 'delete' is not an action",
        ),
        ("unlike: sale", "unlike: sail", ":4:58: cases.spoon.unlike: there is no case sail; did"),
        (
            "expect: allowed",
            "expect: violates",
            ":4:59: cases.spoon.unlike: sale expects the same; a counterfactual",
        ),
        (
            "surface: feed",
            "surfce: feed",
            ":4:74: cases.spoon.context.surfce: no context has a key",
        ),
        (
            "text: Knife for sale",
            "media: [no.png]",
            ":3:18: cases.sale.media[0]: there is no file no.png below",
        ),
        (
            "text: Knife for sale",
            "media: [../knives.yaml]",
            ":3:18: cases.sale.media[0]: there is no file ../knives.yaml below",
        ),
        (
            "{text: Knife for sale, expect",
            "{expect",
            ":3:3: cases.sale: it has neither text nor media",
        ),
        ("{text: Knife", "{texts: Knife", ":3:10: cases.sale.texts: there is no field texts"),
    ],
)
def test_mistake(old: str, new: str, words: str, tmp_path: Path) -> None:
    """A mistake in a case has its file, line, column, field, what is wrong and what to do."""
    assert old in CASES
    path = folder(tmp_path, CASES.replace(old, new, 1))

    with pytest.raises(PolicyError) as raised:
        read_cases(read_policies(path), path)

    assert f"{path}/cases/knives.yaml{words}" in str(raised.value.problems[0])


def test_other_name(tmp_path: Path) -> None:
    """Cases stand in a file of their policy's name."""
    path = folder(tmp_path, name="forks")

    with pytest.raises(PolicyError, match=r"the cases of knives stand in forks\.yaml"):
        read_cases(read_policies(path), path)
