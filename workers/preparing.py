"""Media on their way to pictures: the crew of preparers, and a worker of our own for suspects."""

import itertools
from collections.abc import Callable
from typing import Final

from workers.actors import Crashed, Kept
from workers.attempts import blame
from workers.batching import Line
from workers.crew import Crew, Failed, Failure, Member
from workers.errors import PoisonError, WorkerError
from workers.passage import Passage
from workers.scaling import Scale
from workers.window import Window

#: Uploads in one call; few, because all of them wait for the slowest for a while.
TOGETHER: Final = 8
#: How long they wait for it; whoever is not ready then is asked for alone.
_TOGETHER_S: Final = 0.25
#: How long a call waits for one that was not ready in time.
_ALONE_S: Final = 5.0
#: Calls at one worker at once.
_DEPTH: Final = 2


class Preparing:
    """Hands media to preparers, as many at once as the window lets in."""

    def __init__(
        self,
        crew: Crew,
        quarantine: Crew,
        scale: Scale,
        window: Window,
        *,
        done: Callable[[Passage, Kept, float], None],
        fault: Callable[[Passage, WorkerError], None],
    ) -> None:
        """Make it; the `quarantine` is a crew that no other process shares."""
        self.crew = crew
        self.quarantine = quarantine
        self.line = Line()
        self.working = 0
        self._suspects = Line()
        self._scale = scale
        self._window = window
        self._done = done
        self._fault = fault
        self._tickets = itertools.count(1)

    def __len__(self) -> int:
        return len(self.line) + len(self._suspects) + self.working

    def tick(self, now_s: float) -> None:
        """Do what is due."""
        self.crew.wanted = self._scale.wanted(
            waiting=len(self.line), working=self.working, batch=TOGETHER, now_s=now_s
        )
        self.crew.tick(now_s)
        self.quarantine.wanted = min(
            1, len(self._suspects) + sum(member.load for member in self.quarantine.members.values())
        )
        if not self.quarantine.wanted:
            self.quarantine.dismiss()
        self.quarantine.tick(now_s)

    def late(self, before_s: float) -> list[tuple[Passage, Crew]]:
        """Take out and return those that have waited since before this moment for a crew that is away."""
        return [
            (passage, crew)
            for crew, line in ((self.crew, self.line), (self.quarantine, self._suspects))
            if crew.away_for(before_s)
            for passage in line.leave(before_s)
        ]

    def work(self, now_s: float) -> None:
        """Hand out what there is room for."""
        for member in self.quarantine.ready:
            if not member.load and (taken := self._suspects.take(TOGETHER)):
                self._start(member, taken[1], now_s)
        for member in self.crew.ready[: self.crew.wanted]:
            while len(self.line) and member.load < _DEPTH and (room := self._window.room) > 0:
                share = -(-len(self.line) // (_DEPTH * len(self.crew.ready)))
                taken = self.line.take(min(room, share, TOGETHER))
                if taken is None:
                    break
                self._start(member, taken[1], now_s)

    def _start(self, member: Member, group: list[Passage], now_s: float) -> None:
        for passage in group:
            passage.since_s = now_s
            if passage.wanted is None:
                self._window.enter(passage)
        ticketed = [(next(self._tickets), passage) for passage in group]
        self._ask(member, ticketed, _TOGETHER_S if len(group) > 1 else _ALONE_S)

    def _ask(self, member: Member, ticketed: list[tuple[int, Passage]], wait_s: float) -> None:
        group = [passage for _, passage in ticketed]
        self.working += len(group)

        def done(outcomes: list[Kept | WorkerError | Crashed | None], now_s: float) -> None:
            self.working -= len(group)
            member.crew.answered(now_s, None)
            for (ticket, passage), outcome in zip(ticketed, outcomes, strict=True):
                if passage.gone:
                    continue
                if outcome is None:
                    self._ask(member, [(ticket, passage)], _ALONE_S)
                elif isinstance(outcome, Kept):
                    self._done(passage, outcome, now_s)
                elif isinstance(outcome, Crashed):
                    self._window.leave(passage)
                    self._blame([passage], outcome.detail, now_s, certain=True)
                else:
                    self._fault(passage, outcome)

        def failed(why: Failed, now_s: float) -> None:
            self.working -= len(group)
            for passage in group:
                self._window.leave(passage)
            if why.failure is Failure.DIED:
                certain = member.crew is self.quarantine
                self._blame(group, why.detail, now_s, certain=certain)
            else:
                self.line.put_back(group)

        uploads = [(ticket, passage.upload) for ticket, passage in ticketed]
        member.crew.give(
            member, "prepare", (uploads, wait_s), done=done, failed=failed, uploads=len(group)
        )

    def _blame(self, group: list[Passage], detail: str, now_s: float, *, certain: bool) -> None:
        again, poisons = blame(group, certain=certain, now_s=now_s)
        for suspects in again:
            self._suspects.put_suspects(suspects)
        for passage in poisons:
            self._fault(passage, PoisonError("killed_preparer", detail))
