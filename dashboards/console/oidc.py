"""Sign-in by an OpenID Connect provider: the authorization code flow with PKCE, and what its claims say of a person.

The provider's word is taken only as a signed ID token for this client, this attempt and this moment; algorithms with a
shared secret, or none, are not accepted.
"""

import hashlib
import re
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, get_args

import httpx2
from authlib.integrations.httpx_client import OAuth2Client, OAuthError
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from pydantic import ValidationError

from pipeline.config import Oidc
from pipeline.errors import RefusedError
from pipeline.issuer import description
from pipeline.people import Account, Role

_ALGORITHMS: Final = ("RS256", "PS256", "ES256", "ES384", "Ed25519")
#: How long the provider's description and keys are used before they are read again.
_FRESH_S: Final = 3600
_TIMEOUT_S: Final = 10.0
#: How far the provider's clock may be from ours.
_LEEWAY_S: Final = 60
_ID: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9@._-]{0,63}")
#: Claims that say more of a person, each a list of words.
_MORE: Final = ("languages", "skills", "queues", "policies", "sealed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """One attempt to sign in: where the browser goes, and what must come back with it."""

    url: str
    state: str
    nonce: str
    verifier: str


@dataclass(slots=True)
class Provider:
    """An OpenID Connect provider."""

    settings: Oidc
    _told: tuple[float, dict[str, Any], dict[str, Any]] | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        known = get_args(Role)
        if wrong := sorted(set(self.settings.roles.values()) - set(known)):
            raise RefusedError(
                f"oidc.roles names {', '.join(wrong)}, which is no role: choose of {', '.join(known)}"
            )

    def begin(self, back: str) -> Errand:
        """Return where to send a browser that wants to sign in; it comes back to `back`.

        Raises:
            RefusedError: the provider does not answer.
        """
        described, _ = self._described()
        nonce, verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(48)
        with self._client(back) as client:
            url, state = client.create_authorization_url(
                described["authorization_endpoint"], nonce=nonce, code_verifier=verifier
            )
        return Errand(url=url, state=state, nonce=nonce, verifier=verifier)

    def finish(self, code: str, *, nonce: str, verifier: str, back: str) -> tuple[str, Account]:
        """Return who it was that the provider let in.

        Raises:
            RefusedError: the provider takes its word back, says something else, or names no role.
        """
        described, keys = self._described()
        try:
            with self._client(back) as client:
                token = client.fetch_token(
                    described["token_endpoint"], code=code, code_verifier=verifier
                )
                claims = self._claims(str(token.get("id_token", "")), keys, nonce)
                if self.settings.claim not in claims and "userinfo_endpoint" in described:
                    more = client.get(described["userinfo_endpoint"]).raise_for_status().json()
                    # Another person's userinfo must not be mixed in (OpenID Connect Core, 5.3.4).
                    if more.get("sub") == claims["sub"]:
                        claims = {**more, **claims}
        except (OAuthError, JoseError, httpx2.HTTPError, ValueError, KeyError) as error:
            raise RefusedError(f"the provider did not vouch for you: {error}") from error
        return account_of(claims, self.settings)

    def _client(self, back: str) -> Any:
        secret = self.settings.client_secret
        return OAuth2Client(
            self.settings.client_id,
            secret.get_secret_value() if secret else None,
            # A client without a secret proves itself by PKCE alone.
            token_endpoint_auth_method="client_secret_basic" if secret else "none",
            scope=self.settings.scopes,
            redirect_uri=back,
            code_challenge_method="S256",
            timeout=_TIMEOUT_S,
        )

    def _claims(self, token: str, keys: dict[str, Any], nonce: str) -> dict[str, Any]:
        try:
            found = self._decoded(token, keys)
        except (JoseError, ValueError):
            # The provider may have changed its keys since they were read.
            found = self._decoded(token, self._described(anew=True)[1])
        must = {
            "iss": {"essential": True, "value": self.settings.issuer},
            "aud": {"essential": True, "value": self.settings.client_id},
        }
        CodeIDToken(
            found.claims, found.header, must, {"nonce": nonce, "client_id": self.settings.client_id}
        ).validate(leeway=_LEEWAY_S)
        return dict(found.claims)

    def _decoded(self, token: str, keys: dict[str, Any]) -> jwt.Token:
        return jwt.decode(token, KeySet.import_key_set(keys), algorithms=list(_ALGORITHMS))  # type: ignore[arg-type]  # what a provider sends is looked at by the library

    def _described(self, *, anew: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return how the provider describes itself, and its keys."""
        with self._lock:
            if self._told is None or anew or time.monotonic() - self._told[0] > _FRESH_S:
                self._told = (time.monotonic(), *description(self.settings.issuer))
            return self._told[1], self._told[2]


def account_of(claims: Mapping[str, Any], settings: Oidc) -> tuple[str, Account]:
    """Return who somebody is and what they may do, as a provider's claims say.

    Raises:
        RefusedError: no claim names a role, or one cannot be read.
    """
    said = claims.get(settings.identity)
    if not isinstance(said, str) or not said:
        raise RefusedError(f"the provider says no {settings.identity}, by which you would be known")
    if settings.identity == "email" and claims.get("email_verified") is not True:
        raise RefusedError("the provider has not made sure that this address is yours")
    # An id that cannot stand in a file or a key is known by its digest.
    digest = hashlib.sha256(f"{settings.issuer}\n{said}".encode()).hexdigest()
    identity = said if _ID.fullmatch(said) else f"oidc-{digest[:24]}"
    values = _words(claims.get(settings.claim))
    named = {settings.roles.get(v, "") for v in values} if settings.roles else set(values)
    roles = tuple(role for role in get_args(Role) if role in named)
    if not roles:
        raise RefusedError(
            f"your account has no role here: the provider's claim {settings.claim} names none"
        )
    more = {name: _words(claims[f"weir_{name}"]) for name in _MORE if f"weir_{name}" in claims}
    try:
        account = Account.model_validate(
            {"name": str(claims.get("name", "")), "roles": roles, **more}
        )
    except ValidationError as error:
        raise RefusedError(f"the provider's claims cannot be read: {error}") from error
    return identity, account


def _words(said: object) -> tuple[str, ...]:
    if isinstance(said, str):
        return tuple(said.replace(",", " ").split())
    return tuple(word for word in said if isinstance(word, str)) if isinstance(said, list) else ()
