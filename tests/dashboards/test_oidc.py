"""Sign-in by OpenID Connect: at a real provider in a real browser, and what is not taken for its word."""

import hmac
import json
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from playwright.sync_api import expect

from dashboards.console.oidc import Provider, account_of
from infra.embedded.ports import free_port, wait_for
from pipeline import doctor
from pipeline.config import Oidc, Settings
from pipeline.errors import RefusedError

SLOW_S = 120
PEOPLE: dict[str, dict[str, Any]] = {
    "eva": {"name": "Eva", "groups": ["moderators", "cyclists"], "weir_languages": ["de"]},
    "lou": {"groups": ["heads"]},
    "max": {"groups": ["cyclists"]},
    "ann": {"groups": ["moderators"]},
}
ROLES = {"moderators": "reviewer", "heads": "lead"}
KEY = RSAKey.generate_key(2048, {"kid": "k1"})


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a running provider that knows these people."""
    port = free_port()
    known = [f"--user-claims={json.dumps({'sub': n, **said})}" for n, said in PEOPLE.items()]
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), *known]
    log: Path = tmp_path_factory.mktemp("provider") / "log"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [*command, "--require-nonce", "true", "--require-registration", "true"],
            stdout=out,
            stderr=out,
        ) as process,
    ):
        try:
            assert wait_for("127.0.0.1", port, timeout_s=SLOW_S), log.read_text()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.fixture
def provided(house: Any, issuer: str) -> Iterator[Any]:
    """Return the console as a client that the provider knows."""
    back = {"redirect_uris": [f"{house.url}/sign-in/oidc/back"]}
    client = httpx.post(f"{issuer}/oauth2/clients", json=back, timeout=SLOW_S).json()
    settings = Oidc.model_validate(
        {
            "issuer": issuer,
            "client_id": client["client_id"],
            "client_secret": client["client_secret"],
            "roles": ROLES,
            "title": "Example & Sons",
        }
    )
    object.__setattr__(house.site, "oidc", Provider(settings))
    yield house
    object.__setattr__(house.site, "oidc", None)


def signed_in(house: Any, who: str, client: httpx.Client) -> httpx.Response:
    """Return the console's answer to somebody who comes back from the provider."""
    there = client.get("/sign-in/oidc").headers["location"]
    back = httpx.post(there, data={"sub": who}, timeout=SLOW_S).headers["location"]
    return client.get(back)


def test_the_browser_goes_to_the_provider_and_back(provided: Any) -> None:
    """One press there signs in here, as what the claims say, and a lead sees that somebody is there."""
    page = provided.page(None, "/sign-in")
    page.get_by_role("link", name="Sign in with Example & Sons").click()
    page.get_by_role("button", name="eva").click()

    expect(page).to_have_url(f"{provided.url}/triage")
    expect(page.locator(".who")).to_have_text("Eva")
    expect(page.locator("#nothing")).to_contain_text("Nothing waits")
    refused = page.goto("/lead")
    assert refused is not None
    assert refused.status == 403
    lead = provided.page("lea", "/lead")
    expect(lead.locator("#people")).to_contain_text("Eva: available")
    assert provided.seen()[0]["by"] == "eva"


def test_the_doctor_looks_at_the_provider(issuer: str) -> None:
    """A provider that describes itself is well; one that is away, goes by another name or does not know us is not."""

    def told(**said: str) -> tuple[str, str]:
        nowhere = {"redis": {"url": f"redis://localhost:{free_port()}/0"}}
        settings = Settings.model_validate(nowhere | {"oidc": said})
        (found,) = doctor._provider(settings)
        return found.state, found.says + found.remedy

    assert told(issuer=issuer, client_id="weir")[0] == "well"
    for said, word in {
        (f"http://localhost:{free_port()}", "weir"): "cannot be read",
        (f"{issuer}/", "weir"): "describes another issuer",
        (issuer, ""): "WEIR_OIDC_CLIENT_ID",
        ("no address", "weir"): "WEIR_OIDC_ISSUER",
    }.items():
        state, words = told(issuer=said[0], client_id=said[1])
        assert state == "wrong"
        assert word in words


def test_claims_become_roles_and_the_rest_of_an_account(provided: Any) -> None:
    """Groups are mapped to roles; without one that is known nobody comes in; a local account is nobody else's."""
    found = {}
    for who in PEOPLE:
        with httpx.Client(base_url=provided.url, timeout=SLOW_S) as client:
            answer = signed_in(provided, who, client)
            found[who] = (answer.status_code, client.get("/lead").status_code)
            if answer.status_code != 303:
                assert "no role here" in answer.text or "use its password" in answer.text

    assert found == {"eva": (303, 403), "lou": (303, 200), "max": (401, 303), "ann": (401, 303)}
    assert provided.site.people()["eva"].languages == ("de",)


def test_an_attempt_belongs_to_one_browser_and_one_time(provided: Any) -> None:
    """What another browser began, or what was used once, signs nobody in; the browser proves that it began (PKCE)."""
    with httpx.Client(base_url=provided.url, timeout=SLOW_S) as client:
        there = client.get("/sign-in/oidc").headers["location"]
        asked = parse_qs(urlsplit(there).query)
        back = httpx.post(there, data={"sub": "eva"}, timeout=SLOW_S).headers["location"]
        stranger = httpx.get(back, timeout=SLOW_S)
        first, again = client.get(back), client.get(back)

    assert asked["code_challenge_method"] == ["S256"]
    assert asked["scope"] == ["openid profile"]
    assert (stranger.status_code, first.status_code, again.status_code) == (401, 303, 401)


def token(key: Any = KEY, alg: str = "RS256", **other: Any) -> str:
    """Return an ID token, good but for what is said otherwise."""
    now = int(time.time())
    claims = {"iss": "http://localhost:9", "aud": "weir", "sub": "eva", "nonce": "n", "iat": now}
    said = {**claims, "exp": now + 60, **other}
    return jwt.encode({"alg": alg, "kid": "k1"}, said, key, algorithms=[alg])


def resealed(alg: str, secret: bytes | None) -> str:
    """Return a good token under another header, sealed with a secret or not at all."""
    head = urlsafe_b64encode(json.dumps({"alg": alg, "kid": "k1"}).encode()).decode().rstrip("=")
    said = f"{head}.{token().split('.')[1]}"
    seal = b"" if secret is None else hmac.digest(secret, said.encode(), "sha256")
    return f"{said}.{urlsafe_b64encode(seal).decode().rstrip('=')}"


FORGED = {
    "another issuer": token(iss="http://localhost:8"),
    "another client": token(aud="other"),
    "several clients, and made for another": token(aud=["weir", "other"], azp="other"),
    "over": token(exp=int(time.time()) - 3600),
    "another attempt": token(nonce="m"),
    "another key": token(RSAKey.generate_key(2048, {"kid": "k1"})),
    "a key of another kind": token(ECKey.generate_key("P-256", {"kid": "k1"}), "ES256"),
    "the public key as a secret": resealed("HS256", KEY.as_pem(private=False)),
    "no signature": resealed("none", None),
    "no token": "",
}


@pytest.mark.parametrize("what", FORGED)
def test_a_token_that_is_not_for_this_attempt_is_not_taken(what: str) -> None:
    """Issuer, client, time, attempt, key and algorithm must all be right."""
    provider = Provider(Oidc(issuer="http://localhost:9", client_id="weir"))
    keys = {"keys": [KEY.as_dict(private=False)]}

    assert provider._claims(token(), keys, "n")["sub"] == "eva"
    # What no known key has signed leads to a look for newer keys, and there is nobody to ask.
    with pytest.raises((JoseError, RefusedError)):
        provider._claims(FORGED[what], keys, "n")


def test_an_id_that_no_key_can_hold_is_known_by_its_digest() -> None:
    """Any subject names one person, an unverified address nobody; a wrong role is found at the start."""
    claims = {"sub": "auth0|7", "email": "eva@example.org", "groups": "lead, author"}
    name, account = account_of(claims, Oidc(issuer="https://a.example"))
    other, _ = account_of(claims, Oidc(issuer="https://b.example"))

    assert name.startswith("oidc-")
    assert name != other
    assert account.roles == ("lead", "author")
    with pytest.raises(RefusedError, match="has not made sure"):
        account_of(claims, Oidc(identity="email"))
    with pytest.raises(RefusedError, match="which is no role"):
        Provider(Oidc(roles={"x": "boss"}))
    assert json.loads(account.model_dump_json())["password"] == ""
