"""Labelled uploads: what people said of them, for calibration and evaluation.

One file of JSON lines (or Parquet with the same columns); media paths are relative to its folder:

    {"id": "…", "media": ["a.png"], "caption": "…", "answers": {"weapons": true, "weapons/W3": false}}

`weight` (the inverse of the chance that this upload was labelled), `cluster` (near-duplicates share one) and
`context` may stand beside them; `adjudicated: false` says that the answers are one person's word, and `first` what the
first person had said where others looked again. A folder is read from its `labels.jsonl` or `labels.parquet`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import PipelineError


class Labelled(BaseModel):
    """One upload and people's answers; a key of `answers` is a question id, True means that it violates."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    media: tuple[Path, ...] = ()
    caption: str = ""
    answers: Annotated[dict[str, bool], Field(min_length=1)]
    weight: Annotated[float, Field(gt=0)] = 1.0
    cluster: str | None = None
    adjudicated: bool = True
    first: dict[str, bool] = Field(default_factory=dict)
    context: dict[str, Any] = Field(default_factory=dict)


def read_labels(path: Path) -> list[Labelled]:
    """Return the labelled uploads of a file or folder, with media paths made absolute.

    Raises:
        PipelineError: there is nothing to read, or a line is not a labelled upload.
    """
    file = _file_of(path)
    rows: Iterator[tuple[int, Any]] = _parquet(file) if file.suffix == ".parquet" else _lines(file)
    found = []
    for number, row in rows:
        try:
            labelled = Labelled.model_validate(row)
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"])
            raise PipelineError(f"{file}:{number}: {field}: {problem['msg']}") from error
        media = tuple(_inside(file.parent, medium, f"{file}:{number}") for medium in labelled.media)
        found.append(labelled.model_copy(update={"media": media}))
    if not found:
        raise PipelineError(f"{file}: no labelled uploads in it")
    return found


def _file_of(path: Path) -> Path:
    if path.is_dir():
        for name in ("labels.jsonl", "labels.parquet"):
            if (path / name).is_file():
                return path / name
        raise PipelineError(f"{path}: holds neither labels.jsonl nor labels.parquet")
    if not path.is_file():
        raise PipelineError(f"{path}: does not exist")
    return path


def _inside(folder: Path, medium: Path, where: str) -> Path:
    absolute = (folder / medium).resolve()
    if not absolute.is_file():
        raise PipelineError(f"{where}: media: {absolute} does not exist")
    return absolute


def _lines(file: Path) -> Iterator[tuple[int, Any]]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except json.JSONDecodeError as error:
                    raise PipelineError(f"{file}:{number}: not JSON: {error.msg}") from error


def _parquet(file: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow.parquet as pq

    for number, row in enumerate(pq.read_table(file).to_pylist(), start=1):
        kept = {key: value for key, value in row.items() if value is not None}
        for name in ("answers", "first"):
            if isinstance(kept.get(name), list):  # Parquet's map type comes as pairs
                kept[name] = dict(kept[name])
            if isinstance(kept.get(name), dict):
                kept[name] = {k: v for k, v in kept[name].items() if v is not None}
        yield number, kept
