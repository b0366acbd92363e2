"""Gemini through its own client, against a local server that speaks its interface and misbehaves on demand."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.question import Forbidden, Question
from tests.workers.leavings import LocalServer, nothing_left
from workers.classifier import Classification, Item, Picture
from workers.errors import CheckpointError, ClassifierUnavailableError, WorkerError
from workers.loading import load
from workers.spec import ClassifierSpec

pytest.importorskip("google.genai", reason="needs the extra `gemini`")

QUESTIONS = tuple(
    Question(
        id=name,
        policy=name,
        question=f"Does it show {name}?",
        forbidden=(Forbidden(id="W1", text=f"Shows {name}."),),
    )
    for name in ("weapons", "drugs", "gambling")
)
ITEM = Item(
    pictures=(Picture(media=0, pixels=np.full((32, 48, 3), 90, np.uint8)),), caption="for sale"
)
REASON = {"clause": "W1", "text": "A pistol.", "media": 0, "box": [10, 10, 50, 50]}


#: A Yes with its log-probabilities.
YES = {"token": "Yes", "logProbability": -0.1}
TOLD = {
    "topCandidates": [{"candidates": [YES, {"token": "No", "logProbability": -2.5}]}],
    "chosenCandidates": [YES],
}


class Gemini(LocalServer):
    """Keeps uploaded files, answers by a script, and counts what it was asked."""

    answer: Callable[[int, dict[str, Any]], tuple[int, dict[str, Any]]]

    def __init__(self) -> None:
        super().__init__(Handler)
        self.asked: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        #: How often an upload was begun, and how often its bytes came.
        self.begun = 0
        self.uploads = 0
        #: The status that the beginning of an upload is answered with, by its number.
        self.begin: Callable[[int], int] = lambda _number: 200
        #: The uploads whose bytes are never answered, by their numbers, and whether deletes are.
        self.hanging: frozenset[int] = frozenset()
        self.deletes = True
        self.over = threading.Event()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"


class Handler(BaseHTTPRequestHandler):
    """Speaks Gemini's interface."""

    server: Gemini
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Begin an upload, take its bytes, or answer a prompt."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.startswith("/upload/"):
            self.server.begun += 1
            status = self.server.begin(self.server.begun)
            self._say(status, {}, {"x-goog-upload-url": f"{self.server.url}/put"})
        elif self.path.startswith("/put"):
            self.server.uploads += 1
            if self.server.uploads in self.server.hanging:
                self.server.over.wait()
                return
            name = f"files/{self.server.uploads}"
            self.server.files[name] = body
            held = {"name": name, "uri": f"{self.server.url}/{name}", "mimeType": "image/jpeg"}
            self._say(200, {"file": held}, {"x-goog-upload-status": "final"})
        else:
            asked = json.loads(body)
            self.server.asked.append(asked)
            status, said = self.server.answer(len(self.server.asked), asked)
            self._say(status, said, {})

    def do_DELETE(self) -> None:
        """Delete a file."""
        if not self.server.deletes:
            self.server.over.wait()
            return
        number = self.path.partition("?")[0].rpartition("/")[2]
        self.server.files.pop(f"files/{number}", None)
        self._say(200, {}, {})

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _say(self, status: int, said: dict[str, Any], headers: dict[str, str]) -> None:
        content = json.dumps(said).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def gemini() -> Iterator[Gemini]:
    """Run the server for one test."""
    with Gemini() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def model(gemini: Gemini, tmp_path: Path) -> Callable[..., Any]:
    """Return a maker of classifiers that talk to the server."""
    (tmp_path / "key").write_text("secret\n")

    def made(**options: Any) -> Any:
        told = {"endpoint": gemini.url, "key_file": str(tmp_path / "key"), "retries": 2, **options}
        return load(ClassifierSpec(kind="gemini", model="gemini-flash", options=told))

    return made


def said(text: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    """Return an answer with this text."""
    first = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}
    return 200, {"candidates": [first | fields]}


def test_a_picture_is_uploaded_once(gemini: Gemini, model: Callable[..., Any]) -> None:
    """Three questions about one picture upload it once, name its file, and leave nothing behind."""
    gemini.answer = lambda _n, _asked: said("Yes", logprobsResult=TOLD)
    (found,) = model().classify([ITEM], QUESTIONS)
    assert [one.question for one in found] == ["weapons", "drugs", "gambling"]
    assert found[0].score == pytest.approx(2.4)
    assert found[0].mass == pytest.approx(math.exp(-0.1) + math.exp(-2.5))
    assert (gemini.uploads, gemini.files, len(gemini.asked)) == (1, {}, 3)
    parts = gemini.asked[0]["contents"][0]["parts"]
    named = [part["fileData"] for part in parts if "fileData" in part]
    assert [f"{gemini.url}/files/1" in one.values() for one in named] == [True]
    assert any("«for sale»" in part.get("text", "") for part in parts)


def test_without_log_probabilities_it_answers_in_json(
    gemini: Gemini, model: Callable[..., Any]
) -> None:
    """A verdict is asked for under a schema, and a reason names a clause of the policy."""
    gemini.answer = lambda _n, asked: said(
        json.dumps(
            REASON
            if "clause" in str(asked["generationConfig"].get("responseJsonSchema"))
            else {"answer": "Yes"}
        )
    )
    classifier = model(logprobs=False)
    (found,) = classifier.classify([ITEM], QUESTIONS[:1])
    assert found[0].score > 0
    (reason,) = classifier.explain(
        ITEM, [(QUESTIONS[0], Classification(question="weapons", score=1.0, media=0))]
    )
    assert (reason.clause, reason.supported, reason.media) == ("W1", True, 0)
    assert gemini.files == {}


@pytest.mark.parametrize(
    ("status", "fault", "requests"),
    [
        (429, ClassifierUnavailableError, 3),
        (503, ClassifierUnavailableError, 3),
        (403, ClassifierUnavailableError, 1),
        (400, WorkerError, 1),
    ],
)
def test_faults_have_their_remedy(
    gemini: Gemini,
    model: Callable[..., Any],
    status: int,
    fault: type[WorkerError],
    requests: int,
) -> None:
    """What may pass is tried again, what the operator must mend is not, and no file is left."""
    gemini.answer = lambda _n, _asked: (status, {"error": {"code": status, "message": "no"}})
    with pytest.raises(fault) as caught:
        model().classify([ITEM], QUESTIONS[:1])
    assert type(caught.value) is fault
    assert (len(gemini.asked), gemini.files) == (requests, {})


def test_a_wrong_key_is_an_absence(gemini: Gemini, model: Callable[..., Any]) -> None:
    """Gemini calls a key that has expired a bad request, which is no upload's fault all the same."""
    error = {
        "code": 400,
        "message": "API key expired. Please renew the API key.",
        "status": "INVALID_ARGUMENT",
        "details": [{"reason": "API_KEY_INVALID", "domain": "googleapis.com"}],
    }
    gemini.answer = lambda _n, _asked: (400, {"error": error})
    with pytest.raises(ClassifierUnavailableError, match="key_file"):
        model().classify([ITEM], QUESTIONS[:1])
    assert len(gemini.asked) == 1


@pytest.mark.parametrize(
    ("options", "told", "rooms"),
    [
        ({}, [0], [1, 20]),
        ({"thinking_budget": 500}, [500], [501, 520]),
        ({"thinking_budget": -1}, [], [8001, 8020]),
    ],
)
def test_thoughts_have_room(
    gemini: Gemini,
    model: Callable[..., Any],
    options: dict[str, int],
    told: list[int],
    rooms: list[int],
) -> None:
    """Unless told otherwise it does not think; where it may, its thoughts take no token from an answer."""
    gemini.answer = lambda n, _asked: said("The" if n == 1 else '{"answer": "Yes"}')
    model(**options).classify([ITEM], QUESTIONS[:1])
    configs = [asked["generationConfig"] for asked in gemini.asked]
    assert [[*config.get("thinkingConfig", {}).values()] for config in configs] == [told, told]
    assert [config["maxOutputTokens"] for config in configs] == rooms


def test_how_long_it_thinks_is_in_the_digest(model: Callable[..., Any]) -> None:
    """Scores of a model that thinks are calibrated by themselves."""
    assert len({model().digest, model(thinking_budget=0).digest}) == 1
    assert len({model().digest, model(thinking_budget=500).digest}) == 2


def test_thoughts_that_leave_no_room_are_named(gemini: Gemini, model: Callable[..., Any]) -> None:
    """An answer that thoughts used up names the option, and is no rambling."""
    cut = {"content": {"role": "model"}, "finishReason": "MAX_TOKENS"}
    gemini.answer = lambda _n, _asked: (200, {"candidates": [cut]})
    with pytest.raises(WorkerError, match=r"remote-thoughts.*thinking_budget"):
        model().classify([ITEM], QUESTIONS[:1])


def test_a_budget_that_the_model_does_not_take_is_named(
    gemini: Gemini, model: Callable[..., Any]
) -> None:
    """A model that only works in thinking mode is no upload's fault, and the option is named."""
    words = "Budget 0 is invalid. This model only works in thinking mode."
    gemini.answer = lambda _n, _asked: (400, {"error": {"code": 400, "message": words}})
    with pytest.raises(ClassifierUnavailableError, match="thinking_budget"):
        model().classify([ITEM], QUESTIONS[:1])


def _always(
    answer: tuple[int, dict[str, Any]], _number: int, _asked: dict[str, Any]
) -> tuple[int, dict[str, Any]]:
    return answer


@pytest.mark.parametrize("logprobs", [True, False])
def test_a_refusal_is_no_answer(
    gemini: Gemini, model: Callable[..., Any], *, logprobs: bool
) -> None:
    """A blocked prompt and a filtered answer are faults of the item, never a No."""
    for blocked in (
        (200, {"promptFeedback": {"blockReason": "SAFETY"}}),
        said("", finishReason="SAFETY"),
        said("No", finishReason="SAFETY", logprobsResult=TOLD),
    ):
        gemini.answer = partial(_always, blocked)
        with pytest.raises(WorkerError, match="remote-refusal"):
            model(logprobs=logprobs).classify([ITEM], QUESTIONS[:1])


def test_an_upload_is_tried_again(gemini: Gemini, model: Callable[..., Any]) -> None:
    """An upload that failed for the moment is begun once more, for all questions together."""
    gemini.begin = lambda number: 429 if number == 1 else 200
    gemini.answer = lambda _n, _asked: said("Yes", logprobsResult=TOLD)
    with nothing_left(gemini):
        (found,) = model().classify([ITEM], QUESTIONS)
    assert [one.score > 0 for one in found] == [True] * 3
    assert (gemini.begun, gemini.uploads, gemini.files) == (2, 1, {})


def test_uploads_that_stay_broken_mean_away(gemini: Gemini, model: Callable[..., Any]) -> None:
    """An upload that fails for ever is begun so often as any request, and then the classifier counts as away."""
    gemini.begin = lambda _number: 500
    with nothing_left(gemini), pytest.raises(ClassifierUnavailableError, match="3 tries"):
        model().classify([ITEM], QUESTIONS[:1])
    assert (gemini.begun, gemini.asked) == (3, [])


def test_an_upload_that_hangs_meets_the_deadline(gemini: Gemini, model: Callable[..., Any]) -> None:
    """A call whose upload is never answered ends at its deadline, in the words for it."""
    gemini.hanging = frozenset({1})
    began_s = time.monotonic()
    with nothing_left(gemini), pytest.raises(ClassifierUnavailableError, match="remote-deadline"):
        model(deadline_s=1.5).classify([ITEM], QUESTIONS)
    assert time.monotonic() - began_s < 15


def test_a_fault_ends_the_uploads_beside_it(gemini: Gemini, model: Callable[..., Any]) -> None:
    """A fault of one upload is what the caller hears, though another's picture is still under way."""
    other = Item(pictures=(Picture(media=0, pixels=np.full((32, 48, 3), 9, np.uint8)),), caption="")
    gemini.hanging = frozenset({2})
    gemini.answer = lambda _n, _asked: (403, {"error": {"code": 403, "message": "no"}})
    with nothing_left(gemini), pytest.raises(ClassifierUnavailableError, match="403"):
        model().classify([ITEM, other], QUESTIONS[:1])
    assert gemini.files == {}


def test_deletes_that_hang_hold_nobody_up(gemini: Gemini, model: Callable[..., Any]) -> None:
    """Files that cannot be deleted at once are left to Gemini: the answers come all the same."""
    other = Item(pictures=(Picture(media=0, pixels=np.full((32, 48, 3), 9, np.uint8)),), caption="")
    gemini.deletes = False
    gemini.answer = lambda _n, _asked: said("Yes", logprobsResult=TOLD)
    began_s = time.monotonic()
    with nothing_left(gemini):
        found = model().classify([ITEM, other], QUESTIONS[:1])
    assert [len(one) for one in found] == [1, 1]
    assert time.monotonic() - began_s < 15


def test_without_a_key_it_is_refused() -> None:
    """A key file is asked for in words."""
    with pytest.raises(CheckpointError, match="key_file"):
        load(ClassifierSpec(kind="gemini", model="gemini-flash"))
