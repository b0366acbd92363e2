"""Uploads with their questions as rows of tokens: one row an upload, its questions one behind the other."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerFast

from workers import prompt
from workers.mini.lessons import Item
from workers.mini.scenes import CELLS
from workers.mini.sights import Sight
from workers.mini.tower import OUTPUTS
from workers.mini.vocabulary import ASSISTANT, END, IMAGE, USER

#: How much each part of a reason counts: most of its tokens are the same in every reason and teach nothing.
REPLY_WEIGHTS = {"clause": 6.0, "text": 3.0, "box": 1.5, "": 0.2}

#: Rows of tokens are filled up to a multiple of this.
WIDTHS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One upload's tokens with all its questions behind them, and where the model is taught."""

    ids: list[int]
    positions: list[int]
    segments: list[int]
    answers: list[tuple[int, float]]
    nouns: list[tuple[int, float, float]]
    clauses: list[tuple[int, float]]
    replies: list[tuple[int, int, float]]


class Packer:
    """Turns uploads and questions into rows of tokens."""

    def __init__(self, words: PreTrainedTokenizerFast) -> None:
        self.words = words
        self._user, self._assistant, self._end, self._image = words.convert_tokens_to_ids(
            [USER, ASSISTANT, END, IMAGE]
        )

    def prefix(self, content: str, *, images: int = 1) -> list[int]:
        """Return the tokens of the shared part, up to its line break."""
        system = self.words(f"{prompt.SYSTEM}\n", add_special_tokens=False)["input_ids"]
        rest = self.words(f"{content}\n", add_special_tokens=False)["input_ids"]
        return [self._user, *system, *[self._image] * (CELLS**2 * images), *rest]

    def row(self, content: str, items: Sequence[Item], *, images: int = 1) -> Row:
        """Return one upload with its questions."""
        ids = self.prefix(content, images=images)
        start = len(ids)
        made = Row(
            ids=ids,
            positions=list(range(start)),
            segments=[0] * start,
            answers=[],
            nouns=[],
            clauses=[],
            replies=[],
        )
        coded = self.words(
            [item.text for item in items], add_special_tokens=False, return_offsets_mapping=True
        )
        for number, item in enumerate(items, 1):
            tokens, offsets = coded["input_ids"][number - 1], coded["offset_mapping"][number - 1]
            ends = np.array([end for _, end in offsets])
            base = len(made.ids)
            for end, shown, named in item.nouns:
                made.nouns.append((base + int(np.searchsorted(ends, end)), shown, named))
            for end, held in item.clauses:
                made.clauses.append((base + int(np.searchsorted(ends, end)), held))
            whole = [*tokens, self._assistant]
            if item.reply:
                coded_reply = self.words(
                    item.reply, add_special_tokens=False, return_offsets_mapping=True
                )
                reply = [*coded_reply["input_ids"], self._end]
                counts = [*weights(item.reply, coded_reply["offset_mapping"]), REPLY_WEIGHTS[""]]
                made.replies.extend(
                    (base + len(whole) - 1 + place, token, count)
                    for place, (token, count) in enumerate(zip(reply, counts, strict=True))
                )
                whole += reply[:-1]
            else:
                made.answers.append((base + len(whole) - 1, item.answer))
            made.ids.extend(whole)
            made.positions.extend(range(start, start + len(whole)))
            made.segments.extend([number] * len(whole))
        return made


def weights(reply: str, offsets: Sequence[tuple[int, int]]) -> list[float]:
    """Return how much each token of a reason counts in training, by the part that it belongs to."""
    parts = re.fullmatch(
        r'\{"clause":"(?P<clause>[^"]*)","text":"(?:Shows )?(?P<text>.*)","media":0,"box":(?P<box>.*)\}',
        reply,
    )
    if parts is None:
        return [1.0] * len(offsets)
    spans = {name: parts.span(name) for name in ("clause", "text", "box")}
    return [
        REPLY_WEIGHTS[next((name for name, (a, b) in spans.items() if start < b and end > a), "")]
        for start, end in offsets
    ]


def collate(
    rows: Sequence[Row], sights: Sequence[Sight | None], pad: int
) -> dict[str, torch.Tensor]:
    """Return a batch: tokens, positions, segments, image outputs, and the flat places where it is taught."""
    outputs = [sight.outputs for sight in sights if sight is not None]
    # Few different widths: each new one costs the processor's library a plan of its own.
    width = -(-max(len(row.ids) for row in rows) // WIDTHS) * WIDTHS

    def filled(values: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
        return torch.tensor([[*value, *[fill] * (width - len(value))] for value in values])

    def flat(part: str) -> npt.NDArray[np.float64]:
        found = [
            (number * width + place[0], *place[1:])
            for number, row in enumerate(rows)
            for place in getattr(row, part)
        ]
        size = {"nouns": 3, "replies": 3}.get(part, 2)
        return np.array(found, np.float64).reshape(-1, size)

    return {
        "ids": filled([row.ids for row in rows], pad),
        "positions": filled([row.positions for row in rows], 0),
        "segments": filled([row.segments for row in rows], -1),
        "outputs": torch.from_numpy(
            np.stack(outputs) if outputs else np.zeros((0, CELLS**2, OUTPUTS), np.float32)
        ),
        **{
            part: torch.from_numpy(flat(part))
            for part in ("answers", "nouns", "clauses", "replies")
        },
    }
