"""Reviewing in a real browser: keys, media, care, lost leases, and what must never be on the page."""

from typing import Any

import httpx
from playwright.sync_api import Page, Request, expect

from dashboards.console.sheet import blind
from pipeline.messages import PEOPLE, REVIEWS
from pipeline.people import add
from pipeline.review import Person

#: Stored words that would change the page's title if they ever ran.
MARKUP = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
RATIONALE = {"clause": "W1", "text": f"A pistol. {MARKUP}", "supported": True}


def ready(page: Page, title: str = "Weapons") -> None:
    """Wait until an item is shown."""
    expect(page.locator("#job")).to_be_visible(timeout=60_000)
    expect(page.locator("#title")).to_contain_text(title)


def shown(page: Page) -> str:
    """Return the caption of the item that is shown."""
    return page.locator("#caption").inner_text()


def waiting(house: Any, page: Page, job: str) -> dict[str, Any]:
    """Return the answers to a job once the server has them."""
    house.until(page, lambda: house.verdict(job) is not None, f"the answer to {job}")
    return dict(house.verdict(job))


def test_two_keys_answer_a_question_whatever_the_answer(house: Any) -> None:
    """Violating a clause and being allowed by a carve-out cost two keys, being unclear costs one; undo brings back."""
    for name in ("one", "two", "three", "four"):
        house.put(name, text=name)
    page = house.page("ann")
    ready(page)
    assert shown(page) == "one"

    page.keyboard.press("v")
    page.keyboard.press("2")
    expect(page.locator("#caption")).to_have_text("two")
    page.keyboard.press("a")
    page.keyboard.press("1")
    expect(page.locator("#caption")).to_have_text("three")
    page.keyboard.press("x")
    expect(page.locator("#caption")).to_have_text("four")
    said = {name: waiting(house, page, name) for name in ("one", "two", "three")}
    page.keyboard.press("u")
    expect(page.locator("#caption")).to_have_text("three")

    answers = {name: verdict["answers"][0] for name, verdict in said.items()}
    assert (answers["one"]["answer"], answers["one"]["clause"]) == ("violates", "W2")
    assert (answers["two"]["answer"], answers["two"]["carve_out"]) == ("allowed", "A1")
    assert answers["three"]["answer"] == "cannot_tell"
    assert said["three"]["policy_unclear"] is True
    assert house.verdict("three") is None


def test_the_next_item_is_there_before_the_server_has_answered(house: Any) -> None:
    """What comes next is loaded ahead: no answer of the server is waited for."""
    house.put("one", text="one")
    house.put("two", text="two")
    page = house.page("ann")
    ready(page)
    expect(page.locator("#media img")).to_have_js_property("complete", value=True)
    held: list[Any] = []
    page.route("**/api/answer", lambda route: held.append(route))  # noqa: PLW0108 -- a bound method will not do

    page.keyboard.press("v")
    page.keyboard.press("1")

    expect(page.locator("#caption")).to_have_text("two")
    house.until(page, lambda: held, "the answer on its way")
    assert house.verdict("one") is None
    held[0].continue_()
    waiting(house, page, "one")


def test_clear_media_are_asked_for_while_the_key_is_held_only(house: Any) -> None:
    """Until then only blurred copies are fetched; the view is counted, and ends with the key and with the tab."""
    house.put("one", text="one")
    house.put("two", text="two")
    asked: list[str] = []
    page = house.page("ann", "/own")

    def note(request: Request) -> None:
        if "/media/" in request.url or request.url.endswith(("/reveal", "/veil")):
            asked.append(request.url.rsplit("/", 1)[-1] if "/api/" in request.url else "media")

    page.on("request", note)
    page.goto("/triage")
    ready(page)
    expect(page.locator("#media img")).to_have_js_property("complete", value=True)
    before = list(asked)
    page.keyboard.down(" ")
    expect(page.locator("#media img")).to_have_attribute("alt", "Medium 1 of 1, clear")
    page.keyboard.up(" ")
    expect(page.locator("#media img")).to_have_attribute("alt", "Medium 1 of 1, blurred")
    ann = Person(id="ann")
    # The log comes first, and what has been borne follows from it.
    house.until(page, lambda: house.site.desk.exposure(ann), "what Ann has borne")

    assert set(before) == {"media"}
    assert asked.count("reveal") == 1
    [event] = house.seen(REVIEWS)
    assert (event["kind"], event["by"], event["job_id"]) == ("revealed", "ann", "one")
    assert event["seconds"] > 0
    assert float(house.site.desk.exposure(ann)["points"]) > 0


def test_all_that_a_decision_needs_is_on_one_screen(house: Any) -> None:
    """At 1366 by 768 nothing scrolls: media, clauses, caption, action, due time, reason, the model's words."""
    house.put("one", text="Selling my grandfather's pistol. " * 6, rationale=RATIONALE)
    page = house.page("ann")
    ready(page)

    outside = page.evaluate(
        """() => ["media", "caption", "why", "question", "clauses", "exempt", "force", "due",
                  "model", "note", "undo"].filter((id) => {
            const box = document.getElementById(id).getBoundingClientRect();
            return box.width === 0 || box.bottom > 768 || box.right > 1366 || box.top < 0;
        })"""
    )
    scrolls = page.evaluate(
        """() => document.scrollingElement.scrollHeight > 768
            || document.querySelector(".asked").scrollHeight
               > document.querySelector(".asked").clientHeight"""
    )

    assert outside == []
    assert not scrolls
    assert page.locator("#why").inner_text() == (
        "Here because of Weapons. Of 100 items like this, 62 to 79 were violations."
    )
    expect(page.locator("#supported")).to_have_text("supported by the upload")


def test_what_the_model_denied_is_not_its_word(house: Any) -> None:
    """Where words or place were denied and corrected, the reviewer is told which."""
    house.put("one", rationale=RATIONALE | {"denied": ["text", "box"]})
    page = house.page("ann")
    ready(page)

    expect(page.locator("#supported")).to_have_text(
        "corrected: the model denied its own words and place"
    )


def test_stored_markup_is_words(house: Any) -> None:
    """Markup in captions, rationales, notes, names, reports and appeals is shown as it was written and never runs."""
    report = {"category": MARKUP, "text": MARKUP}
    house.put("one", text=MARKUP, rationale=RATIONALE, author=MARKUP, reports=[report])
    house.site.desk.note(Person(id="lea", roles=frozenset({"lead"})), "one", MARKUP)
    accounts = house.site.accounts
    whole = accounts.find("all")
    add(accounts.path, "all", whole.model_copy(update={"name": MARKUP}))
    errors: list[str] = []
    page = house.page("all", "/own")
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto("/triage")
    ready(page)

    assert shown(page) == MARKUP
    assert MARKUP in page.locator("#rationale").inner_text()
    page.keyboard.press("d")
    expect(page.locator("#facts")).to_be_visible()
    assert page.locator("#facts").inner_text().count(MARKUP) == 4
    page.keyboard.press("n")
    page.keyboard.type(MARKUP)
    page.keyboard.press("Escape")
    page.wait_for_timeout(200)
    assert page.title() == "Review · Weir"
    for path, title in {"/lead": "Queues", "/wellbeing": "Wellbeing", "/own": "You"}.items():
        page.goto(path)
        expect(page.locator("body")).to_contain_text(MARKUP)
        page.wait_for_timeout(200)
        assert page.title() == f"{title} · Weir"
    add(accounts.path, "all", whole)
    assert errors == []


def test_a_lost_lease_is_said_and_no_word_is_lost(house: Any) -> None:
    """Who answers too late reads so, and finds their note again."""
    house.put("one", text="one")
    page = house.page("ann")
    ready(page)
    page.keyboard.press("n")
    page.keyboard.type("Seen before, see case 12.")
    page.keyboard.press("Escape")
    entry = house.site.desk.entry("one")
    house.site.desk.queue.hold("one", "ann", entry.lease, "release")
    house.site.desk.claim(Person(id="bob", languages=("en",)))

    page.keyboard.press("v")
    page.keyboard.press("1")

    expect(page.locator("#lost")).to_be_visible(timeout=60_000)
    assert page.locator("#kept").input_value() == "Seen before, see case 12."
    assert house.verdict("one") is None


def test_a_break_gives_back_and_hands_out_nothing(house: Any) -> None:
    """During a break nothing comes; a lead sees that there is one, and no more than that."""
    house.put("one", text="one")
    page = house.page("ann")
    ready(page)

    page.keyboard.press("b")

    expect(page.locator("#nothing")).to_contain_text("on a break until")
    assert house.site.desk.entry("one").state == "open"
    lead = house.page("lea", "/lead")
    expect(lead.locator("#people")).to_contain_text("ann: on break")
    assert "points" not in lead.content()
    page.locator("#back").click()
    ready(page)


def test_a_queue_is_paused_and_its_numbers_are_live(house: Any) -> None:
    """A lead's table follows without a reload, and a paused queue hands out nothing."""
    page = house.page("lea", "/lead")
    row = page.locator("#queues tr", has_text="Weapons").first
    expect(page.locator("#live")).to_have_text("live")
    house.put("one", text="one")
    expect(row.locator("td").first).to_have_text("1")

    page.get_by_role("button", name="Pause Weapons").click()
    expect(page.get_by_role("button", name="Resume Weapons")).to_be_visible(timeout=60_000)

    other = house.page("ann")
    expect(other.locator("#nothing")).to_contain_text("Nothing waits")


def test_opting_out_and_exposure_bind_where_jobs_are_handed_out(house: Any) -> None:
    """Opted-out policies are not handed out, and neither is anything once a break is due."""
    for name in ("one", "two"):
        house.put(name)
    cookie = house.cookie("ann")
    headers = {"X-CSRF-Token": house.token(cookie)}
    with httpx.Client(base_url=house.url, cookies=cookie, headers=headers, timeout=120) as client:
        data = {"csrf": house.token(cookie), "opt_outs": "weapons"}
        client.post("/own", data=data)
        none = client.post("/api/claim", json={}).json()
        client.post("/own", data={"csrf": house.token(cookie)})
        [job] = client.post("/api/claim", json={"want": 1}).json()["jobs"]
        house.site.desk.reveal(Person(id="ann"), job["job"], job["lease"], 3600.0)
        client.post("/api/release", json={"job": job["job"], "lease": job["lease"]})
        tired = client.post("/api/claim", json={}).json()

    assert (none["jobs"], none["reason"]) == ([], "empty")
    assert (tired["jobs"], tired["reason"]) == ([], "break")
    assert [event["opt_outs"] for event in house.seen(PEOPLE)] == [["weapons"], []]


def test_blind_first_hides_what_the_model_thinks(house: Any) -> None:
    """With the model's opinion hidden neither its probability nor its words leave the server."""
    house.put("one", rationale=RATIONALE)
    cookie = house.cookie("ann")
    headers = {"X-CSRF-Token": house.token(cookie)}
    object.__setattr__(house.site, "blind", 1.0)
    try:
        answer = httpx.post(
            f"{house.url}/api/claim", json={}, cookies=cookie, headers=headers, timeout=120
        )
    finally:
        object.__setattr__(house.site, "blind", 0.0)

    assert answer.json()["jobs"][0]["hidden"] is True
    assert "Of 100" not in answer.text
    assert "pistol. " not in answer.text
    assert [blind("one", share) for share in (0.0, 1.0)] == [False, True]


def test_an_upload_that_nothing_could_read_is_answered_rule_first(house: Any) -> None:
    """Where no question is asked, the first key names the rule and the next one its clause."""
    house.put("one", text="one", queue="intake", reason="intake", questions=())
    page = house.page("ann")
    ready(page, "Does this upload break a rule?")

    page.keyboard.press("v")
    page.keyboard.press("1")
    page.keyboard.press("1")

    verdict = waiting(house, page, "one")
    assert [answer["answer"] for answer in verdict["answers"]] == ["violates"]
    assert verdict["answers"][0]["clause"]
