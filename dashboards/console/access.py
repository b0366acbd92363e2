"""Who may what: one table of roles and routes, looked up before any route runs; what it does not name is refused."""

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from dashboards.console.site import Site
from pipeline.people import ROLES, Account, Preferences
from pipeline.review import Person

COOKIE: Final = "weir_session"
PUBLIC: Final[frozenset[str]] = frozenset()
ANYBODY: Final = frozenset(ROLES)
REVIEWING: Final = frozenset({"reviewer", "lead"})
LEADING: Final = frozenset({"lead"})
CARING: Final = frozenset({"wellbeing"})

#: Route -> who may use it; an empty set means everybody, signed in or not.
PERMITS: Final[Mapping[str, frozenset[str]]] = {
    "health": PUBLIC,
    "sign_in_page": PUBLIC,
    "sign_in": PUBLIC,
    "oidc_begin": PUBLIC,
    "oidc_back": PUBLIC,
    "welcome": PUBLIC,
    "home": ANYBODY,
    "sign_out": ANYBODY,
    "own_page": ANYBODY,
    "keep_own": ANYBODY,
    "triage_page": REVIEWING,
    "claim": REVIEWING,
    "renew": REVIEWING,
    "reveal": REVIEWING,
    "veil": REVIEWING,
    "medium": REVIEWING,
    "answer": REVIEWING,
    "undo": REVIEWING,
    "release": REVIEWING,
    "skip": REVIEWING,
    "move": REVIEWING,
    "escalate": REVIEWING,
    "note": REVIEWING,
    "take_break": REVIEWING,
    "end_break": REVIEWING,
    "lead_page": LEADING,
    "lead_stream": LEADING,
    "pause": LEADING,
    "duty": LEADING,
    "reassign": LEADING,
    "figures": LEADING,
    "wellbeing_page": CARING,
}

#: Route -> how many such calls one person may make in a minute; all that is not named shares the last number. They are
#: far above what the fastest reviewer needs, and far below what copies a queue out or keeps the log busy.
LIMITS: Final[Mapping[str, int]] = {
    "reveal": 300,
    "medium": 1200,
    "figures": 60,
    "lead_stream": 60,
    "duty": 120,
}
_LIMIT: Final = 3000
#: How many calls one address may make in a minute to routes that are open to everybody and guess at something.
_GUESSES: Final = 60
_MINUTE_S: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A signed-in person's request."""

    id: str
    account: Account
    preferences: Preferences
    csrf: str

    @property
    def person(self) -> Person:
        """Return who acts, as the desk knows them."""
        return self.account.person(self.id, self.preferences.opt_outs)

    def may(self, route: str) -> bool:
        """Return whether this person's roles permit a route."""
        return not PERMITS[route] or bool(PERMITS[route] & set(self.account.roles))


def site_of(request: Request) -> Site:
    """Return what the routes share."""
    site: Site = request.app.state.site
    return site


def begin(site: Site, person: str, vouched: Account | None = None) -> str:
    """Begin a session; return the cookie's value. Only its digest is kept.

    `vouched` is what a provider said of this person; without it, the file of people says it at each request.
    """
    token = secrets.token_urlsafe(32)
    said = {"person": person, "csrf": secrets.token_urlsafe(32)}
    if vouched is not None:
        said["vouched"] = vouched.model_dump_json()
        site.know(person, vouched)
    site.shelf.put(_session(token), json.dumps(said), for_s=int(site.session.total_seconds()))
    return token


def end(site: Site, token: str) -> None:
    """End a session."""
    site.shelf.drop(_session(token))


def visit_of(request: Request) -> Visit:
    """Return the visit of a request that the guard let pass."""
    visit: Visit | None = request.state.visit
    if visit is None:
        raise HTTPException(401, "sign in first")
    return visit


async def guard(request: Request) -> None:
    """Let a request pass, or turn it away: who is not signed in, whose role may not, what another site sent."""
    permits = PERMITS.get(getattr(request.scope.get("route"), "name", ""))
    request.state.visit = None
    if request.method not in {"GET", "HEAD"} and not _same_origin(request):
        raise HTTPException(403, "this came from another site")
    if permits is None:
        raise HTTPException(403, "nobody may do this")
    if not permits:
        await run_in_threadpool(_count_guess, request)
        return
    visit = await run_in_threadpool(_visit, site_of(request), request.cookies.get(COOKIE, ""))
    if visit is None:
        raise HTTPException(401, "sign in first")
    request.state.visit = visit
    await run_in_threadpool(_count, request, visit)
    if not permits & set(visit.account.roles):
        raise HTTPException(403, f"this is for: {', '.join(sorted(permits))}")
    if request.method not in {"GET", "HEAD"}:
        sent = request.headers.get("x-csrf-token") or await _field(request)
        if not secrets.compare_digest(sent.encode(), visit.csrf.encode()):
            raise HTTPException(403, "the page is too old: load it again")


def _count(request: Request, visit: Visit) -> None:
    route = request.scope["route"].name
    name, most = (route, LIMITS[route]) if route in LIMITS else ("any", _LIMIT)
    if site_of(request).shelf.count(f"calls:{visit.id}:{name}", within_s=_MINUTE_S) > most:
        raise HTTPException(429, f"more than {most} such calls in a minute: wait a minute")


def _count_guess(request: Request) -> None:
    """Count calls by which somebody could guess an invitation; signing in has counts of its own."""
    if request.scope["route"].name != "welcome":
        return
    address = request.client.host if request.client else ""
    if site_of(request).shelf.count(f"guesses:{address}", within_s=_MINUTE_S) > _GUESSES:
        raise HTTPException(429, "too many tries: wait a minute")


def _visit(site: Site, token: str) -> Visit | None:
    found = site.shelf.get(_session(token)) if token else None
    if found is None:
        return None
    said = json.loads(found)
    vouched = said.get("vouched")
    account = (
        site.accounts.find(said["person"])
        if vouched is None
        else Account.model_validate_json(vouched)
    )
    if account is None:
        return None
    wishes = site.wishes.of(said["person"])
    return Visit(id=said["person"], account=account, preferences=wishes, csrf=said["csrf"])


def over_tls(request: Request) -> bool:
    """Return whether people reach the console over TLS, be it by a proxy: then cookies never leave without it."""
    return request.url.scheme == "https" or site_of(request).url.startswith("https:")


def _same_origin(request: Request) -> bool:
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return False
    origin = request.headers.get("origin")
    # A proxy may have put its own word for the host.
    if origin is None or origin == site_of(request).url:
        return True
    return urlsplit(origin).netloc == request.headers.get("host")


async def _field(request: Request) -> str:
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return ""
    value = (await request.form()).get("csrf", "")
    return value if isinstance(value, str) else ""


def _session(token: str) -> str:
    return f"session:{hashlib.sha256(token.encode()).hexdigest()}"


Here = Annotated[Site, Depends(site_of)]
Who = Annotated[Visit, Depends(visit_of)]
