"""What an OpenID Connect provider says of itself: its discovery document and its keys."""

from typing import Any, Final

import httpx2

from pipeline.errors import RefusedError

_TIMEOUT_S: Final = 10.0
#: What signing people in needs of the document.
_NEEDED: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")


def description(issuer: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return how a provider describes itself, and its keys.

    Raises:
        RefusedError: it does not answer, describes another issuer, or leaves out what signing in needs.
    """
    address = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    try:
        said = httpx2.get(address, timeout=_TIMEOUT_S).raise_for_status().json()
        if said["issuer"] != issuer:
            raise RefusedError(f"{address} describes another issuer: {said['issuer']}")
        if lacking := [name for name in _NEEDED if not said.get(name)]:
            raise RefusedError(f"{address} names no {', no '.join(lacking)}")
        keys = httpx2.get(said["jwks_uri"], timeout=_TIMEOUT_S).raise_for_status().json()
        if not keys["keys"]:
            raise RefusedError(f"{said['jwks_uri']} holds no key")
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError) as error:
        raise RefusedError(f"{address} cannot be read: {error}") from error
    return dict(said), dict(keys)
