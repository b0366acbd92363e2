"""What concerns a person themselves: their settings, what they have borne; and the view of whoever cares for them."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from dashboards.console import figures
from dashboards.console.access import REVIEWING, Here, Visit, Who
from dashboards.console.pages import page
from dashboards.console.site import Site
from dashboards.console.triage import give_back
from pipeline.errors import PipelineError, RefusedError
from pipeline.people import Account, Preferences

routes = APIRouter()


@routes.get("/own", name="own_page")
def own_page(request: Request, site: Here, visit: Who) -> Response:
    """Show a person's own settings and what they have borne."""
    return page(
        request,
        "own",
        visit,
        borne=_borne(site, visit.id, visit.account),
        policies=[(p.policy, p.title) for p in site.desk.policies()],
        budget=site.desk.rules.budget,
        reviews=bool(REVIEWING & set(visit.account.roles)),
        figures=_own_figures(site, visit),
    )


@routes.post("/own", name="keep_own")
def keep_own(
    site: Here,
    visit: Who,
    reveal: Annotated[str, Form(pattern="^(hold|toggle)$")] = "hold",
    blur: Annotated[str, Form(pattern="^(always|severe)$")] = "always",
    grey: Annotated[str, Form(max_length=3)] = "",
    opt_outs: Annotated[list[str] | None, Form(max_length=200)] = None,
) -> Response:
    """Keep a person's settings; jobs that they no longer want to see go back."""
    known = site.desk.policies().by_name
    unknown = [name for name in opt_outs or () if name not in known]
    if unknown:
        raise RefusedError("there is no such policy to opt out of")
    wishes = Preferences.model_validate(
        {
            "person": visit.id,
            "opt_outs": tuple(opt_outs or ()),
            "reveal": reveal,
            "blur": blur,
            "grey": bool(grey),
        }
    )
    site.wishes.keep(wishes)
    give_back(site, visit)
    return RedirectResponse("/own", status_code=303)


@routes.get("/wellbeing", name="wellbeing_page")
def wellbeing_page(request: Request, site: Here, visit: Who) -> Response:
    """Show what everybody has borne, their breaks and opt-outs: for those who care for them only."""
    site.audit(visit.id, "viewed_wellbeing")
    people = site.people()
    wishes = site.wishes.those_of(people)
    rows = [
        {
            **_borne(site, identity, account),
            "id": identity,
            "name": account.name or identity,
            "opt_outs": wishes[identity].opt_outs if identity in wishes else (),
        }
        for identity, account in sorted(people.items())
        if REVIEWING & set(account.roles)
    ]
    return page(request, "wellbeing", visit, rows=rows, budget=site.desk.rules.budget)


def _own_figures(site: Site, visit: Visit) -> list[dict[str, str]] | None:
    try:
        return figures.own(site.desk.figures(), visit.person, site.desk.policies())
    except PipelineError:
        # A log that cannot be read now is no reason to hide a person's settings from them.
        return None


def _borne(site: Site, identity: str, account: Account) -> dict[str, Any]:
    found = site.desk.exposure(account.person(identity))
    today = found.get("day") == datetime.now(UTC).date().isoformat()
    person = account.person(identity)
    ends = site.desk.own_break_until(person) or site.desk.rests_until(person)
    return {
        "points": round(float(found.get("points", 0)), 1) if today else 0.0,
        "run": round(float(found.get("run", 0)), 1),
        "until": ends.strftime("%H:%M UTC") if ends is not None else "",
    }
