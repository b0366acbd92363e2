"""A working day in small: 200 items by keys alone, and what the server was asked for and sent meanwhile."""

from collections import Counter
from datetime import timedelta
from statistics import median
from typing import Any

import pytest
from playwright.sync_api import Page, Response, expect

from dashboards.console import signing
from dashboards.console.sheet import blind
from pipeline.config import environment
from pipeline.desk import Answers
from pipeline.messages import AUDIT, VERDICTS, VerdictAnswer
from pipeline.review import Person

ITEMS, GOLDEN = 200, 5
BLIND = 0.3
#: What a person presses to answer one question, in turn; no answer costs more than another.
WAYS = (("v", "1"), ("a", "0"), ("a", "1"), ("c",), ("x",))
#: Counts what the page is given and how long it takes from a key to the next item.
COUNTER = """
window.counted = {keys: 0, reveals: 0, mouse: 0, scrolls: 0, waits: []};
let pressed = 0;
addEventListener("keydown", (event) => {
  counted[event.key === " " ? "reveals" : "keys"] += 1;
  pressed = event.timeStamp;
}, true);
for (const kind of ["pointermove", "pointerdown", "wheel"]) addEventListener(kind, () => counted.mouse++, true);
addEventListener("scroll", () => counted.scrolls++, true);
addEventListener("DOMContentLoaded", () => new MutationObserver(() => {
  const since = pressed;
  if (since) requestAnimationFrame(() => counted.waits.push(performance.now() - since));
}).observe(document.getElementById("caption"), {childList: true}));
"""
#: Whether an item needs scrolling, or anything of it lies outside the window.
OVERFLOWS = """() => [document.scrollingElement, document.querySelector(".asked"), document.querySelector(".seen")]
  .some((place) => place.scrollHeight > place.clientHeight)"""
NEXT = """before => !document.getElementById("job").hidden
  && document.getElementById("caption").textContent !== before"""


def questions(number: int) -> tuple[str, ...]:
    """Return what is asked about an item."""
    return ("weapons", "weapons/W3") if number % 5 == 0 else ("weapons",)


def fill(house: Any) -> None:
    """Put the items into the queue; some are items whose right answer is known."""
    lea = Person(id="lea", roles=frozenset({"lead"}), languages=("en",))
    secret = {
        "policy": "weapons",
        "clause": "W2",
        "answer": "violates",
        "why": "the-expected-answer",
    }
    right = VerdictAnswer.model_validate(secret)
    for number in range(GOLDEN):
        house.put(f"known-{number}", text=f"item k{number}")
        [entry] = house.site.desk.claim(lea).entries
        house.site.desk.resolve(
            lea, entry.job_id, entry.lease, Answers(answers=(right,)), at_once=True
        )
        house.deliver()
        house.site.desk.golden(lea, entry.job_id, entry.decision_id, [right])
    for number in range(ITEMS - GOLDEN):
        words = {"clause": "W1", "text": f"the-opinion-on-{number}.", "supported": True}
        house.put(
            f"job-{number}", text=f"item {number}", questions=questions(number), rationale=words
        )


@pytest.mark.skipif(not environment().get("WEIR_TEST_LONG"), reason="a minute of two cores")
def test_two_hundred_items_by_keys_alone(house: Any) -> None:
    """Two keys a question at most, no mouse, no scrolling; clear media of revealed items only; no secret is sent."""
    house.set(undo_for=timedelta(seconds=10), at_most=ITEMS + 10)
    fill(house)
    house.set(undo_for=timedelta(seconds=1), at_most=60, golden=1.0)
    object.__setattr__(house.site, "blind", BLIND)
    before = len(house.seen(AUDIT))
    page = house.page("ann", "/own")
    page.add_init_script(COUNTER)
    answers: list[Response] = []
    links: list[signing.Link | None] = []

    def keep(answer: Response) -> None:
        answers.append(answer)
        if "/media/" in answer.url:
            # Later the link may be too old to be read.
            links.append(signing.opened(house.site.secret, answer.url.rsplit("/", 1)[-1]))

    page.on("response", keep)
    page.goto("/triage")

    spent, revealed, overflows = go_through(house, page)

    expect(page.locator("#nothing")).to_contain_text("Nothing waits")
    counted = page.evaluate("counted")

    def answered() -> set[str]:
        house.deliver()
        return {said["job_id"] for said in house.seen(VERDICTS)}

    house.until(page, lambda: len(answered()) >= ITEMS + GOLDEN, "every verdict")
    assert len(spent) == ITEMS
    assert all(keys <= 2 * asked for keys, asked in spent.values())
    assert counted["keys"] == sum(keys for keys, _ in spent.values())
    assert (counted["mouse"], counted["scrolls"], overflows) == (0, 0, 0)
    # On a machine with nothing else to do it is a tenth of that; the figure is printed.
    assert median(counted["waits"]) < 1000
    print(f"from key to next item: {median(counted['waits']):.0f} ms, median of {ITEMS}")  # noqa: T201
    assert {f"job-{number}" for number in range(ITEMS - GOLDEN)} <= answered()
    check_media(house.seen(AUDIT)[before:], links, revealed)
    check_secrets(house, answers)


def go_through(house: Any, page: Page) -> tuple[dict[str, tuple[int, int]], set[str], int]:
    """Answer every item; return keys and questions of each, which were revealed, and how many did not fit."""
    spent: dict[str, tuple[int, int]] = {}
    revealed: set[str] = set()
    overflows = 0
    before = ""
    for turn in range(ITEMS):
        page.wait_for_function(NEXT, arg=before)
        before = page.locator("#caption").inner_text()
        overflows += page.evaluate(OVERFLOWS)
        number = before.removeprefix("item ")
        if turn % 20 == 7 and number.isdigit():
            page.keyboard.down(" ")
            expect(page.locator("#media img")).to_have_attribute("alt", "Medium 1 of 1, clear")
            expect(page.locator("#media img")).to_have_js_property("complete", value=True)
            page.keyboard.up(" ")
            revealed.add(f"job-{number}")
        asked = questions(int(number)) if number.isdigit() else ("weapons",)
        keys = [key for place, _ in enumerate(asked) for key in WAYS[(turn + place) % len(WAYS)]]
        for key in keys:
            page.keyboard.press(key)
        spent[before] = (len(keys), len(asked))
        if turn % 10 == 9:
            house.deliver()
    return spent, revealed, overflows


def check_media(
    audit: list[dict[str, Any]], links: list[signing.Link | None], revealed: set[str]
) -> None:
    """Assert by the server's log, and by what the browser asked for, that only revealed items were seen clearly."""
    log = [event for event in audit if event["what"] in {"revealed", "saw"}]
    kinds = Counter(event["what"] for event in log)

    assert len(revealed) >= 5
    assert {event["job_id"] for event in log if event["what"] == "saw"} == revealed
    assert kinds["revealed"] == kinds["saw"] == len(revealed)
    assert {link.job for link in links if link and link.clear} == revealed
    assert sum(1 for link in links if link and not link.clear) >= ITEMS


def check_secrets(house: Any, answers: list[Response]) -> None:
    """Assert that no response names the right answer of a known item, or an opinion that is to be hidden."""
    sent = "\n".join(
        a.text() for a in answers if a.ok and ("/api/" in a.url or a.url.endswith("/triage"))
    )
    hidden = [n for n in range(ITEMS - GOLDEN) if blind(f"job-{n}", BLIND)]

    assert sent.count('"caption":"item k') == GOLDEN
    assert "the-expected-answer" not in sent
    assert "golden" not in sent
    assert 20 < len(hidden) < 120
    for number in range(ITEMS - GOLDEN):
        assert (f"the-opinion-on-{number}." in sent) == (number not in hidden)
