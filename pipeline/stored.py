"""Archived decisions in columns, as the backtest looks at them: who asked for what, and what was answered.

Uploads whose circumstances are the same to every rule make one group.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.archive import Archive
from pipeline.messages import DECISIONS
from policies.question import Question
from policies.schema import Action, Policy, PolicySet, Status

Flags = NDArray[np.bool_]
Numbers = NDArray[np.float64]
Codes = NDArray[np.int32]

#: What makes a group: context as JSON, language, has media, has text.
Circumstances = tuple[str, str | None, bool, bool]
#: What of each row, and of each finding, is read from the archive.
_ROW: Final = (
    "decision_id",
    "content_id",
    "surface",
    "regions",
    "language",
    "context",
    "media",
    "text",
    "action",
    "queue",
    "decided_at",
)
_FINDING: Final = (
    "question",
    "question_digest",
    "score",
    "probability",
    "whole",
    "whole_score",
    "calibration",
    "answered_by",
)
_WHICH: Final = ("decided_by", "fault")


def selected(archive: Archive, *, since: datetime) -> Iterator[Any]:
    """Yield the pipeline's own decisions from this moment on, as tables with what `read` wants of them."""
    files = archive.files(DECISIONS, since_day=since.strftime("%Y-%m-%d"))
    inner = [f"findings.list.element.{name}" for name in _FINDING]
    for table in archive.each(files, [*_ROW, *_WHICH, *inner]):
        ours = pc.and_(pc.equal(table["decided_by"], "pipeline"), pc.is_null(table["fault"]))
        recent = pc.greater_equal(table["decided_at"], pa.scalar(since))
        yield table.filter(pc.and_(ours, recent)).drop_columns(list(_WHICH))


def context_keys(policies: PolicySet) -> list[str]:
    """Return the keys of the context that a rule of these policies may look at."""
    named = {key for policy in policies for o in policy.overrides for key in o.when}
    return sorted(named | {"regions"})


def questions(policies: PolicySet) -> list[tuple[Policy, Question]]:
    """Return every question that the set asks, in the order in which `decide` sees them."""
    return [(p, q) for p in policies if p.status is not Status.DRAFT for q in p.questions]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """A column of few different values: each once, and of each row the number of its own."""

    values: list[Any]
    codes: Codes

    def count(self, rows: NDArray[Any], weights: Numbers | None = None) -> dict[Any, float]:
        """Return how often each value stands in these rows, each counted with its weight."""
        found = np.bincount(self.codes[rows], weights, minlength=len(self.values))
        return {v: n for v, n in zip(self.values, found.tolist(), strict=True) if n}

    def only(self, rows: NDArray[Any]) -> "Coded":
        """Return these rows of it."""
        return Coded(values=self.values, codes=self.codes[rows])

    def known(self) -> Flags:
        """Return which rows have a value."""
        return np.array([value is not None for value in self.values], bool)[self.codes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Archived decisions in columns; one row a decision, one column a question."""

    decision_ids: Any  # columns of Arrow: a million strings of Python take four times the room
    content_ids: Any
    surfaces: Coded
    languages: Coded
    #: Where it is shown, as tuples; None: everywhere.
    shown: Coded
    ranks: NDArray[np.int8]
    queues: Coded
    #: When each was decided, in microseconds since the epoch.
    decided_us: NDArray[np.int64]
    #: Of each row, which of `groups` it belongs to.
    group: Codes
    #: Circumstances that the rules tell apart.
    groups: list[Circumstances]
    #: Not a number where the question has no stored answer.
    probability: Numbers
    #: The probability of the picture read whole; not a number where it was not read in tiles.
    whole: Numbers
    fresh: Flags
    answered_by: Codes
    classifiers: list[str]
    #: Question id -> the digests of the wordings that were asked.
    digests: Mapping[str, frozenset[str]]
    #: How many archived decisions each row stands for; None: itself alone.
    stands_for: Numbers | None = None

    @property
    def weights(self) -> Numbers:
        """Return how many archived decisions each row stands for."""
        return np.ones(len(self.group)) if self.stands_for is None else self.stands_for

    def only(self, rows: NDArray[Any]) -> "Stored":
        """Return these rows of it."""
        return replace(
            self,
            decision_ids=self.decision_ids.take(pa.array(rows)),
            content_ids=self.content_ids.take(pa.array(rows)),
            surfaces=self.surfaces.only(rows),
            languages=self.languages.only(rows),
            shown=self.shown.only(rows),
            ranks=self.ranks[rows],
            queues=self.queues.only(rows),
            decided_us=self.decided_us[rows],
            group=self.group[rows],
            probability=self.probability[rows],
            whole=self.whole[rows],
            fresh=self.fresh[rows],
            answered_by=self.answered_by[rows],
            stands_for=None if self.stands_for is None else self.stands_for[rows],
        )


class _Coding:
    """Numbers for values, batch by batch."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._codes: list[Codes] = []

    def add(self, column: Any) -> None:
        whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        encoded = whole.dictionary_encode(null_encoding="encode")
        own = [self.number(value) for value in encoded.dictionary.to_pylist()]
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        self._codes.append(np.array(own, np.int32)[codes])

    def number(self, value: Any) -> int:
        return self._numbers.setdefault(value, len(self._numbers))

    def coded(self, value: Callable[[Any], Any] = lambda v: v) -> Coded:
        codes = np.concatenate([np.empty(0, np.int32), *self._codes])
        return Coded(values=[value(v) for v in self._numbers], codes=codes)


#: Columns that repeat few values.
_CODED: Final = (
    "surface",
    "shown",
    "language",
    "circumstances",
    "has_media",
    "has_text",
    "action",
    "queue",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """The answers of one table, row × question; not a number, false and -1 where there is none."""

    score: Numbers
    probability: Numbers
    #: Of the picture read whole, where it was read in tiles as well.
    whole_score: Numbers
    whole: Numbers
    fresh: Flags
    answered_by: Codes


#: Changes in place what answers mean; gets the names of the classifiers beside them.
Meant = Callable[[Read, Sequence[str]], None]


def read(tables: Iterable[Any], policies: PolicySet, *, meant: Meant = lambda *_: None) -> Stored:
    """Return archived decisions in the columns of this set's questions; `meant` may change what answers mean."""
    asked = questions(policies)
    keys = context_keys(policies)
    place = {question.id: n for n, (_, question) in enumerate(asked)}
    coding = {name: _Coding() for name in _CODED}
    ids: dict[str, list[Any]] = {"decision_id": [], "content_id": []}
    moments: list[Any] = []
    classifiers: dict[str, int] = {}
    digests: dict[str, set[str]] = {}
    found: list[tuple[Numbers, Numbers, Flags, Codes]] = []
    of_captions = np.array([question.reads == {"caption"} for _, question in asked], bool)
    for table in tables:
        for name, column in ids.items():
            column.append(table[name].combine_chunks())
        moments.append(table["decided_at"].cast(pa.int64()).to_numpy())
        answers = _findings(table, place, classifiers, digests)
        meant(answers, list(classifiers))
        found.append((answers.probability, answers.whole, answers.fresh, answers.answered_by))
        # Where a question about captions was answered, there was text, if only in the pictures.
        read_text = np.asarray(~np.isnan(found[-1][0][:, of_captions]).all(axis=1), bool)
        for name, values in _repeating(table, keys, read_text=read_text).items():
            coding[name].add(values)
    width = len(asked)
    none = np.empty((0, width))
    empty = (none, none, none.astype(bool), none.astype(np.int32))
    parts = list(zip(*(found or [empty]), strict=True))
    group, groups = _grouped({n: c.coded() for n, c in coding.items()}, keys)
    ranks = coding["action"].coded(lambda action: Action(action).rank)
    return Stored(
        decision_ids=pa.chunked_array(ids["decision_id"], pa.string()).combine_chunks(),
        content_ids=pa.chunked_array(ids["content_id"], pa.string()).combine_chunks(),
        surfaces=coding["surface"].coded(),
        languages=coding["language"].coded(),
        shown=coding["shown"].coded(lambda s: None if s is None else tuple(json.loads(s))),
        ranks=np.array(ranks.values, np.int8)[ranks.codes],
        queues=coding["queue"].coded(),
        decided_us=np.concatenate([np.empty(0, np.int64), *moments]),
        group=group,
        groups=groups,
        probability=np.concatenate(parts[0]),
        whole=np.concatenate(parts[1]),
        fresh=np.concatenate(parts[2]),
        answered_by=np.concatenate(parts[3]),
        classifiers=list(classifiers),
        digests={name: frozenset(found) for name, found in digests.items()},
    )


def _repeating(table: Any, keys: list[str], *, read_text: Flags) -> dict[str, Any]:
    """Return the columns that repeat few values.

    Of the context only what a rule asks for: reach differs from upload to upload, so that with it every upload would
    be a group of its own.
    """
    # JSON pointers, as strings of SQL: whatever an author calls a key, it stays a key.
    escapes = str.maketrans({"~": "~0", "/": "~1", "'": "''"})
    pointers = ", ".join(f"'/{key.translate(escapes)}'" for key in keys)
    with duckdb.connect(":memory:") as connection:
        connection.register("part", table.select(["regions", "context"]))
        plain = connection.sql(
            "SELECT to_json(regions)::VARCHAR AS shown, "  # noqa: S608 -- our own words
            f"to_json(json_extract(context, [{pointers}]))::VARCHAR AS circumstances FROM part"
        ).to_arrow_table()
    return {
        **{name: table[name] for name in ("surface", "language", "action", "queue")},
        **{name: plain[name] for name in plain.column_names},
        "has_media": pc.greater(pc.list_value_length(table["media"]), 0),
        "has_text": pc.or_(pc.is_valid(table["text"]), pa.array(read_text)),
    }


def _grouped(coded: Mapping[str, Coded], keys: list[str]) -> tuple[Codes, list[Circumstances]]:
    parts = [coded[n] for n in ("circumstances", "language", "has_media", "has_text")]
    number = np.zeros(len(parts[0].codes), np.int64)
    for part in parts:
        number = number * len(part.values) + part.codes
    _, where, group = np.unique(number, return_index=True, return_inverse=True)
    groups = []
    for row in where.tolist():
        said, language, media, text = (part.values[part.codes[row]] for part in parts)
        values = dict(zip(keys, json.loads(said), strict=True))
        context = json.dumps({k: v for k, v in values.items() if v is not None})
        groups.append((context, language, bool(media), bool(text)))
    return group.astype(np.int32), groups


def _findings(
    table: Any, place: Mapping[str, int], classifiers: dict[str, int], digests: dict[str, set[str]]
) -> Read:
    found = table["findings"].combine_chunks()
    rows = pc.list_parent_indices(found).to_numpy(zero_copy_only=False)
    flat = pc.list_flatten(found)

    def coded(name: str) -> tuple[list[str], NDArray[Any]]:
        encoded = pc.struct_field(flat, name).dictionary_encode()
        return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False)

    shape = (table.num_rows, len(place))
    score, probability, whole_score, whole = (np.full(shape, np.nan) for _ in range(4))
    read = Read(
        score=score,
        probability=probability,
        whole_score=whole_score,
        whole=whole,
        fresh=np.zeros(shape, bool),
        answered_by=np.full(shape, -1, np.int32),
    )
    if not len(flat):
        return read
    names, name = coded("question")
    wordings, wording = coded("question_digest")
    for pair in np.unique(name.astype(np.int64) * len(wordings) + wording):
        digests.setdefault(names[pair // len(wordings)], set()).add(wordings[pair % len(wordings)])
    column = np.array([place.get(n, -1) for n in names], np.int32)[name]
    kept = column >= 0
    at = (rows[kept], column[kept])

    def numbers(name: str) -> Numbers:
        found: Numbers = pc.struct_field(flat, name).to_numpy(zero_copy_only=False)[kept]
        return found

    values = numbers("probability")
    probability[at] = np.where((values >= 0) & (values <= 1), values, np.nan)
    score[at] = numbers("score")
    # Archives of before they were kept do not have them.
    for column_name, into in (("whole", whole), ("whole_score", whole_score)):
        if flat.type.get_field_index(column_name) >= 0:
            into[at] = numbers(column_name)
    states, state = coded("calibration")
    read.fresh[at] = np.array([s == "fresh" for s in states])[state][kept]
    makers, maker = coded("answered_by")
    own = np.array([classifiers.setdefault(m, len(classifiers)) for m in makers], np.int32)
    read.answered_by[at] = own[maker][kept]
    return read
