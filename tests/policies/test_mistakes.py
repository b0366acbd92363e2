"""Every mistake that an author is likely to make gets its place, what is wrong, and what to do."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from policies.errors import Problem
from policies.folder import inspect
from policies.queues import REQUIRED

RIGHT = """\
policy: knives
title: Knives
version: 1
status: live
reads: [image, caption]
languages: [en]
definitions:
  knife: a blade with a handle
question: Does this upload show a knife?
clauses:
  K1:
    text: Shows a knife.
    examples: [a dagger]
  K2:
    text: Offers a knife for sale.
    severity: critical
    bands: {review: 0.5, act: never}
allowed:
  A1:
    text: A kitchen knife.
    unless: [K2]
severity: high
action: remove
limits: {age: 18, no_ads: true}
bands:
  review: 0.3
  act: 0.9
review: {queue: knives, meanwhile: hold, due: 4h}
overrides:
  - when: {audience: teens}
    bands: {review: 0.2}
  - when: {surface: news}
    action: label
notice:
  en: "Not allowed: {clause}"
"""

#: Parts of it, up to the notice, and without overrides.
FROM_CLAUSE_BANDS = RIGHT[RIGHT.index("bands: {review: 0.5") : RIGHT.index("notice:")]
NO_OVERRIDES = FROM_CLAUSE_BANDS[: FROM_CLAUSE_BANDS.index("overrides:")]

QUEUES = "queues:\n" + "".join(f"  {name}: {{due: 1h}}\n" for name in ("knives", *REQUIRED))

CONTEXT = """\
keys:
  surface: {values: [feed, news]}
  audience: {values: [general, teens]}
  verified: {type: flag}
"""


@dataclass(frozen=True)
class Mistake:
    """One edit of the right file, and what must be said about it."""

    name: str
    old: str
    new: str
    line: int
    column: int
    field: str
    what: str
    remedy: str
    level: str = "error"


MISTAKES = (
    # The layout.
    Mistake(
        "tab",
        "  act: 0.9\n",
        "\tact: 0.9\n",
        27,
        1,
        "bands",
        "a tab indents this line",
        "indent with spaces",
    ),
    Mistake(
        "colon in a text",
        "text: Shows a knife.",
        "text: Shows: a knife.",
        12,
        16,
        "clauses.K1.text",
        "mapping values are not allowed",
        "put a text that has a colon in it into quotes",
    ),
    Mistake(
        "open quotes",
        'en: "Not allowed: {clause}"',
        'en: "Not allowed',
        36,
        1,
        "notice",
        "unexpected end of stream",
        "close the quotes",
    ),
    Mistake(
        "open list",
        "languages: [en]",
        "languages: [en",
        7,
        12,
        "languages[0]",
        "did not find expected ',' or ']'",
        "close the list with ]",
    ),
    Mistake(
        "wrong indentation",
        "    text: Shows a knife.\n    examples",
        "    text: Shows a knife.\n   examples",
        13,
        4,
        "clauses.K1.text",
        "did not find expected key",
        "indent it like its neighbours",
    ),
    Mistake(
        "duplicate field",
        "action: remove\n",
        "action: remove\naction: hold\n",
        24,
        1,
        "action",
        "stands here a second time, first in line 23",
        "keep one of the two",
    ),
    Mistake(
        "duplicate clause",
        "  K2:\n",
        "  K1:\n",
        14,
        3,
        "clauses.K1",
        "a second time, first in line 11",
        "keep one of the two",
    ),
    Mistake(
        "anchor",
        "languages: [en]",
        "languages: &all [en]",
        6,
        12,
        "languages",
        "&all is an anchor",
        "delete it",
    ),
    Mistake("tag", "version: 1", "version: !!int 1", 3, 10, "version", "is a tag", "delete it"),
    Mistake(
        "two documents",
        "policy: knives",
        "policy: knives\n---\npolicy: forks",
        2,
        1,
        "policy",
        "a second document begins",
        "keep one policy a file",
    ),
    Mistake(
        "unprintable character",
        "title: Knives",
        "title: Kni\x07ves",
        2,
        11,
        "",
        "U+0007 is not printable",
        "delete it",
    ),
    # Fields and their names.
    Mistake(
        "typo in a field",
        "severity: high",
        "severty: high",
        22,
        1,
        "severty",
        "there is no field severty",
        "did you mean severity?",
    ),
    Mistake(
        "typo deep inside",
        "meanwhile: hold",
        "meanwile: hold",
        28,
        25,
        "review.meanwile",
        "there is no field meanwile",
        "did you mean meanwhile?",
    ),
    Mistake(
        "field in the wrong place",
        "action: remove\n",
        "action: remove\nqueue: knives\n",
        24,
        1,
        "queue",
        "there is no field queue",
        "queue belongs below review",
    ),
    Mistake(
        "top field in a clause",
        "    text: Shows a knife.\n",
        "    text: Shows a knife.\n    reads: [image]\n",
        13,
        5,
        "clauses.K1.reads",
        "there is no field reads",
        "reads stands at the top of the file",
    ),
    Mistake(
        "missing field", "title: Knives\n", "", 1, 1, "title", "title is missing", "add title: …"
    ),
    Mistake(
        "field without a value",
        "title: Knives",
        "title:",
        2,
        1,
        "title",
        "it has no value",
        "write one, or delete the line",
    ),
    Mistake(
        "empty text",
        "text: Shows a knife.",
        'text: " "',
        12,
        11,
        "clauses.K1.text",
        "there is no text",
        "write some",
    ),
    Mistake(
        "no clauses",
        RIGHT[RIGHT.index("clauses:") : RIGHT.index("allowed:")],
        "clauses: {}\n",
        10,
        1,
        "clauses",
        "it is empty",
        "name at least one",
    ),
    # Values.
    Mistake(
        "typo in a value",
        "severity: high",
        "severity: hihg",
        22,
        11,
        "severity",
        "'hihg' is none of its values",
        "did you mean high?",
    ),
    Mistake(
        "typo in a status",
        "status: live",
        "status: lives",
        4,
        9,
        "status",
        "none of its values",
        "did you mean live?",
    ),
    Mistake(
        "typo in an action",
        "action: remove",
        "action: remov",
        23,
        9,
        "action",
        "'remov' is not an action",
        "did you mean remove?",
    ),
    Mistake(
        "number as text",
        "title: Knives",
        "title: 12",
        2,
        8,
        "title",
        "this is not text",
        'put it into quotes: "12"',
    ),
    Mistake(
        "text as number",
        "version: 1",
        'version: "1"',
        3,
        10,
        "version",
        "is no whole number",
        "without quotes",
    ),
    Mistake(
        "version zero", "version: 1", "version: 0", 3, 10, "version", "out of range", "at least 1"
    ),
    Mistake(
        "spoken flag",
        "no_ads: true",
        "no_ads: yes",
        24,
        27,
        "limits.no_ads",
        "neither true nor false",
        "write true",
    ),
    Mistake(
        "text for a list",
        "languages: [en]",
        "languages: en",
        6,
        12,
        "languages",
        "this is no list",
        "write [en]",
    ),
    Mistake(
        "list for fields",
        "bands:\n  review: 0.3\n  act: 0.9\n",
        "bands: [0.3, 0.9]\n",
        25,
        1,
        "bands",
        "should have fields of its own",
        "name: value",
    ),
    Mistake(
        "band above one",
        "act: 0.9\n",
        "act: 90\n",
        27,
        8,
        "bands.act",
        "90 is out of range",
        "write at most 1",
    ),
    Mistake(
        "band in per cent",
        "act: 0.9\n",
        "act: 90%\n",
        27,
        8,
        "bands.act",
        "this is no band",
        "a probability like 0.95",
    ),
    Mistake(
        "review never",
        "review: 0.3",
        "review: never",
        26,
        11,
        "bands.review",
        "this is no band",
        "a probability like 0.3",
    ),
    Mistake(
        "bands out of order",
        "act: 0.9\n",
        "act: 0.2\n",
        25,
        1,
        "bands",
        "act (0.2) lies below review (0.3)",
        "raise act or lower review",
    ),
    Mistake(
        "duration in words",
        "due: 4h",
        "due: 4 hours",
        28,
        47,
        "review.due",
        "'4 hours' is not a duration",
        "like 15m",
    ),
    Mistake(
        "endless duration",
        "due: 4h",
        "due: 99999d",
        28,
        47,
        "review.due",
        "longer than a year",
        "at most 366d",
    ),
    Mistake(
        "name with a capital",
        "queue: knives",
        "queue: Knives",
        28,
        17,
        "review.queue",
        "'Knives' is not a name",
        "small letters",
    ),
    Mistake(
        "clause id",
        "  K1:\n",
        "  K-1:\n",
        11,
        3,
        "clauses.K-1",
        "'K-1' is not an id of a clause",
        "letters, digits and dots",
    ),
    Mistake(
        "region that is none",
        "    text: Shows a knife.\n",
        "    text: Shows a knife.\n    regions: [UK]\n",
        13,
        15,
        "clauses.K1.regions[0]",
        "'UK' is not a code of ISO 3166",
        "write GB",
    ),
    Mistake(
        "language that is none",
        "languages: [en]",
        "languages: [English]",
        6,
        13,
        "languages[0]",
        "'English' is not a language",
        "BCP 47",
    ),
    Mistake(
        "unknown placeholder",
        "{clause}",
        "{claus}",
        35,
        7,
        "notice.en",
        "{claus} stands for nothing",
        "only {clause} is filled in",
    ),
    # What refers to something else.
    Mistake(
        "unknown clause",
        "unless: [K2]",
        "unless: [K3]",
        21,
        14,
        "allowed.A1.unless[0]",
        "there is no clause K3",
        "name a clause of this policy",
    ),
    Mistake(
        "one id twice",
        "  A1:\n",
        "  K1:\n",
        19,
        3,
        "allowed.K1",
        "is a clause and a carve-out",
        "give the carve-out an id of its own",
    ),
    Mistake(
        "unknown queue",
        "queue: knives",
        "queue: knifes",
        28,
        17,
        "review.queue",
        "there is no queue knifes, so what is held has no exit",
        "did you mean knives?",
    ),
    Mistake(
        "hold without exit",
        "{queue: knives, meanwhile",
        "{meanwhile",
        28,
        1,
        "review.queue",
        "what is held has no exit",
        "add queue: NAME",
    ),
    Mistake(
        "no review band",
        "  review: 0.3\n",
        "",
        25,
        1,
        "bands.review",
        "nothing says from which probability",
        "add review: 0.3",
    ),
    Mistake(
        "undeclared context key",
        "{surface: news}",
        "{surfce: news}",
        32,
        12,
        "overrides[1].when.surfce",
        "no context has a key surfce",
        "did you mean surface?",
    ),
    Mistake(
        "unknown context key",
        "{surface: news}",
        "{mood: glad}",
        32,
        12,
        "overrides[1].when.mood",
        "no context has a key mood",
        "declare mood in context.yaml",
    ),
    # What cannot do what it says.
    Mistake(
        "value that never occurs",
        "{surface: news}",
        "{surface: new}",
        32,
        21,
        "overrides[1].when.surface",
        "surface is never new, so this never matches",
        "did you mean news?",
    ),
    Mistake(
        "value of another type",
        "{surface: news}",
        '{verified: "true"}',
        32,
        22,
        "overrides[1].when.verified",
        "verified is never 'true'",
        "write true or false",
    ),
    Mistake(
        "empty list of values",
        "{surface: news}",
        "{surface: []}",
        32,
        5,
        "overrides[1].when",
        "has an empty list, so this never matches",
        "name a value",
    ),
    Mistake(
        "regions for region",
        "{surface: news}",
        "{regions: DE}",
        32,
        12,
        "overrides[1].when.regions",
        "an override binds in one region",
        "write region",
    ),
    Mistake(
        "override of a region that is none",
        "{surface: news}",
        "{region: [DE, uk]}",
        32,
        25,
        "overrides[1].when.region[1]",
        "'uk' is not a region",
        "in capitals",
    ),
    Mistake(
        "region that is no text",
        "{surface: news}",
        "{region: 49}",
        32,
        5,
        "overrides[1].when",
        "region is no plain value",
        "write one value",
    ),
    Mistake(
        "more than a language",
        "languages: [en]",
        "languages: [pt-BR]",
        6,
        13,
        "languages[0]",
        "'pt-BR' names more than a language",
        "write pt",
    ),
    Mistake(
        "question without effect",
        FROM_CLAUSE_BANDS,
        NO_OVERRIDES.replace("{review: 0.5", "{review: 1"),
        17,
        5,
        "clauses.K2.bands",
        "neither acts nor goes to review",
        "or delete it",
        "warning",
    ),
    Mistake(
        "hidden override",
        "{surface: news}",
        "{audience: teens, surface: news}",
        32,
        5,
        "overrides[1]",
        "overrides[0] hides it",
        "put it before overrides[0]",
        "warning",
    ),
    Mistake(
        "override without effect",
        "    action: label\n",
        "",
        32,
        5,
        "overrides[1]",
        "it changes nothing",
        "or delete it",
        "warning",
    ),
    Mistake(
        "override out of order",
        "bands: {review: 0.2}",
        "bands: {review: 0.95}",
        31,
        5,
        "overrides[0].bands",
        "act (0.9) lies below review (0.95)",
        "raise act or lower review",
    ),
    Mistake(
        "live without effect",
        FROM_CLAUSE_BANDS,
        NO_OVERRIDES.replace("{review: 0.5", "{review: 1").replace(
            "bands:\n  review: 0.3\n  act: 0.9\n", "bands: {review: 1, act: never}\n"
        ),
        25,
        1,
        "bands",
        "the policy is live, but nothing in it acts",
        "write status: draft",
    ),
    Mistake(
        "carve-out that allows nothing",
        "unless: [K2]",
        "unless: [K1, K2]",
        21,
        5,
        "allowed.A1.unless",
        "every clause beats it",
        "name fewer clauses",
        "warning",
    ),
    Mistake(
        "carve-out against its clause",
        "text: A kitchen knife.",
        "text: shows a knife.",
        20,
        11,
        "allowed.A1.text",
        "word for word what K1 forbids",
        "reword it",
    ),
    Mistake(
        "clause that says the same",
        "text: Offers a knife for sale.",
        "text: Shows a knife.\n    examples: [a dagger]",
        15,
        11,
        "clauses.K2.text",
        "it says the same as K1",
        "delete one",
        "warning",
    ),
    Mistake(
        "action that never happens",
        "    severity: critical\n",
        "    severity: critical\n    action: hold\n",
        17,
        13,
        "clauses.K2.action",
        "it never acts by itself",
        "or delete the action",
        "warning",
    ),
    Mistake(
        "unsure is worse than sure",
        "action: remove\nlimits: {age: 18, no_ads: true}\nbands:\n  review: 0.3\n  act: 0.9\n"
        "review: {queue: knives, meanwhile: hold",
        "action: restrict\nlimits: {age: 18, no_ads: true}\nbands:\n  review: 0.3\n  act: 0.9\n"
        "review: {queue: knives, meanwhile: remove",
        28,
        36,
        "review.meanwhile",
        "what is unsure is removed",
        "write meanwhile: hold",
        "warning",
    ),
    Mistake(
        "name of another file",
        "policy: knives",
        "policy: knifes",
        1,
        9,
        "policy",
        "the policy is called knifes, its file knives.yaml",
        "write policy: knives",
        "warning",
    ),
)


def folder(path: Path, policy: str = RIGHT, queues: str = QUEUES, context: str = CONTEXT) -> Path:
    """Write a folder of one policy and return it."""
    (path / "knives.yaml").write_text(policy, encoding="utf-8")
    (path / "queues.yaml").write_text(queues, encoding="utf-8")
    (path / "context.yaml").write_text(context, encoding="utf-8")
    return path


def problems_of(path: Path) -> list[Problem]:
    """Return what is wrong in a folder."""
    return list(inspect(path)[1])


def test_right(tmp_path: Path) -> None:
    """The file that the mistakes are made in is right."""
    assert problems_of(folder(tmp_path)) == []


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_mistake(mistake: Mistake, tmp_path: Path) -> None:
    """A mistake is named once, with its line, column, field, what is wrong, and what to do."""
    assert RIGHT.count(mistake.old) >= 1
    path = folder(tmp_path, RIGHT.replace(mistake.old, mistake.new, 1))

    found = problems_of(path)

    first = found[0]
    assert (first.line, first.column, first.field) == (mistake.line, mistake.column, mistake.field)
    assert mistake.what in first.what
    assert mistake.remedy in first.remedy
    assert first.level == mistake.level
    assert first.file == str(path / "knives.yaml")
    assert len({(problem.line, problem.field) for problem in found}) <= 2


def test_several_at_once(tmp_path: Path) -> None:
    """All mistakes of a file are named at once, in the order of its lines."""
    wrong = RIGHT.replace("severity: high", "severity: hihg").replace("version: 1", "version: x")

    found = problems_of(folder(tmp_path, wrong.replace("unless: [K2]", "unless: K2")))

    assert [problem.field for problem in found] == ["version", "allowed.A1.unless", "severity"]
