"""One console on a real Redis and one real Chromium for all tests of the console; each test has its own jobs."""

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import uvicorn
from PIL import Image, ImageDraw
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    Playwright,
    expect,
    sync_playwright,
)

from dashboards.console import access
from dashboards.console.app import console
from dashboards.console.site import Site
from infra.embedded import trial_policies
from pipeline.config import SHIPPED_POLICIES, Settings
from pipeline.desk import Desk, Rules
from pipeline.escalate import Escalate
from pipeline.messages import (
    AUDIT,
    DECISIONS,
    REVIEWS,
    TICKETS,
    VERDICTS,
    Content,
    Decision,
    Finding,
    Rationale,
    Review,
    ReviewEvent,
    Source,
    Ticket,
    UploadEvent,
    Verdict,
)
from pipeline.people import ROLES, Account, Accounts, add, hashed
from pipeline.records import Partition
from pipeline.redis import Projected, ReviewQueue, Shelf
from pipeline.review import job_of
from pipeline.stub import StubBroker, StubLink, StubLog
from pipeline.tally import Figures, Tally
from pipeline.watchdog import Watchdog
from pipeline.weighing import Weighing
from policies.folder import read_policies
from policies.schema import Action, PolicySet, Severity, Status
from workers.mini import samples
from workers.store import Access, open_stores


def tried() -> PolicySet:
    """Return the policies that `weir up` works with."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "policies"
        trial_policies.copy(SHIPPED_POLICIES, Settings().calibrations, copy)
        return read_policies(copy)


POLICIES = tried()
PASSWORD = "a long enough password"
#: How long anything in a browser is waited for: the machine may be busy.
PATIENCE_S = 60.0
#: What of Chromium's own a test has no use for.
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


@dataclass
class House:
    """The console, and what a test does behind it."""

    url: str
    site: Site
    broker: StubBroker
    chromium: Browser
    clerk: Escalate = field(init=False)
    offset: int = 0
    open: list[BrowserContext] = field(default_factory=list)

    def put(self, name: str, *, policy: str = "weapons", text: str = "", **said: Any) -> None:
        """Project one job: an upload that a policy wants a person to see."""
        self.project(self.ticket(name, policy=policy, text=text, **said))

    def ticket(self, name: str, *, policy: str = "weapons", text: str = "", **said: Any) -> Ticket:
        """Return the ticket of an upload that a policy wants a person to see."""
        more = {"queue": "weapons", "interval": (0.62, 0.79), "rationale": None, **said}
        clause = more.get("clause")
        question = policy if clause is None else f"{policy}/{clause}"
        event = UploadEvent.model_validate(
            {
                "event_id": name,
                "content_id": f"c-{name}",
                "author_id": more.get("author", "a-9"),
                "media": []
                if more.get("media") is False
                else [{"uri": more.get("picture", "weapon.png")}],
                "text": text,
                "context": {"surface": "feed"},
                "reports": more.get("reports", []),
            }
        )
        finding = Finding(
            policy=policy,
            policy_version=1,
            status=Status.LIVE,
            severity=Severity(more.get("severity", "high")),
            clause=clause,
            question=question,
            question_digest="sha256:q",
            score=1.0,
            probability=0.71,
            interval=more["interval"],
            calibration="fresh" if more["interval"] else "none",
            answered_by="sha256:m",
            rationale=None if more["rationale"] is None else Rationale(**more["rationale"]),
            evidence=more.get("evidence", ()),
            outcome="review",
        )
        others = [
            finding.model_copy(
                update={
                    "question": asked,
                    "policy": asked.partition("/")[0],
                    "clause": asked.partition("/")[2] or None,
                    "rationale": None,
                }
            )
            for asked in more.get("questions", ())
            if asked != question
        ]
        decision = Decision(
            decision_id=name,
            source=Source(topic="media.uploads", partition=0, offset=self.offset),
            event_id=name,
            content_id=f"c-{name}",
            author_id=more.get("author", "a-9"),
            content=Content(
                media=(f"sha256:{more.get('same', name)}",),
                perceptual=more.get("looks", ()),
                language=more.get("language"),
            ),
            context={"surface": "feed"},
            action=Action.HOLD,
            review=Review(
                queue=more["queue"],
                priority=20.0,
                due_at=None,
                reviewers=more.get("reviewers", 1),
                reason=more.get("reason", "band"),
                questions=more.get("questions", (question,)),
            ),
            findings=(finding, *others),
            policy_set=more.get("policy_set", POLICIES.digest),
            decided_by="person" if "decided_by" in more else "pipeline",
            reviewer=more.get("decided_by"),
            decided_at=datetime.now(UTC),
        )
        return Ticket(decision=decision, event=event)

    def project(self, ticket: Ticket) -> None:
        """Project the job of a ticket, as escalate does."""
        now = datetime.now(UTC) - timedelta(seconds=600 - self.offset)
        job = job_of(ticket, POLICIES, POLICIES.queues, recorded_at=now)
        self.site.desk.queue.project(
            TICKETS,
            0,
            start=self.offset,
            end=self.offset + 1,
            tickets=[Projected(offset=self.offset, ticket=ticket, job=job)],
        )
        self.offset += 1

    def deliver(self) -> list[Decision]:
        """Have escalate take the verdicts whose time to be undone is over; return every decision by a person."""
        time.sleep(0.01)  # longer than an answer can be undone
        told = len(self.seen(TICKETS))
        self.clerk._send_ripe()
        self.clerk.poll(timeout_s=0.0)
        self.clerk.step()
        self.clerk.decide()
        for said in self.seen(TICKETS)[told:]:
            self.project(Ticket.model_validate(said))
        return [Decision.model_validate(said) for said in self.seen(DECISIONS)]

    def set(self, **fields: Any) -> None:
        """Set the desk's rules anew, and how long an answer can be undone: at once it counts."""
        said = {"undo_for": timedelta(milliseconds=1), **fields}
        object.__setattr__(self.site.desk, "rules", replace(Rules(), **said))

    def cookie(self, person: str) -> dict[str, str]:
        """Return the cookie of a new session."""
        return {access.COOKIE: access.begin(self.site, person)}

    def token(self, cookie: dict[str, str]) -> str:
        """Return what a session's own pages send along."""
        found = self.site.shelf.get(access._session(cookie[access.COOKIE]))
        assert found is not None
        return str(json.loads(found)["csrf"])

    def page(self, person: str | None, path: str = "/triage", **options: Any) -> Page:
        """Return a page of somebody who is signed in."""
        context = self.chromium.new_context(
            base_url=self.url, viewport={"width": 1366, "height": 768}, **options
        )
        context.set_default_timeout(PATIENCE_S * 1000)
        self.open.append(context)
        if person is not None:
            [(name, value)] = self.cookie(person).items()
            context.add_cookies([{"name": name, "value": value, "url": self.url}])
        page = context.new_page()
        page.goto(path)
        return page

    def until(self, page: Page, condition: Callable[[], Any], what: str) -> None:
        """Wait until something is so; the page goes on meanwhile."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"it never came: {what}"
            page.wait_for_timeout(50)

    def verdict(self, job: str) -> dict[str, Any] | None:
        """Return the answers to a job that wait to be sent."""
        found = self.site.desk.queue.pending(job)
        return None if found is None else found.model_dump(mode="json")

    def seen(self, topic: str = AUDIT) -> list[dict[str, Any]]:
        """Return what was written to a topic."""
        return [json.loads(r.value or b"") for r in self.broker.written(topic)]


@pytest.fixture(scope="session")
def _chromium() -> Iterator[Browser]:
    play: Playwright
    expect.set_options(timeout=PATIENCE_S * 1000)
    with sync_playwright() as play:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = play.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def _console(
    redis_server: int, _chromium: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    folder: Path = tmp_path_factory.mktemp("console")
    (folder / "weapon.png").write_bytes(drawing())
    next(samples.write(folder))  # pistol-for-sale.png
    people = folder / "people.yaml"
    everywhere = tuple(POLICIES.queues)
    skills = tuple({skill for queue in POLICIES.queues.values() for skill in queue.skills})
    password = hashed(PASSWORD)
    for name, roles in {
        "ann": ("reviewer",),
        "bob": ("reviewer",),
        "lea": ("reviewer", "lead"),
        "wes": ("wellbeing",),
        "aud": ("author",),
        "opa": ("operator",),
        "ivy": ("integrator",),
    }.items():
        account = Account.model_validate(
            {"password": password, "roles": roles, "skills": skills, "languages": ("en", "de")}
        )
        add(people, name, account)
    whole = Account.model_validate(
        {
            "name": "Alex",
            "password": password,
            "roles": ROLES,
            "skills": skills,
            "languages": ("en", "de"),
            "sealed": everywhere,
        }
    )
    add(people, "all", whole)
    add(people, "tim", Account(password=password, queues=everywhere[:1]))
    url = f"redis://127.0.0.1:{redis_server}/0"
    broker = StubBroker()
    lookback: Any = Backlog(broker)
    desk = Desk(
        queue=ReviewQueue(url),
        log=StubLog(broker),
        policies=lambda: POLICIES,
        queues=POLICIES.queues,
        rules=Rules(),
        lookback=lookback,
    )
    site = Site(
        desk=desk,
        shelf=Shelf(url),
        accounts=Accounts(people),
        store=open_stores(Access(folder=folder)),
        invitation="an invitation",
    )
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(console(site), log_level="error", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield House(
        url=f"http://127.0.0.1:{listening.getsockname()[1]}",
        site=site,
        broker=broker,
        chromium=_chromium,
    )
    server.should_exit = True
    thread.join(10)
    site.close()


@pytest.fixture
def house(_console: House, redis_url: str) -> Iterator[House]:
    """Return the console with an empty queue."""
    _console.broker.records.clear()
    _console.broker.marks.clear()
    _console.clerk = clerk_of(_console)
    _console.offset = 0
    for topic in (TICKETS, REVIEWS):
        _console.site.desk.queue.begin(topic, 0, 0)
    _console.site.desk.queue.configure(POLICIES.queues)
    yield _console
    for context in _console.open:
        context.close()
    _console.open.clear()
    object.__setattr__(_console.site.desk, "rules", Rules())
    object.__setattr__(_console.site, "blind", 0.0)
    object.__setattr__(_console.site, "past", lambda _: None)


class Backlog:
    """What the console's own log adds up to: its records, counted as `pipeline.lookback` counts those of a Kafka."""

    def __init__(self, broker: StubBroker) -> None:
        self._broker = broker

    def figures(self) -> Figures:
        """Count everything from the beginning."""
        tally = Tally()
        for record in self._broker.written(REVIEWS):
            tally.known(ReviewEvent.model_validate_json(record.value or b""))
        for record in self._broker.written(VERDICTS):
            tally.verdict(Verdict.model_validate_json(record.value or b""))
        for record in self._broker.written(TICKETS):
            tally.decision(Ticket.model_validate_json(record.value or b"").decision)
        return tally.figures()

    def close(self) -> None:
        """There is nothing to let go of."""


class Still:
    """A projection that has nothing to project: these tests project their jobs themselves."""

    generation = 1

    def caught_up(self) -> bool:
        """Return that it has caught up."""
        return True

    def complete(self) -> None:
        """Have nothing to wait for."""


def clerk_of(house: House) -> Escalate:
    """Return an escalate that reads the verdicts of the console's own log and commits to it."""
    still: Any = Still()
    log: Any = StubLog(house.broker)
    queue = house.site.desk.queue
    return Escalate(
        link=StubLink(house.broker, Partition(VERDICTS, 0)),
        replay=still,
        producer=log,
        queue=queue,
        projection=still,
        weighing=Weighing(
            queue=queue, projection=still, policies=lambda: POLICIES, clock=time.time
        ),
        queues=POLICIES.queues,
        watchdog=Watchdog(limit_s=60),
    )


def drawing() -> bytes:
    """Return a picture in strong colours, with a word in its metadata that must reach nobody."""
    picture = Image.new("RGB", (640, 480), "white")
    pen = ImageDraw.Draw(picture)
    for x in range(0, 640, 40):
        pen.rectangle((x, 0, x + 19, 479), fill="red")
    exif = Image.Exif()
    exif[0x010E] = "secret-of-the-uploader"
    out = BytesIO()
    picture.save(out, "PNG", exif=exif)
    return out.getvalue()
