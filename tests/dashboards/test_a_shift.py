"""What people do besides answering, in a real browser: sign in, skip, move, escalate, note; and a restart meanwhile."""

import socket
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx
import pytest
import uvicorn
from playwright.sync_api import Page, expect
from pydantic import SecretStr

from dashboards.console import access
from dashboards.console.app import console
from dashboards.console.lead import forecast
from dashboards.console.pictures import nothing
from dashboards.console.site import open_site
from pipeline.care import Budget
from pipeline.config import Console, Redis, Settings
from pipeline.desk import Answers
from pipeline.messages import REVIEWS, TICKETS, VerdictAnswer
from pipeline.redis import Depth, Projected
from pipeline.review import Person, job_of
from policies.queues import Queue

SLOW_S = 120
PASSWORD = "a long enough password"
LOOK = "00ff13ff00ff5cff"
NEXT_TO_IT = "00ff13ff00ff5cf8"  # three bits
FAR = "ff0013ffa5a55c00"


def sees(page: Page, caption: str) -> None:
    """Wait until an item is shown."""
    expect(page.locator("#caption")).to_have_text(caption)


def keep(page: Page) -> None:
    """Keep the settings of a page, and wait until the server has them and sent the page anew."""
    with page.expect_navigation():
        page.get_by_role("button", name="Keep").click()


def holds_next(house: Any, page: Page) -> None:
    """Wait until the page has the item that comes next, too."""
    house.until(page, lambda: house.site.desk.entry("two").holder == "ann", "the next item")


def told(house: Any, page: Page, count: int) -> list[dict[str, Any]]:
    """Return what was written about jobs, once it is so much."""
    house.until(page, lambda: len(house.seen(REVIEWS)) >= count, f"{count} events")
    return list(house.seen(REVIEWS))


def test_signing_in_leads_to_the_first_item(house: Any) -> None:
    """The form takes name and password by keys alone; the wrong one is refused in words, out is out."""
    house.put("one", text="one")
    page = house.page(None, "/sign-in")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("ann")
    for word in ("not the password", PASSWORD):
        page.locator("input[name=password]").fill(word)
        page.keyboard.press("Enter")
        if word != PASSWORD:
            expect(page.get_by_role("alert")).to_contain_text("do not belong together")

    sees(page, "one")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.goto("/triage")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_violation_wants_its_clause(house: Any) -> None:
    """The first key alone, or with a number that no clause has, answers nothing; it can be taken back."""
    house.put("one", text="one")
    page = house.page("ann")
    sees(page, "one")

    for keys in ("v", "v9", "v0"):
        for key in keys:
            page.keyboard.press(key)
    expect(page.locator(".chosen #violates")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("1")

    expect(page.locator(".chosen")).to_have_count(0)
    assert house.verdict("one") is None
    assert house.site.desk.entry("one").state == "leased"


def test_items_are_given_away_for_a_reason_by_keys(house: Any) -> None:
    """Skip wants a reason; move and escalate a place; each is on the log before the queue follows, and a note stays."""
    for name in ("one", "two", "three"):
        house.put(name, text=name)
    page = house.page("ann")
    sees(page, "one")
    page.keyboard.press("s")
    page.keyboard.press("Enter")
    expect(page.locator("#away")).to_be_visible()
    page.locator("#away-why").fill("I know the author")
    page.keyboard.press("Enter")
    sees(page, "two")
    page.keyboard.press("m")
    page.locator("#away-to").select_option("fraud")
    page.locator("#away-why").fill("a scam")
    page.keyboard.press("Enter")
    sees(page, "three")
    page.keyboard.press("e")
    page.locator("#away-to").select_option("threat_to_life")
    page.locator("#away-why").fill("he names a school")
    page.keyboard.press("Enter")

    # The log comes first, and the queue follows it.
    entry = house.site.desk.entry
    house.until(page, lambda: entry("three").queue != "weapons", "the third item elsewhere")
    done = told(house, page, 3)
    assert [(e["kind"], e["job_id"], e["by"]) for e in done] == [
        ("skipped", "one", "ann"),
        ("moved", "two", "ann"),
        ("escalated", "three", "ann"),
    ]
    assert [e.get("reason") for e in done] == ["I know the author", "a scam", "threat_to_life"]
    assert (entry("one").barred, entry("one").state) == (("ann",), "open")
    assert [entry(name).queue for name in ("two", "three")] == ["fraud", "threat_to_life"]
    assert [note["note"] for note in house.site.desk.notes("three")] == ["he names a school"]


def test_what_is_given_back_is_on_the_log(house: Any) -> None:
    """A break gives back what the page holds: who gave back what stands on the log, and so does the break."""
    for name in ("one", "two"):
        house.put(name, text=name)
    page = house.page("ann")
    sees(page, "one")
    holds_next(house, page)
    page.keyboard.press("b")
    expect(page.locator("#nothing")).to_contain_text("on a break")

    found = house.seen(REVIEWS)

    assert {(e["kind"], e["job_id"], e["by"]) for e in found} == {
        ("released", "one", "ann"),
        ("released", "two", "ann"),
        ("rested", "", "ann"),
    }
    assert house.site.desk.entry("one").state == house.site.desk.entry("two").state == "open"


def test_an_answer_can_be_taken_back_after_the_server_was_started_anew(house: Any) -> None:
    """A verdict that waits survives the page and the server; a page that is opened anew can still take it back."""
    house.set(undo_for=timedelta(seconds=30))
    house.put("one", text="one")
    page = house.page("ann")
    sees(page, "one")
    page.keyboard.press("v")
    page.keyboard.press("1")
    expect(page.locator("#said")).to_contain_text("Answered")
    page.close()
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(console(replace(house.site)), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = listening.getsockname()[1]

    again = house.page("ann", f"http://127.0.0.1:{port}/triage")
    expect(again.locator("#nothing")).to_contain_text("Nothing waits")
    assert house.verdict("one") is not None
    again.keyboard.press("u")
    sees(again, "one")
    assert house.verdict("one") is None
    again.keyboard.press("a")
    again.keyboard.press("0")
    house.until(again, lambda: house.verdict("one"), "the other answer")
    assert [answer["answer"] for answer in house.verdict("one")["answers"]] == ["allowed"]
    server.should_exit = True
    thread.join(10)


def test_what_was_decided_on_media_that_look_the_same_stands_beside(house: Any) -> None:
    """A decided item is found by what its media look like, not by their bytes alone; what differs more is not."""
    house.set()
    ann = house.site.accounts.find("ann").person("ann")
    for name, look in {"near": NEXT_TO_IT, "far": FAR, "sealed": LOOK}.items():
        house.put(name, text=f"the {name} one", looks=(look,))
        page = house.page("ann")
        sees(page, f"the {name} one")
        page.keyboard.press("a")
        page.keyboard.press("0")
        house.until(page, partial(house.verdict, name), f"the answer to {name}")
        if name == "sealed":
            house.site.desk.queue.hold(name, "ann", house.site.desk.entry(name).lease, "undo", 1)
            lea = Person(id="lea", roles=frozenset({"lead"}))
            house.site.desk.move(lea, name, "minor_safety", "look again")
        house.deliver()
        page.close()
    house.put("one", text="one", looks=(LOOK,))
    bob = house.page("bob")
    sees(bob, "one")

    bob.keyboard.press("l")

    expect(bob.locator("#alike-count")).to_have_text("1 other item that looks the same")
    expect(bob.locator("#alike-items li")).to_contain_text("“the near one” held back by a person")
    expect(bob.locator("#alike-items li")).to_contain_text("(not the same bytes)")
    assert house.site.desk.entry("one").holder == "bob"
    assert ann.id == "ann"


def before_too_much(house: Any) -> Page:
    """Return Ann's page with the first of two items, of which one look is more than her budget."""
    house.set(budget=Budget(in_a_row=0.001, rest=timedelta(minutes=10)))
    for name in ("one", "two"):
        house.put(name, text=name, severity="critical")
    page: Page = house.page("ann")
    sees(page, "one")
    return page


def sees_too_much(house: Any, page: Page) -> None:
    """Hold the key that reveals the media until more than the budget is counted."""
    page.locator("#reveal").focus()
    page.keyboard.down(" ")
    expect(page.locator("#media img")).to_have_attribute("alt", "Medium 1 of 1, clear")
    page.wait_for_timeout(300)
    page.keyboard.up(" ")
    expect(page.locator("#media img")).to_have_attribute("alt", "Medium 1 of 1, blurred")
    house.until(page, lambda: house.site.desk.exposure(Person(id="ann")), "what Ann has borne")


def test_what_was_seen_may_be_answered_though_it_was_too_much(house: Any) -> None:
    """A page that is loaded anew in a break still has the item whose media its reader saw, and nothing else."""
    page = before_too_much(house)
    sees_too_much(house, page)
    page.reload()
    sees(page, "one")
    page.wait_for_timeout(300)
    page.keyboard.press("v")
    page.keyboard.press("1")

    expect(page.locator("#nothing")).to_contain_text("what you have seen was much")
    assert house.site.desk.entry("two").holder != "ann"


def test_who_has_seen_too_much_gives_back_what_comes_next(house: Any) -> None:
    """What a page holds ahead goes back once its reader's exposure gives them a break, which is not theirs to end."""
    page = before_too_much(house)
    holds_next(house, page)
    sees_too_much(house, page)
    page.keyboard.press("v")
    page.keyboard.press("1")

    expect(page.locator("#nothing")).to_contain_text("what you have seen was much")
    expect(page.locator("#back")).to_be_hidden()
    assert house.site.desk.entry("two").state == "open"


def test_a_lead_is_told_nothing_of_what_somebody_has_borne_or_wants(house: Any) -> None:
    """That somebody opted out, has used up their day or rests makes one and the same refusal."""
    house.set(budget=Budget(a_day=1, in_a_row=1000))
    for name in ("one", "two"):
        house.put(name)
    lea, ann = house.cookie("lea"), house.cookie("ann")
    csrf = {"X-CSRF-Token": house.token(lea)}

    def handed(to: str) -> str:
        body = {"job": "one", "to": to, "reason": "x"}
        answer = httpx.post(
            f"{house.url}/api/reassign", json=body, cookies=lea, headers=csrf, timeout=SLOW_S
        )
        return str(answer.json()["error"]).removeprefix(to)

    httpx.post(
        f"{house.url}/own",
        data={"csrf": house.token(ann), "opt_outs": "weapons"},
        cookies=ann,
        timeout=SLOW_S,
    )
    bob = house.site.accounts.find("bob").person("bob")
    [entry] = house.site.desk.claim(bob, only="two").entries
    house.site.desk.reveal(bob, "two", entry.lease, 60)

    assert (
        handed("ann")
        == handed("bob")
        == " cannot take this job, or not now: hand it to somebody else"
    )


def test_a_lead_sees_and_pauses_their_own_queues_only(house: Any) -> None:
    """Roles are limited by queue: rows, jobs and the pause of other queues are not there for them."""
    house.put("one")
    house.put("two", queue="fraud", policy="scams")
    account = house.site.accounts.find("lea").model_copy(update={"queues": ("fraud",)})
    cookie = {access.COOKIE: access.begin(house.site, "lea", account)}
    headers = {"X-CSRF-Token": house.token(cookie)}
    with httpx.Client(
        base_url=house.url, cookies=cookie, headers=headers, timeout=SLOW_S
    ) as client:
        told = client.get("/lead/stream", params={"once": "true"}).text
        jobs = client.get("/api/duty").json()["jobs"]
        statuses = [
            client.post("/api/pause", json={"queue": queue, "pause": True}).status_code
            for queue in ("weapons", "minor_safety", "fraud")
        ]

    assert '"queue": "fraud"' in told
    assert '"queue": "weapons"' not in told
    assert [job["job"] for job in jobs] == ["two"]
    assert statuses == [400, 400, 200]
    assert house.site.desk.paused() == {"fraud"}


def test_media_are_shown_as_a_person_set_it(house: Any) -> None:
    """By one press, in colours, mild ones at once; and veiled again when their reader leaves or does nothing."""
    house.put("two", text="two", severity="high")
    house.put("one", text="one", severity="low")
    own = house.page("ann", "/own")
    picture = own.locator("#media img")
    clear, blurred = (f"Medium 1 of 1, {how}" for how in ("clear", "blurred"))
    own.get_by_label("with one press").check()
    own.get_by_label("all but mild things").check()
    own.get_by_label("without colours").uncheck()
    keep(own)
    expect(own.get_by_label("with one press")).to_be_checked()
    own.clock.install()
    own.goto("/triage")
    sees(own, "two")
    expect(picture).to_have_attribute("alt", blurred)

    own.keyboard.press(" ")
    expect(picture).to_have_attribute("alt", clear)
    expect(own.locator("#media.grey")).to_have_count(0)
    own.keyboard.press(" ")
    expect(picture).to_have_attribute("alt", blurred)
    for leave in ("idle", "other window"):
        own.keyboard.press(" ")
        expect(picture).to_have_attribute("alt", clear)
        if leave == "idle":
            own.clock.fast_forward(31_000)
        else:
            own.evaluate("dispatchEvent(new Event('blur'))")
        expect(picture).to_have_attribute("alt", blurred)
    own.keyboard.press("a")
    own.keyboard.press("0")

    sees(own, "one")
    expect(picture).to_have_attribute("alt", clear)


def test_a_picture_is_zoomed_by_a_key_and_evidence_in_time_is_named(house: Any) -> None:
    """Zoom enlarges, arrows move what is zoomed, and again it is as it was; evidence at a second is said in words."""
    house.put("one", text="one", evidence=[{"media": 0, "time_s": 1.5}])
    page = house.page("ann")
    sees(page, "one")
    expect(page.locator("#frames")).to_have_text("Evidence at 1.5 s")
    page.keyboard.down(" ")
    expect(page.locator("#media img")).to_have_attribute("alt", "Medium 1 of 1, clear")
    page.locator("#media img").evaluate("picture => picture.decode()")

    looks = "picture => [picture.offsetWidth, picture.parentElement.scrollLeft]"
    found = []
    for key in ("z", "ArrowRight", "z"):
        found.append(page.locator("#media img").evaluate(looks))
        page.keyboard.press(key)
    found.append(page.locator("#media img").evaluate(looks))
    page.keyboard.up(" ")

    (small, _), (large, left), (_, right), again = found
    assert large > 1.5 * small
    assert right > left
    assert again == [small, 0]


def test_who_cares_for_people_sees_what_they_bear_and_nobody_else_does(house: Any) -> None:
    """Points, breaks and opt-outs stand on the wellbeing page; the lead's page has none of it."""
    house.put("one", severity="critical")
    ann = house.site.accounts.find("ann").person("ann")
    [entry] = house.site.desk.claim(ann).entries
    house.site.desk.reveal(ann, "one", entry.lease, 60)
    own = house.page("ann", "/own")
    own.get_by_label("Hate").first.check()
    keep(own)
    expect(own.get_by_text("30.0 of 600 points")).to_be_visible()

    page = house.page("wes", "/wellbeing")
    row = page.locator("tr", has=page.get_by_role("rowheader", name="ann", exact=True))
    lead = house.page("lea", "/lead")
    expect(lead.locator("#live")).to_have_text("live")

    assert row.locator("td").all_inner_texts() == ["30.0 of 600", "30.0 of 150", "", "hate"]
    assert not [word for word in ("30.0", "hate") if word in lead.content()]
    assert "viewed_wellbeing" in {event["what"] for event in house.seen()}


def test_a_job_that_waited_for_its_language_comes_to_anybody_with_a_mark(house: Any) -> None:
    """Half its time over, a caption that nobody reads is handed out all the same, and says in what it is written."""
    made = house.ticket("one", text="une arme", language="fr")
    desk, now = house.site.desk, datetime.now(UTC)
    for name, hours in {"early": 1, "one": 3}.items():
        decision = made.decision.model_copy(update={"decision_id": name})
        ticket = made.model_copy(update={"decision": decision})
        at = now - timedelta(hours=hours)  # due within four
        job = job_of(ticket, desk.policies(), desk.queues, recorded_at=at)
        item = Projected(offset=house.offset, ticket=ticket, job=job)
        start = house.offset
        desk.queue.project(TICKETS, 0, start=start, end=start + 1, tickets=[item])
        house.offset += 1
    page = house.page("ann")

    sees(page, "une arme")

    expect(page.locator("#part")).to_have_text("written in fr")
    assert desk.entry("one").holder == "ann"
    assert desk.entry("early").state == "open"


def test_a_sealed_queue_is_for_people_named_for_it_and_every_view_is_logged(house: Any) -> None:
    """Others are neither handed its jobs nor shown them; nothing stands beside such a job, nor it beside any."""
    for name, queue in {"sealed": "minor_safety", "other": "weapons"}.items():
        house.put(name, text=name, queue=queue, looks=(LOOK,))
    found = {}
    copies = {}
    for person in ("ann", "all"):
        cookie = house.cookie(person)
        headers = {"X-CSRF-Token": house.token(cookie)}
        answer = httpx.post(
            f"{house.url}/api/claim", json={}, cookies=cookie, headers=headers, timeout=SLOW_S
        )
        found[person] = {job["job"]: job for job in answer.json()["jobs"]}
        for name, job in found[person].items():
            copies[name] = httpx.get(
                f"{house.url}{job['media'][0]}", cookies=cookie, timeout=SLOW_S
            ).content
    lea = house.site.accounts.find("lea").person("lea")

    assert set(found["ann"]) == {"other"}
    assert set(found["all"]) == {"sealed"}
    shown = [*found["ann"].values(), *found["all"].values()]
    assert [job["near"] + job["similar"] + job["author_before"] for job in shown] == [[], []]
    assert [e.job_id for e in house.site.desk.peek(lea)] == []
    # Not even a blurred copy is made of what is sealed, and it is shown clearly to those only who ask for it.
    assert copies["sealed"] == nothing() != copies["other"]
    assert [job["sealed"] for job in shown] == [False, True]
    views = [(e["by"], e["what"], e["job_id"]) for e in house.seen() if e["what"][:6] == "viewed"]
    assert views == [("ann", "viewed", "other"), ("all", "viewed_sealed", "sealed")]
    said = Answers(answers=(VerdictAnswer(policy="weapons", answer="allowed"),))
    for name, job in {"ann": "other", "all": "sealed"}.items():
        person = house.site.accounts.find(name).person(name)
        house.site.desk.resolve(person, job, found[name][job]["lease"], said)
    assert {job: house.verdict(job)["sealed"] for job in ("other", "sealed")} == {
        "other": False,
        "sealed": True,
    }


def test_how_jobs_are_handed_out_is_configured(redis_url: str) -> None:
    """The lease, and the share of items of known answers, are those of the configuration."""
    settings = Settings(
        redis=Redis(url=SecretStr(redis_url)), console=Console(golden=0.25, lease_s=60)
    )
    site = open_site(settings)

    rules = site.desk.rules
    site.close()

    assert (rules.golden, rules.lease) == (0.25, timedelta(minutes=1))


@pytest.mark.parametrize("chunked", [False, True])
def test_a_huge_request_is_refused_before_it_is_read(house: Any, chunked: bool) -> None:  # noqa: FBT001
    """Nobody, signed in or not, fills the memory with one request."""
    for path, kind, body in (
        ("/api/claim", "application/json", b'{"have": ["' + b"x" * 400_000 + b'"]}'),
        ("/sign-in", "application/x-www-form-urlencoded", b"identity=" + b"x" * 400_000),
    ):
        pieces = (body[start : start + 50_000] for start in range(0, len(body), 50_000))
        answer = httpx.post(
            house.url + path,
            content=pieces if chunked else body,
            headers={"Content-Type": kind},
            timeout=SLOW_S,
        )
        assert answer.status_code == 413, answer.text
        assert "content-security-policy" in answer.headers


def test_behind_a_proxy_that_speaks_tls_cookies_never_leave_without_it(house: Any) -> None:
    """Where people reach the console by https, its cookies are for that alone, and its own pages may call it."""
    data = {"identity": "ann", "password": PASSWORD}
    origin = {"Origin": "https://review.example"}
    plain = httpx.post(f"{house.url}/sign-in", data=data, timeout=SLOW_S)
    foreign = httpx.post(f"{house.url}/sign-in", data=data, headers=origin, timeout=SLOW_S)
    object.__setattr__(house.site, "url", "https://review.example")
    try:
        behind = httpx.post(f"{house.url}/sign-in", data=data, headers=origin, timeout=SLOW_S)
    finally:
        object.__setattr__(house.site, "url", "")

    assert "secure" not in plain.headers["set-cookie"].lower()
    assert foreign.status_code == 403
    assert behind.status_code == 303
    assert "secure" in behind.headers["set-cookie"].lower()


@pytest.mark.parametrize(
    ("closed", "waiting", "late", "expected"),
    [
        (60, 100, 0, 0),  # 60 an hour: in four hours 240
        (10, 100, 0, 60),  # 40 of the hundred in time
        (0, 100, 3, 100),  # nobody works
        (60, 5, 5, 5),  # what is late is late
    ],
)
def test_what_will_be_late_is_what_nobody_gets_to_in_time(
    closed: int, waiting: int, late: int, expected: int
) -> None:
    """At the rate of the last hour, so many of those that wait are answered within the queue's time."""
    depth = Depth(queue="q", open=waiting, late=late, closed=closed)

    found = forecast(depth, Queue(due=timedelta(hours=4)), elapsed=timedelta(hours=1))

    assert found == expected
