"""Every page, light and dark: axe-core finds no serious fault, and nothing is cut off at 200 % zoom."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

SERIOUS = {"serious", "critical"}
RATIONALE = {"clause": "W1", "text": "A pistol beside a price.", "supported": True}
CLAUSES = ("weapons", "weapons/W3")


def faults(page: Page) -> list[str]:
    """Return what axe-core holds to be seriously wrong on a page, and whether it is wider than its window."""
    found = Axe().run(page).response["violations"]
    wide = page.evaluate("document.documentElement.scrollWidth > innerWidth + 1")
    return [
        f"{page.url}: {fault['id']} at {[node['target'] for node in fault['nodes']]}"
        for fault in found
        if fault["impact"] in SERIOUS
    ] + ([f"{page.url}: wider than its window"] if wide else [])


def views(house: Any, page: Page) -> list[str]:
    """Return the faults of every view that a person with all roles sees, one after the other."""
    found = []
    page.goto("/triage")
    expect(page.locator("#job")).to_be_visible(timeout=60_000)
    found += faults(page)
    page.keyboard.press("v")
    page.keyboard.press("d")
    page.keyboard.press("l")
    found += faults(page)
    page.keyboard.press("Escape")
    for key, dialog in {"?": "#sheet", "m": "#away"}.items():
        page.keyboard.press(key)
        expect(page.locator(dialog)).to_be_visible()
        found += faults(page)
        page.keyboard.press("Escape")
    page.evaluate("document.querySelector('#lost').showModal()")
    found += faults(page)
    for path in ("/lead", "/wellbeing", "/own", "/nowhere"):
        page.goto(path)
        found += faults(page)
    page.request.post(
        "/api/break",
        data={},
        headers={"X-CSRF-Token": page.locator("meta[name=csrf]").get_attribute("content") or ""},
    )
    page.goto("/triage")
    expect(page.locator("#nothing")).to_contain_text("on a break", timeout=60_000)
    return found + faults(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_shuts_anybody_out(house: Any, scheme: str) -> None:
    """Contrast, labels, names, order: no page and no dialog has a serious fault."""
    box = [{"media": 0, "box": (0.1, 0.2, 0.5, 0.6)}]
    house.put(
        "one",
        text="Mine, hardly used.",
        same="s",
        questions=CLAUSES,
        rationale=RATIONALE,
        evidence=box,
    )
    house.put("two", text="For sale.", same="s")
    page = house.page(None, "/sign-in", color_scheme=scheme)
    found = faults(page)
    page = house.page("all", "/own", color_scheme=scheme)

    assert found + views(house, page) == []


def test_at_twice_the_size_nothing_is_cut_off(house: Any) -> None:
    """In a window half as wide every page still fits its width."""
    house.put("one", text="Mine, hardly used. " * 5, questions=CLAUSES, rationale=RATIONALE)
    page = house.page("all", "/own")
    page.set_viewport_size({"width": 683, "height": 384})

    assert views(house, page) == []
