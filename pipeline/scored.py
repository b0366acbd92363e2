"""Labelled uploads with what a classifier says of them: what calibration and evaluation start from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.labels import Labelled
from pipeline.reliability import Vector
from policies.question import Question
from workers.classifier import Classification, Classifier, Item, asked
from workers.errors import (
    CheckpointError,
    ClassifierUnavailableError,
    MediaRefusedError,
    MediaUnavailableError,
    WorkerError,
)
from workers.folder import FolderStore
from workers.reading import Reading
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
    #: Which labels are more than one person's word; None: all are.
    adjudicated: NDArray[np.bool_] | None = None
    #: What the first person said where others looked again, NaN elsewhere; None: nobody knows.
    first: Vector | None = None

    @property
    def settled(self) -> NDArray[np.bool_]:
        """Return which labels are more than one person's word."""
        return np.ones(len(self.labels), bool) if self.adjudicated is None else self.adjudicated

    def take(self, rows: NDArray[Any]) -> "Scores":
        """Return some of the rows."""
        return Scores(
            scores=self.scores[rows],
            labels=self.labels[rows],
            weights=self.weights[rows],
            clusters=tuple(np.array(self.clusters, object)[rows]),
            adjudicated=None if self.adjudicated is None else self.adjudicated[rows],
            first=None if self.first is None else self.first[rows],
        )

    def one_a_cluster(self, seed: int) -> "Scores":
        """Return one row of each cluster: near-duplicates are not independent, and count once."""
        order = np.random.default_rng(seed).permutation(len(self.labels))
        _, at = np.unique(np.array(self.clusters, str)[order], return_index=True)
        return self if len(at) == len(order) else self.take(np.sort(order[at]))


def score(
    labelled: Sequence[Labelled],
    classifier: Classifier,
    questions: Sequence[Question],
    *,
    reading: Reading,
    advance: Callable[[int], None] = lambda _: None,
    refused: Callable[[Labelled, str], None] = lambda _row, _why: None,
) -> Mapping[str, Scores]:
    """Return the scores of every question that was labelled and that the classifier covers.

    An upload whose media cannot be read, or that the classifier refuses, is reported to `refused` and left out.

    Raises:
        CheckpointError, ClassifierUnavailableError: the classifier answers nothing at all.
    """
    covered = {q.id: q for q in questions if classifier.covers(q)}
    rows: dict[str, list[tuple[float, Labelled]]] = {name: [] for name in covered}
    for batch in _batches(labelled):
        items = [(row, item_of(row, reading, refused)) for row in batch]
        readable = [(row, item) for row, item in items if item is not None]
        wanted = [
            q
            for q in covered.values()
            if any(q.id in r.answers and asked(q, i, classifier.reads) for r, i in readable)
        ]
        if readable and wanted:
            for row, found in _answers(classifier, readable, wanted, refused):
                for answer in found:
                    if answer.question in row.answers:
                        rows[answer.question].append((answer.score, row))
        advance(len(batch))
    return {name: _columns(name, found) for name, found in rows.items() if found}


def _answers(
    classifier: Classifier,
    readable: Sequence[tuple[Labelled, Item]],
    questions: Sequence[Question],
    refused: Callable[[Labelled, str], None],
) -> Iterator[tuple[Labelled, Sequence[Classification]]]:
    """Yield what is said of each upload; where a call fails, its uploads are asked one by one."""
    try:
        found = classifier.classify([item for _, item in readable], questions)
    except (CheckpointError, ClassifierUnavailableError):  # no other upload would fare better
        raise
    except WorkerError as error:
        if len(readable) == 1:
            refused(readable[0][0], str(error))
            return
        for one in readable:
            yield from _answers(classifier, [one], questions, refused)
    else:
        yield from zip((row for row, _ in readable), found, strict=True)


def _batches(labelled: Sequence[Labelled]) -> Iterator[Sequence[Labelled]]:
    for start in range(0, len(labelled), _BATCH):
        yield labelled[start : start + _BATCH]


def item_of(
    row: Labelled, reading: Reading, refused: Callable[[Labelled, str], None]
) -> Item | None:
    """Return the upload as a classifier gets it; None, and a word to `refused`, where its media cannot be read."""
    if not row.media:
        return Item(caption=row.caption)
    media = tuple(Location(uri=str(path)) for path in row.media)
    try:
        return reading.item(
            Upload(key=0, media=media, caption=row.caption), FolderStore(row.media[0].parent)
        )
    except (MediaRefusedError, MediaUnavailableError) as error:
        refused(row, str(error))
        return None


def _columns(question: str, found: Sequence[tuple[float, Labelled]]) -> Scores:
    return Scores(
        scores=np.array([score for score, _ in found], float),
        labels=np.array([row.answers[question] for _, row in found], float),
        weights=np.array([row.weight for _, row in found], float),
        clusters=tuple(row.cluster or row.id for _, row in found),
        adjudicated=np.array([row.adjudicated for _, row in found], bool),
        first=np.array([row.first.get(question, np.nan) for _, row in found], float),
    )
