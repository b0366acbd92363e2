"""The archive: every decision and every verdict as rows of Parquet files, one folder a topic and day.

A file is named after its topic, partition, and the first and last offset of the batch that it was written from, so
that a batch that is written again replaces itself. A file is whole or not there: it is written beside its place and
renamed. Where files overlap (a batch cut otherwise after a crash, a compaction that died), readers take each record
once. What lies or ever lay in a sealed queue is left out by all readers here, also where it was archived before.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from pipeline.archived_rows import COLUMNS, SEALS
from pipeline.config import Store
from pipeline.errors import RefusedError
from pipeline.messages import DECISIONS, SHADOWS
from pipeline.records import Partition

_NAME: Final = re.compile(
    r"(?P<topic>[\w.-]+)-(?P<partition>\d+)-(?P<first>\d+)-(?P<last>\d+)\.parquet"
)
_ASIDE: Final = ".writing"
#: Rows that a reader has to hold at once.
_GROUP_ROWS: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ArchiveFile:
    """One file of the archive; `first` and `last` are the offsets of the batch that it came from."""

    topic: str
    day: str
    partition: int
    first: int
    last: int

    @property
    def path(self) -> str:
        """Return where the file lies below the archive's root."""
        name = f"{self.topic}-{self.partition}-{self.first}-{self.last}.parquet"
        return f"{self.topic}/day={self.day}/{name}"


class Archive:
    """A folder, or `s3://BUCKET/PREFIX`, of Parquet files."""

    def __init__(self, root: str, store: Store) -> None:
        self.name = root
        if root.startswith("s3://"):
            keys = (store.access_key, store.secret_key)
            access, secret = (None if k is None else k.get_secret_value() for k in keys)
            self._system = fs.S3FileSystem(
                access_key=access,
                secret_key=secret,
                region=store.region,
                endpoint_override=store.endpoint,
            )
            self._root = root.removeprefix("s3://").rstrip("/")
            self._folder: Path | None = None
        else:
            self._system = fs.LocalFileSystem()
            self._folder = Path(root).absolute()
            self._root = str(self._folder)

    def write(self, file: ArchiveFile, table: pa.Table) -> None:
        """Write a file so that it is either there whole and durable, or not at all.

        Raises:
            RefusedError: it cannot be written; the message says why.
        """
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", row_group_size=_GROUP_ROWS)
        data = sink.getvalue()
        try:
            if self._folder is None:
                # An object of S3 appears when its upload is complete.
                with self._system.open_output_stream(f"{self._root}/{file.path}") as stream:
                    stream.write(data)
            else:
                _write_durably(self._folder / file.path, data)
        except OSError as error:
            raise RefusedError(
                f"the archive {self.name} cannot be written: {error}; see WEIR_ARCHIVE"
            ) from error

    def remove(self, files: Iterable[ArchiveFile]) -> None:
        """Remove files; one that is gone already is no fault."""
        for file in files:
            with suppress(FileNotFoundError):
                self._system.delete_file(f"{self._root}/{file.path}")

    def files(self, topic: str, *, since_day: str = "") -> list[ArchiveFile]:
        """Return the files of a topic, by day, partition and offset.

        Raises:
            RefusedError: the archive cannot be listed.
        """
        where = fs.FileSelector(f"{self._root}/{topic}", recursive=True, allow_not_found=True)
        try:
            listed = self._system.get_file_info(where)
        except OSError as error:
            raise RefusedError(
                f"the archive {self.name} cannot be read: {error}; see WEIR_ARCHIVE"
            ) from error
        found = []
        for info in listed:
            folder, _, name = info.path.rpartition("/")
            match = _NAME.fullmatch(name)
            day = folder.rpartition("/day=")[2]
            if match is not None and match["topic"] == topic and day >= since_day:
                numbers = {k: int(match[k]) for k in ("partition", "first", "last")}
                found.append(ArchiveFile(topic=topic, day=day, **numbers))
        return sorted(found)

    def sealed(self) -> frozenset[str]:
        """Return the contents that lie or lay in a sealed queue, and whatever else has their media, byte for byte.

        Raises:
            RefusedError: a file cannot be read.
        """
        contents: set[str] = set()
        media: set[str] = set()
        for topic in SEALS.values():
            for table in self._each(self.files(topic), ["content_id", "media"]):
                contents.update(table["content_id"].drop_null().to_pylist())
                media.update(pc.list_flatten(table["media"]).to_pylist())
        if media:
            theirs = pa.array(media, pa.string())
            for topic in (DECISIONS, SHADOWS):
                for table in self._each(self.files(topic), ["content_id", "media"]):
                    column = table["media"].combine_chunks()
                    rows = pc.list_parent_indices(column)
                    same = rows.filter(pc.is_in(pc.list_flatten(column), theirs))
                    contents.update(table["content_id"].take(same).drop_null().to_pylist())
        return frozenset(contents)

    def dataset(
        self, files: Sequence[ArchiveFile], topic: str, *, without: Collection[str]
    ) -> ds.Dataset:
        """Return these files of one topic as one table that is read as it is needed, without these contents.

        Whoever does not write the files anew leaves out what is `sealed`.
        """
        if not files:
            return ds.dataset(COLUMNS[topic].empty_table())
        found = ds.dataset(
            [f"{self._root}/{file.path}" for file in files],
            schema=COLUMNS[topic],
            filesystem=self._system,
            format="parquet",
        )
        return found.filter(~pc.field("content_id").isin(list(without))) if without else found

    def each(
        self, files: Sequence[ArchiveFile], columns: Sequence[str], *, whole: bool = False
    ) -> Iterator[pa.Table]:
        """Yield these files, which come sorted, as tables of these columns, each record once.

        A column may be a leaf, like `findings.list.element.score`: only what is named is decoded. What is sealed is
        left out, unless the `whole` is wanted by somebody who writes the files anew.

        Raises:
            RefusedError: a file cannot be read.
        """
        hidden = frozenset() if whole else self.sealed()
        if not hidden:
            yield from self._each(files, columns)
            return
        theirs = pa.array(hidden, pa.string())
        named = list(dict.fromkeys((*columns, "content_id")))
        for table in self._each(files, named):
            kept = table.filter(pc.invert(pc.is_in(table["content_id"], theirs)))
            yield kept if "content_id" in columns else kept.drop_columns(["content_id"])

    def _each(self, files: Sequence[ArchiveFile], columns: Sequence[str]) -> Iterator[pa.Table]:
        ends: dict[tuple[str, int], int] = {}
        for file in files:
            place = (file.day, file.partition)
            # A file holds every record of its range, so what earlier ones reach to is in one of them.
            behind = ends.get(place, -1)
            ends[place] = max(file.last, behind)
            try:
                with (
                    self._system.open_input_file(f"{self._root}/{file.path}") as source,
                    pq.ParquetFile(source) as parquet,
                ):
                    for batch in parquet.iter_batches(_GROUP_ROWS, columns=["offset", *columns]):
                        table = pa.Table.from_batches([batch])
                        if file.first <= behind:
                            table = table.filter(pc.greater(table["offset"], behind))
                        yield table
            except OSError as error:
                raise RefusedError(
                    f"the archive {self.name} cannot be read: {error}; see WEIR_ARCHIVE"
                ) from error

    def sweep(self) -> None:
        """Remove what a writer that died left half written."""
        if self._folder is not None and self._folder.is_dir():
            for path in self._folder.glob(f"*/*/*{_ASIDE}"):
                path.unlink(missing_ok=True)

    def forget(
        self, place: Partition, first: int, *, last: int | None = None, keep: Iterable[ArchiveFile]
    ) -> None:
        """Remove the files of a partition whose batch began at `first` or behind it, and ended by `last`."""
        kept = set(keep)
        self.remove(
            file
            for file in self.files(place.topic)
            if file.partition == place.number
            and file.first >= first
            and (last is None or file.last <= last)
            and file not in kept
        )

    def compact(self, topic: str, *, before_day: str) -> int:
        """Make one file of each partition's files of a past day, and return how many were made."""
        by_place: dict[tuple[str, int], list[ArchiveFile]] = {}
        for file in self.files(topic):
            if file.day < before_day:
                by_place.setdefault((file.day, file.partition), []).append(file)
        made = 0
        for (day, partition), several in by_place.items():
            if len(several) < 2:  # noqa: PLR2004 -- one file is compact
                continue
            whole = ArchiveFile(
                topic=topic,
                day=day,
                partition=partition,
                first=min(file.first for file in several),
                last=max(file.last for file in several),
            )
            # What was sealed since leaves the files at last; what seals it stays.
            without = frozenset() if topic in SEALS.values() else self.sealed()
            self.write(whole, once(self.dataset(several, topic, without=without).to_table()))
            self.remove(file for file in several if file != whole)
            made += 1
        return made


def overlapping(files: Sequence[ArchiveFile]) -> bool:
    """Return whether a record may stand in two of these files, which come sorted."""
    ends: dict[tuple[str, int], int] = {}
    for file in files:
        key = (file.day, file.partition)
        if file.first <= ends.get(key, -1):
            return True
        ends[key] = max(file.last, ends.get(key, -1))
    return False


def once(table: pa.Table) -> pa.Table:
    """Return the rows of one topic, each record once, in order."""
    ordered = table.sort_by([("partition", "ascending"), ("offset", "ascending")])
    if len(ordered) < 2:  # noqa: PLR2004 -- a row alone is there once
        return ordered
    here, before = ordered.slice(1), ordered.slice(0, len(ordered) - 1)
    same = pc.and_(
        pc.equal(here["partition"].combine_chunks(), before["partition"].combine_chunks()),
        pc.equal(here["offset"].combine_chunks(), before["offset"].combine_chunks()),
    )
    return ordered.filter(pa.concat_arrays([pa.array([True]), pc.invert(same)]))


def table_of(topic: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows of one topic as a table."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=COLUMNS[topic])


def _write_durably(path: Path, data: pa.Buffer) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + _ASIDE)
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    # The names are durable only once their folders are.
    for folder in (path.parent, path.parent.parent, path.parent.parent.parent):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
