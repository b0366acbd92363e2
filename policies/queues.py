"""The queues in which people look at uploads: `queues.yaml`."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, StrictBool

from policies.errors import Fault
from policies.notation import Duration, PrimaryLanguage, Slug, Strict, nearest

#: Queues that the pipeline itself puts jobs into: unreadable uploads, appeals, and each reason of escalation.
REQUIRED = ("intake", "appeals", "minor_safety", "threat_to_life", "terrorism", "legal", "other")


class Queue(Strict):
    """One queue."""

    title: str = ""
    """Name of the queue for people."""
    lane: Literal["urgent", "normal"] = "normal"
    """`urgent` is always served before `normal`; ageing never lifts a job into it."""
    due: Duration = timedelta(hours=24)
    """By when a person should have looked, unless a policy says otherwise."""
    languages: tuple[PrimaryLanguage, ...] = ()
    """Languages of which a reviewer needs at least one; empty: any."""
    skills: tuple[Slug, ...] = ()
    """Skills that a reviewer needs, all of them, like graphic or legal."""
    sealed: StrictBool = False
    """Whether only people who are named for this queue may see its jobs."""
    overdue: Literal["raise", "escalate"] = "raise"
    """What happens past the due time: `raise` puts the job first in its lane, `escalate` moves it to `escalate_to`."""
    escalate_to: Slug | None = None
    """The queue to which overdue jobs go."""


class QueueFile(Strict):
    """All queues, by name."""

    queues: Annotated[Mapping[Slug, Queue], Field(min_length=1)]
    """Each queue by its name."""


def faults(file: QueueFile) -> Iterator[Fault]:
    """Yield what is wrong with the queues among each other."""
    for name in REQUIRED:
        if name not in file.queues:
            yield Fault(
                path=("queues",),
                what=f"the queue {name} is missing",
                remedy="add it: the pipeline itself puts jobs there",
            )
    for name, queue in file.queues.items():
        path = ("queues", name, "escalate_to")
        if queue.overdue == "escalate" and queue.escalate_to is None:
            yield Fault(
                path=("queues", name, "overdue"),
                what="overdue jobs go to no queue",
                remedy="add escalate_to: QUEUE",
            )
        elif queue.overdue != "escalate" and queue.escalate_to is not None:
            yield Fault(
                path=path,
                what="escalate_to has no effect",
                remedy="add overdue: escalate, or delete it",
                level="warning",
            )
        elif queue.escalate_to is not None and queue.escalate_to not in file.queues:
            meant = nearest(queue.escalate_to, file.queues)
            yield Fault(
                path=path,
                what=f"there is no queue {queue.escalate_to}",
                remedy=f"did you mean {meant}?" if meant else "declare it in this file",
            )
        elif queue.escalate_to is not None and file.queues[queue.escalate_to].sealed:
            yield Fault(
                path=path,
                what=f"the queue {queue.escalate_to} is sealed, and time alone seals nothing",
                remedy="let overdue jobs go to a queue that is not sealed: people move them on",
            )
        elif queue.escalate_to is not None and _circular(name, file.queues):
            yield Fault(
                path=path,
                what="overdue jobs come back to this queue",
                remedy="let the last queue of the way say overdue: raise",
            )


def _circular(start: str, queues: Mapping[str, Queue]) -> bool:
    at, seen = start, set[str]()
    while (queue := queues.get(at)) and queue.escalate_to and at not in seen:
        seen.add(at)
        at = queue.escalate_to
    return at == start
