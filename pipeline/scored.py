"""Labelled uploads with what a classifier says of them: what calibration and evaluation start from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.labels import Labelled
from pipeline.reliability import Vector
from policies.question import Question
from workers.bounds import Bounds
from workers.classifier import Classifier, Item, asked
from workers.errors import MediaRefusedError, MediaUnavailableError
from workers.folder import FolderStore
from workers.media import prepare
from workers.upload import Location, Upload

#: Uploads a call: enough to share the work of a call, few enough that a bar moves.
_BATCH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One question's scores (log-odds) beside people's answers, row by row."""

    scores: Vector
    labels: Vector
    weights: Vector
    clusters: tuple[str, ...]


def score(
    labelled: Sequence[Labelled],
    classifier: Classifier,
    questions: Sequence[Question],
    *,
    advance: Callable[[int], None] = lambda _: None,
    refused: Callable[[Labelled, str], None] = lambda _row, _why: None,
) -> Mapping[str, Scores]:
    """Return the scores of every question that was labelled and that the classifier covers.

    An upload whose media cannot be read is reported to `refused` and left out.
    """
    covered = {q.id: q for q in questions if classifier.covers(q)}
    rows: dict[str, list[tuple[float, bool, float, str]]] = {name: [] for name in covered}
    for batch in _batches(labelled):
        readable = [(row, item) for row in batch if (item := _item(row, refused)) is not None]
        wanted = [
            q
            for q in covered.values()
            if any(q.id in r.answers and asked(q, i, classifier.reads) for r, i in readable)
        ]
        if readable and wanted:
            answers = classifier.classify([item for _, item in readable], wanted)
            for (row, _), found in zip(readable, answers, strict=True):
                for answer in found:
                    if answer.question in row.answers:
                        rows[answer.question].append(
                            (answer.score, row.answers[answer.question], row.weight, _cluster(row))
                        )
        advance(len(batch))
    return {name: _columns(found) for name, found in rows.items() if found}


def _batches(labelled: Sequence[Labelled]) -> Iterator[Sequence[Labelled]]:
    for start in range(0, len(labelled), _BATCH):
        yield labelled[start : start + _BATCH]


def _item(row: Labelled, refused: Callable[[Labelled, str], None]) -> Item | None:
    if not row.media:
        return Item(caption=row.caption)
    folder = Path(row.media[0]).parent
    upload = Upload(key=0, media=tuple(Location(uri=str(path)) for path in row.media))
    try:
        prepared = prepare(upload, FolderStore(folder), Bounds())
    except (MediaRefusedError, MediaUnavailableError) as error:
        refused(row, str(error))
        return None
    return Item(pictures=prepared.pictures, caption=row.caption)


def _cluster(row: Labelled) -> str:
    return row.cluster or row.id


def _columns(found: Sequence[tuple[float, bool, float, str]]) -> Scores:
    scores, labels, weights, clusters = zip(*found, strict=True)
    return Scores(
        scores=np.array(scores, float),
        labels=np.array(labels, float),
        weights=np.array(weights, float),
        clusters=clusters,
    )
