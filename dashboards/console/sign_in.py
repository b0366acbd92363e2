"""Signing in and out."""

import json
import secrets
from typing import Annotated, Final

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from dashboards.console import access
from dashboards.console.access import COOKIE, Here, Who
from dashboards.console.pages import first_view, page
from dashboards.console.site import GUEST, Site
from pipeline.errors import RefusedError
from pipeline.people import Account

#: How often one may try within so long: from one address, for one account from there, and for it from everywhere, which
#: is more, so that nobody shuts others out by trying their names.
_TRIES_BY_ADDRESS: Final = 30
_TRIES_FROM_THERE: Final = 10
_TRIES_BY_ACCOUNT: Final = 100
_WINDOW_S: Final = 300
_TOO_MANY: Final = "Too many tries. Wait five minutes, then try again."
#: How long somebody may take at the provider, and the cookie that ties the attempt to their browser.
_ERRAND_S: Final = 600
_ERRAND: Final = "weir_errand"
_ERRANDS_BY_ADDRESS: Final = 300

routes = APIRouter(include_in_schema=True)


@routes.get("/health", name="health")
def health(site: Here) -> dict[str, str]:
    """Say that the console and its Redis answer."""
    site.shelf.get("secret")
    return {"status": "ok"}


@routes.get("/sign-in", name="sign_in_page")
def sign_in_page(request: Request) -> Response:
    """Show the form."""
    return _again(request, 200, "")


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
        site.shelf.count(f"tries:{address}:{identity}", within_s=_WINDOW_S) - _TRIES_FROM_THERE,
        site.shelf.count(f"tries:account:{identity}", within_s=_WINDOW_S) - _TRIES_BY_ACCOUNT,
    )
    if max(tries) > 0:
        return _again(request, 429, _TOO_MANY, identity)
    if not site.accounts.knows(identity, password):
        site.audit(identity, "refused", detail=f"sign-in from {address}")
        wrong = "This name and this password do not belong together."
        return _again(request, 401, wrong, identity)
    site.shelf.drop(f"tries:{address}:{identity}")
    return _welcome(request, site, identity)


@routes.get("/sign-in/oidc", name="oidc_begin")
def oidc_begin(request: Request, site: Here) -> Response:
    """Send the browser to the provider; what it brings back must belong to this attempt of this browser."""
    if site.oidc is None:
        return RedirectResponse("/sign-in", status_code=303)
    address = request.client.host if request.client else ""
    if site.shelf.count(f"tries:oidc:{address}", within_s=_WINDOW_S) > _ERRANDS_BY_ADDRESS:
        return _again(request, 429, _TOO_MANY)
    try:
        errand = site.oidc.begin(_back(request, site))
    except RefusedError as error:
        return _again(request, 503, str(error))
    said = json.dumps({"nonce": errand.nonce, "verifier": errand.verifier})
    site.shelf.put(f"errand:{errand.state}", said, for_s=_ERRAND_S)
    answer = RedirectResponse(errand.url, status_code=303)
    answer.set_cookie(
        _ERRAND,
        errand.state,
        httponly=True,
        samesite="lax",
        secure=access.over_tls(request),
        max_age=_ERRAND_S,
        path="/sign-in",
    )
    return answer


@routes.get("/sign-in/oidc/back", name="oidc_back")
def oidc_back(
    request: Request,
    site: Here,
    code: Annotated[str, Query(max_length=4096)] = "",
    state: Annotated[str, Query(max_length=512)] = "",
) -> Response:
    """Sign in whom the provider vouches for."""
    mine = secrets.compare_digest(request.cookies.get(_ERRAND, "").encode(), state.encode())
    kept = site.shelf.take(f"errand:{state}") if state and mine else None
    if kept is None or not code or site.oidc is None:
        return _again(request, 401, "That attempt to sign in is over. Begin anew.")
    errand = json.loads(kept)
    try:
        identity, account = site.oidc.finish(code, **errand, back=_back(request, site))
    except RefusedError as error:
        site.audit("", "refused", detail=f"sign-in by the provider: {error}")
        return _again(request, 401, str(error))
    if site.accounts.find(identity) is not None:
        site.audit(identity, "refused", detail="sign-in by the provider: a local account")
        return _again(request, 401, f"{identity} is an account of this console: use its password.")
    return _welcome(request, site, identity, account)


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


def _again(request: Request, status: int, wrong: str, identity: str = "") -> Response:
    return page(request, "sign_in", None, status=status, wrong=wrong, identity=identity)


def _back(request: Request, site: Site) -> str:
    return (site.url or str(request.base_url).rstrip("/")) + "/sign-in/oidc/back"


def _welcome(
    request: Request, site: Site, identity: str, vouched: Account | None = None
) -> Response:
    site.audit(identity, "signed_in", detail="" if vouched is None else "by the provider")
    answer = RedirectResponse("/", status_code=303)
    answer.set_cookie(
        COOKIE,
        access.begin(site, identity, vouched),
        httponly=True,
        samesite="lax",
        secure=access.over_tls(request),
        max_age=int(site.session.total_seconds()),
    )
    return answer
