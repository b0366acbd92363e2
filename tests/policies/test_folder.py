"""A folder as a whole: its other files, what does not work yet, and bytes of any kind."""

import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from policies.errors import PolicyError
from policies.folder import inspect, read_policies, read_policy
from policies.lint import NOT_YET
from policies.queues import REQUIRED
from policies.schema import PolicySet

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
NAMES = ("knives", *REQUIRED)
QUEUES = "queues:\n" + "".join(f"  {name}: {{due: 1h}}\n" for name in NAMES)


def write(folder: Path, **files: str) -> Path:
    """Write files by their stems, right ones where none are given, and return the folder."""
    for name, text in {"knives": POLICY, "queues": QUEUES, **files}.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def said(folder: Path) -> list[str]:
    """Return everything that is wrong, without the folder's own name."""
    return [str(problem).replace(f"{folder}/", "") for problem in inspect(folder)[1]]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"queues": QUEUES.replace("appeals", "apeals")},
            "queues.yaml:1:1: queues: the queue appeals is missing; add it",
        ),
        (
            {"queues": QUEUES.replace("knives: {due", "knives: {deu")},
            "queues.yaml:2:12: queues.knives.deu: there is no field deu; did you mean due?",
        ),
        (
            {"queues": QUEUES.replace("{due: 1h}", "{overdue: escalate}", 1)},
            "queues.yaml:2:21: queues.knives.overdue: overdue jobs go to no queue; add escalate_to",
        ),
        (
            {"queues": QUEUES.replace("{due: 1h}", "{overdue: escalate, escalate_to: legl}", 1)},
            "queues.yaml:2:44: queues.knives.escalate_to: there is no queue legl; did you mean legal",
        ),
        (
            {"queues": QUEUES.replace("{due: 1h}", "{overdue: escalate, escalate_to: knives}", 1)},
            "queues.yaml:2:44: queues.knives.escalate_to: overdue jobs come back to this queue; let",
        ),
        (
            {
                "queues": QUEUES.replace(
                    "{due: 1h}", "{overdue: escalate, escalate_to: legal}", 1
                ).replace("legal: {", "legal: {sealed: true, ")
            },
            "queues.yaml:2:44: queues.knives.escalate_to: the queue legal is sealed, and time alone",
        ),
        (
            {
                "knives": POLICY + "audit: {passed: 1%}\n",
                "queues": QUEUES.replace("{due: 1h}", "{due: 1h, sealed: true}", 1),
            },
            "knives.yaml:12:1: audit: its jobs go to knives, and nothing of a sealed queue is looked",
        ),
        (
            {"queues": QUEUES.replace("{due: 1h}", "{lane: fast}", 1)},
            "queues.yaml:2:18: queues.knives.lane: 'fast' is none of its values; write urgent or n",
        ),
        (
            {"context": "keys:\n  mood: {tipe: text}\n"},
            "context.yaml:2:10: keys.mood.tipe: there is no field tipe; did you mean type?",
        ),
        ({"forks": POLICY}, "knives.yaml:1:9: policy: forks.yaml has a policy knives already"),
        ({"empty": ""}, "empty.yaml:1:1: the file is empty; write a policy, or delete the file"),
        ({"empty": "# nothing\n"}, "empty.yaml:1:1: the file is empty"),
        ({"list": "- a\n- b\n"}, "list.yaml:1:1: this should have fields of its own"),
        ({"deep": "[" * 40}, "deep.yaml:1:18: [0]"),
        ({"big": "a: " + "b" * 300_000}, "big.yaml:1:1: the file has "),
        ({"merge": POLICY + "<<: {title: B}\n"}, "merge.yaml:12:1: <<: there is no field <<"),
    ],
)
def test_other_files(files: dict[str, str], words: str, tmp_path: Path) -> None:
    """What is wrong with queues, context keys and files as a whole has its place and remedy too."""
    assert any(line.startswith(words) for line in said(write(tmp_path, **files)))


def test_not_utf8(tmp_path: Path) -> None:
    """A file in another encoding is named with the place of the first byte that shows it."""
    (write(tmp_path) / "latin.yaml").write_bytes(b"policy: x\ntitle: caf\xe9\n")

    assert said(tmp_path) == ["latin.yaml:2:11: the file is not UTF-8; save it as UTF-8"]


def test_other_suffix(tmp_path: Path) -> None:
    """A file that would not be read because of its suffix is named."""
    (write(tmp_path) / "forks.yml").write_text(POLICY)

    assert said(tmp_path) == ["forks.yml:1:1: this file is not read; name it forks.yaml"]


def test_no_folder(tmp_path: Path) -> None:
    """A folder that is not there is an error of its own."""
    with pytest.raises(PolicyError, match="there is no such folder"):
        read_policies(tmp_path / "none")


def test_no_policy(tmp_path: Path) -> None:
    """A folder without a policy is no set: an empty folder must not let everything pass."""
    with pytest.raises(PolicyError, match="there is no policy"):
        read_policies(tmp_path)


def test_every_problem_at_once(tmp_path: Path) -> None:
    """One error names what is wrong in all files."""
    wrong = POLICY.replace("high", "hihg")
    write(tmp_path, knives=wrong, forks=wrong.replace("knives", "forks"))

    with pytest.raises(PolicyError) as raised:
        read_policies(tmp_path)

    assert [Path(problem.file).name for problem in raised.value.problems] == [
        "forks.yaml",
        "knives.yaml",
    ]


def test_warnings_do_not_stop(tmp_path: Path) -> None:
    """A warning is reported, and the set is read all the same."""
    write(tmp_path, forks=POLICY.replace("policy: knives", "policy: spoons"))

    assert read_policies(tmp_path).by_name.keys() == {"knives", "spoons"}
    assert [problem.level for problem in inspect(tmp_path)[1]] == ["warning"]


#: A value of each field that does not work yet, as its author would write it at the top of a policy.
UNBUILT: dict[str, tuple[str, Any]] = {
    "bands.act": ("bands", {"review": 0.3, "act": {"precision": 0.99}}),
    "bands.review": ("bands", {"review": {"miss_rate": 0.02}, "act": "never"}),
    "rollout": ("rollout", "5%"),
    "audit.passed": ("audit", {"passed": "0.5%"}),
    "audit.acted": ("audit", {"acted": "2%"}),
    "daily_cap": ("daily_cap", 500),
    "review.reviewers": ("review", {"queue": "knives", "reviewers": 2}),
    "review.approval": ("review", {"queue": "knives", "approval": True}),
}


@pytest.mark.parametrize("field", UNBUILT)
def test_not_yet(field: str, tmp_path: Path) -> None:
    """A field that does not work yet is refused with "not yet", and accepted once its line is gone."""
    name, value = UNBUILT[field]
    policy = {**yaml.safe_load(POLICY), name: value}
    write(tmp_path, knives=yaml.safe_dump(policy))

    problems = [p for p in inspect(tmp_path)[1] if p.remedy.startswith("not yet")]

    assert [problem.field for problem in problems] == ([field] if field in NOT_YET else [])


def test_one_file(tmp_path: Path) -> None:
    """One file is checked against the queues beside it, and others beside it are not looked at."""
    write(tmp_path, forks="not a policy", knives=POLICY.replace("queue: knives", "queue: knifes"))

    assert [p.field for p in inspect(tmp_path / "knives.yaml")[1]] == ["review.queue"]


@given(st.binary(max_size=400))
@example(b"\xff\xfe")
@example(b"a: &a [*a]")
@example(b"a: !!python/object/apply:os.system [true]")
@example(b"? {a: b}\n: c")
@example(b"[" * 300)
@example(b"a:\n" + b" - " * 200)
@settings(
    max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    """Whatever stands in a file, reading it gives a policy or PolicyError."""
    path = tmp_path / "any.yaml"
    path.write_bytes(data)

    with pytest.raises(PolicyError):
        read_policy(path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["review", "act", "text", "due", "X"]), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = [*yaml.safe_load(POLICY), "overrides", "allowed", "notice", "rollout", "when_unavailable"]


@given(st.sampled_from(FIELDS), VALUES)
@settings(
    max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_any_value(tmp_path: Path, field: str, value: Any) -> None:
    """Whatever value a field has, the folder is a set, or every problem names file, line and remedy."""
    text = yaml.dump({**yaml.safe_load(POLICY), field: value}, allow_unicode=True)
    (write(tmp_path) / "knives.yaml").write_text(text, encoding="utf-8", errors="replace")

    policies, problems = inspect(tmp_path)

    assert isinstance(policies, PolicySet) or any(p.level == "error" for p in problems)
    assert all(p.file and p.line >= 1 and p.column >= 1 and p.what and p.remedy for p in problems)


@given(st.text(alphabet=string.printable, max_size=60), st.integers(0, len(POLICY)))
@settings(
    max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_any_edit(tmp_path: Path, inserted: str, at: int) -> None:
    """Whatever is typed into a right file, the folder is a set, or something is said to be wrong."""
    path = write(tmp_path) / "knives.yaml"
    path.write_text(POLICY[:at] + inserted + POLICY[at:], encoding="utf-8")

    policies, problems = inspect(tmp_path)

    assert policies is not None or any(p.level == "error" for p in problems)
