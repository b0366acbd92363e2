"""Erasures applied to the archive: personal fields go, the chain of decisions stays readable.

What stays: ids of contents, events and decisions, what was decided when, by which rule, with which score. What goes:
the author, the context beyond where it was shown, digests of media and text (that there were some stays), places in the
media, reasons in words, the notes of reviewers, and of the upload itself its caption and where its media lie.

What seals a content stays, with the digests of its media: without them the same bytes, sent by others, would come to
light again.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive import Archive, ArchiveFile
from pipeline.archived_rows import ERASED, MOMENTS, SCHEMAS
from pipeline.legal import Erasures
from pipeline.messages import DECISIONS, SHADOWS, UPLOADS, VERDICTS

_OF_ROWS: Final[Mapping[str, tuple[str, ...]]] = {
    DECISIONS: ("author_id",),
    SHADOWS: ("author_id",),
    VERDICTS: ("note",),
    UPLOADS: ("author_id", "uris", "content_types", "caption"),
}
_OF_FINDINGS: Final = ("rationale", "rationale_clause", "media", "time_s")


def apply(archive: Archive, erasures: Erasures, files: Iterable[ArchiveFile] | None = None) -> int:
    """Erase in these files, or in all, and return how many rows were erased that were not before.

    Raises:
        RefusedError: a file cannot be read or written.
    """
    if not erasures:
        return 0
    erased = 0
    for file in [f for t in SCHEMAS for f in archive.files(t)] if files is None else files:
        rows = _matching(archive, file, erasures)
        if not any(rows):
            continue
        whole = archive.dataset([file], file.topic, without=()).to_table()
        table = _without(whole, file.topic, pa.array(rows))
        if not table.equals(whole):
            # The same name: the file with the fields in it is replaced in one step.
            archive.write(file, table)
            erased += sum(rows)
    return erased


def contents_of(archive: Archive, author: str) -> list[str]:
    """Return the contents of an author that the archive knows, in order.

    Raises:
        RefusedError: a file cannot be read.
    """
    found: set[str] = set()
    for table in archive.each(archive.files(DECISIONS), ["author_id", "content_id"], whole=True):
        theirs = table.filter(pc.equal(table["author_id"], author))
        found.update(theirs["content_id"].to_pylist())
    return sorted(found)


def _matching(archive: Archive, file: ArchiveFile, erasures: Erasures) -> list[bool]:
    names = ["content_id"] if file.topic == VERDICTS else ["content_id", "author_id"]
    moments = MOMENTS[file.topic]
    found: list[bool] = []
    # Alone, a file overlaps with nothing, so that its rows come as they stand in it.
    for table in archive.each([file], [*names, moments], whole=True):
        authors = table["author_id"] if "author_id" in table.column_names else None
        contents = table["content_id"] if "content_id" in table.column_names else None
        named = _in(contents, erasures.contents, len(table))
        named = pc.or_(named, _in(authors, erasures.authors, len(table)))
        found += [False] * len(table)
        begin = len(found) - len(table)
        for row in pc.indices_nonzero(named).to_pylist():
            at = table[moments][row].as_py()
            until = (
                _until(contents, row, erasures.contents),
                _until(authors, row, erasures.authors),
            )
            found[begin + row] = any(moment is not None and at <= moment for moment in until)
    return found


def _in(column: Any, names: Mapping[str, datetime], count: int) -> Any:
    if column is None or not names:
        return pa.array([False] * count)
    return pc.is_in(column.combine_chunks(), value_set=pa.array(list(names), pa.string()))


def _until(column: Any, row: int, names: Mapping[str, datetime]) -> datetime | None:
    name = None if column is None else column[row].as_py()
    return None if name is None else names.get(name)


def _without(table: Any, topic: str, rows: Any) -> Any:
    for name in _OF_ROWS[topic]:
        nothing = pa.nulls(len(table), table.schema.field(name).type)
        table = _put(table, name, pc.if_else(rows, nothing, table[name].combine_chunks()))
    if topic not in {DECISIONS, SHADOWS}:
        return table
    kept = ["media", "text", "context", "surface", "regions", "findings"]
    plain = table.select(kept).to_pylist()
    for row in pc.indices_nonzero(rows).to_pylist():
        values = plain[row]
        values["media"] = None if values["media"] is None else [ERASED] * len(values["media"])
        values["text"] = None if values["text"] is None else ERASED
        shown = {name: values[name] for name in ("regions", "surface")}
        values["context"] = json.dumps({k: v for k, v in shown.items() if v is not None})
        for finding in values["findings"] or ():
            finding.update(dict.fromkeys(_OF_FINDINGS))
    for name in ("media", "text", "context", "findings"):
        column = pa.array([values[name] for values in plain], table.schema.field(name).type)
        table = _put(table, name, column)
    return table


def _put(table: Any, name: str, column: Any) -> Any:
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
