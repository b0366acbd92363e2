"""The lead's view: queues, people who are there, and what will be late; live by server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from dashboards.console.access import REVIEWING, Here, Who
from dashboards.console.pages import page
from dashboards.console.site import Site
from pipeline.redis import Depth
from pipeline.review import Person
from policies.queues import Queue

_EVERY_S: Final = 2.0
#: A stream ends after so long, and the browser asks anew: so a role that was taken away ends it, too.
_STREAM_S: Final = 300.0

routes = APIRouter()


class Stop(BaseModel):
    """A queue that is to be paused, or to go on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    queue: Annotated[str, Field(max_length=100)]
    pause: bool


@routes.get("/lead", name="lead_page")
def lead_page(request: Request, site: Here, visit: Who) -> Response:
    """Show queues and people; the numbers come by the stream."""
    return page(request, "lead", visit, state=_state(site, visit.person))


@routes.get("/lead/stream", name="lead_stream", response_class=StreamingResponse)
async def lead_stream(request: Request, site: Here, visit: Who, once: bool = False) -> Response:  # noqa: FBT001, FBT002 -- a query parameter
    """Send the numbers whenever they changed; with `once` they are sent one time."""

    async def events() -> AsyncIterator[str]:
        last = ""
        for _ in range(int(_STREAM_S / _EVERY_S)):
            if await request.is_disconnected():
                return
            state = json.dumps(await run_in_threadpool(_state, site, visit.person))
            if state != last:
                yield f"data: {state}\n\n"
                last = state
            if once:
                return
            await asyncio.sleep(_EVERY_S)

    return StreamingResponse(events(), media_type="text/event-stream")


@routes.post("/api/pause", name="pause")
def pause(body: Stop, site: Here, visit: Who) -> dict[str, Any]:
    """Hand out nothing of a queue, or go on."""
    change = site.desk.pause if body.pause else site.desk.resume
    change(visit.person, body.queue)
    site.audit(visit.id, "paused" if body.pause else "resumed", detail=body.queue)
    return {}


def forecast(depth: Depth, queue: Queue, *, elapsed: timedelta) -> int:
    """Return how many of the jobs that wait now will be late, if people go on at the rate of this time."""
    a_second = depth.closed / max(1.0, elapsed.total_seconds())
    in_time = int(a_second * queue.due.total_seconds())
    return max(depth.late, depth.open + depth.leased - in_time)


def _state(site: Site, lead: Person) -> dict[str, Any]:
    """Return the numbers of the queues that are this lead's, and who is there."""
    now = datetime.now(UTC)
    # The flow counts the last full hour and the running one.
    elapsed = timedelta(hours=1, minutes=now.minute, seconds=now.second)
    hours = elapsed.total_seconds() / 3600
    closed = site.desk.paused()
    rows = []
    for depth in site.desk.stats():
        queue = site.desk.queues[depth.queue]
        if lead.queues is not None and depth.queue not in (*lead.queues, *lead.sealed):
            continue
        rows.append(
            {
                "queue": depth.queue,
                "title": queue.title or depth.queue,
                "lane": queue.lane,
                "open": depth.open,
                "held": depth.leased,
                "answered": depth.waiting,
                "late": depth.late,
                "oldest_min": int(depth.oldest_s // 60),
                "in_an_hour": round(depth.arrived / hours, 1),
                "out_an_hour": round(depth.closed / hours, 1),
                "will_be_late": forecast(depth, queue, elapsed=elapsed),
                "paused": depth.queue in closed,
                "may_pause": site.desk.leads(lead, depth.queue),
            }
        )
    return {"queues": rows, "people": _people(site)}


def _people(site: Site) -> list[dict[str, str]]:
    """Return who is there. Why somebody is on a break, and what they have borne, is not a lead's to know."""
    people = site.people()
    here = site.shelf.several("here:", people)
    rows = []
    for identity, account in sorted(people.items()):
        if not REVIEWING & set(account.roles):
            continue
        who = account.person(identity)
        resting = site.desk.rests_until(who) or site.desk.own_break_until(who)
        state = "on break" if resting else "available" if identity in here else "away"
        rows.append({"id": identity, "name": account.name or identity, "state": state})
    return rows
