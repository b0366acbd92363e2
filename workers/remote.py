"""Models behind an OpenAI-compatible endpoint, one question a request.

Where the endpoint tells log-probabilities the score is that of Yes against No; where it does not,
the answer is asked for as JSON and its score only says which of the two it was. Every call ends by
its deadline; nothing of it is left behind, no task and no connection, and a thread only where a
name is still being resolved.
"""

import asyncio
import base64
import io
import json
import math
import random
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Final, ParamSpec, Self, TypeVar

import numpy as np
import openai
from PIL import Image

from policies.question import Part, Question
from workers import prompt
from workers.classifier import (
    Classification,
    Item,
    Picture,
    Rationale,
    ReasonPart,
    asked,
    outdoes,
)
from workers.errors import CheckpointError, ClassifierUnavailableError, WorkerError
from workers.fingerprint import of_values
from workers.proof import only
from workers.reason import agreement, ask_alone, ask_back, read, schema, shown
from workers.spec import REMOTE_DEADLINE_S, ClassifierSpec

_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")

#: The score of an answer without log-probabilities: about 95 %, until it is calibrated.
PLAIN_ODDS: Final = 3.0
#: How probable Yes and No must be together for their odds to be an answer: what begins with other words may be a
#: refusal, whose traces of Yes and No say nothing about the upload.
MOST: Final = 0.5
#: Longest reason, in tokens.
_REASON_TOKENS: Final = 400
#: What a server says of the moment: too slow, in conflict, too many; with everything from _SERVER on.
_PASSING: Final = frozenset({408, 409, 429})
#: What it says to every request alike, until somebody mends it: a wrong key, an empty account, an unknown model.
_SHARED: Final = frozenset({401, 402, 404})
_FORBIDDEN: Final = 403
_SERVER: Final = 500
_QUALITY: Final = 90
#: What is asked for where there are no log-probabilities.
_VERDICT: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"answer": {"type": "string", "enum": ["Yes", "No"]}},
    "required": ["answer"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteOptions:
    """The options of a remote classifier.

    Args:
        endpoint: The base URL, like https://host/v1; the client's own default where it is None.
        key_file: A file that holds the key; else the client's own environment variable counts.
        logprobs: Whether the endpoint tells log-probabilities.
        timeout_s: How long one request may take.
        deadline_s: How long a whole call may take, all its requests and retries; less than the pool gives a call.
        retries: How often a request is tried again.
        concurrency: How many requests run at once.
        per_minute: Most requests a minute of each worker.
        per_day: Most requests a day of each worker, since it started.
            A budget with no request left before the deadline means that the classifier counts as away.
        image_px: Longest edge of a picture that is sent.
    """

    endpoint: str | None = None
    key_file: str | None = None
    logprobs: bool = True
    timeout_s: float = 20.0
    deadline_s: float = REMOTE_DEADLINE_S
    retries: int = 4
    concurrency: int = 8
    per_minute: int | None = None
    per_day: int | None = None
    image_px: int = 1024

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> Self:
        """Return the options, or raise for one that a remote classifier does not have."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                told = ", ".join(known)
                raise CheckpointError("options", f"no option {name!r}; there are {told}")
        return cls(**options)


class Budget:
    """How many requests this worker may still make, by the minute and by the day; other workers have their own."""

    def __init__(self, per_minute: int | None, per_day: int | None) -> None:
        self._limits = [
            (limit, span) for limit, span in ((per_minute, 60.0), (per_day, 86_400.0)) if limit
        ]
        self._made: deque[float] = deque()

    def wait_s(self) -> float:
        """Take one request if there is one left and return 0, else return how long to wait."""
        now = time.monotonic()
        while self._made and now - self._made[0] > 86_400.0:  # noqa: PLR2004 -- a day
            self._made.popleft()
        waits = [
            self._made[-limit] + span - now
            for limit, span in self._limits
            if len(self._made) >= limit and self._made[-limit] + span > now
        ]
        if waits:
            return max(waits)
        self._made.append(now)
        return 0.0


class EndpointError(Exception):
    """Raised when an endpoint does not answer a request as it should; `status` is None where it did not answer."""

    def __init__(self, status: int | None, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class _Threads(ThreadPoolExecutor):
    """Runs each job of a loop in a daemon thread of its own, which nobody waits for.

    Names are resolved there. A resolver that hangs cannot be cancelled, and a loop waits for its threads when it ends.
    """

    def submit(
        self, fn: Callable[_Given, _Made], /, *args: _Given.args, **kwargs: _Given.kwargs
    ) -> Future[_Made]:
        """Start the job."""
        future: Future[_Made] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                made = fn(*args, **kwargs)
            except BaseException as fault:  # noqa: BLE001 -- raised again where it is waited for
                future.set_exception(fault)
            else:
                future.set_result(made)

        threading.Thread(target=work, name="remote", daemon=True).start()
        return future


def _run(work: Coroutine[Any, Any, _Made]) -> _Made:
    """Run work to its end, also for a caller that runs a loop of its own, as a notebook does."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _in_a_loop(work)
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(_in_a_loop, work).result()


def _in_a_loop(work: Coroutine[Any, Any, _Made]) -> _Made:
    with asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(_Threads())
        return runner.run(work)


class RemoteClassifier:
    """GPT-4o class models, vLLM, SGLang, Ollama, Gemini's compatible endpoint."""

    #: What its configuration may say.
    options: ClassVar[type[RemoteOptions]] = RemoteOptions

    def __init__(self, spec: ClassifierSpec) -> None:
        self._spec = spec
        self._options = self.options.read(spec.options)
        self._budget = Budget(self._options.per_minute, self._options.per_day)
        path = self._options.key_file
        if path is not None and not Path(path).is_file():
            raise CheckpointError("options", f"key_file: there is no file {path}")

    @property
    def name(self) -> str:
        """The name that configuration gives this classifier."""
        return self._spec.name

    @property
    def digest(self) -> str:
        """`sha256:…` of what can be known: the endpoint may change its model unseen."""
        options = self._options
        return "sha256:" + of_values(
            "remote-2",
            self._spec.model,
            options.endpoint,
            options.logprobs,
            options.image_px,
            prompt.TEMPLATE,
            sorted(self._spec.reads),
        )

    @property
    def reads(self) -> frozenset[Part]:
        """Which parts of an upload this classifier can look at."""
        return frozenset(self._spec.reads)

    def covers(self, question: Question) -> bool:
        """Return whether configuration lets this classifier be asked."""
        return self._spec.asks(question)

    def classify(
        self, items: Sequence[Item], questions: Sequence[Question]
    ) -> list[list[Classification]]:
        """Return one list of classifications an item, the highest over its pictures.

        Raises:
            ClassifierUnavailableError: the endpoint did not answer within the deadline, or refuses the key or the
                model: that is no upload's fault, and it passes once somebody mends it.
            WorkerError: the model refuses to judge an upload, or answers with neither Yes nor No, or the endpoint
                refuses the request.
        """
        return _run(self._within(lambda client: self._classify(client, items, questions)))

    def explain(
        self, item: Item, findings: Sequence[tuple[Question, Classification]]
    ) -> list[Rationale]:
        """Return a rationale for each finding, in order; empty where they are switched off."""
        if not self._spec.rationales or not findings:
            return []
        return _run(self._within(lambda client: self._explain(client, item, findings)))

    async def _within(self, work: Callable[[openai.AsyncOpenAI], Awaitable[_Made]]) -> _Made:
        """Run work with a client that is closed afterwards, and end it at the deadline."""
        async with self._connected() as client:
            try:
                async with asyncio.timeout(self._options.deadline_s):
                    return await work(client)
            except TimeoutError as fault:
                raise ClassifierUnavailableError(
                    "remote-deadline", f"no answer within {self._options.deadline_s:g} s"
                ) from fault

    @property
    def _key(self) -> str | None:
        """The key as its file holds it now: one that is renewed counts at once."""
        if self._options.key_file is None:
            return None
        try:
            return Path(self._options.key_file).read_text(encoding="utf-8").strip()
        except OSError as fault:
            raise ClassifierUnavailableError("remote-key", f"key_file: {fault}") from fault

    def _connected(self) -> Any:
        """Return a client, to be entered and left."""
        try:
            return openai.AsyncOpenAI(
                base_url=self._options.endpoint,
                api_key=self._key or ("none" if self._options.endpoint else None),
                timeout=self._options.timeout_s,
                max_retries=0,
            )
        except openai.OpenAIError as fault:
            raise ClassifierUnavailableError("remote-key", str(fault)) from fault

    async def _classify(
        self, client: openai.AsyncOpenAI, items: Sequence[Item], questions: Sequence[Question]
    ) -> list[list[Classification]]:
        gate = asyncio.Semaphore(self._options.concurrency)
        covered = [question for question in questions if self.covers(question)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    [
                        group.create_task(self._highest(client, gate, item, question))
                        for question in covered
                        if asked(question, item, self.reads)
                    ]
                    for item in items
                ]
        except* WorkerError as faults:
            raise _first(faults) from faults
        return [[task.result() for task in row] for row in tasks]

    async def _highest(
        self, client: openai.AsyncOpenAI, gate: asyncio.Semaphore, item: Item, question: Question
    ) -> Classification:
        parts = question.reads & self.reads
        pictures: Sequence[Picture | None] = item.pictures if "image" in parts else ()
        best: Classification | None = None
        for picture in pictures or (None,):
            async with gate:
                score, mass = await self._ask(client, item, question, picture)
            if best is None or outdoes(score, best.score):
                best = Classification(
                    question=question.id,
                    score=score,
                    media=None if picture is None else picture.media,
                    time_s=None if picture is None else picture.time_s,
                    mass=mass,
                )
        if best is None:
            raise WorkerError("nothing-to-ask", question.id)
        return best

    async def _ask(
        self, client: openai.AsyncOpenAI, item: Item, question: Question, picture: Picture | None
    ) -> tuple[float, float | None]:
        turn = self._turn(item, question, picture, prompt.suffix(question))
        if self._options.logprobs:
            choice = await self._request(
                client, messages=turn, max_tokens=1, logprobs=True, top_logprobs=20
            )
            _denied(choice)
            found = odds(choice)
            if found is None:
                # Servers that tell no probabilities have answered with the one token all the same.
                if (choice.message.content or "").strip(" \n\"'.").lower() in {"yes", "no"}:
                    return verdict(choice), None
            elif found[1] >= MOST:
                return found
        choice = await self._request(
            client, messages=turn, max_tokens=20, response_format=_format("verdict", _VERDICT)
        )
        return verdict(choice), None

    async def _explain(
        self,
        client: openai.AsyncOpenAI,
        item: Item,
        findings: Sequence[tuple[Question, Classification]],
    ) -> list[Rationale]:
        found = []
        for question, answer in findings:
            picture = next(
                (
                    picture
                    for picture in item.pictures
                    if (picture.media, picture.time_s) == (answer.media, answer.time_s)
                ),
                None,
            )
            turn = self._turn(item, question, picture, prompt.explain(question))
            choice = await self._request(
                client,
                messages=turn,
                max_tokens=_REASON_TOKENS,
                response_format=_format("reason", schema(question)),
            )
            _cut_off(choice)
            text = choice.message.content or ""
            reason = read(text, question)
            drawn = [
                await self._request(
                    client,
                    messages=turn,
                    max_tokens=_REASON_TOKENS,
                    response_format=_format("reason", schema(question)),
                    temperature=1.0,
                )
                for _ in range(question.samples if question.samples > 1 and reason else 0)
            ]
            if reason is None:
                found.append(
                    Rationale(question=question.id, clause=None, text=shown(text), supported=False)
                )
                continue
            alone = ask_alone(question, reason.clause)
            looks: list[tuple[ReasonPart, Question, Picture | None]] = [
                ("clause", alone, picture),
                ("text", ask_back(alone, reason), picture),
            ]
            if picture is not None and reason.box is not None:
                place = only(Image.fromarray(picture.pixels), reason.box)
                looks.append(("box", alone, replace(picture, pixels=np.asarray(place))))
            denied = [
                part
                for part, asked, at in looks
                if not (await self._ask(client, item, asked, at))[0] > 0
            ]
            found.append(
                Rationale(
                    question=question.id,
                    clause=reason.clause,
                    text=reason.text,
                    supported=not denied,
                    denied=tuple(denied),
                    media=picture.media if picture is not None and reason.seen else None,
                    box=reason.box,
                    agreement=agreement(
                        reason, [read(one.message.content or "", question) for one in drawn]
                    ),
                )
            )
        return found

    async def _request(self, client: openai.AsyncOpenAI, **arguments: Any) -> Any:
        """Return the first choice; what may pass is tried again, with growing pauses."""
        tries = self._options.retries + 1
        away: Exception | None = None
        for attempt in range(tries):
            await self._afford()
            made, away, told = await self._tried(client, arguments)
            if made is not None:
                return made
            if attempt + 1 < tries:
                await asyncio.sleep(_pause_s(attempt, told))
        raise ClassifierUnavailableError(
            "remote-away", f"{tries} tries, the last: {type(away).__name__}: {away}"[:300]
        ) from away

    async def _tried(
        self, client: openai.AsyncOpenAI, arguments: Mapping[str, Any]
    ) -> tuple[Any, Exception | None, str | None]:
        """Return the first choice, or why there is none and how long the server asks to wait."""
        told: str | None = None
        try:
            made = await client.chat.completions.create(
                model=self._spec.model, **{"temperature": 0, **arguments}
            )
        except (openai.APIStatusError, EndpointError) as fault:
            status, words = _status(fault)
            if status is not None and status not in _PASSING and status < _SERVER:
                raise self._refused(fault, status, words) from fault
            if isinstance(fault, openai.APIStatusError):
                told = fault.response.headers.get("retry-after")
            return None, fault, told
        except (
            openai.APIConnectionError,
            openai.APIResponseValidationError,
            json.JSONDecodeError,
        ) as fault:
            return None, fault, None
        choices = getattr(made, "choices", None)
        if choices and getattr(choices[0], "message", None) is not None:
            return choices[0], None, None
        return None, ValueError("a response without a choice"), None

    def _refused(
        self, fault: openai.APIStatusError | EndpointError, status: int, words: str
    ) -> WorkerError:
        """Return what a refusal means: a fault of this upload, or something that an operator has to mend."""
        said = f"{status}: {words[:300]}"
        # A firewall that dislikes one caption sends a page; an endpoint that dislikes the key says so in its own form.
        page = isinstance(fault, openai.APIStatusError) and not isinstance(fault.body, Mapping)
        forbidden = status == _FORBIDDEN and not page
        if status not in _SHARED and not forbidden:
            return WorkerError("remote-request", said)
        where = self._options.endpoint or "the default endpoint"
        mend = {
            401: f"{where} refuses the key: renew it in key_file, or in the environment and start anew",
            402: f"{where} wants to be paid: look at the account",
            403: f"{where} forbids it: does the key allow the model {self._spec.model!r}?",
            404: f"{where} does not know the model {self._spec.model!r}: mend model or endpoint",
        }[status]
        return ClassifierUnavailableError("remote-refused", f"{mend} ({said})")

    async def _afford(self) -> None:
        while (wait := self._budget.wait_s()) > 0:
            if wait > self._options.deadline_s:
                raise ClassifierUnavailableError(
                    "remote-budget", f"per_minute or per_day is used up for another {wait:.0f} s"
                )
            await asyncio.sleep(wait)

    def _turn(
        self, item: Item, question: Question, picture: Picture | None, ask: str
    ) -> list[dict[str, Any]]:
        parts = question.reads & self.reads
        shared = prompt.prefix(
            images=0 if picture is None else 1,
            caption=item.caption if "caption" in parts else "",
            text_in_image=item.text_in_image,
        )
        turn = prompt.messages(shared, ask)
        turn[0]["content"] = [
            self._image(picture) if part["type"] == "image" and picture is not None else part
            for part in turn[0]["content"]
        ]
        return turn

    def _image(self, picture: Picture) -> dict[str, Any]:
        image = Image.fromarray(picture.pixels)
        image.thumbnail((self._options.image_px, self._options.image_px))
        held = io.BytesIO()
        image.save(held, "JPEG", quality=_QUALITY)
        text = base64.b64encode(held.getvalue()).decode()
        return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{text}"}}


def _status(fault: openai.APIStatusError | EndpointError) -> tuple[int | None, str]:
    if isinstance(fault, EndpointError):
        return fault.status, str(fault)
    return fault.status_code, fault.message


def odds(choice: Any) -> tuple[float, float] | None:
    """Return the log-odds and mass of Yes and No at the first token, or None if no probabilities are told.

    A word that is not among the tokens told had at most the least of their probabilities, and at most what they leave.
    """
    content = getattr(getattr(choice, "logprobs", None), "content", None)
    if not content:
        return None
    top = content[0].top_logprobs or [content[0]]
    shares = {"yes": 0.0, "no": 0.0}
    for token in top:
        word = token.token.strip(" \n\"'.▁Ġ").lower()
        if word in shares:
            shares[word] += math.exp(token.logprob)
    mass = min(sum(shares.values()), 1.0)
    unseen = min(math.exp(min(token.logprob for token in top)), 1.0 - mass)
    yes, no = (share or max(unseen, 1e-12) for share in shares.values())
    return math.log(yes) - math.log(no), mass


def verdict(choice: Any) -> float:
    """Return the score of an answer without log-probabilities.

    Raises:
        WorkerError: it is a refusal, or neither Yes nor No.
    """
    _denied(choice)
    _cut_off(choice)
    text = choice.message.content or ""
    try:
        answer = str(json.loads(text)["answer"]).lower()
    except (ValueError, KeyError, TypeError):
        answer = text.strip(" \n\"'.").lower()
    if answer not in {"yes", "no"}:
        raise WorkerError("remote-malformed", f"neither Yes nor No: {shown(text)!r}")
    return PLAIN_ODDS if answer == "yes" else -PLAIN_ODDS


def _denied(choice: Any) -> None:
    """Raise if the model or its filter refused to answer."""
    refusal = getattr(choice.message, "refusal", None)
    if refusal or getattr(choice, "finish_reason", "") == "content_filter":
        raise WorkerError("remote-refusal", shown(str(refusal or "filtered")))


def _cut_off(choice: Any) -> None:
    """Raise if the model used up its tokens before the first word of an answer, as one that thinks first does."""
    if getattr(choice, "finish_reason", "") == "length" and not choice.message.content:
        raise WorkerError(
            "remote-thoughts",
            "thoughts left no room for an answer: set thinking_budget (gemini), or serve the model without thoughts",
        )


def _format(name: str, form: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": name, "schema": form, "strict": True}}


def _pause_s(attempt: int, told: str | None) -> float:
    """Return a pause with full jitter, at least as long as the server asks for."""
    drawn = random.uniform(0.0, min(0.25 * 2**attempt, 8.0))  # noqa: S311 -- no secret in it
    return max(drawn, float(told)) if told and told.replace(".", "", 1).isdigit() else drawn


def _first(faults: BaseExceptionGroup[WorkerError]) -> WorkerError:
    """Return the fault that matters most: one that all uploads share before one of a single upload."""
    held: list[WorkerError] = []

    def gather(group: BaseExceptionGroup[WorkerError]) -> None:
        for fault in group.exceptions:
            if isinstance(fault, BaseExceptionGroup):
                gather(fault)
            else:
                held.append(fault)

    gather(faults)
    return min(held, key=lambda fault: not isinstance(fault, ClassifierUnavailableError))
