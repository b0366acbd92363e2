"""The JSON Schemas of what travels on Kafka, from the models; `python -m pipeline.json_schemas` writes them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from pipeline import messages

#: Where they lie, one file a kind of message.
FOLDER: Final = Path(__file__).resolve().parent / "schemas"

#: Kind -> its model.
KINDS: Final[Mapping[str, type[BaseModel]]] = {
    "upload": messages.UploadEvent,
    "decision": messages.Decision,
    "ticket": messages.Ticket,
    "verdict": messages.Verdict,
    "appeal": messages.Appeal,
    "review": messages.ReviewEvent,
    "legal": messages.LegalEvent,
}


def schemas() -> dict[str, dict[str, Any]]:
    """Return every schema by the name of its file."""
    return {
        f"{kind}.v1.json": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"https://weir.invalid/schemas/{kind}.v1.json",
            # As a reader sees it: what a version adds is never required of what older ones wrote.
            **model.model_json_schema(mode="validation"),
        }
        for kind, model in KINDS.items()
    }


def text(schema: Mapping[str, Any]) -> str:
    """Return a schema as its file holds it."""
    return json.dumps(schema, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def main() -> None:
    """Write every schema to its file."""
    FOLDER.mkdir(exist_ok=True)
    for name, schema in schemas().items():
        (FOLDER / name).write_text(text(schema), encoding="utf-8")


if __name__ == "__main__":
    main()
