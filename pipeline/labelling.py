"""Archived uploads that people judged, as labelled uploads: a folder that `labels.read_labels` reads.

What is sealed never comes this far: the archive's readers leave it out. What was erased has no caption and no media
any more. What was sealed or erased while media were fetched is taken out again at last. The folder is its owner's
alone, and whole or not there: `labels.jsonl` is written last.
"""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pipeline.answered import Answered
from pipeline.archive import Archive
from pipeline.contents import uploads_of
from pipeline.errors import RefusedError
from pipeline.labels import Labelled
from pipeline.refitting import labels_for
from policies.question import Question
from policies.schema import Policy
from workers.bounds import Bounds
from workers.errors import WorkerError
from workers.media import originals
from workers.sniff import sniff
from workers.store import Store
from workers.upload import Upload

_LABELS: Final = "labels.jsonl"
_MEDIA: Final = "media"
_DRAFT: Final = f".{_LABELS}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """People's answers that count for what is asked."""

    #: Decision id -> the answers about it.
    answers: Mapping[str, Sequence[Answered]]
    #: How many answers to the same questions were given under another version of their policy.
    other_version: int


@dataclass(slots=True, kw_only=True)
class Written:
    """What an export holds, and how many uploads it lacks."""

    uploads: int = 0
    #: Question id -> how many answers say that it is violated (True), and how many that it is not.
    answers: dict[str, Counter[bool]] = field(default_factory=dict)
    #: Erased, changed since, never kept, or sealed or erased while this was written.
    not_archived: int = 0
    #: Media that are gone, are others by now, or did not come.
    without_media: int = 0


def choose(answers: Sequence[Answered], asked: Sequence[tuple[Policy, Question]]) -> Chosen:
    """Return the answers that count for these questions: of the same version, in whatever words they were asked."""
    kept: dict[str, list[Answered]] = {}
    for policy, question in asked:
        for answer in labels_for(policy, question, answers):
            kept.setdefault(answer.decision_id, []).append(answer)
    ids = {question.id for _, question in asked}
    theirs = sum(answer.question in ids for answer in answers)
    return Chosen(answers=kept, other_version=theirs - sum(map(len, kept.values())))


def rows_of(upload: Upload, media: Sequence[Path], answers: Sequence[Answered]) -> list[Labelled]:
    """Return an upload with the answers about it: one row a chance of having been asked, and single words apart."""
    alike: dict[tuple[float, bool], list[Answered]] = {}
    for answer in answers:
        alike.setdefault((answer.chance, answer.final is not None), []).append(answer)
    return [
        Labelled(
            id=same[0].content_id,
            media=tuple(media),
            caption=upload.caption,
            answers={a.question: a.first if a.final is None else a.final for a in same},
            weight=1 / chance,
            cluster=same[0].cluster,
            adjudicated=settled,
            first={a.question: a.first for a in same} if settled else {},
            context=_context(same[0]),
        )
        for (chance, settled), same in alike.items()
    ]


def vacant(folder: Path) -> None:
    """Raise `RefusedError`, which says what lies there, unless an export may be written into this folder."""
    try:
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    except OSError as error:
        raise RefusedError(f"{folder} cannot be read: {error.strerror}") from error
    if not names:
        return
    if names == {_LABELS, _MEDIA}:
        raise RefusedError(f"{folder} holds an export already: remove it first, or name another")
    if {name for name in names if not name.startswith(_DRAFT)} == {_MEDIA}:
        raise RefusedError(f"{folder} holds an export that broke off: remove it first")
    raise RefusedError(f"{folder} is not empty, and what is in it is no export: name another")


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Writes judged uploads into a folder."""

    archive: Archive
    store: Store
    bounds: Bounds

    def write(
        self,
        answers: Mapping[str, Sequence[Answered]],
        folder: Path,
        *,
        advance: Callable[[int], None] = lambda _: None,
        left_out: Callable[[str, str], None] = lambda _content, _why: None,
    ) -> Written:
        """Write the uploads that these answers are about, and return what was written.

        An upload whose media cannot be had is told to `left_out`, with the reason.

        Raises:
            RefusedError: the archive cannot be read, the folder cannot be written, or nothing is left to write.
        """
        vacant(folder)
        uploads = uploads_of(self.archive, answers)
        written = Written()
        with _whole(folder) as media:
            made: dict[str, list[Labelled]] = {}
            for decision, said in answers.items():
                upload = uploads.get(decision)
                if upload is None:
                    written.not_archived += 1
                else:
                    try:
                        names = self._media(upload, media)
                        made[decision] = rows_of(upload, names, said)
                    except WorkerError as error:
                        written.without_media += 1
                        left_out(said[0].content_id, str(error))
                advance(1)
            # Fetching takes its time, in which people seal and erase.
            still = uploads_of(self.archive, made)
            written.not_archived += len(made) - len(still)
            rows = [row for decision in made if decision in still for row in made[decision]]
            _keep(rows, media)
            if not rows:
                raise RefusedError(
                    f"of {len(answers):,} judged uploads none can be exported: {written.not_archived:,} are not in "
                    "the archive as they were judged (`weir archive run` keeps uploads: WEIR_ARCHIVE_UPLOADS), and "
                    f"the media of {written.without_media:,} cannot be had"
                )
            text = "".join(row.model_dump_json(exclude_defaults=True) + "\n" for row in rows)
            _put(folder / _LABELS, text.encode())
        written.uploads = len({row.id for row in rows})
        for row in rows:
            for question, violates in row.answers.items():
                written.answers.setdefault(question, Counter())[violates] += 1
        return written

    def _media(self, upload: Upload, folder: Path) -> list[Path]:
        """Write an upload's media, each under its digest, and return their places below the export."""
        found = []
        for digest, data in originals(upload, self.store, self.bounds):
            kind = sniff(data).mime.rpartition("/")[2]
            name = f"{digest.removeprefix('sha256:')}.{kind}"
            if not (folder / name).exists():
                _put(folder / name, data)
            found.append(Path(_MEDIA, name))
        return found


def _context(answer: Answered) -> dict[str, Any]:
    group = answer.group
    said = {"surface": group.surface, "language": group.language, "regions": list(group.regions)}
    return {name: value for name, value in said.items() if value}


def _keep(rows: Sequence[Labelled], folder: Path) -> None:
    """Remove the media that none of these rows has."""
    theirs = {medium.name for row in rows for medium in row.media}
    for path in folder.iterdir():
        if path.name not in theirs:
            path.unlink()


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """Make the folder and yield the one for media below it; where anything fails, nothing of it stays."""
    new = not folder.exists()
    media = folder / _MEDIA
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)  # it may have stood there, empty and open to all
        media.mkdir(mode=0o700)
    except OSError as error:
        raise _unwritten(folder, error) from error
    try:
        yield media
    except BaseException as error:
        shutil.rmtree(folder if new else media, ignore_errors=True)
        if isinstance(error, OSError):
            raise _unwritten(folder, error) from error
        raise


def _unwritten(folder: Path, error: OSError) -> RefusedError:
    return RefusedError(f"{folder} cannot be written: {error.strerror}")


def _put(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, readable by its owner alone."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    Path(draft).replace(path)
