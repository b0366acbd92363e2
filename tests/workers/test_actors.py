"""A preparer and a classifier without Ray: pictures that share an object of the store."""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from policies.question import Forbidden, Question
from tests.workers.leavings import LocalServer
from workers.actors import Answers, Judge, Kept, Lost, Preparer, Seen, Watch
from workers.bounds import Bounds
from workers.classifier import Classification, Item, Picture, Rationale
from workers.errors import ClassifierUnavailableError, MediaRefusedError, WorkerError
from workers.folder import FolderStore
from workers.passage import Passage, Questions
from workers.remote import RemoteClassifier
from workers.spec import ClassifierSpec
from workers.stub import StubClassifier
from workers.upload import Location, Upload
from workers.window import Window

LOOK = Question(id="look", policy="look", question="?", forbidden=(Forbidden(id="A", text="a"),))

TEXT = replace(LOOK, reads=frozenset({"caption"}))


def upload(key: int, uri: str) -> Upload:
    """Return an upload with one picture."""
    return Upload(key=key, media=(Location(uri=uri),))


def prepared(folder: Path, *uris: str) -> tuple[list[object], list[Sequence[tuple[Picture, ...]]]]:
    """Return what a preparer makes of uploads in one call, and the objects that it put into the store."""
    objects: list[Sequence[tuple[Picture, ...]]] = []

    def keep(pictures: Sequence[tuple[Picture, ...]]) -> int:
        objects.append(pictures)
        return len(objects) - 1

    watch = Watch(600.0, lambda: None)
    preparer = Preparer(FolderStore(folder), Bounds(), watch=watch, node="", keep=keep)
    made = preparer.prepare(1, [(n, upload(n, uri)) for n, uri in enumerate(uris)], 60.0)
    return list(made), objects


def test_uploads_of_one_call_share_an_object(tmp_path: Path) -> None:
    """Each upload is answered by its own pictures, whoever lies beside it in the store; a broken one by none."""
    for name, light in (("a", 10), ("b", 120), ("c", 240)):
        Image.fromarray(np.full((40, 40, 3), light, np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "no.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    found, objects = prepared(tmp_path, "a.png", "no.png", "b.png", "c.png")
    assert len(objects) == 1
    assert isinstance(found[1], MediaRefusedError)
    kept = [one for one in found if isinstance(one, Kept)]
    stub = StubClassifier(ClassifierSpec(name="stub", kind="stub"))
    watch = Watch(600.0, lambda: None)

    def scores(one_by_one: bool) -> list[object]:  # noqa: FBT001 -- of this test only
        judge = Judge(stub, watch=watch, node="", borrow=lambda refs: [objects[r] for r in refs])
        judge.learn(1, "set", (LOOK,))
        seen = [Seen(one.pictures, "") for one in kept]
        groups = [[one] for one in seen] if one_by_one else [seen]
        answers = [judge.classify(2, "set", (0,), group) for group in groups]
        return [row for a in answers if isinstance(a, Answers) for row in a.by_upload]

    assert len(set(scores(one_by_one=False))) == 3
    assert scores(one_by_one=True) == scores(one_by_one=False)


def test_a_lost_object_loses_all_in_it_and_no_other(tmp_path: Path) -> None:
    """Uploads whose object is gone come back as lost, each; those in another object are answered."""
    Image.fromarray(np.full((40, 40, 3), 10, np.uint8)).save(tmp_path / "a.png")
    (one, two), first = prepared(tmp_path, "a.png", "a.png")
    (other,), _ = prepared(tmp_path, "a.png")
    assert isinstance(one, Kept)
    assert isinstance(two, Kept)
    assert isinstance(other, Kept)
    assert other.pictures is not None
    elsewhere = Seen(type(other.pictures)("there", 0, 0), "")
    judge = Judge(
        StubClassifier(ClassifierSpec(name="stub", kind="stub")),
        watch=Watch(600.0, lambda: None),
        node="",
        borrow=lambda refs: [first[0] if ref == "there" else Lost() for ref in refs],
    )
    judge.learn(1, "set", (LOOK,))
    answers = judge.classify(
        2, "set", (0,), [Seen(one.pictures, ""), elsewhere, Seen(two.pictures, "")]
    )
    assert isinstance(answers, Answers)
    assert [isinstance(found, Lost) for found in answers.by_upload] == [True, False, True]


class Closed(BaseHTTPRequestHandler):
    """An endpoint that is out of service."""

    def do_POST(self) -> None:
        """Refuse one request."""
        self.rfile.read(int(self.headers["content-length"]))
        self.server.refused.append(self.path)  # type: ignore[attr-defined]
        self.send_response(503)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_classifier_that_is_away_is_asked_once() -> None:
    """A batch for a dead endpoint comes back as away, each upload, not tried again in halves, and is no answer."""
    with LocalServer(Closed) as server:
        refused: list[str] = []
        server.refused = refused  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        options = {"endpoint": f"http://127.0.0.1:{server.port}/v1", "retries": 0}
        far = RemoteClassifier(ClassifierSpec(name="far", kind="remote", options=options))
        watch = Watch(600.0, lambda: None)
        judge = Judge(far, watch=watch, node="", borrow=lambda refs: [() for _ in refs])
        judge.learn(1, "set", (TEXT,))
        answers = judge.classify(2, "set", (0,), [Seen(None, f"for sale {n}") for n in range(32)])
        server.shutdown()
        thread.join()
    assert isinstance(answers, Answers)
    assert [type(found) for found in answers.by_upload] == [ClassifierUnavailableError] * 32
    assert 0 < len(refused) <= 32
    assert (answers.at, watch.peek().last_answer_at) == (None, None)


class Hesitant(StubClassifier):
    """Gives no reason where the policy is named after a fault, and counts those that it gives."""

    given = 0

    def explain(
        self, item: Item, findings: Sequence[tuple[Question, Classification]]
    ) -> list[Rationale]:
        """Raise what the policy is named after."""
        for question, _ in findings:
            if question.id in FAULTS:
                raise FAULTS[question.id]
        Hesitant.given += len(findings)
        return super().explain(item, findings)


FAULTS: dict[str, Exception] = {
    "refused": WorkerError("remote-refusal", "I cannot"),
    "away": ClassifierUnavailableError("remote-away"),
    "large": MemoryError(),
    "torch": RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    "broken": ZeroDivisionError(),
}


def reasons(*names: str, **limits: float) -> list[str]:
    """Return which of these findings have a reason."""
    judge = Judge(
        Hesitant(ClassifierSpec(name="stub", kind="stub")),
        watch=Watch(600.0, lambda: None),
        node="",
        borrow=lambda refs: [() for _ in refs],
        **limits,
    )
    findings = [
        (replace(TEXT, id=name, policy=name), Classification(question=name, score=1.0))
        for name in names
    ]
    found = judge.explain(1, Seen(None, "for sale"), findings)
    assert not isinstance(found, Lost)
    return [reason.question for reason in found]


@pytest.mark.parametrize("fault", ["refused", "large", "torch"])
def test_a_finding_without_a_reason_takes_no_other_ones(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A reason that is refused, or for which memory runs out, is left out and told; the others stand."""
    assert reasons("a", fault, "b") == ["a", "b"]
    (told,) = [vars(record) for record in caplog.records]
    assert (told["levelname"], told["question"]) == ("WARNING", fault)


def test_a_classifier_that_is_away_is_asked_for_no_further_reason() -> None:
    """What was explained before stands, and nobody waits for the same endpoint again."""
    assert reasons("a", "away", "b") == ["a"]


@pytest.mark.parametrize(
    ("each_s", "reason_s", "told"),
    [(7.0, 0.0, "abcdef"), (10.0, 0.0, "abcd"), (25.0, 0.0, "a"), (4.0, 40.0, "ab")],
)
def test_reasons_that_take_long_leave_the_rest_out(
    each_s: float, reason_s: float, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call begins no reason that could end too late, lest its worker counts as stuck."""
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + each_s * Hesitant.given)
    monkeypatch.setattr(Hesitant, "given", 0)
    assert reasons(*"abcdef", reasons_s=45.0, reason_s=reason_s) == [*told]


def test_an_unforeseen_fault_of_a_reason_is_raised() -> None:
    """A worker that failed in a way of its own may be broken for good: it does not go on."""
    with pytest.raises(ZeroDivisionError):
        reasons("a", "broken")


def test_an_object_takes_its_room_until_the_last_upload_in_it_has_gone(tmp_path: Path) -> None:
    """The window counts an object once, and as long as one upload holds on to it."""
    Image.fromarray(np.full((40, 40, 3), 10, np.uint8)).save(tmp_path / "a.png")
    found, _ = prepared(tmp_path, "a.png", "a.png", "a.png")
    size = 3 * 40 * 40 * 3
    window = Window(uploads=10, size_bytes=size // 3)
    passages = [
        Passage(upload=upload(n, "a.png"), questions=Questions(()), alone=False, since_s=0.0)
        for n in range(3)
    ]
    for passage, one in zip(passages, found, strict=True):
        assert isinstance(one, Kept)
        window.fill(passage, one.pictures)
    assert not window.room
    window.drop(passages[0])
    window.drop(passages[1])
    assert not window.room
    window.drop(passages[2])
    assert window.room
