"""Who may what: the whole table of roles and routes, sessions, forged requests, links to media."""

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from dashboards.console import duty, lead, own, sign_in, signing, triage
from dashboards.console.access import COOKIE, LIMITS, PERMITS
from pipeline.errors import RefusedError
from pipeline.people import ROLES, Account, Accounts, Preferences, add, hashed, newest, read

PASSWORD = "a long enough password"
#: The machine may be busy.
SLOW_S = 120
get = partial(httpx.get, timeout=SLOW_S)
post = partial(httpx.post, timeout=SLOW_S)
PAGES = {"/", "/triage", "/lead", "/own", "/wellbeing"}
WHO = {
    None: None,
    "ann": "reviewer",
    "lea": "lead",
    "wes": "wellbeing",
    "aud": "author",
    "opa": "operator",
    "ivy": "integrator",
}
ROUTES = [
    route
    for room in (sign_in, triage, own, lead, duty)
    for route in room.routes.routes
    if isinstance(route, APIRoute)
]


def test_the_table_names_every_route_and_no_other() -> None:
    """No route is open by oversight, and the table speaks of no route that there is not."""
    assert {route.name for route in ROUTES} == set(PERMITS)
    assert set().union(*PERMITS.values()) == set(ROLES)


def test_each_role_reaches_its_routes_and_no_others(house: Any) -> None:
    """Every role and nobody, at every route: let in or turned away as the table says."""
    wrong = []
    with httpx.Client(base_url=house.url, timeout=SLOW_S) as client:
        for person, route in product(WHO, ROUTES):
            cookie = house.cookie(person) if person else {}
            client.cookies = httpx.Cookies(cookie)
            method = min(route.methods or ("GET",))
            headers = {"X-CSRF-Token": house.token(cookie)} if person else {}
            answer = client.request(
                method,
                route.path.replace("{token}", "x"),
                params={"once": "true"},
                headers=headers,
                json={},
            )
            allowed = PERMITS[route.name]
            if route.name == "oidc_back":
                expected = {401}  # nobody began
            elif route.name == "sign_in":
                expected = {422}  # nobody says who they are
            elif not allowed:
                expected = {200, 303}
            elif person is None and method == "POST":
                expected = {401}
            elif person is None:
                expected = {303} if route.path in PAGES else {401}
            elif WHO[person] in allowed or (person == "lea" and "reviewer" in allowed):
                # The body says nothing, or the link is forged: the route itself answered.
                expected = {200, 303, 422} if route.name != "medium" else {403}
            else:
                expected = {403}
            if answer.status_code not in expected:
                wrong.append((person, route.name, answer.status_code))

    assert wrong == []


def test_signing_in_takes_the_password_and_leaves_a_trace(house: Any) -> None:
    """A right password opens a session, a wrong one is refused, and both stand in the audit log."""
    with httpx.Client(base_url=house.url, timeout=SLOW_S) as client:
        wrong = client.post("/sign-in", data={"identity": "ann", "password": "wrong"})
        unknown = client.post("/sign-in", data={"identity": "nobody", "password": PASSWORD})
        right = client.post("/sign-in", data={"identity": "ann", "password": PASSWORD})
        inside = client.get("/triage")

    assert (wrong.status_code, unknown.status_code) == (401, 401)
    assert right.status_code == 303
    assert "HttpOnly" in right.headers["set-cookie"]
    assert inside.status_code == 200
    assert [(e["by"], e["what"]) for e in house.seen()][:3] == [
        ("ann", "refused"),
        ("nobody", "refused"),
        ("ann", "signed_in"),
    ]


@pytest.mark.parametrize(
    ("tries", "count", "status"),
    [
        ("127.0.0.1:ann", 10, 429),
        ("account:ann", 100, 429),
        ("address:127.0.0.1", 30, 429),
        # Somebody elsewhere who tries her name does not shut her out.
        ("192.0.2.1:ann", 30, 303),
        ("account:ann", 99, 303),
    ],
)
def test_too_many_tries_are_refused_right_or_wrong(
    house: Any, tries: str, count: int, status: int
) -> None:
    """After so many tries from one place, or for one account, even the right password is not looked at."""
    house.site.shelf.tally(f"tries:{tries}", count, for_s=300)

    answer = post(f"{house.url}/sign-in", data={"identity": "ann", "password": PASSWORD})

    assert answer.status_code == status


@pytest.mark.parametrize(("route", "path"), [("any", "/own"), ("figures", "/api/figures")])
def test_nobody_calls_without_end(house: Any, route: str, path: str) -> None:
    """Beyond so many calls in a minute a person is refused, and nobody else with them."""
    most = LIMITS.get(route, 3000)
    house.site.shelf.tally(f"calls:lea:{route}", most - 1, for_s=60)
    lea, whole = house.cookie("lea"), house.cookie("all")

    statuses = [get(house.url + path, cookies=who).status_code for who in (lea, lea, whole)]

    assert statuses == [200, 429, 200]


def test_invitations_are_not_guessed(house: Any) -> None:
    """Whoever tries many words as an invitation is refused for a while, even with the right ones."""
    house.site.shelf.tally("guesses:127.0.0.1", 60, for_s=60)

    answer = get(f"{house.url}/welcome", params={"token": "an invitation"})

    assert answer.status_code == 429


def test_a_forged_request_is_refused(house: Any) -> None:
    """Without the session's token, or from another site, nothing is done."""
    cookie = house.cookie("ann")
    headers = {"X-CSRF-Token": house.token(cookie)}

    def status(**more: str) -> int:
        return post(f"{house.url}/api/claim", json={}, cookies=cookie, headers=more).status_code

    assert status() == 403
    assert status(**headers, Origin="https://elsewhere.example") == 403
    assert status(**headers, **{"Sec-Fetch-Site": "cross-site"}) == 403
    assert status(**headers) == 200


def test_signing_out_ends_the_session(house: Any) -> None:
    """A cookie from before opens nothing afterwards."""
    cookie = house.cookie("ann")
    data = {"csrf": house.token(cookie)}

    answer = post(f"{house.url}/sign-out", data=data, cookies=cookie)

    assert answer.status_code == 303
    assert get(f"{house.url}/triage", cookies=cookie).status_code == 303


def test_an_invitation_signs_in_only_with_its_own_words(house: Any) -> None:
    """Another token leads to the form."""
    right = get(f"{house.url}/welcome", params={"token": "an invitation"})
    wrong = get(f"{house.url}/welcome", params={"token": "another"})

    assert right.headers["location"] == "/"
    assert COOKIE not in wrong.headers.get("set-cookie", "")
    assert wrong.headers["location"] == "/sign-in"


def test_everything_leaves_with_a_strict_policy(house: Any) -> None:
    """No page runs or loads anything but the console's own files."""
    for path in ("/sign-in", "/static/triage.js", "/nowhere"):
        answer = get(house.url + path)
        said = answer.headers["content-security-policy"]
        assert "default-src 'none'" in said
        assert "unsafe" not in said
        assert "http" not in said


def test_clear_media_are_for_one_person_one_lease_and_a_reveal(house: Any) -> None:
    """A link is refused to others, under another lease, before a reveal, and once it is forged."""
    house.put("j1")
    ann, bob = house.cookie("ann"), house.cookie("bob")
    headers = {"X-CSRF-Token": house.token(ann)}
    with httpx.Client(base_url=house.url, timeout=SLOW_S, cookies=ann, headers=headers) as client:
        [job] = client.post("/api/claim", json={}).json()["jobs"]
        lease = {"job": "j1", "lease": job["lease"]}

        def clear(number: int) -> str:
            return "/media/" + signing.link(
                house.site.secret, person="ann", job="j1", lease=number, index=0, clear=True
            )

        blurred = client.get(job["media"][0])
        early = client.get(clear(job["lease"]))
        [shown] = client.post("/api/reveal", json=lease).json()["media"]
        seen = client.get(shown)
        other_lease = client.get(clear(job["lease"] + 1))
        forged = client.get(shown[:-2] + "00")
        somebody = get(house.url + shown, cookies=bob)
        client.post("/api/release", json=lease)
        too_late = client.get(shown)

    assert (blurred.status_code, seen.status_code) == (200, 200)
    assert seen.headers["content-type"] == "image/jpeg"
    assert b"secret-of-the-uploader" not in seen.content + blurred.content
    assert (early.status_code, other_lease.status_code) == (403, 409)
    assert (forged.status_code, somebody.status_code, too_late.status_code) == (403, 403, 409)


def test_a_job_of_somebody_else_is_refused(house: Any) -> None:
    """Who does not hold a job cannot answer, move, reveal or renew it."""
    house.put("j1")
    ann, bob = house.cookie("ann"), house.cookie("bob")
    claimed = post(
        f"{house.url}/api/claim", json={}, cookies=ann, headers={"X-CSRF-Token": house.token(ann)}
    )
    lease = claimed.json()["jobs"][0]["lease"]
    headers = {"X-CSRF-Token": house.token(bob)}
    body = {"job": "j1", "lease": lease, "reason": "x", "queue": "fraud", "note": "x"}
    found = {
        what: post(
            f"{house.url}/api/{what}",
            json={key: body[key] for key in ("job", "lease", *more)},
            cookies=bob,
            headers=headers,
        ).json()
        for what, more in {
            "renew": (),
            "reveal": (),
            "answer": (),
            "undo": (),
            "release": (),
            "skip": ("reason",),
            "move": ("queue",),
            "escalate": ("reason",),
            "note": ("note",),
        }.items()
    }

    assert {what for what, said in found.items() if said.get("lost")} == set(found) - {"escalate"}
    assert "error" in found["escalate"]


def test_accounts_are_read_anew_and_hold_no_password(tmp_path: Path) -> None:
    """A file of people that changes counts at once, and only hashes stand in it."""
    path = tmp_path / "people.yaml"
    accounts = Accounts(path)
    assert accounts.find("ann") is None

    add(path, "ann", Account(password=hashed(PASSWORD), roles=("lead",)))

    assert accounts.knows("ann", PASSWORD)
    assert not accounts.knows("ann", PASSWORD + "x")
    assert PASSWORD not in path.read_text()
    assert read(path)["ann"].roles == ("lead",)
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(RefusedError, match="characters or more"):
        hashed("short")


def test_settings_survive_a_lost_redis(house: Any) -> None:
    """What people set is read from the log again, the newest of each."""
    values = [
        Preferences(person="ann", opt_outs=("hate",)).model_dump_json().encode(),
        b"not json",
        Preferences(person="ann", opt_outs=("scams",)).model_dump_json().encode(),
    ]

    assert newest(values)["ann"].opt_outs == ("scams",)
