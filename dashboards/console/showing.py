"""What is handed to a page of a job: its sheet, what stands beside it, and links to its media."""

from typing import Any

from dashboards.console import signing
from dashboards.console.access import Visit
from dashboards.console.sheet import blind, sheet
from dashboards.console.site import Site
from pipeline.alike import neighbours
from pipeline.redis import Entry


def shown(site: Site, visit: Visit, entry: Entry) -> dict[str, Any]:
    """Return a job that this person holds as its page shows it; that it was shown is written down first."""
    sealed = site.desk.hides(entry)
    what = "viewed_sealed" if sealed else "viewed"
    site.audit(visit.id, what, job_id=entry.job_id, detail=f"queue {entry.queue}")
    hidden = blind(entry.job_id, site.blind)
    policies = site.desk.policies()
    then = None
    if entry.ticket is not None and entry.part == "appeal":
        digest = entry.ticket.decision.policy_set
        then = policies if digest == policies.digest else site.past(digest)
    return {
        **sheet(
            entry,
            policies,
            site.desk.queues,
            notes=site.desk.notes(entry.job_id),
            hidden=hidden,
            link=lambda index: link(site, visit, entry, index, clear=False),
            terms=None if entry.ticket is None else site.desk.terms(entry),
            then=then,
        ),
        "sealed": sealed,
        **site.neighbours.of(entry, visit.person, hidden=hidden),
        "near": [
            {
                "job": beside.entry.job_id,
                "caption": beside.entry.ticket.event.text if beside.entry.ticket else "",
                "bits": beside.bits,
                "together": beside.together,
            }
            for beside in neighbours(site.desk, visit.person, entry)
        ],
    }


def link(site: Site, visit: Visit, entry: Entry, index: int, *, clear: bool) -> str:
    """Return a link to one medium, for this person under this lease."""
    token = signing.link(
        site.secret,
        person=visit.id,
        job=entry.job_id,
        lease=entry.lease,
        index=index,
        clear=clear,
    )
    return f"/media/{token}"
