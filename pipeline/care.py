"""Care for reviewers: how much of what is hard to see one person bears in a day, and in a row.

A point is a minute of clear view times the severity's weight (1, 3, 10, 30). Exposure is counted from reveals in the
log, so a lost Redis forgets none of it, and is enforced where jobs are handed out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one person may bear."""

    #: Points a day; beyond it only mild jobs are handed out.
    a_day: float = 600.0
    #: Points without a break; beyond it nothing is handed out until the break is over.
    in_a_row: float = 150.0
    #: How long such a break lasts; a pause as long ends a row by itself.
    rest: timedelta = timedelta(minutes=10)
    #: The heaviest severity weight that somebody whose day is used up may still be handed.
    mild: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reveal:
    """Somebody saw media clearly for some time."""

    at: datetime
    seconds: float
    weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """What one person has borne."""

    day: date | None = None
    points: float = 0.0
    run: float = 0.0
    last: datetime | None = None
    rest_until: datetime | None = None

    def ceiling(self, budget: Budget, now: datetime) -> float:
        """Return the heaviest severity weight that may be handed out now; 0 during a break."""
        if self.rest_until is not None and now < self.rest_until:
            return 0.0
        used_up = self.day == now.date() and self.points >= budget.a_day
        return budget.mild if used_up else float("inf")


def borne(reveals: Iterable[Reveal], budget: Budget) -> Exposure:
    """Return the exposure that reveals, in the order of the log, add up to."""
    exposure = Exposure()
    for reveal in reveals:
        exposure = _after(exposure, reveal, budget)
    return exposure


def _after(before: Exposure, reveal: Reveal, budget: Budget) -> Exposure:
    if before.day is not None and reveal.at.date() < before.day:
        return before
    points = reveal.weight * reveal.seconds / 60
    today = before.points if before.day == reveal.at.date() else 0.0
    unbroken = before.last is not None and reveal.at - before.last < budget.rest
    run = (before.run if unbroken else 0.0) + points
    tired = run >= budget.in_a_row
    return Exposure(
        day=reveal.at.date(),
        points=today + points,
        run=0.0 if tired else run,
        last=reveal.at,
        rest_until=reveal.at + budget.rest if tired else before.rest_until,
    )
