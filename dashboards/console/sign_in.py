"""Signing in and out."""

import secrets
from typing import Annotated, Final

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from dashboards.console import access
from dashboards.console.access import COOKIE, Here, Who
from dashboards.console.pages import first_view, page
from dashboards.console.site import GUEST, Site

#: How often one may try within so long, from one address and for one account.
_TRIES_BY_ADDRESS: Final = 30
_TRIES_BY_ACCOUNT: Final = 10
_WINDOW_S: Final = 300

routes = APIRouter(include_in_schema=True)


@routes.get("/health", name="health")
def health(site: Here) -> dict[str, str]:
    """Say that the console and its Redis answer."""
    site.shelf.get("secret")
    return {"status": "ok"}


@routes.get("/sign-in", name="sign_in_page")
def sign_in_page(request: Request) -> Response:
    """Show the form."""
    return page(request, "sign_in", None, wrong="", identity="")


@routes.post("/sign-in", name="sign_in")
def sign_in(
    request: Request,
    site: Here,
    identity: Annotated[str, Form(max_length=64)],
    password: Annotated[str, Form(max_length=1024)],
) -> Response:
    """Sign somebody in who knows their password; too many tries are refused for a while, right or wrong."""
    address = request.client.host if request.client else ""
    tries = (
        site.shelf.count(f"tries:address:{address}", within_s=_WINDOW_S) - _TRIES_BY_ADDRESS,
        site.shelf.count(f"tries:account:{identity}", within_s=_WINDOW_S) - _TRIES_BY_ACCOUNT,
    )
    if max(tries) > 0:
        wrong = "Too many tries. Wait five minutes, then try again."
        return page(request, "sign_in", None, status=429, wrong=wrong, identity=identity)
    if not site.accounts.knows(identity, password):
        site.audit(identity, "refused", detail=f"sign-in from {address}")
        wrong = "This name and this password do not belong together."
        return page(request, "sign_in", None, status=401, wrong=wrong, identity=identity)
    site.shelf.drop(f"tries:account:{identity}")
    return _welcome(request, site, identity)


@routes.get("/welcome", name="welcome")
def welcome(request: Request, site: Here, token: str = "") -> Response:
    """Sign in whoever started the console on their own machine, by the link that they were shown."""
    if site.invitation is None or not secrets.compare_digest(
        token.encode(), site.invitation.encode()
    ):
        return RedirectResponse("/sign-in", status_code=303)
    return _welcome(request, site, GUEST)


@routes.get("/", name="home")
def home(visit: Who) -> Response:
    """Go to the first view that this person's roles open."""
    return RedirectResponse(first_view(visit), status_code=303)


@routes.post("/sign-out", name="sign_out")
def sign_out(request: Request, site: Here, visit: Who) -> Response:
    """End the session; what the clock of clear views shows is counted."""
    site.clock.settle(visit.person)
    access.end(site, request.cookies.get(COOKIE, ""))
    site.audit(visit.id, "signed_out")
    answer = RedirectResponse("/sign-in", status_code=303)
    answer.delete_cookie(COOKIE)
    return answer


def _welcome(request: Request, site: Site, identity: str) -> Response:
    site.audit(identity, "signed_in")
    answer = RedirectResponse("/", status_code=303)
    answer.set_cookie(
        COOKIE,
        access.begin(site, identity),
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
        max_age=int(site.session.total_seconds()),
    )
    return answer
