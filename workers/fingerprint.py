"""What tells two pools apart: everything their workers depend on, as a short hexadecimal word."""

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

from workers.spec import BUNDLED, ClassifierSpec

_LENGTH: Final = 12
#: Of a large file its size and its first and last bytes are read: a checkpoint may have a hundred gigabytes.
_SAMPLE_BYTES: Final = 1 << 20


def of_values(*values: Any) -> str:
    """Return the fingerprint of plain values."""
    return hashlib.sha256(repr(values).encode()).hexdigest()[:_LENGTH]


@cache
def of_code() -> str:
    """Return the fingerprint of the code that runs inside workers, and of what it shares with the pipeline."""
    house = Path(__file__).resolve().parent.parent
    return _of_files(
        path
        for folder in ("policies", "workers")
        for path in sorted((house / folder).rglob("*.py"))
    )


def of_classifier(spec: ClassifierSpec) -> str:
    """Return the fingerprint of a configured classifier: its settings, and its checkpoint if that is a folder."""
    folder = BUNDLED if spec.model == "bundled" else Path(spec.model)
    files = ""
    if spec.kind != "stub" and folder.is_dir():
        files = _of_files(
            path
            for path in sorted(folder.iterdir())
            if path.is_file()
            and path.suffix in {".json", ".safetensors", ".jinja", ".model", ".txt"}
        )
    return of_values(
        spec.name,
        spec.model,
        spec.kind,
        spec.revision,
        spec.dtype,
        spec.reads,
        spec.policies,
        sorted(spec.labels.items()),
        sorted(spec.options.items()),
        spec.rationales,
        files,
    )


def _of_files(paths: Iterator[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE_BYTES))
            if size > _SAMPLE_BYTES:
                file.seek(max(_SAMPLE_BYTES, size - _SAMPLE_BYTES))
                digest.update(file.read())
    return digest.hexdigest()[:_LENGTH]
