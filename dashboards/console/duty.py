"""Who does what next: the jobs that stand first or are held, and handing one of them to somebody."""

from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from dashboards.console.access import REVIEWING, Here, Who
from dashboards.console.figures import for_leads
from dashboards.console.site import Site
from pipeline.errors import RefusedError
from pipeline.redis import Entry

#: How many open jobs are listed.
_FIRST: Final = 20

routes = APIRouter()


class Handover(BaseModel):
    """A job and whom it goes to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: Annotated[str, Field(min_length=1, max_length=512)]
    to: Annotated[str, Field(min_length=1, max_length=100)]
    reason: Annotated[str, Field(max_length=500)] = ""


@routes.get("/api/duty", name="duty")
def duty(site: Here, visit: Who) -> dict[str, Any]:
    """Return the jobs that people hold and those that stand first, with who might take them; of content, nothing."""
    people = {n: a for n, a in site.people().items() if REVIEWING & set(a.roles)}
    lead = visit.person
    held = [
        entry
        for identity, account in people.items()
        for entry in site.desk.held(account.person(identity))
        if entry.state == "leased"
    ]
    jobs = [
        _row(site, entry)
        for entry in (*held, *site.desk.peek(lead, count=_FIRST))
        if site.desk.leads(lead, entry.queue, entry.policies)
    ]
    names = [{"id": n, "name": a.name or n} for n, a in sorted(people.items())]
    return {"jobs": jobs, "people": names}


@routes.post("/api/reassign", name="reassign")
def reassign(body: Handover, site: Here, visit: Who) -> dict[str, Any]:
    """Hand a job to somebody else, whoever holds it now."""
    account = site.people().get(body.to)
    if account is None:
        raise RefusedError(f"there is nobody of the name {body.to}")
    to = account.person(body.to, site.wishes.of(body.to).opt_outs)
    site.desk.reassign(visit.person, body.job, to, body.reason)
    site.audit(visit.id, "reassigned", job_id=body.job, detail=f"to {body.to}")
    return {}


@routes.get("/api/figures", name="figures")
def figures(site: Here, _visit: Who) -> dict[str, Any]:
    """Return what verdicts add up to so far."""
    return for_leads(site.desk.figures(), site.desk.policies())


def _row(site: Site, entry: Entry) -> dict[str, Any]:
    queue = site.desk.queues.get(entry.queue)
    titles = {policy.policy: policy.title for policy in site.desk.policies()}
    return {
        "job": entry.job_id,
        "queue": (queue.title if queue else "") or entry.queue,
        "policies": [titles.get(name, name) for name in entry.policies],
        "part": "first" if entry.part == "golden" else entry.part,
        "due": entry.due.isoformat(),
        "late": entry.late,
        "holder": entry.holder or "",
    }
