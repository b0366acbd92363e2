"""Writes the JSON Schemas of policy files, for editors: `python -m policies.json_schema`."""

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from policies.cases import CaseFile
from policies.context import ContextFile
from policies.notation import format_duration
from policies.queues import QueueFile
from policies.remedies import models_in
from policies.schema import Policy

FOLDER: Final = Path(__file__).parent

#: File -> the model that it describes.
FILES: Final[dict[str, type[BaseModel]]] = {
    "weir-policy.schema.json": Policy,
    "weir-queues.schema.json": QueueFile,
    "weir-context.schema.json": ContextFile,
    "weir-cases.schema.json": CaseFile,
}


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of a file, with a description on every field."""
    schema = model.model_json_schema()
    parts = {part.__name__: part for part in _models(model)}
    for name, described in ((model.__name__, schema), *schema.get("$defs", {}).items()):
        for field, words in descriptions(parts[name]).items() if name in parts else ():
            written = _as_written(described["properties"][field])
            default = parts[name].model_fields[field].default
            if isinstance(default, timedelta):
                written["default"] = format_duration(default)
            described["properties"][field] = {"description": words, **written}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Weir: {(model.__doc__ or '').rstrip('.').lower()}",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def _as_written(field: dict[str, Any]) -> dict[str, Any]:
    """Return a field's schema without null: an author leaves the line away."""
    kept = {key: value for key, value in field.items() if key != "title"}
    if "default" in kept and kept["default"] is None:
        del kept["default"]
    elif isinstance(kept.get("default"), dict):
        kept["default"] = {k: v for k, v in kept["default"].items() if v is not None}
    choices = [choice for choice in kept.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        kept = {**choices[0], **{key: value for key, value in kept.items() if key != "anyOf"}}
    elif choices:
        kept["anyOf"] = choices
    return kept


@cache
def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the words below each field in the model's source."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    found: dict[str, str] = {}
    field = None
    for statement in tree.body if isinstance(tree, ast.ClassDef) else ():
        words = statement.value if isinstance(statement, ast.Expr) else None
        if field and isinstance(words, ast.Constant) and isinstance(words.value, str):
            found[field] = " ".join(words.value.split())
        target = statement.target if isinstance(statement, ast.AnnAssign) else None
        field = target.id if isinstance(target, ast.Name) else None
    return found


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for part in models_in(field.annotation):
            yield from _models(part)


def text_of(schema: dict[str, Any]) -> str:
    """Return a schema as it is written to its file."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the schemas beside the policies."""
    for name, model in FILES.items():
        (FOLDER / name).write_text(text_of(json_schema(model)), encoding="utf-8")


if __name__ == "__main__":
    main()
