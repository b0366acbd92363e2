"""A checkpoint's own words around Weir's prompt: chat template, placeholders, Yes and No.

The prompt is rendered once for each number of images, with marks where content and question
will stand. What stands before the question's mark is the shared prefix; the rest is the suffix.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from workers import prompt
from workers.errors import CheckpointError
from workers.families import Family

#: Marks for what an upload and a question put into a prompt.
CONTENT: Final = "⟦content⟧"
QUESTION: Final = "⟦question⟧"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    head: str
    between: str
    #: Spaces before the question: they belong to its first token.
    indent: str
    tail: str


class Dialogue:
    """Renders prefixes and suffixes for one processor (or tokenizer, for a text model)."""

    #: The words between which a model decides.
    words: tuple[str, str] = ("Yes", "No")

    def __init__(self, processor: Any, family: Family) -> None:
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self._family = family
        self._frames: dict[tuple[int, str], _Frame] = {}
        self._suffixes: dict[str, tuple[int, ...]] = {}
        self._forgeries = _specials(processor, self.tokenizer)
        self.tokenizer.padding_side = "right"
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.unk_token
        self.yes, self.no = self._answers()

    @property
    def template(self) -> str:
        """The chat template, empty where the checkpoint has none."""
        found = getattr(self.processor, "chat_template", None) or getattr(
            self.tokenizer, "chat_template", None
        )
        return found if isinstance(found, str) else ""

    def prefix(self, shared: prompt.Prefix) -> str:
        """Return the text of the shared part, placeholders included."""
        frame = self._frame(shared.images, shared.system)
        if not frame.head:
            return frame.between
        return frame.head + self.plain(shared.content) + frame.between

    def whole(self, shared: prompt.Prefix, ask: str) -> str:
        """Return the text of one whole prompt, as a processor wants it."""
        frame = self._frame(shared.images, shared.system)
        ended = frame.tail[:-1] if self._family.ends_line else frame.tail
        return self.prefix(shared) + self.joint + frame.indent + self.plain(ask) + ended

    @property
    def joint(self) -> str:
        """What stands between the prefix, as the processor gets it, and the question."""
        return "\n" if self._family.ends_line else ""

    def suffix(self, ask: str, *, images: int) -> tuple[int, ...]:
        """Return the tokens of a question and of the turn's end, up to where Yes or No comes."""
        frame = self._frame(images)
        text = frame.indent + self.plain(ask) + frame.tail
        if text not in self._suffixes:
            self._suffixes[text] = self._after(frame.between[-1:] or "\n", text)
        return self._suffixes[text]

    def plain(self, text: str) -> str:
        """Return content without the power to forge the checkpoint's own marks or placeholders."""
        if self._forgeries is None:
            return text
        return self._forgeries.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def starts_itself(self, text: str) -> bool:
        """Return whether the text begins with its start mark, so that none may be added."""
        mark = self.tokenizer.bos_token
        return bool(mark) and text.startswith(mark)

    def _after(self, before: str, text: str) -> tuple[int, ...]:
        """Return the text's tokens as they are after another text, not as at a start."""
        first = self.tokenizer(before, add_special_tokens=False)["input_ids"]
        both = self.tokenizer(before + text, add_special_tokens=False)["input_ids"]
        if both[: len(first)] == first:
            return tuple(both[len(first) :])
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def turn(self, shared: prompt.Prefix) -> list[dict[str, Any]]:
        """Return the conversation that the chat template renders, marks in it."""
        return prompt.messages(shared, QUESTION)

    def framed(self, shared: prompt.Prefix) -> str:
        """Return the whole prompt with its marks."""
        return self._templated(self.turn(shared)) if self.template else self._untemplated(shared)

    def before_answer(self) -> str:
        """Return the text right before the deciding word."""
        return "\n" + self._frame(0).tail

    def first_token(self, before: str, word: str) -> int:
        """Return the token with which a word begins after a text.

        Raises:
            CheckpointError: the tokenizer has none.
        """
        tokens = self._after(before, word)
        if not tokens or tokens[0] == self.tokenizer.unk_token_id:
            raise CheckpointError("no-answer", f"the tokenizer has no token for {word!r}")
        return tokens[0]

    def _answers(self) -> tuple[int, int]:
        before = self.before_answer()
        yes, no = (self.first_token(before, word) for word in self.words)
        if yes == no:
            told = " and ".join(self.words)
            raise CheckpointError("no-answer", f"{told} begin with the same token")
        return yes, no

    def _frame(self, images: int, system: str = prompt.SYSTEM) -> _Frame:
        if (images, system) not in self._frames:
            self._frames[images, system] = self._render(images, system)
        return self._frames[images, system]

    def _render(self, images: int, system: str) -> _Frame:
        shared = prompt.Prefix(system=system, images=images, content=CONTENT)
        head, mark, rest = self.framed(shared).partition(CONTENT)
        if not mark:  # a guard that takes no text
            head, rest = "", head
        between, other, tail = rest.partition(QUESTION)
        if not other or CONTENT in tail or QUESTION in tail:
            raise CheckpointError(
                "template", "the chat template drops or doubles the text of the user's turn"
            )
        kept = between.rstrip(" ")
        return _Frame(head=head, between=kept, indent=between[len(kept) :], tail=tail)

    def _templated(self, turn: list[dict[str, Any]]) -> str:
        where = self.processor
        if not getattr(where, "chat_template", None):
            where = self.tokenizer
        if where is self.tokenizer:  # a text template wants text, not parts
            turn = [{**turn[0], "content": "".join(p.get("text", "") for p in turn[0]["content"])}]
        text: str = where.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        return text

    def _untemplated(self, shared: prompt.Prefix) -> str:
        mark = getattr(self.processor, "image_token", None) or "<image>"
        if self._family.interleaved:
            mark = ""
        if self._family.ends_line:  # the line breaks at both ends are the processor's
            return f"{mark * shared.images}{shared.system}\n{CONTENT}{QUESTION}\n"
        return f"{mark * shared.images}{shared.system}\n{CONTENT}\n{QUESTION}\n"


def _specials(processor: Any, tokenizer: Any) -> re.Pattern[str] | None:
    """Return a pattern of every string that the tokenizer or processor reads as a mark."""
    marks: set[str] = {str(token) for token in tokenizer.get_added_vocab()}
    marks |= {str(token) for token in tokenizer.all_special_tokens}
    for name in ("image_token", "video_token", "audio_token", "boi_token", "eoi_token"):
        marks.add(str(getattr(processor, name, None) or ""))
    # Words such as Yes, where a small tokenizer keeps them whole, are content like any other.
    marks = {mark for mark in marks if len(mark) > 1 and not mark.isalnum() and not mark.isspace()}
    longest = sorted(marks, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest))) if longest else None


def pad(rows: Sequence[Sequence[int]], fill: int) -> list[list[int]]:
    """Return the rows at equal length, filled on the right."""
    width = max(map(len, rows))
    return [[*row, *([fill] * (width - len(row)))] for row in rows]
