"""Signed links: a medium is shown to one person, for one job, under one lease, for a short time."""

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import asdict, dataclass
from typing import Final

#: How long a link to a blurred copy is good, and to a clear one.
BLURRED_S: Final = 600
CLEAR_S: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What a link shows to whom."""

    person: str
    job: str
    lease: int
    index: int
    clear: bool
    until: int


def link(secret: bytes, *, person: str, job: str, lease: int, index: int, clear: bool) -> str:
    """Return the signed part of a link's path."""
    until = int(time.time()) + (CLEAR_S if clear else BLURRED_S)
    said = Link(person=person, job=job, lease=lease, index=index, clear=clear, until=until)
    body = urlsafe_b64encode(json.dumps(asdict(said)).encode()).decode().rstrip("=")
    return f"{body}.{_seal(secret, body)}"


def opened(secret: bytes, token: str) -> Link | None:
    """Return what a link shows, or None where it is forged or too old."""
    body, _, seal = token.partition(".")
    if not token.isascii() or not hmac.compare_digest(seal, _seal(secret, body)):
        return None
    said = Link(**json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4))))
    return said if time.time() < said.until else None


def _seal(secret: bytes, body: str) -> str:
    return hmac.new(secret, b"media:" + body.encode(), hashlib.sha256).hexdigest()
