"""The checked-in JSON Schemas, and the messages of every released version."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pipeline.json_schemas import FOLDER, KINDS, schemas, text

GOLDEN = sorted((Path(__file__).parents[1] / "data" / "messages").glob("*/*.json"))


def test_the_schemas_are_current() -> None:
    """The files say what the models say; `python -m pipeline.json_schemas` writes them."""
    written = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    assert written == {name: text(schema) for name, schema in schemas().items()}


@pytest.mark.parametrize("name", sorted(schemas()))
def test_each_is_a_schema(name: str) -> None:
    """Validators of other languages can read it."""
    Draft202012Validator.check_schema(schemas()[name])


def keeps(read: Any, said: Any) -> bool:
    """Return whether all that was said is there; fields that came later may stand beside it."""
    if isinstance(said, dict):
        return isinstance(read, dict) and all(
            key in read and keeps(read[key], value) for key, value in said.items()
        )
    if isinstance(said, list):
        return (
            isinstance(read, list)
            and len(read) == len(said)
            and all(keeps(one, other) for one, other in zip(read, said, strict=True))
        )
    return bool(read == said)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_messages_of_every_version_are_read(path: Path) -> None:
    """A message of any released version is read, keeps all that it says, and fits the schema of today."""
    model = KINDS[path.stem]
    said = json.loads(path.read_text(encoding="utf-8"))
    read = model.model_validate_json(path.read_bytes()).model_dump(mode="json")
    assert keeps(read, said)
    schema = schemas()[f"{path.stem}.v1.json"]
    assert list(Draft202012Validator(schema).iter_errors(said)) == []
    assert list(Draft202012Validator(schema).iter_errors(read)) == []


def test_there_are_golden_messages() -> None:
    """A folder that was moved must not make the test above pass by having nothing to do."""
    assert {path.stem for path in GOLDEN} >= {"upload", "decision", "verdict"}
