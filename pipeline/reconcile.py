"""Every upload's record against what became of it, counted by source. Pure.

One outcome is a decision; or a dead letter with its hold beside it; or a dead letter alone. A person's later decision
has the verdict's record for its source, so it counts for no upload.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pipeline.deadletters import parse_source
from pipeline.messages import DEAD_LETTERS, DECISIONS, RESCORE, UPLOADS
from pipeline.records import Partition, Record

_INTAKE: Final = (UPLOADS, RESCORE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What the count found."""

    uploads: int
    decided: int
    dead_letters: int
    waiting: int
    #: Records without an outcome below one that has one of the same partition: lost, or still on their way.
    missing: tuple[str, ...]
    #: Sources with more than one outcome.
    doubled: tuple[str, ...]
    #: Outcomes whose record is not there (any more): beyond retention, or from elsewhere.
    foreign: int

    @property
    def balanced(self) -> bool:
        """Return whether every upload that is not waiting has exactly one outcome."""
        return not self.missing and not self.doubled


def count(records: Iterable[Record]) -> Account:
    """Return the account of these records of uploads, rescores, decisions and dead letters, in any order."""
    uploads: set[tuple[Partition, int]] = set()
    decisions: Counter[tuple[Partition, int]] = Counter()
    letters: Counter[tuple[Partition, int]] = Counter()
    for record in records:
        if record.topic in _INTAKE:
            uploads.add((record.place, record.offset))
            continue
        source = parse_source((record.header("weir_source") or b"").decode("utf-8", "replace"))
        if source is None or source[0].topic not in _INTAKE:
            continue
        if record.topic == DECISIONS:
            decisions[source] += 1
        elif record.topic == DEAD_LETTERS:
            letters[source] += 1
    outcomes = decisions.keys() | letters.keys()
    furthest: dict[Partition, int] = {}
    for place, offset in outcomes:
        furthest[place] = max(offset, furthest.get(place, -1))
    open_records = uploads - outcomes
    missing = [(p, o) for p, o in open_records if o < furthest.get(p, -1)]
    doubled = [key for key in outcomes if decisions[key] > 1 or letters[key] > 1]
    return Account(
        uploads=len(uploads),
        decided=len(decisions.keys() & uploads),
        dead_letters=len(letters.keys() & uploads),
        waiting=len(open_records) - len(missing),
        missing=tuple(_name(key) for key in sorted(missing)),
        doubled=tuple(_name(key) for key in sorted(doubled)),
        foreign=len(outcomes - uploads),
    )


def _name(key: tuple[Partition, int]) -> str:
    place, offset = key
    return f"{place.topic}/{place.number}/{offset}"
