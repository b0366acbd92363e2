"""The review of jobs: the page, and the calls that it makes."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from dashboards.console import signing
from dashboards.console.access import Here, Visit, Who
from dashboards.console.pages import page
from dashboards.console.pictures import copy, nothing
from dashboards.console.sheet import blind
from dashboards.console.showing import link, shown
from dashboards.console.site import Site
from pipeline.alike import SHOWN, answer_together
from pipeline.desk import Answers
from pipeline.errors import LeaseLostError, RefusedError
from pipeline.messages import VerdictAnswer
from pipeline.redis import Entry
from pipeline.review import Person
from pipeline.verdicts import ESCALATIONS

#: How many jobs a page holds: the one that is shown and the one that comes next.
_AHEAD: Final = 2
#: For how long somebody who was heard of counts as being there.
_HERE_S: Final = 150
_LONGEST_BREAK: Final = timedelta(hours=2)

routes = APIRouter()

JobId = Annotated[str, Field(min_length=1, max_length=512)]
Words = Annotated[str, Field(max_length=4000)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Claim(_Body):
    """Which jobs the page has already, and how many it wants."""

    have: Annotated[tuple[JobId, ...], Field(max_length=20)] = ()
    want: Annotated[int, Field(ge=0, le=_AHEAD)] = _AHEAD


class Lease(_Body):
    """A job and the lease under which it is held; lease numbers are counted from 1."""

    job: JobId
    lease: Annotated[int, Field(ge=1, lt=2**53)]


class Said(Lease):
    """The answers to a job."""

    answers: Annotated[tuple[VerdictAnswer, ...], Field(max_length=100)] = ()
    note: Words = ""
    unclear: bool = False
    #: Jobs that look like this one and were marked: the same answers are given to each.
    also: Annotated[tuple[JobId, ...], Field(max_length=SHOWN)] = ()


class Reason(Lease):
    """Why a job is given away, and where it goes."""

    reason: Annotated[str, Field(max_length=500)] = ""
    queue: Annotated[str, Field(max_length=100)] = ""
    note: Words = ""


class Pause(_Body):
    """How long somebody rests."""

    minutes: Annotated[int, Field(ge=1, le=120)] = 10


@routes.get("/triage", name="triage_page")
def triage_page(request: Request, site: Here, visit: Who) -> Response:
    """Show the page; its jobs come by the calls below."""
    queues = {n: q.title or n for n, q in site.desk.queues.items() if not q.sealed}
    return page(
        request,
        "triage",
        visit,
        queues=queues,
        escalations=ESCALATIONS,
        lease_s=site.desk.rules.lease.total_seconds(),
        undo_s=site.desk.rules.undo_for.total_seconds(),
    )


@routes.post("/api/claim", name="claim")
def claim(body: Claim, site: Here, visit: Who) -> dict[str, Any]:
    """Hand out the jobs that come next, those first that this person holds already."""
    person = visit.person
    _is_here(site, visit)
    own = site.desk.own_break_until(person)
    if own is not None:
        until = own.isoformat()
        return {"jobs": [], "kept": [], "reason": "break", "until": until, "own": True}
    rests = site.desk.rests_until(person)
    if rests is not None:
        # What the page holds ahead is not for somebody who has just seen too much; what they saw, they may answer.
        kept = give_back(site, visit, but_seen=True)
        return {
            "jobs": [shown(site, visit, each) for each in kept if each.job_id not in body.have],
            "kept": [each.job_id for each in kept],
            "reason": "break",
            "until": rests.isoformat(),
            "own": False,
        }
    theirs = site.desk.held(person)
    held = [e for e in theirs if e.state == "leased" and e.job_id not in body.have]
    whole = [site.desk.entry(entry.job_id) for entry in held[: body.want]]
    entries = [entry for entry in whole if entry is not None and entry.holder == person.id]
    reason = ""
    if len(entries) < body.want:
        handed = site.desk.claim(person, count=body.want - len(entries))
        entries += handed.entries
        reason = handed.reason
    return {
        "jobs": [shown(site, visit, entry) for entry in entries],
        "reason": reason,
        # A page that was opened anew knows of no answer that can still be taken back.
        "last": None if body.have else _last(site, theirs),
    }


@routes.post("/api/renew", name="renew")
def renew(body: Lease, site: Here, visit: Who) -> dict[str, Any]:
    """Keep a lease alive; a clear view that goes on is counted so far."""
    person = visit.person
    _is_here(site, visit)
    until = site.desk.renew(person, body.job, body.lease)
    if site.clock.runs(person, body.job):
        site.clock.settle(person, going_on=True)
    return {"until": until.isoformat()}


@routes.post("/api/reveal", name="reveal")
def reveal(body: Lease, site: Here, visit: Who) -> dict[str, Any]:
    """Start the exposure clock and hand out links to the clear media."""
    person = visit.person
    entry = _held(site, person, body)
    site.audit(visit.id, "revealed", job_id=entry.job_id, detail=f"queue {entry.queue}")
    site.clock.begin(person, entry)
    count = len(entry.ticket.event.media) if entry.ticket else 0
    return {"media": [link(site, visit, entry, index, clear=True) for index in range(count)]}


@routes.post("/api/veil", name="veil")
def veil(body: Lease, site: Here, visit: Who) -> dict[str, Any]:
    """Stop the exposure clock."""
    person = visit.person
    if site.clock.runs(person, body.job):
        site.clock.settle(person)
    return {"seconds": site.clock.seconds(person, body.job, body.lease)}


@routes.get("/media/{token}", name="medium", response_class=Response)
def medium(token: str, site: Here, visit: Who) -> Response:
    """Send a copy of a medium: to the person, under the lease and for the time that its link was made for."""
    found = signing.opened(site.secret, token)
    if found is None or found.person != visit.id:
        raise HTTPException(403, "this link is not (or no more) for you")
    entry = _held(site, visit.person, Lease(job=found.job, lease=found.lease))
    if found.clear and not site.clock.runs(visit.person, found.job):
        raise HTTPException(403, "reveal the media first")
    if entry.ticket is None or found.index >= len(entry.ticket.event.media):
        raise HTTPException(404, "there is no such medium")
    if found.clear:
        detail = f"medium {found.index}, clear"
        site.audit(visit.id, "saw", job_id=found.job, detail=detail)
    elif site.desk.hides(entry):
        return Response(nothing(), media_type="image/jpeg")
    body = copy(entry.ticket.event, found.index, site.store, site.bounds, clear=found.clear)
    return Response(body, media_type="image/jpeg")


@routes.post("/api/answer", name="answer")
def answer(body: Said, site: Here, visit: Who) -> dict[str, Any]:
    """Take the answers, also for what was marked beside the job; all of them can be undone for a while."""
    person = visit.person
    entry = site.desk.entry(body.job)
    if site.clock.runs(person, body.job):
        site.clock.settle(person)
    said = Answers(
        answers=body.answers,
        note=body.note,
        policy_unclear=body.unclear,
        saw_model=not blind(body.job, site.blind),
        revealed_s=site.clock.seconds(person, body.job, body.lease),
    )
    verdict = site.desk.resolve(person, body.job, body.lease, said)
    site.audit(visit.id, "answered", job_id=body.job, detail=f"verdict {verdict.verdict_id}")
    done, left = [], []
    together = answer_together(site.desk, person, entry, body.also, said) if entry else []
    for one in together:
        if one.verdict is None:
            left.append({"job": one.job_id, "why": one.why})
            continue
        detail = f"verdict {one.verdict.verdict_id}, together with {body.job}"
        site.audit(visit.id, "answered", job_id=one.job_id, detail=detail)
        done.append({"job": one.job_id, "lease": one.verdict.lease})
    return {
        "undo_s": site.desk.rules.undo_for.total_seconds(),
        "also": done,
        "left": left,
        "rest": site.desk.rests_until(person) is not None,
    }


@routes.post("/api/undo", name="undo")
def undo(body: Lease, site: Here, visit: Who) -> dict[str, Any]:
    """Take the answers back that were not sent yet."""
    until = site.desk.undo(visit.person, body.job, body.lease)
    site.audit(visit.id, "undone", job_id=body.job)
    return {"until": until.isoformat()}


@routes.post("/api/release", name="release")
def release(body: Lease, site: Here, visit: Who) -> dict[str, Any]:
    """Give a job back, untouched."""
    _let_go(site, visit.person, body)
    site.desk.release(visit.person, body.job, body.lease)
    return {}


@routes.post("/api/skip", name="skip")
def skip(body: Reason, site: Here, visit: Who) -> dict[str, Any]:
    """Give a job back for a reason."""
    _let_go(site, visit.person, body)
    site.desk.skip(visit.person, body.job, body.lease, body.reason)
    return {}


@routes.post("/api/move", name="move")
def move(body: Reason, site: Here, visit: Who) -> dict[str, Any]:
    """Move a job to another queue."""
    _let_go(site, visit.person, body)
    site.desk.move(visit.person, body.job, body.queue, body.reason, lease=body.lease)
    return {}


@routes.post("/api/escalate", name="escalate")
def escalate(body: Reason, site: Here, visit: Who) -> dict[str, Any]:
    """Move a job to the queue of a reason of escalation."""
    _let_go(site, visit.person, body)
    site.desk.escalate(visit.person, body.job, body.lease, body.reason, body.note)
    return {}


@routes.post("/api/note", name="note")
def note(body: Reason, site: Here, visit: Who) -> dict[str, Any]:
    """Leave a note for whoever looks at the job next."""
    if not body.note.strip():
        raise RefusedError("there is nothing in this note")
    site.desk.note(visit.person, body.job, body.note, lease=body.lease)
    return {}


@routes.post("/api/break", name="take_break")
def take_break(body: Pause, site: Here, visit: Who) -> dict[str, Any]:
    """Begin a break: what is held goes back, and nothing is handed out until it is over."""
    span = min(timedelta(minutes=body.minutes), _LONGEST_BREAK)
    give_back(site, visit)
    until = site.desk.rest(visit.person, span)
    _is_here(site, visit)
    return {"until": until.isoformat()}


@routes.post("/api/break/end", name="end_break")
def end_break(site: Here, visit: Who) -> dict[str, Any]:
    """End one's own break."""
    site.desk.go_on(visit.person)
    return {}


def _last(site: Site, held: Sequence[Entry]) -> dict[str, Any] | None:
    """Return the job that was answered last, as long as it can be taken back."""
    found = [
        (verdict.decided_at, entry)
        for entry in held
        if entry.state == "pending" and (verdict := site.desk.queue.pending(entry.job_id))
    ]
    if not found:
        return None
    at, entry = max(found, key=lambda one: one[0])
    left = at + site.desk.rules.undo_for - datetime.now(UTC)
    return {"job": entry.job_id, "lease": entry.lease, "undo_s": max(0.0, left.total_seconds())}


def give_back(site: Site, visit: Visit, *, but_seen: bool = False) -> list[Entry]:
    """Give back every job that this person holds without an answer, or those only that they did not see clearly.

    Returns what they keep.
    """
    person = visit.person
    site.clock.settle(person, going_on=but_seen)
    kept = []
    for entry in site.desk.held(person):
        if entry.state != "leased":
            continue
        if but_seen and site.clock.seconds(person, entry.job_id, entry.lease) is not None:
            whole = site.desk.entry(entry.job_id)
            if whole is not None and whole.holder == person.id:
                kept.append(whole)
            continue
        site.desk.release(person, entry.job_id, entry.lease)
    return kept


def _held(site: Site, person: Person, lease: Lease) -> Entry:
    held = site.desk.entry(lease.job)
    mine = held is not None and held.job_id == lease.job and held.holder == person.id
    if held is None or not mine or held.lease != lease.lease or held.state != "leased":
        raise LeaseLostError(f"{person.id} does not hold {lease.job} under this lease: claim again")
    return held


def _let_go(site: Site, person: Person, lease: Lease) -> None:
    if site.clock.runs(person, lease.job):
        site.clock.settle(person)


def _is_here(site: Site, visit: Visit) -> None:
    site.shelf.put(f"here:{visit.id}", datetime.now(UTC).isoformat(), for_s=_HERE_S)
