"""Remote models against a server that misbehaves: every fault ends in time, with its remedy's name."""

import asyncio
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.question import Forbidden, Question
from tests.workers.leavings import LocalServer, nothing_left
from workers.classifier import Classification, Item, Picture
from workers.errors import CheckpointError, ClassifierUnavailableError, WorkerError
from workers.remote import Budget, RemoteClassifier
from workers.spec import ClassifierSpec

QUESTION = Question(
    id="weapons",
    policy="weapons",
    question="Does it sell a weapon?",
    forbidden=(Forbidden(id="W1", text="Offers a weapon."),),
)
ITEM = Item(
    pictures=(Picture(media=0, pixels=np.zeros((32, 48, 3), np.uint8)),), caption="for sale"
)

#: What the server does with a request: status, body (None: hang up), seconds a byte, headers.
Reply = tuple[int, bytes | None, float, dict[str, str]]
Script = Callable[[int, dict[str, Any]], Reply]


class Server(LocalServer):
    """Answers by a script and keeps what it was asked."""

    script: Script

    def __init__(self) -> None:
        super().__init__(Handler)
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []


class Handler(BaseHTTPRequestHandler):
    """Speaks as the script says."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer one request."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(body)
        self.server.keys.append(self.headers["authorization"])
        status, content, slowly_s, headers = self.server.script(len(self.server.asked), body)
        if content is None:
            self.close_connection = True
            return
        length = int(headers.get("content-length", len(content)))
        self.send_response(status)
        told = {"content-type": "application/json", "content-length": str(length), **headers}
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = length != len(content)
        try:
            if not slowly_s:
                self.wfile.write(content)
                return
            for byte in content:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(slowly_s)
        except OSError:
            pass  # the client gave up, which is what is tested

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base's name
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    """Return a running server without a script."""
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def classifier(server: Server, **options: Any) -> RemoteClassifier:
    """Return a classifier of that server; the machine may be busy, so its limits are long where none is tested."""
    held = {"timeout_s": 30.0, "deadline_s": 60.0, "retries": 2} | options
    endpoint = f"http://127.0.0.1:{server.port}/v1"
    return RemoteClassifier(
        ClassifierSpec(name="far", model="m", kind="remote", options={"endpoint": endpoint, **held})
    )


def body(
    content: str | None,
    *,
    logprobs: dict[str, float] | None = None,
    finish_reason: str = "stop",
    **more: Any,
) -> bytes:
    """Return a completion as OpenAI's endpoint writes it."""
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": finish_reason,
        "message": {"role": "assistant", "content": content, **more},
    }
    if logprobs is not None:
        top = [{"token": t, "logprob": p, "bytes": None} for t, p in logprobs.items()]
        choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}], "refusal": None}
    made = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps({**made, "choices": [choice]}).encode()


#: A Yes.
GOOD = body("Yes", logprobs={"Yes": -0.1, "No": -3.0})


def ok(content: bytes) -> Reply:
    """Return a good reply with this body."""
    return 200, content, 0.0, {}


def test_logprobs_are_the_score(server: Server) -> None:
    """The score is the log-odds of all spellings of Yes against all of No, the mass their sum."""
    shares = {"Yes": math.log(0.6), " yes": math.log(0.1), "No": math.log(0.2), "Maybe": -5.0}
    server.script = lambda *_: ok(body("Yes", logprobs=shares))
    answer = classifier(server).classify([ITEM], [QUESTION])[0][0]
    assert answer.score == pytest.approx(math.log(0.7 / 0.2))
    assert answer.mass == pytest.approx(0.9)
    parts = server.asked[0]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url", "text"]
    assert "«for sale»" in parts[2]["text"]


def test_it_answers_inside_a_running_loop(server: Server) -> None:
    """Whoever calls it from a notebook, where a loop runs already, gets the answer."""
    server.script = lambda *_: ok(body("Yes", logprobs={"Yes": -0.1, "No": -3.0}))

    async def cell() -> float:
        """Ask as a cell of a notebook does."""
        return classifier(server).classify([ITEM], [QUESTION])[0][0].score

    # In a thread of its own: this one may have a loop as well.
    with ThreadPoolExecutor(max_workers=1) as notebook:
        assert notebook.submit(asyncio.run, cell()).result() > 0


def test_without_logprobs_json(server: Server) -> None:
    """Where the endpoint tells no log-probabilities and no plain word, the answer is asked for as JSON."""
    server.script = lambda n, _: ok(body("The" if n == 1 else '{"answer": "No"}'))
    answer = classifier(server).classify([ITEM], [QUESTION])[0][0]
    assert answer.score < 0
    assert answer.mass is None
    assert server.asked[1]["response_format"]["type"] == "json_schema"
    server.script = lambda _n, _: ok(body("Yes"))
    assert classifier(server).classify([ITEM], [QUESTION])[0][0].score > 0
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "fault",
    [
        (408, b"{}", 0.0, {}),
        (409, b"{}", 0.0, {}),
        (429, b"{}", 0.0, {"retry-after": "0.1"}),
        (500, b"{}", 0.0, {}),
        (503, b"", 0.0, {}),
        (200, b'{"choices": [', 0.0, {}),
        (200, b'{"id": "1"}', 0.0, {}),
        (200, None, 0.0, {}),
        (200, b'{"id": "1"', 0.0, {"content-length": "4000"}),
    ],
    ids=["408", "409", "429", "500", "503", "malformed", "empty", "hung-up", "cut-off"],
)
def test_faults_that_pass_are_retried(server: Server, fault: Reply) -> None:
    """A fault of the moment is tried again, and the answer then counts."""
    server.script = lambda n, _: fault if n == 1 else ok(GOOD)
    assert classifier(server).classify([ITEM], [QUESTION])[0][0].score > 0
    assert len(server.asked) == 2


def test_faults_that_stay_mean_away(server: Server) -> None:
    """After the last try the classifier counts as away, so `when_unavailable` applies."""
    server.script = lambda *_: (500, b"{}", 0.0, {})
    with pytest.raises(ClassifierUnavailableError, match="3 tries"):
        classifier(server).classify([ITEM], [QUESTION])
    assert len(server.asked) == 3


def test_a_dripping_server_meets_the_deadline(server: Server) -> None:
    """A server that sends a byte now and then never outlasts the deadline of the whole call."""
    server.script = lambda *_: (200, GOOD, 0.2, {})
    began = time.monotonic()
    with pytest.raises(ClassifierUnavailableError, match="no answer within"):
        classifier(server, deadline_s=1.5).classify([ITEM], [QUESTION])
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("status", "mend"),
    [(401, "key_file"), (402, "account"), (403, "allow the model 'm'"), (404, "mend model or end")],
)
def test_what_an_operator_mends_is_an_absence(server: Server, status: int, mend: str) -> None:
    """A refused key or model is nobody's upload: it is not retried, and says what to do."""
    server.script = lambda *_: (status, b'{"error": {"message": "no"}}', 0.0, {})
    with pytest.raises(ClassifierUnavailableError, match=f"{mend}.*{status}: .*no"):
        classifier(server).classify([ITEM], [QUESTION])
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        *((status, b'{"error": {"message": "too large"}}') for status in (400, 413, 414, 422, 451)),
        (403, b"<html><body>this request is too large for our firewall</body></html>"),
    ],
)
def test_a_request_that_is_refused_is_the_uploads(server: Server, status: int, body: bytes) -> None:
    """A refused request is not retried, and says nothing about the next upload, be it a firewall that refuses."""
    server.script = lambda *_: (status, body, 0.0, {})
    with pytest.raises(WorkerError, match=f"{status}: ") as caught:
        classifier(server).classify([ITEM], [QUESTION])
    assert (type(caught.value), caught.value.reason) == (WorkerError, "remote-request")
    assert len(server.asked) == 1


def test_a_renewed_key_counts_at_once(server: Server, tmp_path: Path) -> None:
    """Whoever puts a new key into the file need not start anything anew; while there is none it is away."""
    server.script = lambda *_: ok(GOOD)
    path = tmp_path / "key"
    path.write_text("old\n")
    far = classifier(server, key_file=str(path))
    far.classify([ITEM], [QUESTION])
    path.write_text("new\n")
    far.classify([ITEM], [QUESTION])
    path.unlink()
    with pytest.raises(ClassifierUnavailableError, match="key_file"):
        far.classify([ITEM], [QUESTION])
    assert server.keys == ["Bearer old", "Bearer new"]


def test_without_any_key_it_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is neither a file nor a variable with a key, no upload is held for it."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ClassifierUnavailableError, match="OPENAI_API_KEY"):
        RemoteClassifier(ClassifierSpec(name="far", kind="remote")).classify([ITEM], [QUESTION])


def test_an_answer_without_room_is_named(server: Server) -> None:
    """A model whose thoughts use up its tokens is told apart from one that rambles."""
    server.script = lambda *_: ok(body("", finish_reason="length"))
    far = classifier(server)
    with pytest.raises(WorkerError, match="thinking_budget") as caught:
        far.classify([ITEM], [QUESTION])
    assert caught.value.reason == "remote-thoughts"
    with pytest.raises(WorkerError, match="thinking_budget"):
        far.explain(ITEM, [(QUESTION, Classification(question="weapons", score=1.0, media=0))])


def test_a_name_that_is_never_resolved_meets_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that hangs outlasts neither the call nor, in a thread that counts, its process."""
    over = threading.Event()

    def hanging(*_: object, **_more: object) -> list[object]:
        over.wait(20)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    options = {"endpoint": "http://nowhere.test/v1", "deadline_s": 1.0}
    far = RemoteClassifier(ClassifierSpec(name="far", kind="remote", options=options))
    before = set(threading.enumerate())
    began_s = time.monotonic()
    with pytest.raises(ClassifierUnavailableError, match="remote-deadline"):
        far.classify([ITEM], [QUESTION])
    assert time.monotonic() - began_s < 10
    left = set(threading.enumerate()) - before
    assert [thread.daemon for thread in left] == [True]
    over.set()
    for thread in left:
        thread.join()


#: What stands at the first token of "I'm sorry…": a trace of No, and none of Yes.
SORRY = {"I": math.log(0.9), "Sorry": math.log(0.09), "No": math.log(1e-5), "The": math.log(1e-6)}


@pytest.mark.parametrize("logprobs", [None, SORRY, {"No": -0.01, "Yes": -5.0}])
@pytest.mark.parametrize(
    "content",
    [
        {"content": None, "refusal": "I cannot help with that"},
        {"content": "", "finish_reason": "content_filter"},
    ],
)
def test_refusals_are_never_a_no(
    server: Server, content: dict[str, Any], logprobs: dict[str, float] | None
) -> None:
    """A refusal is a fault of that upload, never a No, whatever log-probabilities go with it."""
    server.script = lambda *_: ok(body(**content, logprobs=logprobs))
    with pytest.raises(WorkerError) as caught:
        classifier(server).classify([ITEM], [QUESTION])
    assert caught.value.reason == "remote-refusal"
    assert len(server.asked) == 1


@pytest.mark.parametrize("logprobs", [None, SORRY])
def test_rambling_is_never_a_no(server: Server, logprobs: dict[str, float] | None) -> None:
    """An answer in words of its own is a fault of that upload, though a trace of No stands at its first token."""
    server.script = lambda *_: ok(body("I'm sorry, I can't assist with that.", logprobs=logprobs))
    with pytest.raises(WorkerError) as caught:
        classifier(server).classify([ITEM], [QUESTION])
    assert caught.value.reason == "remote-malformed"
    assert len(server.asked) == 2


@pytest.mark.parametrize(("share", "json_asked"), [(0.51, False), (0.49, True)])
def test_odds_count_where_most_of_the_mass_is_theirs(
    server: Server, share: float, *, json_asked: bool
) -> None:
    """Where Yes and No hold less than half at the first token, the answer is asked for as JSON."""
    told = {"No": math.log(share), "It": math.log(1 - share)}
    server.script = lambda n, _: ok(
        body("No", logprobs=told) if n == 1 else body('{"answer": "Yes"}')
    )
    answer = classifier(server).classify([ITEM], [QUESTION])[0][0]
    assert (answer.score > 0, answer.mass is None) == (json_asked, json_asked)


def test_a_word_alone_is_as_sure_as_its_probability(server: Server) -> None:
    """A server that tells the chosen token only leaves the other word what is left, not nothing."""
    server.script = lambda *_: ok(body("No", logprobs={"No": math.log(0.6)}))
    answer = classifier(server).classify([ITEM], [QUESTION])[0][0]
    assert answer.score == pytest.approx(math.log(0.4 / 0.6))


@pytest.mark.parametrize(
    ("fault", "options", "ends"),
    [
        ((429, b"{}", 0.0, {"retry-after": "0.1"}), {}, ClassifierUnavailableError),
        ((500, b"{}", 0.0, {}), {}, ClassifierUnavailableError),
        ((200, None, 0.0, {}), {}, ClassifierUnavailableError),
        ((200, b"{", 0.0, {"content-length": "40"}), {}, ClassifierUnavailableError),
        ((200, b'{"choices": [', 0.0, {}), {}, ClassifierUnavailableError),
        ((200, GOOD, 0.5, {}), {"deadline_s": 1.5}, ClassifierUnavailableError),
        ((200, GOOD, 0.5, {}), {"timeout_s": 0.3}, ClassifierUnavailableError),
        ((401, b"{}", 0.0, {}), {}, ClassifierUnavailableError),
        ((400, b"{}", 0.0, {}), {}, WorkerError),
        ((200, body(None, refusal="I cannot"), 0.0, {}), {}, WorkerError),
    ],
    ids=[
        "429", "500", "hung-up", "cut-off", "malformed", "slow", "dripping", "wrong-key", "wrong-form",
        "refusal",
    ],
)  # fmt: skip
@pytest.mark.parametrize("stays", [False, True])
def test_nothing_is_left(
    server: Server, fault: Reply, options: dict[str, Any], ends: type[WorkerError], *, stays: bool
) -> None:
    """After each fault, among successes or for ever, no thread, connection or task of the client is left."""
    server.script = lambda n, _: fault if stays or n % 3 == 0 else ok(GOOD)
    far = classifier(server, **options)
    with nothing_left(server):
        if stays:
            with pytest.raises(ends):
                far.classify([ITEM] * 6, [QUESTION])
        else:
            with suppress(ends):
                far.classify([ITEM] * 6, [QUESTION])
    assert len(server.asked) >= 3


def test_a_days_budget() -> None:
    """A budget lets so many requests through and then tells how long to wait."""
    budget = Budget(per_minute=2, per_day=3)
    assert [budget.wait_s() for _ in range(2)] == [0.0, 0.0]
    assert 50 < budget.wait_s() <= 60


@pytest.mark.parametrize(
    ("budget", "wait"), [({"per_day": 1}, r"86[34]\d\d s"), ({"per_minute": 1}, r"\d\d s")]
)
def test_used_up_budget_means_away(server: Server, budget: dict[str, int], wait: str) -> None:
    """With no request left before the deadline the classifier counts as away at once, and says for how long."""
    server.script = lambda *_: ok(GOOD)
    far = classifier(server, deadline_s=20.0, **budget)
    far.classify([ITEM], [QUESTION])
    with pytest.raises(ClassifierUnavailableError, match=f"used up for another {wait}"):
        far.classify([ITEM], [QUESTION])
    assert len(server.asked) == 1


def test_reasons_are_put_to_the_proof(server: Server) -> None:
    """A reason is held to the schema, asked back, and marked unsupported where denied."""

    def script(_: int, asked: dict[str, Any]) -> Reply:
        if asked.get("response_format", {}).get("json_schema", {}).get("name") == "reason":
            made = {"clause": "W1", "text": "A pistol.", "media": 0, "box": None}
            return ok(body(json.dumps(made)))
        return ok(body("No", logprobs={"Yes": -4.0, "No": -0.1}))

    server.script = script
    far = classifier(server)
    answer = far.classify([ITEM], [QUESTION])[0][0]
    reason = far.explain(ITEM, [(QUESTION, answer)])[0]
    assert (reason.clause, reason.text, reason.supported) == ("W1", "A pistol.", False)
    assert reason.denied == ("clause", "text")


def test_a_place_is_looked_at_by_itself(server: Server) -> None:
    """What is confirmed in the whole picture and denied in the place that the reason names is unsupported."""
    pictures: list[str] = []

    def script(_: int, asked: dict[str, Any]) -> Reply:
        if asked.get("response_format", {}).get("json_schema", {}).get("name") == "reason":
            made = {"clause": "W1", "text": "A pistol.", "media": 0, "box": [0, 0, 20, 20]}
            return ok(body(json.dumps(made)))
        [url] = [
            part["image_url"]["url"]
            for message in asked["messages"]
            for part in message["content"]
            if isinstance(part, dict) and part["type"] == "image_url"
        ]
        pictures.append(url)
        there = url == pictures[0]
        return ok(
            body(
                "Yes" if there else "No",
                logprobs={"Yes": -0.1, "No": -3.0} if there else {"No": -0.1},
            )
        )

    server.script = script
    far = classifier(server)
    pixels = np.random.default_rng(3).integers(0, 256, (40, 40, 3), np.uint8)
    item = Item(pictures=(Picture(media=0, pixels=pixels),))
    answer = far.classify([item], [QUESTION])[0][0]
    reason = far.explain(item, [(QUESTION, answer)])[0]
    assert (reason.clause, reason.supported, reason.denied) == ("W1", False, ("box",))
    assert len(set(pictures)) == 2


def test_unknown_option_is_refused() -> None:
    """A misspelt option is refused with the names that there are."""
    with pytest.raises(CheckpointError, match="timeout_s"):
        RemoteClassifier(ClassifierSpec(kind="remote", options={"timeout": 3}))
