"""Gemini through its own client, against a local server that speaks its interface and misbehaves on demand."""

import json
import math
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.question import Forbidden, Question
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


class Gemini(ThreadingHTTPServer):
    """Keeps uploaded files, answers by a script, and counts what it was asked."""

    daemon_threads = True
    answer: Callable[[int, dict[str, Any]], tuple[int, dict[str, Any]]]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.uploads = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Speaks Gemini's interface."""

    server: Gemini
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Begin an upload, take its bytes, or answer a prompt."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.startswith("/upload/"):
            self._say(200, {}, {"x-goog-upload-url": f"{self.server.url}/put"})
        elif self.path.startswith("/put"):
            self.server.uploads += 1
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
    top = [{"token": "Yes", "logProbability": -0.1}, {"token": "No", "logProbability": -2.5}]
    told = {"topCandidates": [{"candidates": top}], "chosenCandidates": [top[0]]}
    gemini.answer = lambda _n, _asked: said("Yes", logprobsResult=told)
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
        (403, CheckpointError, 1),
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
    with pytest.raises(fault):
        model().classify([ITEM], QUESTIONS[:1])
    assert (len(gemini.asked), gemini.files) == (requests, {})


def _always(
    answer: tuple[int, dict[str, Any]], _number: int, _asked: dict[str, Any]
) -> tuple[int, dict[str, Any]]:
    return answer


def test_a_refusal_is_no_answer(gemini: Gemini, model: Callable[..., Any]) -> None:
    """A blocked prompt and a filtered answer are faults of the item, never a No."""
    for blocked in (
        (200, {"promptFeedback": {"blockReason": "SAFETY"}}),
        said("", finishReason="SAFETY"),
    ):
        gemini.answer = partial(_always, blocked)
        with pytest.raises(WorkerError, match="remote-refusal"):
            model(logprobs=False).classify([ITEM], QUESTIONS[:1])


def test_without_a_key_it_is_refused() -> None:
    """A key file is asked for in words."""
    with pytest.raises(CheckpointError, match="key_file"):
        load(ClassifierSpec(kind="gemini", model="gemini-flash"))
