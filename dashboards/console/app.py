"""The console as one application: routes, the guard before them, and the headers on everything that leaves."""

from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from dashboards.console import duty, lead, own, sign_in, triage
from dashboards.console.access import guard
from dashboards.console.pages import HOUSE, page
from dashboards.console.site import Site
from dashboards.console.size import Bounded
from pipeline.errors import (
    AbortedError,
    KafkaError,
    LeaseLostError,
    ProjectionLostError,
    RefusedError,
)
from pipeline.redis import Unavailable
from workers.errors import WorkerError

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: What scripts and pictures ask for: a refusal there is no page.
_NO_PAGES: Final = ("/api/", "/media/", "/lead/stream")
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    # Without any referrer a browser says of its own forms, too, that they come from nowhere.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


def console(site: Site) -> FastAPI:
    """Return the application."""
    app = FastAPI(
        title="Weir console",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(guard)],
    )
    app.state.site = site
    for room in (sign_in, triage, own, lead, duty):
        app.include_router(room.routes)
    app.mount("/static", StaticFiles(directory=HOUSE / "static"), name="static")
    # The one that is added last stands outside: a refusal leaves with its headers, too.
    app.add_middleware(Bounded)
    app.middleware("http")(_with_headers)
    app.add_exception_handler(LeaseLostError, _lost)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(WorkerError, _no_picture)
    app.add_exception_handler(HTTPException, _http)
    for away in (AbortedError, KafkaError, ProjectionLostError, Unavailable):
        app.add_exception_handler(away, _away)
    return app


async def _with_headers(
    request: Request, proceed: Callable[[Request], Awaitable[Response]]
) -> Response:
    answer = await proceed(request)
    answer.headers.update(_HEADERS)
    static = request.url.path.startswith("/static/")
    answer.headers["Cache-Control"] = "no-cache" if static else "no-store"
    return answer


def _wants_page(request: Request) -> bool:
    return request.method == "GET" and not request.url.path.startswith(_NO_PAGES)


async def _lost(_: Request, error: Exception) -> Response:
    return _said(409, str(error), lost=True)


async def _refused(_: Request, error: Exception) -> Response:
    return _said(400, str(error))


async def _malformed(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 -- how it was registered
    places = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
    return _said(422, f"this is not what is expected: {places}")


async def _no_picture(_: Request, error: Exception) -> Response:
    return _said(404, f"the medium cannot be shown: {error}")


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 -- how it was registered
    if _wants_page(request):
        if error.status_code == 401:  # noqa: PLR2004 -- by its number it is known
            return RedirectResponse("/sign-in", status_code=303)
        visit = getattr(request.state, "visit", None)
        return page(request, "refused", visit, status=error.status_code, why=error.detail)
    return _said(error.status_code, error.detail)


async def _away(_: Request, error: Exception) -> Response:
    return _said(503, f"not done, try again: {error}")


def _said(status: int, why: str, *, lost: bool = False) -> Response:
    return JSONResponse({"error": why, "lost": lost}, status_code=status)
