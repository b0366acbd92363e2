"""The exposure clock: it runs from the moment at which clear media are asked for, on the server.

The page says when it veils them again; where it does not (it was closed, its machine died), the clock stops by itself
at the end of a lease.
"""

import json
import time
from typing import Final

from pipeline.desk import Desk
from pipeline.errors import LeaseLostError
from pipeline.redis import Entry, Shelf
from pipeline.review import Person

#: A page that is alive reports at least this often; what runs longer unreported is cut here.
LONGEST_S: Final = 120.0
_KEEP_S: Final = 24 * 3600


class Clock:
    """Counts how long each person sees media clearly."""

    def __init__(self, desk: Desk, shelf: Shelf) -> None:
        self._desk = desk
        self._shelf = shelf

    def begin(self, person: Person, entry: Entry) -> None:
        """Start the clock for one job; whatever ran before is counted."""
        self.settle(person)
        self._shelf.put(
            f"seeing:{person.id}",
            json.dumps({"job": entry.job_id, "lease": entry.lease, "since": time.time()}),
            for_s=_KEEP_S,
        )

    def runs(self, person: Person, job_id: str) -> bool:
        """Return whether the clock of this job runs."""
        found = self._shelf.get(f"seeing:{person.id}")
        return found is not None and bool(json.loads(found)["job"] == job_id)

    def settle(self, person: Person, *, going_on: bool = False) -> None:
        """Count what the clock shows; afterwards it stands still, or goes on from here."""
        # Of two requests at the same moment only one takes it: nothing counts twice.
        found = self._shelf.take(f"seeing:{person.id}")
        if found is None:
            return
        said = json.loads(found)
        seconds = round(max(0.0, min(LONGEST_S, time.time() - said["since"])), 3)
        self._count(person, said["job"], said["lease"], seconds)
        if going_on:
            again = json.dumps({**said, "since": time.time()})
            self._shelf.put(f"seeing:{person.id}", again, for_s=_KEEP_S)

    def seconds(self, person: Person, job_id: str, lease: int) -> float | None:
        """Return for how long this person saw this job's media under this lease; None: never."""
        found = self._shelf.get(f"seen:{person.id}:{job_id}:{lease}")
        return None if found is None else float(found)

    def _count(self, person: Person, job_id: str, lease: int, seconds: float) -> None:
        before = self.seconds(person, job_id, lease) or 0.0
        self._shelf.put(
            f"seen:{person.id}:{job_id}:{lease}", str(round(before + seconds, 3)), for_s=_KEEP_S
        )
        try:
            self._desk.reveal(person, job_id, lease, seconds)
        except LeaseLostError:
            entry = self._desk.entry(job_id)
            # A job that was closed meanwhile has nothing left that says how hard it was to see.
            if entry is not None and entry.ticket is not None:
                self._desk.saw(person, entry, seconds)
