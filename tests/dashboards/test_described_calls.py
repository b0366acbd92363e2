"""Calls that the console's own description allows, and some that it does not: none may end in a fault of the server."""

import warnings
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dashboards.console.access import PERMITS
from dashboards.console.app import console

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # its imports' own
    import schemathesis
    from schemathesis import GenerationMode

#: Calls that are made of each operation; the machine may be busy.
CALLS = 12
SLOW_S = 120


def everybody(house: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Return cookie and headers of a new session of somebody who has every role."""
    cookie = house.cookie("all")
    return cookie, {"X-CSRF-Token": house.token(cookie)}


def held(house: Any) -> dict[str, Any]:
    """Return a job that this person holds, with its lease; there is always one."""
    person = house.site.accounts.find("all").person("all")
    found = [e for e in house.site.desk.held(person) if e.state == "leased"]
    if not found:
        house.site.desk.go_on(person)
        for queue in house.site.desk.paused():
            house.site.desk.resume(person, queue)
        house.put(f"made-{house.offset}")
        found = list(house.site.desk.claim(person).entries)
    return {"job": found[0].job_id, "lease": found[0].lease}


def check(house: Any, operation: Any) -> set[int]:
    """Make calls of one operation and return the statuses of the answers."""
    seen: set[int] = set()

    @settings(
        max_examples=CALLS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=st.one_of([operation.as_strategy(generation_mode=mode) for mode in GenerationMode]),
        real=st.booleans(),
    )
    def calls(case: Any, *, real: bool) -> None:
        if real and isinstance(case.body, dict) and "lease" in case.body:
            case.body = {**case.body, **held(house)}
        if operation.path == "/lead/stream":
            case.query = {**(case.query or {}), "once": "true"}
        cookie, headers = everybody(house)
        answer = case.call(
            base_url=house.url,
            headers=headers,
            cookies=cookie,
            timeout=SLOW_S,
            allow_redirects=False,
        )
        seen.add(answer.status_code)
        assert answer.status_code < 500, (case.as_curl_command(), answer.text)

    calls()
    return seen


def test_no_call_that_can_be_described_ends_in_a_fault(house: Any) -> None:
    """Well-formed and ill-formed calls of every route, on jobs that are held and that are not: no answer is a 5xx."""
    application = console(house.site)
    schema: Any = schemathesis.openapi.from_dict(application.openapi())

    found = [operation.ok() for operation in schema.get_all_operations()]
    tried = {operation.label: check(house, operation) for operation in found}

    assert len(tried) == len(PERMITS)
    # The calls get past the door: what is done by a held lease was done.
    by_lease = ("renew", "reveal", "release", "skip", "note")
    assert any(200 in tried[f"POST /api/{name}"] for name in by_lease), tried
    assert 422 in tried["POST /api/answer"], tried
