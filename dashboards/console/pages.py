"""Pages: templates with the person they are for; what leaves here is never kept by a browser."""

from pathlib import Path
from typing import Any, Final

from fastapi import Request
from starlette.responses import Response
from starlette.templating import Jinja2Templates

from dashboards.console.access import Visit, site_of

HOUSE: Final = Path(__file__).parent
_TEMPLATES: Final = Jinja2Templates(directory=HOUSE / "templates")
#: The views in the order of the menu: route, path, title.
_VIEWS: Final = (
    ("triage_page", "/triage", "Review"),
    ("lead_page", "/lead", "Queues"),
    ("wellbeing_page", "/wellbeing", "Wellbeing"),
    ("own_page", "/own", "You"),
)


def page(
    request: Request, name: str, visit: Visit | None, *, status: int = 200, **values: Any
) -> Response:
    """Return a page."""
    views = [
        {"path": path, "title": title, "here": request.url.path == path}
        for route, path, title in _VIEWS
        if visit is not None and visit.may(route)
    ]
    context = {"visit": visit, "views": views, "provider": _provider(request), **values}
    return _TEMPLATES.TemplateResponse(request, f"{name}.html", context, status_code=status)


def _provider(request: Request) -> str:
    """Return the name of whoever else signs people in."""
    oidc = site_of(request).oidc
    return "" if oidc is None else oidc.settings.title


def first_view(visit: Visit) -> str:
    """Return the path of the first view that this person's roles open."""
    return next(path for route, path, _ in _VIEWS if visit.may(route))
