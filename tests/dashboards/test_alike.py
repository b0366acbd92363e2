"""Waiting items that look the same are shown with their captions and answered one by one or by a marked selection."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from pipeline.alike import neighbours
from pipeline.config import environment
from pipeline.messages import VERDICTS
from pipeline.review import NEAR

LOOK = "00ff13ff00ff5cff"
NEXT_TO_IT = "00ff13ff00ff5cf8"  # three bits
FAR = "ff0013ffa5a55c00"


def fill(house: Any) -> None:
    """Put one item, what comes after it, and others that wait."""
    house.put("one", text="first", looks=(LOOK,))
    house.put("next", text="comes next")
    house.put("two", text="second", looks=(NEXT_TO_IT,))
    house.put("three", text="third", looks=(FAR, LOOK))
    house.put("more", text="asks more", looks=(LOOK,), questions=("weapons", "weapons/W3"))
    house.put("far", text="looks different", looks=(FAR,))


def test_marked_items_get_the_same_answer_each_by_itself(house: Any) -> None:
    """What was marked is answered with the shown item, taken back with it, and becomes a verdict of its own."""
    house.set(undo_for=timedelta(seconds=30))
    fill(house)
    page = house.page("ann")
    expect(page.locator("#caption")).to_have_text("first")
    page.keyboard.press("k")
    rows = page.locator("#near-items li")
    expect(rows).to_have_text(
        [
            "“third” (the same picture)",
            "“asks more” (the same picture): asks something else, so it comes by itself",
            "“second”",
        ]
    )
    expect(rows.nth(1).locator("input")).to_be_disabled()
    page.keyboard.press("w")
    expect(rows.nth(0).locator("input")).to_be_checked()
    if folder := environment().get("WEIR_TEST_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / "alike.png")

    page.keyboard.press("v")
    page.keyboard.press("1")
    expect(page.locator("#said")).to_contain_text("Answered, and 2 like it")

    said = {name: house.verdict(name) for name in ("one", "two", "three")}
    assert {v["job_id"]: v["answers"] for v in said.values()} == dict.fromkeys(
        said, said["one"]["answers"]
    )
    assert len({v["verdict_id"] for v in said.values()}) == 3
    assert house.verdict("far") is house.verdict("more") is None

    page.keyboard.press("u")
    expect(page.locator("#said")).to_have_text("Taken back.")
    expect(page.locator("#caption")).to_have_text("first")
    assert not [name for name in said if house.verdict(name)]
    assert {house.site.desk.entry(name).state for name in ("two", "three")} == {"open"}

    house.set()
    page.keyboard.press("k")
    page.locator("#near-items li", has_text="third").get_by_role("checkbox").uncheck()
    page.keyboard.press("a")
    page.keyboard.press("0")
    for name in ("one", "two"):
        house.until(page, partial(house.verdict, name), f"the answer to {name}")
    house.deliver()
    assert {v["job_id"] for v in house.seen(VERDICTS)} == {"one", "two"}
    assert house.site.desk.entry("three").state == "open"


def test_what_is_not_beside_is_not_answered(house: Any) -> None:
    """A job that looks different, asks something else, or was taken meanwhile is left; the rest is answered."""
    house.set(undo_for=timedelta(seconds=30))
    fill(house)
    page = house.page("ann")
    expect(page.locator("#caption")).to_have_text("first")
    bob = house.site.accounts.find("bob").person("bob")
    assert house.site.desk.claim(bob, only="three").entries

    told = page.evaluate(
        """async () => {
          const { call } = await import("/static/call.js");
          const lease = 1;
          const answers = [{ policy: "weapons", answer: "allowed" }];
          return call("/api/answer", { job: "one", lease, answers, also: ["two", "three", "far", "more", "none"] });
        }"""
    )

    assert [one["job"] for one in told["also"]] == ["two"]
    assert [one["job"] for one in told["left"]] == ["three", "far", "more", "none"]
    assert house.site.desk.entry("three").holder == "bob"


def test_neighbours_are_those_that_a_person_may_have(house: Any) -> None:
    """Another queue, a sealed one, a language or a policy that is not theirs: none of it stands beside."""
    put: dict[str, dict[str, Any]] = {
        "one": {},
        "two": {},
        "ads": {"queue": "adult"},
        "german": {"language": "de", "text": "Hallo"},
        "mixed": {"questions": ("weapons", "hate")},
    }
    for name, more in put.items():
        house.put(name, looks=(LOOK,), **more)
    for name in ("sealed", "sealed too"):
        house.put(name, looks=(LOOK,), queue="minor_safety")
    desk = house.site.desk
    whole = house.site.accounts.find("all").person("all")

    def beside(job: str, **other: Any) -> set[str]:
        person = replace(whole, **other)
        return {n.entry.job_id for n in neighbours(desk, person, desk.entry(job))}

    assert beside("one") == {"two", "german", "mixed"}
    assert beside("one", languages=("en",)) == {"two", "mixed"}
    assert beside("one", opt_outs=("hate",)) == {"two", "german"}
    assert beside("one", queues=("adult",)) == set()
    assert beside("sealed") == set()
    desk.move(whole, "two", "adult", "not a weapon")
    assert beside("one") == {"german", "mixed"}
    assert beside("ads") == {"two"}


def test_every_near_hash_is_found(house: Any) -> None:
    """Whichever bits differ, as long as they are few enough, the band that is left finds the job."""
    house.put("one", looks=(LOOK,))
    places = [range(NEAR), range(0, 60, 12), range(3, 64, 13), (0, 12, 24, 36, 63)]
    for number, bits in enumerate(places):
        changed = int(LOOK, 16)
        for bit in bits:
            changed ^= 1 << bit
        house.put(f"near-{number}", looks=(f"{changed:016x}",))
        house.put(f"beyond-{number}", looks=(f"{changed ^ (1 << 61):016x}",))
    queue = house.site.desk.queue

    found = {entry.job_id for entry in queue.alike(queue.entry("one"))}

    assert found == {f"near-{number}" for number in range(len(places))}
