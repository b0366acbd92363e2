"""Gemini through google-genai (the extra `gemini`): each picture is uploaded once, however many questions there are.

It speaks to Gemini in the shape in which `remote` speaks to every other endpoint, so deadlines, budgets, retries and
the reading of answers are the same. Uploaded files are deleted when a call ends, within a few seconds. Pictures and
captions only: what else an upload holds is refused by name before it comes here (`workers.media`).
"""

import asyncio
import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, Final, Self, cast

from workers.errors import CheckpointError, ClassifierUnavailableError
from workers.fingerprint import of_values
from workers.remote import EndpointError, RemoteClassifier, RemoteOptions
from workers.spec import TIDY_S, ClassifierSpec

try:
    import httpx
    import httpx2
    from google import genai
    from google.genai import errors, types
except ImportError as fault:
    raise CheckpointError(
        "gemini-missing", "Gemini needs `pip install 'weir-moderation[gemini]'`"
    ) from fault

_DATA: Final = "data:image/jpeg;base64,"
#: How many alternatives its log-probabilities tell.
_TOLD: Final = 20
_MS: Final = 1000
#: How many tokens thoughts may take where the model decides how long it thinks.
_FREELY: Final = 8_000
_KEY: Final = 401
_FORM: Final = 400
#: What ends an answer that the model did not want to give.
_FILTERED: Final = frozenset({"SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "IMAGE_SAFETY", "SPII"})


@dataclass(frozen=True, slots=True, kw_only=True)
class GeminiOptions(RemoteOptions):
    """The options of a remote classifier, and how long Gemini thinks.

    Args:
        thinking_budget: How many tokens it may think before each answer; 0: none; -1: as many as it likes, as a model
            that cannot be told needs.
    """

    thinking_budget: int = 0


class GeminiClassifier(RemoteClassifier):
    """A Gemini model by its own interface."""

    options: ClassVar[type[RemoteOptions]] = GeminiOptions

    def __init__(self, spec: ClassifierSpec) -> None:
        super().__init__(spec)
        if self._options.key_file is None:
            raise CheckpointError("options", "Gemini needs key_file, a file that holds its key")

    @property
    def digest(self) -> str:
        """`sha256:…` of what can be known: what others have, and how long it thinks."""
        options = cast("GeminiOptions", self._options)
        return "sha256:" + of_values(super().digest, options.thinking_budget)

    def _connected(self) -> Any:
        options = cast("GeminiOptions", self._options)
        return _Gemini(
            genai.Client(
                api_key=self._key,
                http_options=types.HttpOptions(
                    base_url=options.endpoint, timeout=round(options.timeout_s * _MS)
                ),
            ),
            options.thinking_budget,
        )


class _Gemini:
    """Gemini's client in the shape of OpenAI's: `client.chat.completions.create(…)`."""

    def __init__(self, client: Any, thinking_budget: int) -> None:
        self._client = client
        self._thinking_budget = thinking_budget
        self._files: dict[str, asyncio.Task[Any]] = {}
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._create))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._client.aio.aclose)
            for task in self._files.values():
                task.cancel()
            held = await asyncio.gather(*self._files.values(), return_exceptions=True)
            # What cannot be deleted now is deleted by Gemini after two days.
            with suppress(TimeoutError):
                async with asyncio.timeout(TIDY_S):
                    await asyncio.gather(
                        *(
                            self._client.aio.files.delete(name=file.name)
                            for file in held
                            if not isinstance(file, BaseException)
                        ),
                        return_exceptions=True,
                    )

    async def _create(
        self,
        *,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        temperature: float,
        max_tokens: int,
        response_format: Mapping[str, Any] | None = None,
        logprobs: bool = False,
        top_logprobs: int = _TOLD,
    ) -> Any:
        # Thoughts count among the tokens of an answer.
        thinks = _FREELY if self._thinking_budget < 0 else self._thinking_budget
        config: dict[str, Any] = {
            "temperature": temperature,
            "max_output_tokens": max_tokens + thinks,
        }
        if self._thinking_budget >= 0:
            config["thinking_config"] = types.ThinkingConfig(thinking_budget=self._thinking_budget)
        if response_format is not None:
            config["response_mime_type"] = "application/json"
            config["response_json_schema"] = response_format["json_schema"]["schema"]
        if logprobs:
            config |= {"response_logprobs": True, "logprobs": min(top_logprobs, _TOLD)}
        parts = [await self._part(part) for turn in messages for part in turn["content"]]
        try:
            made = await self._client.aio.models.generate_content(
                model=model,
                contents=[types.Content(role="user", parts=parts)],
                config=types.GenerateContentConfig(**config),
            )
        except errors.APIError as fault:
            raise _told(fault) from fault
        except (httpx.HTTPError, httpx2.HTTPError, ValueError) as fault:
            raise EndpointError(None, f"{type(fault).__name__}: {fault}") from fault
        return SimpleNamespace(choices=[_choice(made)])

    async def _part(self, part: Mapping[str, Any]) -> Any:
        if part["type"] == "text":
            return types.Part(text=part["text"])
        jpeg = base64.b64decode(part["image_url"]["url"].removeprefix(_DATA))
        name = hashlib.sha256(jpeg).hexdigest()
        upload = self._files.get(name)
        if upload is None or (upload.done() and upload.exception() is not None):
            upload = self._files[name] = asyncio.create_task(self._upload(jpeg))
        # A question that is given up must not take the upload from the others that wait for it.
        held = await asyncio.shield(upload)
        return types.Part(
            file_data=types.FileData(file_uri=held.uri, mime_type=held.mime_type or "image/jpeg")
        )

    async def _upload(self, jpeg: bytes) -> Any:
        try:
            return await self._client.aio.files.upload(
                file=io.BytesIO(jpeg), config={"mime_type": "image/jpeg"}
            )
        except errors.APIError as fault:
            raise _told(fault) from fault
        except (httpx.HTTPError, httpx2.HTTPError, KeyError, ValueError) as fault:
            raise EndpointError(None, f"{type(fault).__name__}: {fault}") from fault


def _told(fault: errors.APIError) -> EndpointError | ClassifierUnavailableError:
    """Return what Gemini refuses, under the status that others have for it."""
    words = str(fault.message)
    # A wrong key and a budget that the model does not take are "bad requests", though every upload meets them.
    if fault.code == _FORM and "API_KEY_INVALID" in str(fault.details):
        return EndpointError(_KEY, words)
    if fault.code == _FORM and "think" in words.lower():
        return ClassifierUnavailableError(
            "gemini-thoughts",
            f"set thinking_budget to one that the model takes, or -1: {words[:300]}",
        )
    return EndpointError(fault.code, words)


def _choice(made: Any) -> Any:
    """Return an answer as OpenAI's client would give it."""
    blocked = getattr(made.prompt_feedback, "block_reason", None)
    candidates = made.candidates or []
    if blocked is not None or not candidates:
        told = f"blocked: {getattr(blocked, 'value', blocked)}"
        return SimpleNamespace(
            message=SimpleNamespace(content="", refusal=told), finish_reason="content_filter"
        )
    first = candidates[0]
    parts = (first.content.parts if first.content else None) or []
    reason = str(getattr(first.finish_reason, "value", first.finish_reason))
    ends = {"MAX_TOKENS": "length", **dict.fromkeys(_FILTERED, "content_filter")}
    return SimpleNamespace(
        message=SimpleNamespace(
            content="".join(part.text or "" for part in parts if not part.thought), refusal=None
        ),
        finish_reason=ends.get(reason, "stop"),
        logprobs=_logprobs(first.logprobs_result),
    )


def _logprobs(told: Any) -> Any:
    steps = (told.top_candidates if told else None) or []
    return SimpleNamespace(
        content=[
            SimpleNamespace(
                top_logprobs=[
                    SimpleNamespace(token=one.token, logprob=one.log_probability)
                    for one in step.candidates or []
                ]
            )
            for step in steps
        ]
    )
