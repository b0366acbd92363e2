"""What stands beside a job: items with such media, what the same author sent before, and what became of them.

An item is known here once it was handed out. Nothing that lies or lay in a sealed queue is remembered or shown;
beside an item of known answer nothing is shown that would tell it.
"""

from collections.abc import Iterable
from datetime import UTC
from typing import Any, Final

from pipeline.desk import Desk
from pipeline.messages import Decision, Ticket
from pipeline.redis import Entry, Shelf
from pipeline.review import NEAR, Person, bands, differ, open_to

#: How many are remembered for one medium and one author, how many of them are shown, and for how long.
_KEPT: Final = 30
_SHOWN: Final = 5
_FOR_S: Final = 7 * 24 * 3600
_CAPTION: Final = 160

_DONE: Final = {
    "allow": "allowed",
    "restrict": "restricted",
    "hold": "held back",
    "remove": "removed",
}


class Neighbours:
    """Remembers which jobs share media or an author."""

    def __init__(self, desk: Desk, shelf: Shelf) -> None:
        self._desk = desk
        self._shelf = shelf

    def of(self, entry: Entry, person: Person, *, hidden: bool) -> dict[str, list[dict[str, Any]]]:
        """Return what stands beside a job that this person may see, and remember the job.

        `hidden` leaves out what no person decided.
        """
        if entry.ticket is None or entry.part == "golden":
            return {"similar": [], "author_before": []}
        if self._desk.hides(entry):
            return {"similar": [], "author_before": []}
        decision = entry.ticket.decision
        same = [f"alike:{digest}" for digest in decision.content.media]
        looks = [f"looks:{band}" for band in bands(entry.hashes)]
        author = [f"author:{decision.author_id}"] if decision.author_id else []
        like_it = dict.fromkeys(self._shelf.pushed(same), True)
        # What waits and looks the same stands beside the job anyhow, to be answered with it.
        like_it |= {job: False for job in self._look_like(entry, looks) if job not in like_it}
        similar = self._shown(entry, person, like_it, hidden=hidden)
        before = self._shown(entry, person, self._shelf.pushed(author), hidden=hidden)
        found = {
            "similar": [{**said, "same": like_it[job]} for job, said in similar.items()],
            "author_before": list(before.values()),
        }
        self._shelf.push((*same, *author), entry.job_id, keep=_KEPT, for_s=_FOR_S)
        kept = f"{','.join(entry.hashes)} {entry.job_id}"
        self._shelf.push(looks, kept, keep=_KEPT, for_s=_FOR_S)
        return found

    def _look_like(self, entry: Entry, names: list[str]) -> list[str]:
        """Return the jobs whose media look like those of this one, the most alike first."""
        found = []
        for kept in self._shelf.pushed(names):
            hashes, _, job_id = kept.partition(" ")
            bits = differ(entry.hashes, hashes.split(","))
            if bits <= NEAR and self._desk.queue.marker(job_id) is not None:
                found.append((bits, job_id))
        return [job_id for _, job_id in sorted(found)]

    def _shown(
        self, entry: Entry, person: Person, jobs: Iterable[str], *, hidden: bool
    ) -> dict[str, dict[str, Any]]:
        """Return what became of jobs, as far as this person may see it."""
        found: dict[str, dict[str, Any]] = {}
        for job_id in jobs:
            if job_id == entry.job_id or len(found) == _SHOWN:
                continue
            said = self._became(job_id, person, hidden=hidden)
            if said is not None:
                found[job_id] = said
        return found

    def _became(self, job_id: str, person: Person, *, hidden: bool) -> dict[str, Any] | None:
        marker = self._desk.queue.marker(job_id)
        if marker is None:
            waiting = self._desk.entry(job_id)
            if waiting is None or waiting.ticket is None:
                return None
            if not self._may(person, waiting.ticket, waiting.queue, waiting.policies):
                return None
            text = waiting.ticket.event.text
            return {"caption": text[:_CAPTION], "became": "waits for a person", "at": None}
        made = next((t for m in marker.made if (t := self._desk.queue.ticket(m)) is not None), None)
        if made is None or (hidden and made.decision.decided_by != "person"):
            return None
        at_issue = tuple(f.policy for f in made.decision.findings if f.outcome != "none")
        if not self._may(person, made, marker.queue, at_issue):
            return None
        return {
            "caption": made.event.text[:_CAPTION],
            "became": self._words(made.decision),
            "at": marker.at.astimezone(UTC).isoformat(),
        }

    def _may(self, person: Person, ticket: Ticket, queue: str, policies: tuple[str, ...]) -> bool:
        """Return whether a person may see, and wants to see, an item of this queue and these policies."""
        return (
            not self._desk.sealed(queue)
            and self._desk.queue.sealed(ticket) is None
            and queue in open_to(person, self._desk.queues)
            and not set(policies) & set(person.opt_outs)
            and (person.policies is None or set(policies) <= set(person.policies))
        )

    def _words(self, decision: Decision) -> str:
        by = "by a person" if decision.decided_by == "person" else "by the pipeline"
        known = self._desk.policies().by_name
        why = known[decision.notice].title if decision.notice and decision.notice in known else ""
        return f"{_DONE[decision.action.value]} {by}" + (f": {why}" if why else "")
