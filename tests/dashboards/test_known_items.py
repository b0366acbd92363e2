"""An item of known answer is like any other to whoever reviews it, in all that the console ever says of it."""

import json
from base64 import urlsafe_b64decode
from typing import Any
from uuid import UUID, uuid5

import httpx

from pipeline.desk import Answers
from pipeline.messages import VerdictAnswer, decision_id
from pipeline.review import Person

SLOW_S = 120
LEA = Person(id="lea", roles=frozenset({"lead"}), languages=("en",))
RIGHT = VerdictAnswer.model_validate(
    {"policy": "weapons", "clause": "W2", "answer": "violates", "why": "the-expected-answer"}
)


def shape(said: Any) -> Any:
    """Return what something looks like, whatever it says."""
    if isinstance(said, dict):
        return {name: shape(value) for name, value in said.items()}
    if isinstance(said, list):
        return [shape(value) for value in said]
    return type(said).__name__


def test_nothing_tells_an_item_of_known_answer(house: Any) -> None:
    """Ids, links, times and every answer to every call have the same form for both; no secret is in any response."""
    house.set()
    known = decision_id("known", b"record", "pipeline")
    other = decision_id("other", b"record", "pipeline")
    house.put(known, text="a caption")
    [entry] = house.site.desk.claim(LEA).entries
    house.site.desk.resolve(LEA, known, entry.lease, Answers(answers=(RIGHT,)), at_once=True)
    house.deliver()
    house.site.desk.golden(LEA, known, known, [RIGHT])
    house.put(other, text="a caption")
    house.set(golden=1.0)
    cookie = house.cookie("ann")
    headers = {"X-CSRF-Token": house.token(cookie)}
    client = httpx.Client(base_url=house.url, cookies=cookie, headers=headers, timeout=SLOW_S)
    bodies = [client.get("/triage").text]

    jobs = client.post("/api/claim", json={}).json()["jobs"]

    assert {UUID(job["job"]).version for job in jobs} == {uuid5(UUID(int=0), "").version}
    [golden] = [job for job in jobs if job["job"] != other]
    [normal] = [job for job in jobs if job["job"] == other]
    assert shape(golden) == shape(normal)
    differs = {name for name in golden if golden[name] != normal[name]}
    assert differs <= {"job", "lease", "due", "media", "standing"}
    assert len(golden["due"]) == len(normal["due"])
    told = []
    for job in (golden, normal):
        lease = {"job": job["job"], "lease": job["lease"]}
        answer = {"policy": "weapons", "answer": "allowed"}
        calls: tuple[tuple[str, dict[str, Any]], ...] = (
            ("renew", {}),
            ("reveal", {}),
            ("veil", {}),
            ("note", {"note": "a note"}),
            ("answer", {"answers": [answer]}),
            ("undo", {}),
            ("renew", {}),
            ("skip", {"reason": "why not"}),
            ("renew", {}),
        )
        said = [client.get(job["media"][0])]
        said += [client.post(f"/api/{name}", json=lease | more) for name, more in calls]
        bodies += [answer.text for answer in said if answer.headers["content-type"] != "image/jpeg"]
        bodies += [str(answer.headers) for answer in said]
        link = job["media"][0].removeprefix("/media/").partition(".")[0]
        bodies.append(urlsafe_b64decode(link + "=" * (-len(link) % 4)).decode())
        told.append([(a.status_code, shape(a.json()) if a.headers["content-type"] == "application/json" else "")
                     for a in said])  # fmt: skip
    assert told[0] == told[1]
    whole = json.dumps(jobs) + "".join(bodies)
    assert not [word for word in ("golden", known, "the-expected-answer") if word in whole]
    client.close()
