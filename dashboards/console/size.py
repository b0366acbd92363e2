"""How large a request may be: what is larger is refused while it comes in, before anybody has asked who sent it."""

from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: More than the longest answer with a note has, by far.
MOST_BYTES: Final = 256_000


class Bounded:
    """Lets the body of no request be longer than so many bytes."""

    def __init__(self, app: ASGIApp, most_bytes: int = MOST_BYTES) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"")
        come = int(declared) if declared.isdigit() else 0
        counted = 0

        async def bounded() -> Message:
            nonlocal counted
            message = await receive()
            counted += len(message.get("body", b""))
            if message["type"] == "http.request" and max(come, counted) > self._most_bytes:
                raise HTTPException(413, f"a request has {self._most_bytes} bytes at most")
            return message

        await self._app(scope, bounded, send)
