"""A model's reasons, for people: JSON that a grammar holds to its form, put to the proof.

The grammar engine is llguidance: it has no start-up cost for a schema that is new with each
policy, is one light wheel, and is what the large serving engines use as well. Whatever comes out
is untrusted text and never a source of confidence.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

import llguidance.hf
import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from PIL import Image
from torch import Tensor

from policies.question import Part, Question
from workers import prompt
from workers.classifier import Classification, Item, Picture, Rationale
from workers.continuing import written
from workers.passes import Row
from workers.proof import Proven, proven
from workers.reason import MAX_TEXT, Reason, agreement, ask_alone, read, shown
from workers.scoring import Scorer

#: Most tokens of a whole reason: its text, were every character one, and the form around it.
LIMIT: Final = MAX_TEXT + 80

_ALL: Final[frozenset[Part]] = frozenset({"image", "caption"})

#: Spaces are allowed where models differ in habit; everything else is fixed.
_GRAMMAR: Final = """
start: "{{" SP "\\"clause\\":" SP clause "," SP "\\"text\\":" SP TEXT "," SP place "}}"
clause: {clauses}
place: "\\"media\\":" SP ("0" "," SP "\\"box\\":" SP (box | "null") | "null" "," SP "\\"box\\":" SP "null")
box: "[" SP N "," SP N "," SP N "," SP N "]"
SP: / ?/
N: /100|[1-9]?[0-9]/
TEXT: /"[^"\\\\\\x00-\\x1f]{{1,{longest}}}"/
"""


def grammar(question: Question) -> str:
    """Return the grammar of a reason under this question: only its own clauses can be named."""
    clauses = " | ".join(json.dumps(json.dumps(clause.id)) for clause in question.forbidden)
    return _GRAMMAR.format(clauses=clauses, longest=MAX_TEXT)


class Reasons:
    """Asks a model for its reasons and asks back whether they are there."""

    def __init__(
        self, scorer: Scorer, wording: prompt.Wording = "full", *, reads: frozenset[Part] = _ALL
    ) -> None:
        """Make it; `reads` are the parts of an upload that the classifier looks at when it scores."""
        self._scorer = scorer
        self._wording = wording
        self._reads = reads
        self._passes = scorer.passes
        width = scorer.passes.model.get_output_embeddings().weight.shape[0]
        self._tokenizer = _guide(scorer.dialogue.tokenizer, width)

    def explain(self, item: Item, question: Question, found: Classification) -> Rationale:
        """Return the reason for one finding, unsupported where it does not stand the proof."""
        picture = _picture(item, found)
        row = row_for(item, question, picture, self._wording, reads=self._reads)
        text = self._write(row, self.likeliest(item, question, picture))
        reason = read(text, question)
        if reason is None:
            return Rationale(question=question.id, clause=None, text=shown(text), supported=False)
        stands = self.proven(item, question, reason, picture)
        reason = stands.reason
        looked = picture if reason.seen else None
        count = question.samples if question.samples > 1 else 0
        drawn = [read(self._write(row, question, draw=n + 1), question) for n in range(count)]
        return Rationale(
            question=question.id,
            clause=reason.clause,
            text=reason.text,
            supported=stands.supported,
            denied=stands.denied,
            media=None if looked is None else looked.media,
            box=reason.box,
            agreement=agreement(reason, drawn),
        )

    def likeliest(self, item: Item, question: Question, picture: Picture | None) -> Question:
        """Return the question with the one clause that the model, asked about each alone, is surest of.

        Small models say sooner which clause holds than they name it among several. Carve-outs are left aside: that none
        excuses the upload has been scored, and they weigh against the clause that holds.
        """
        if len(question.forbidden) == 1:
            return question
        alone = [
            replace(ask_alone(question, clause.id), allowed=()) for clause in question.forbidden
        ]
        asks = [prompt.suffix(one, self._wording) for one in alone]
        row = row_for(item, question, picture, self._wording, reads=self._reads)
        odds = self._scorer.score([replace(row, asked=tuple(range(len(asks))))], asks)[0]
        surest = max(range(len(odds)), key=lambda number: odds[number].score)
        return replace(question, forbidden=(question.forbidden[surest],))

    def proven(
        self, item: Item, question: Question, reason: Reason, picture: Picture | None
    ) -> Proven:
        """Put the evidence of one reason to the proof, on what scoring left of the picture."""
        row, text = (
            row_for(item, question, looked, self._wording, reads=self._reads)
            for looked in (picture, None)
        )

        def ask(
            images: Sequence[Image.Image | None], questions: Sequence[Question]
        ) -> list[list[float]]:
            asks = [prompt.suffix(one, self._wording) for one in questions]
            asked = tuple(range(len(asks)))
            rows = [
                replace(text if image is None else row, image=image, asked=asked)
                for image in images
            ]
            return [[one.score for one in odds] for odds in self._scorer.score(rows, asks)]

        return proven(ask, question, reason, row.image)

    def _write(self, row: Row, question: Question, *, draw: int = 0) -> str:
        """Return the likeliest reason, or one that is drawn, the same for the same number."""
        matcher = LLMatcher(self._tokenizer, LLMatcher.grammar_from_lark(grammar(question)))
        ask = prompt.explain(question)
        pick = _drawing(draw) if draw else _likeliest
        choose = chooser(matcher, self._tokenizer.vocab_size, pick)
        tokens = written(self._passes, row, ask, choose, limit=LIMIT)
        text: str = self._scorer.dialogue.tokenizer.decode(tokens, skip_special_tokens=True)
        return text


def _likeliest(logits: Tensor) -> int:
    return int(logits.argmax())


def _drawing(seed: int) -> Callable[[Tensor], int]:
    generator = torch.Generator().manual_seed(seed)

    def draw(logits: Tensor) -> int:
        return int(torch.multinomial(logits.softmax(-1).cpu(), 1, generator=generator))

    return draw


def chooser(
    matcher: Any, vocabulary: int, pick: Callable[[Tensor], int] = _likeliest
) -> Callable[[Tensor], int | None]:
    """Return a choice among the tokens that the grammar allows."""
    mask: Any = None

    def choose(logits: Tensor) -> int | None:
        nonlocal mask
        if matcher.is_stopped():
            return None
        if mask is None:
            mask = allocate_token_bitmask(1, vocabulary)
        fill_next_token_bitmask(matcher, mask, 0)
        bits = np.unpackbits(mask.view(np.uint8)[0], bitorder="little").astype(bool)
        # The output layer may have more rows than there are tokens, or fewer.
        allowed = torch.zeros(len(logits), dtype=torch.bool)
        allowed[: min(len(bits), len(logits))] = torch.from_numpy(bits[: len(logits)])
        allowed = allowed.to(logits.device)
        if not bool(allowed.any()):
            return None
        token = pick(logits.masked_fill(~allowed, float("-inf")))
        matcher.consume_token(token)
        if matcher.is_stopped() and matcher.is_accepting():
            # An end token closes the text and is no part of it.
            return None if matcher.stop_reason() == "EndOfSentence" else token
        return token

    return choose


def row_for(
    item: Item,
    question: Question,
    picture: Picture | None,
    wording: prompt.Wording = "full",
    *,
    reads: frozenset[Part] = _ALL,
) -> Row:
    """Return the row in which a classifier that reads these parts scores a question, about one picture or the text."""
    shared = prompt.prefix(
        images=0 if picture is None else 1,
        caption=item.caption if "caption" in question.reads & reads else "",
        text_in_image=item.text_in_image,
        wording=wording,
    )
    image = None if picture is None else Image.fromarray(picture.pixels)
    return Row(shared=shared, image=image, asked=(0,))


def _picture(item: Item, found: Classification) -> Picture | None:
    same = (
        picture
        for picture in item.pictures
        if picture.media == found.media and picture.time_s == found.time_s
    )
    return next(same, None)


@lru_cache(maxsize=4)
def _guide(tokenizer: Any, width: int) -> LLTokenizer:
    return llguidance.hf.from_tokenizer(tokenizer, n_vocab=max(width, len(tokenizer)))
