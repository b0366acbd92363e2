"""The breaker of `daily_cap`: how often each policy acted today, and which may act no more.

The count is shared by all pipeline processes through `counts`, looked at every second: what several of them do within
that second may go beyond the cap. Without it, or while it is away, each process counts for itself. What is decided and
not yet committed counts, too, and counts no more once it is forgotten.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from pipeline import telemetry
from pipeline.messages import Decision
from pipeline.records import Partition
from policies.schema import PolicySet, Status

#: How often the count of all processes is looked at.
_EVERY_S: Final = 1.0
#: How long a day's count is kept: time zones and late processes included.
_KEPT_S: Final = 3 * 86_400


class Counts(Protocol):
    """A count that several processes share."""

    def tally(self, name: str, more: int, *, for_s: int) -> int | None:
        """Add to the count of this name and return it; None: it is away, and nothing was added."""
        ...


def capped(policies: PolicySet) -> Mapping[str, int]:
    """Return the live policies that act only so often a day."""
    found: Mapping[str, int] | None = policies.remembered.get("caps")
    if found is None:
        found = policies.remembered["caps"] = {
            p.policy: p.daily_cap
            for p in policies
            if p.status is Status.LIVE and p.daily_cap is not None
        }
    return found


def acted(decision: Decision) -> frozenset[str]:
    """Return the policies that act in a decision."""
    return frozenset(f.policy for f in decision.findings if f.outcome == "acted")


@dataclass(slots=True, kw_only=True)
class Caps:
    """Counts what acts; days are those of UTC."""

    counts: Counts | None = None
    clock: Callable[[], float] = time.monotonic
    _day: str = ""
    #: What acted today in all processes as of the last look, and in this one since.
    _known: Counter[str] = field(default_factory=Counter)
    _since: Counter[str] = field(default_factory=Counter)
    #: What is decided and not committed: record -> the policies that act.
    _open: dict[tuple[Partition, int], frozenset[str]] = field(default_factory=dict)
    _opened: Counter[str] = field(default_factory=Counter)
    _look_at_s: float = float("-inf")
    _alarmed: set[str] = field(default_factory=set)

    def spent(self, policies: PolicySet, now: datetime) -> frozenset[str]:
        """Return the policies of this set that may act no more today."""
        caps = capped(policies)
        if not caps:
            return frozenset()
        day = now.strftime("%Y-%m-%d")
        if day != self._day:
            self._begin(day)
        if self.clock() >= self._look_at_s:
            self._look_at_s = self.clock() + _EVERY_S
            self._look(caps)
        over = frozenset(
            name
            for name, cap in caps.items()
            if self._known[name] + self._since[name] + self._opened[name] >= cap
        )
        for name in over - self._alarmed:
            self._alarmed.add(name)
            telemetry.capped(name, caps[name])
        return over

    def reserve(self, place: Partition, offset: int, decision: Decision) -> None:
        """Count what a decision does that is not committed yet."""
        self._release(place, offset)
        names = acted(decision)
        if names:
            self._open[place, offset] = names
            self._opened.update(names)

    def settle(self, place: Partition, offset: int) -> None:
        """Count a decision's acts for good: it is committed."""
        self._since.update(self._release(place, offset))

    def drop(self, place: Partition) -> None:
        """Forget what is not committed on a partition."""
        for where in [where for where in self._open if where[0] == place]:
            self._release(*where)

    def _release(self, place: Partition, offset: int) -> frozenset[str]:
        names = self._open.pop((place, offset), frozenset())
        self._opened.subtract(names)
        return names

    def _begin(self, day: str) -> None:
        for name in self._alarmed:
            telemetry.uncapped(name)
        self._day = day
        self._known.clear()
        self._since.clear()
        self._alarmed.clear()

    def _look(self, names: Mapping[str, int]) -> None:
        if self.counts is None:
            return
        for name in names:
            more = self._since[name]
            told = self.counts.tally(f"acted:{self._day}:{name}", more, for_s=_KEPT_S)
            if told is None:
                continue  # away: what this process knows goes on counting
            self._since[name] -= more
            # A Redis that was emptied meanwhile knows less than we do.
            self._known[name] = max(told, self._known[name] + more)
