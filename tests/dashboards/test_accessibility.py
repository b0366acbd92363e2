"""Every page, light and dark: axe-core finds no serious fault, and nothing is cut off at 200 % zoom.

With `WEIR_TEST_SCREENSHOTS=FOLDER` a picture of each view is put there, to be looked at.
"""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from pipeline.desk import Answers
from pipeline.messages import VerdictAnswer

SERIOUS = {"serious", "critical"}
RATIONALE = {"clause": "W1", "text": "A pistol beside a price.", "supported": True}
LOOK = "00ff13ff00ff5cff"
PICTURE = "pistol-for-sale.png"
CLAUSES = ("weapons", "weapons/W3")


def faults(page: Page, view: str) -> list[str]:
    """Return what axe-core holds to be seriously wrong on a page, and whether it is wider than its window."""
    folder = os.environ.get("WEIR_TEST_SCREENSHOTS")  # noqa: TID251 -- whoever wants to look says so here
    if folder:
        size = page.viewport_size or {"width": 0}
        dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        name = f"{view}-{'dark' if dark else 'light'}-{size['width']}.png"
        page.screenshot(path=Path(folder) / name)
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
    expect(page.locator("#job")).to_be_visible()
    expect(page.locator("#media img")).to_have_js_property("complete", value=True)
    found += faults(page, "review")
    page.keyboard.down(" ")
    expect(page.locator("#media img")).to_have_attribute("alt", "Medium 1 of 1, clear")
    page.keyboard.press("v")
    for key in ("k", "l", "d"):
        page.keyboard.press(key)
    expect(page.locator("#near-items")).to_be_visible()
    page.locator("#media img").evaluate("picture => picture.decode()")
    found += faults(page, "review-folded-out")
    page.keyboard.up(" ")
    page.keyboard.press("Escape")
    for key, dialog in {"?": "#sheet", "m": "#away"}.items():
        page.keyboard.press(key)
        expect(page.locator(dialog)).to_be_visible()
        found += faults(page, f"dialog-{dialog[1:]}")
        page.keyboard.press("Escape")
    page.evaluate("document.querySelector('#lost').showModal()")
    page.locator("#kept").evaluate("box => (box.value = 'The serial number is filed off.')")
    found += faults(page, "dialog-lost")
    for path in ("lead", "wellbeing", "own", "nowhere"):
        page.goto(f"/{path}")
        if path == "lead":
            expect(page.locator("#verdicts")).to_contain_text("so far")
            expect(page.locator("#duty td").first).to_be_visible()
        found += faults(page, path)
    page.goto("/triage")
    expect(page.locator("#job")).to_be_visible()
    page.keyboard.press("b")
    expect(page.locator("#nothing")).to_contain_text("on a break")
    return found + faults(page, "break")


def fill(house: Any) -> None:
    """Put something into every view: items, one of them seen before, and verdicts that differ."""
    house.set()
    house.put("zero", text="Got this from my uncle.", same="s", reviewers=2, picture=PICTURE)
    for person, keys in {
        "ann": ("violates", "W1"),
        "bob": ("allowed", None),
        "lea": ("violates", "W1"),
    }.items():
        account = house.site.accounts.find(person).person(person)
        [entry] = house.site.desk.claim(account).entries
        house.site.neighbours.of(entry, account, hidden=False)
        said = VerdictAnswer.model_validate(
            {"policy": "weapons", "answer": keys[0], "clause": keys[1]}
        )
        house.site.desk.resolve(account, entry.job_id, entry.lease, Answers(answers=(said,)))
        house.deliver()
    more: dict[str, Any] = {
        "same": "s",
        "picture": PICTURE,
        "looks": (LOOK,),
        "questions": CLAUSES,
        "rationale": RATIONALE,
        "evidence": [{"media": 0, "box": (0.2, 0.2, 0.8, 0.8)}],
    }
    house.put("one", text="Selling a pistol, 300 euros, DM me", **more)
    house.put("two", text="For sale.", picture=PICTURE)
    for name in ("three", "four"):
        asked = {"questions": CLAUSES} if name == "three" else {}
        house.put(name, text="For sale again.", picture=PICTURE, looks=(LOOK,), **asked)
    house.set(undo_for=timedelta(seconds=10))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_shuts_anybody_out(house: Any, scheme: str) -> None:
    """Contrast, labels, names, order: no page and no dialog has a serious fault."""
    fill(house)
    found = faults(house.page(None, "/sign-in", color_scheme=scheme), "sign-in")
    page = house.page("all", "/own", color_scheme=scheme)

    assert found + views(house, page) == []


def test_at_twice_the_size_nothing_is_cut_off(house: Any) -> None:
    """In a window half as wide every page still fits its width."""
    fill(house)
    page = house.page("all", "/own")
    page.set_viewport_size({"width": 683, "height": 384})

    assert views(house, page) == []
