"""The policies, schemas and words that ship."""

import json
import re
import shutil
from pathlib import Path

import jsonschema
import pytest

from policies.cases import read_cases
from policies.draft import draft
from policies.folder import inspect, read_policies
from policies.json_schema import FILES, FOLDER, descriptions, json_schema, text_of
from policies.lint import NOT_YET
from policies.remedies import models_in
from policies.schema import Policy, Status
from policies.yaml_file import read_yaml

TEN = {
    "weapons",
    "drugs",
    "alcohol_tobacco",
    "gambling",
    "hate",
    "harassment",
    "self_harm",
    "graphic_violence",
    "adult_nudity",
    "scams",
}


def test_nothing_wrong() -> None:
    """The shipped folder is right, and holds the ten policies that a platform starts from."""
    policies, problems = inspect(FOLDER)

    assert problems == ()
    assert policies is not None
    assert policies.by_name.keys() >= TEN


def test_short_enough() -> None:
    """What the bundled model is asked in a trial is short: it has learned short policies."""
    policies = read_policies(FOLDER)
    tried = [policies.by_name[name] for name in read_cases(policies, FOLDER)]

    for question in (question for policy in tried for question in policy.questions):
        words = [question.question, *(f"{a} {b}" for a, b in question.definitions)]
        words += [c.text for c in question.forbidden] + [a.text for a in question.allowed]
        assert len(" ".join(words).split()) <= 80


@pytest.mark.parametrize("name", FILES)
def test_schema_is_current(name: str) -> None:
    """Each JSON Schema is what `python -m policies.json_schema` writes."""
    written = text_of(json_schema(FILES[name]))

    assert (FOLDER / name).read_text(encoding="utf-8") == written


def test_schema_accepts_what_ships() -> None:
    """Every shipped file is right by its JSON Schema too, and a typo is not."""
    validators = {name: validator(name) for name in ("policy", "queues", "context", "cases")}
    for path in (*FOLDER.glob("*.yaml"), *FOLDER.glob("cases/*.yaml")):
        kind = path.stem if path.stem in {"queues", "context"} else "policy"
        kind = "cases" if path.parent.name == "cases" else kind
        value = read_yaml(path.read_bytes(), path.name).value
        assert [error.message for error in validators[kind].iter_errors(value)] == []
        assert not validators[kind].is_valid({**value, "severty": "high"})
        assert f"weir-{kind}.schema.json" in path.read_text().splitlines()[0]


def validator(kind: str) -> jsonschema.Draft202012Validator:
    """Return what checks files of one kind by their JSON Schema, which is right itself."""
    schema = json.loads((FOLDER / f"weir-{kind}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", FILES)
def test_every_field_is_described(name: str) -> None:
    """Every field that an author can write has words that an editor shows."""
    models = [FILES[name]]
    for model in models:
        assert model.model_fields.keys() == descriptions(model).keys(), model.__name__
        for field in model.model_fields.values():
            models += [m for m in models_in(field.annotation) if m not in models]


def test_table_names_fields() -> None:
    """The table of what does not work yet names fields that the format has."""
    for field in NOT_YET:
        top, _, inner = field.partition(".")
        assert top in Policy.model_fields
        if inner:
            parts = list(models_in(Policy.model_fields[top].annotation))
            assert any(inner in part.model_fields for part in parts)


def test_draft(tmp_path: Path) -> None:
    """A new policy is right as it stands, whatever its name."""
    (tmp_path / "queues.yaml").write_bytes((FOLDER / "queues.yaml").read_bytes())
    (tmp_path / "pet_sales.yaml").write_text(draft("pet_sales"))

    policies, problems = inspect(tmp_path)

    assert problems == ()
    assert policies is not None
    assert policies.by_name["pet_sales"].status is Status.DRAFT


def test_draft_of_no_name() -> None:
    """A name that is none begins no policy."""
    with pytest.raises(ValueError, match="small letters"):
        draft("Pet Sales")


@pytest.mark.parametrize("name", FILES)
def test_every_field_is_taught(name: str) -> None:
    """README.md names every field that an author can write."""
    words = (FOLDER / "README.md").read_text(encoding="utf-8")
    models = [FILES[name]]
    for model in models:
        for field, described in model.model_fields.items():
            assert f"`{field}`" in words or f"{field}:" in words, f"{model.__name__}.{field}"
            models += [m for m in models_in(described.annotation) if m not in models]


def test_grown_policy(tmp_path: Path) -> None:
    """The policy that README.md grows is right at every step."""
    shutil.copy(FOLDER / "queues.yaml", tmp_path)
    shutil.copy(FOLDER / "context.yaml", tmp_path)
    words = (FOLDER / "README.md").read_text(encoding="utf-8")
    steps = re.findall(r"```yaml\n(.*?)```", words, re.DOTALL)
    grown: dict[str, object] = {}

    for step in steps:
        fields = read_yaml(step.encode(), "step").value
        clauses = {**grown.get("clauses", {}), **fields.get("clauses", {})}  # type: ignore[dict-item]
        grown |= {**fields, "clauses": clauses}
        (tmp_path / "fireworks.yaml").write_text(json.dumps(grown))
        assert inspect(tmp_path)[1] == ()

    assert len(steps) >= 7


def test_cases() -> None:
    """Every live policy has golden cases, and all have cases of both kinds, with counterfactuals."""
    policies = read_policies(FOLDER)
    cases = read_cases(policies, FOLDER)

    assert {p.policy for p in policies if p.status is Status.LIVE} <= cases.keys()
    assert len(cases) >= 7
    for file in cases.values():
        assert {case.expect for case in file.cases.values()} == {"violates", "allowed"}
        assert any(case.unlike for case in file.cases.values())
