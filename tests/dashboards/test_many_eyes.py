"""Reviews that take more than one person, in their browsers: blind to each other, with a last word; appeals; care."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from playwright.sync_api import Page, Response, expect

from pipeline.appeals import opened
from pipeline.care import Budget
from pipeline.messages import Appeal
from pipeline.review import Person
from policies.schema import Action, PolicySet

RATIONALE = {"clause": "W1", "text": "The model's very own words.", "supported": True}


class Reader:
    """A page of somebody, and everything that the server ever sent it."""

    def __init__(self, house: Any, person: str) -> None:
        self.house = house
        self.sent: list[str] = []
        self.page: Page = house.page(person, "/own")
        self.page.on("response", self._keep)
        self.page.goto("/triage")

    def _keep(self, response: Response) -> None:
        if "/media/" not in response.url and response.status == 200:
            self.sent.append(response.text())

    def sees(self, text: str) -> None:
        """Wait until an item with this caption is shown."""
        expect(self.page.locator("#caption")).to_have_text(text)

    def has_nothing(self) -> None:
        """Wait until the page says that nothing waits."""
        self.page.reload()
        expect(self.page.locator("#nothing")).to_contain_text("Nothing waits")

    def answers(self, job: str, *keys: str, note: str = "") -> None:
        """Answer by keys, and wait until the server has it."""
        if note:
            self.page.keyboard.press("n")
            self.page.keyboard.type(note)
            self.page.keyboard.press("Escape")
        for key in keys:
            self.page.keyboard.press(key)
        self.house.until(self.page, lambda: self.house.verdict(job), f"the answer to {job}")


def test_two_who_agree_decide_and_neither_knows_the_other(house: Any) -> None:
    """The second reviewer sees nothing of the first; when both say the same, it is decided."""
    house.set()
    house.put("one", text="one", reviewers=2)
    ann = Reader(house, "ann")
    ann.sees("one")
    ann.answers("one", "v", "1", note="Ann saw a price tag.")
    assert house.deliver() == []
    ann.has_nothing()

    bob = Reader(house, "bob")
    bob.sees("one")
    expect(bob.page.locator("#part")).to_have_text("second opinion")
    bob.answers("one", "v", "2")
    [decision] = house.deliver()

    assert not [text for text in bob.sent if "price tag" in text or '"ann"' in text]
    assert (decision.action, decision.decided_by, decision.reviewer) == (
        Action.REMOVE,
        "person",
        "bob",
    )


def test_where_two_differ_a_lead_has_the_last_word(house: Any) -> None:
    """The lead, and nobody else, gets it with what both said, and decides."""
    house.set()
    house.put("one", text="one", reviewers=2)
    for person, keys in {"ann": ("v", "1"), "bob": ("a", "1")}.items():
        reader = Reader(house, person)
        reader.sees("one")
        reader.answers("one", *keys, note=f"{person} is sure.")
        assert house.deliver() == []
        reader.has_nothing()

    lea = Reader(house, "lea")
    lea.sees("one")
    expect(lea.page.locator("#part")).to_have_text("last word")
    said = lea.page.locator("#before").inner_text()
    lea.answers("one", "v", "1")
    [decision] = house.deliver()

    page = house.page("lea", "/lead")
    expect(page.locator("#verdicts")).to_have_text("3 so far")
    figures = {
        name: page.locator(f"#{name} tbody tr").all_inner_texts()
        for name in ("agreement", "reliability", "disputed")
    }
    own = house.page("ann", "/own")
    expect(own.locator("section[aria-labelledby=figures] tbody")).to_have_text("Weapons1100 %–")

    assert figures["agreement"][0].split("\t") == ["All policies", "1", "0 %", "0.00"]
    assert "bob, Weapons\t1\t0 %\t0.00" in figures["reliability"]
    assert figures["disputed"][0] == "Weapons\t1\t100 %"
    assert "Reviewer 1: weapons: violates W1 (“ann is sure.”)" in said
    assert "Reviewer 2: weapons: allowed A1 (“bob is sure.”)" in said
    assert (decision.action, decision.reviewer) == (Action.REMOVE, "lea")


def test_a_lead_hands_a_job_to_somebody_else(house: Any) -> None:
    """What one person holds is another's afterwards: their page says that it is lost, the other's shows it."""
    house.put("one", text="one")
    ann = Reader(house, "ann")
    ann.sees("one")
    lead = house.page("lea", "/lead")
    row = lead.locator("#duty tbody tr")
    expect(row).to_contain_text("ann")
    row.locator("select").select_option("bob")

    expect(row.locator("td").nth(3)).to_have_text("bob")
    bob = Reader(house, "bob")
    bob.sees("one")
    ann.page.keyboard.press("v")
    ann.page.keyboard.press("1")
    expect(ann.page.locator("#lost")).to_be_visible()


def test_blind_first_shows_no_opinion_and_says_so_in_the_verdict(house: Any) -> None:
    """Where the model's opinion is hidden, no response names it, and the verdict says that it was not seen."""
    house.set()
    object.__setattr__(house.site, "blind", 1.0)
    house.put(
        "one", text="one", rationale=RATIONALE, evidence=[{"media": 0, "box": (0, 0, 0.5, 0.5)}]
    )
    ann = Reader(house, "ann")
    ann.sees("one")
    expect(ann.page.locator("#model")).to_be_hidden()
    expect(ann.page.locator(".evidence")).to_have_count(0)
    assert ann.page.locator("#why").inner_text() == "Here because of Weapons."
    ann.answers("one", "v", "1")

    assert house.verdict("one")["saw_model"] is False
    assert not [
        text for text in ann.sent if "very own" in text or "Of 100" in text or "0.71" in text
    ]


def test_an_appeal_goes_to_somebody_else_with_the_rule_then_and_now(house: Any) -> None:
    """Who made the decision is not asked; the other sees it, the author's words and both wordings, and overturns it."""
    house.set()
    now: PolicySet = house.site.desk.policies()
    weapons = now.by_name["weapons"]
    said_then = {**weapons.model_dump(), "question": "Is there any weapon in it?"}
    older = type(weapons).model_validate(said_then)
    then = PolicySet((older,))
    made = house.ticket("one", text="one", policy_set="sha256:then", decided_by="ann")
    removed = made.decision.model_copy(update={"action": Action.REMOVE})
    appeal = Appeal(
        appeal_id="appeal-1",
        decision_id="one",
        content_id="c-one",
        text="It is a toy, look closely.",
    )
    house.project(opened(appeal, made.model_copy(update={"decision": removed}), now))
    object.__setattr__(house.site, "past", {"sha256:then": then}.get)

    Reader(house, "ann").has_nothing()
    bob = Reader(house, "bob")
    bob.sees("one")
    expect(bob.page.locator("#part")).to_have_text("appeal")
    said = bob.page.locator("#before").inner_text()
    bob.answers("appeal-1", "a", "1")
    [decision] = house.deliver()

    assert "It is a toy, look closely." in said
    assert "A person removed it on" in said
    assert "Is there any weapon in it?" in said
    assert weapons.question in said
    assert decision.appeal.model_dump() == {"appeal_id": "appeal-1", "outcome": "overturned"}


def test_who_has_seen_too_much_in_a_row_is_given_a_break(house: Any) -> None:
    """The exposure clock runs while media are clear; beyond the budget the server hands out nothing more."""
    house.set(budget=Budget(in_a_row=0.001, rest=timedelta(minutes=10)))
    house.put("one", text="one", severity="critical")
    ann = Reader(house, "ann")
    ann.sees("one")
    picture = ann.page.locator("#media img")
    ann.page.keyboard.down(" ")
    expect(picture).to_have_attribute("alt", "Medium 1 of 1, clear")
    ann.page.wait_for_timeout(300)
    ann.page.keyboard.up(" ")
    expect(picture).to_have_attribute("alt", "Medium 1 of 1, blurred")
    borne = partial(house.site.desk.exposure, Person(id="ann"))
    house.until(ann.page, borne, "what Ann has borne")
    ann.answers("one", "v", "1")
    house.put("two", text="two")
    ann.page.reload()

    expect(ann.page.locator("#nothing")).to_contain_text("what you have seen was much")
    own = house.page("ann", "/own")
    expect(own.locator("#borne ~ p strong")).to_contain_text("You are on a break until")
    lead = house.page("lea", "/lead")
    expect(lead.locator("#people")).to_contain_text("ann: on break")


def test_views_of_other_roles_are_neither_named_nor_opened(house: Any) -> None:
    """The menu names what a role may see; anything else is refused in words, on a page."""
    shown = {}
    for person, path in {
        "ann": "/lead",
        "wes": "/triage",
        "aud": "/wellbeing",
        "lea": "/wellbeing",
    }.items():
        page = house.page(person, "/")
        menu = page.locator("nav a").all_inner_texts()
        answer = page.goto(path)
        expect(page.locator("h1")).to_have_text("Not here")
        shown[person] = (menu, answer.status)

    assert shown == {
        "ann": (["Review", "You"], 403),
        "wes": (["Wellbeing", "You"], 403),
        "aud": (["You"], 403),
        "lea": (["Review", "Queues", "You"], 403),
    }


def test_nothing_stands_beside_that_a_person_may_not_see(house: Any) -> None:
    """An item of a sealed queue, or with its media, of another queue or opted out of is shown beside no other."""
    beside = house.site.neighbours
    whole = house.site.accounts.find("all").person("all")
    for name, queue in {"one": "weapons", "two": "minor_safety", "three": "adult"}.items():
        house.put(name, text=name, queue=queue, same="z" if name == "two" else "s")
        [entry] = house.site.desk.claim(whole, only=name).entries
        beside.of(entry, whole, hidden=False)
    house.put("four", text="four", same="s")
    [entry] = house.site.desk.claim(whole, only="four").entries

    def seen(**other: Any) -> list[str]:
        found = beside.of(entry, replace(whole, **other), hidden=False)
        return sorted({item["caption"] for some in found.values() for item in some})

    assert seen() == ["one", "three"]
    assert seen(skills=()) == ["one"]
    assert seen(opt_outs=("weapons",)) == []
    assert seen(policies=("drugs",)) == []
    house.put("five", text="five", queue="minor_safety", same="s")
    assert seen() == []


def test_the_same_media_and_the_author_s_other_items_stand_beside(house: Any) -> None:
    """An item with the same media is shown with its caption and what became of it; the author's history is folded."""
    house.set()
    house.put("one", text="first caption", same="s", author="a-1")
    ann = Reader(house, "ann")
    ann.sees("first caption")
    ann.answers("one", "v", "1")
    house.deliver()
    house.put(
        "two",
        text="second caption",
        same="s",
        author="a-1",
        evidence=[{"media": 0, "box": (0.25, 0.5, 0.75, 1)}],
    )
    bob = Reader(house, "bob")
    bob.sees("second caption")

    expect(bob.page.locator("#alike-count")).to_have_text("1 other item with the same media")
    expect(bob.page.locator("#facts")).to_be_hidden()
    bob.page.keyboard.press("l")
    expect(bob.page.locator("#alike-items li")).to_contain_text(
        "“first caption” removed by a person"
    )
    bob.page.keyboard.press("d")
    expect(bob.page.locator("#facts")).to_contain_text("“first caption” removed by a person")
    expect(bob.page.locator("#facts")).to_contain_text("expected harm")
    expect(bob.page.locator(".evidence")).to_be_visible()
    picture = bob.page.locator("#media img").bounding_box()
    box = bob.page.locator(".evidence").bounding_box()
    assert picture is not None
    assert box is not None
    assert abs(box["x"] - (picture["x"] + 0.25 * picture["width"])) < 3
    assert abs(box["height"] - 0.5 * picture["height"]) < 3
