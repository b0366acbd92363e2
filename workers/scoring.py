"""Many yes/no questions about one image for little more than the price of one.

The shared prefix (system text, image, caption) runs once an item and leaves its keys and values;
all questions run on them, with explicit positions and masks, and of the output layer only the rows
of Yes and No are computed. See `families` for which model may share what.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import getsource, signature
from typing import Any, Final, Literal

import torch
from PIL import Image
from torch import Tensor
from transformers import DynamicCache

from workers import prompt
from workers.attention import SPLIT, Layout, laid_out, layout_of
from workers.dialogue import Dialogue, pad
from workers.errors import MediaRefusedError
from workers.families import Family

#: How suffixes run on the prefix. expanded: one row each, on a copy of the cache. packed: one row
#: for all, under a block-diagonal mask. split: one row for all, attention in two parts, so that
#: neither the cache is copied nor a masked block computed.
Method = Literal["expanded", "packed", "split"]

#: Tokens that one forward pass may hold, by kind of device.
BUDGETS: Final[Mapping[str, int]] = {"cpu": 8_192, "cuda": 65_536, "mps": 16_384}

#: What a prefix is guessed to take for its image until one of that size was seen, in tokens.
_GUESS: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One picture (or text alone) with the numbers of the questions asked about it."""

    shared: prompt.Prefix
    image: Image.Image | None
    asked: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Odds:
    """The log-odds of Yes against No, and the probability that both had together, if computed."""

    score: float
    mass: float | None = None


@dataclass(slots=True, kw_only=True)
class Shared:
    """What a prefix pass leaves for its questions."""

    inputs: dict[str, Tensor]
    cache: DynamicCache
    #: (rows, tokens): which of the cached tokens are real.
    valid: Tensor
    #: (rows,): the position of the first suffix token.
    start: Tensor
    again: dict[str, Tensor] = field(default_factory=dict)


class YesNo:
    """The two rows of the output layer that a decision needs."""

    def __init__(self, model: Any, yes: int, no: int, *, mass: bool) -> None:
        self._head = model.get_output_embeddings()
        rows = torch.tensor([yes, no], device=self._head.weight.device)
        self._rows = rows
        weight = self._head.weight
        self._weight = weight.detach()[rows].float() if weight.is_floating_point() else None
        bias = getattr(self._head, "bias", None)
        self._bias = None if bias is None else bias.detach()[rows].float()
        text = model.config.get_text_config()
        # Some configurations name these though the model's own forward does not heed them.
        own = getsource(type(model).forward)
        heeded = {name for name in ("final_logit_softcapping", "logits_scaling") if name in own}
        values = {name: getattr(text, name, None) for name in heeded}
        self._cap: float | None = values.get("final_logit_softcapping")
        self._divide: float = values.get("logits_scaling") or 1.0
        self._mass = mass

    def __call__(self, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the log-odds for each last hidden state, and the mass where it is wanted."""
        if self._mass or self._weight is None:
            logits = self.settle(self._head(hidden).float())
            pair = logits[..., self._rows]
            mass = (pair.logsumexp(-1) - logits.logsumexp(-1)).exp() if self._mass else None
            return pair[..., 0] - pair[..., 1], mass
        pair = torch.nn.functional.linear(hidden.float(), self._weight, self._bias)
        pair = self.settle(pair)
        return pair[..., 0] - pair[..., 1], None

    def settle(self, logits: Tensor) -> Tensor:
        """Return the logits scaled and capped as the model itself does after its output layer."""
        logits = logits / self._divide
        return logits if self._cap is None else torch.tanh(logits / self._cap) * self._cap


class Scorer:
    """Scores questions on a loaded model; safe to call from several threads, one at a time."""

    def __init__(
        self,
        model: Any,
        dialogue: Dialogue,
        family: Family,
        *,
        budget: int | None = None,
        method: Method | None = None,
        mass: bool = False,
    ) -> None:
        self.model = model
        self.dialogue = dialogue
        self.family = family
        self.device: torch.device = model.device
        self.budget = budget or BUDGETS.get(self.device.type, 8_192)
        self.base = model.base_model
        self.answer = YesNo(model, dialogue.yes, dialogue.no, mass=mass)
        self._method = method
        self._fastest: dict[tuple[int, ...], Method] = {}
        self._image_tokens: dict[tuple[int, int], int] = {}
        self._lock = threading.Lock()
        names = signature(self.base.forward).parameters
        #: transformers renamed the argument between the releases that we support.
        self._cache_name = "cache" if "cache" in names else "past_key_values"
        self._text = model.get_decoder().config
        types = set(getattr(self._text, "layer_types", None) or ())
        self._window: int | None = getattr(self._text, "sliding_window", None)
        self._by_layer = family.masks == "by_layer" or len(types) > 1
        if types == {"full_attention"}:
            self._window = None

    def score(self, rows: Sequence[Row], asks: Sequence[str]) -> list[list[Odds]]:
        """Return, for each row, the odds of the questions that are asked about it, in order."""
        out: list[list[Odds]] = [[] for _ in rows]
        with self._lock, torch.inference_mode():
            for numbers in self._batches(rows, asks):
                batch = [rows[number] for number in numbers]
                texts = [asks[ask] for ask in batch[0].asked]
                for number, odds in zip(numbers, self._score(batch, texts), strict=True):
                    out[number] = odds
        return out

    def prefix(self, rows: Sequence[Row]) -> Shared:
        """Run the shared part of each row once and keep its keys and values."""
        inputs = self.inputs([self.dialogue.prefix(row.shared) for row in rows], rows)
        valid = inputs["attention_mask"].bool()
        positions, start = self._positions(inputs, valid)
        cache = DynamicCache()
        out = self.base(
            **inputs, position_ids=positions, use_cache=True, **{self._cache_name: cache}
        )
        again = dict.fromkeys(self.family.again, out.image_outputs.last_hidden_state)
        if rows[0].image is not None and len(rows) == 1:
            self._image_tokens[rows[0].image.size] = int(valid.sum())
        return Shared(inputs=inputs, cache=cache, valid=valid, start=start, again=again)

    def inputs(self, texts: Sequence[str], rows: Sequence[Row]) -> dict[str, Tensor]:
        """Return a processor's tensors for these texts with their rows' images."""
        images = [[row.image] for row in rows if row.image is not None]
        mixed = self.family.interleaved
        special = not mixed and not self.dialogue.starts_itself(texts[0])
        arguments: dict[str, Any] = {
            "text": list(texts),
            "return_tensors": "pt",
            "padding": True,
            "add_special_tokens": special,
        }
        try:
            if mixed:
                arguments["text"] = [
                    [text] if row.image is None else [row.image, text]
                    for text, row in zip(texts, rows, strict=True)
                ]
                made = self.dialogue.processor(**arguments)
            elif images:
                made = self.dialogue.processor(images=images, **arguments)
            else:
                made = self.dialogue.tokenizer(**arguments)
        except (ValueError, ZeroDivisionError) as fault:
            raise MediaRefusedError("image-shape", str(fault)) from fault
        tensors = {
            name: value.to(self.device)
            for name, value in made.items()
            if isinstance(value, Tensor) and name not in {"labels", "offset_mapping"}
        }
        return {
            name: value.to(self.model.dtype) if value.is_floating_point() else value
            for name, value in tensors.items()
        }

    def hidden(self, shared: Shared, suffixes: Sequence[Sequence[int]], method: Method) -> Tensor:
        """Return the last hidden state of every suffix on every row: rows × suffixes × width."""
        if method == "expanded":
            return self._expanded(shared, suffixes)
        return self._in_one_row(shared, suffixes, split=method == "split")

    # --- batches -----------------------------------------------------------------------------

    def _batches(self, rows: Sequence[Row], asks: Sequence[str]) -> Iterator[list[int]]:
        """Yield rows that are asked the same, of similar length, within the budget."""
        groups: dict[tuple[bool, tuple[int, ...]], list[int]] = {}
        for number, row in enumerate(rows):
            if row.asked:
                groups.setdefault((row.image is not None, row.asked), []).append(number)
        for (_, asked), numbers in groups.items():
            questions = sum(len(asks[ask]) for ask in asked) // 4
            batch: list[int] = []
            longest = 0
            for length, number in sorted((self._length(rows[n]), n) for n in numbers):
                longest = max(longest, length)
                if batch and (len(batch) + 1) * (longest + questions) > self.budget:
                    yield batch
                    batch, longest = [], length
                batch.append(number)
            yield batch

    def _length(self, row: Row) -> int:
        size = 0 if row.image is None else self._image_tokens.get(row.image.size, _GUESS)
        return size + len(row.shared.content) // 3

    def _score(self, rows: Sequence[Row], asks: Sequence[str]) -> list[list[Odds]]:
        if self.family.tier == "C":
            return self._separate(rows, asks)
        images = rows[0].shared.images
        suffixes = [self.dialogue.suffix(ask, images=images) for ask in asks]
        if self.family.tier == "B":
            return self._on_features(rows, suffixes)
        shared = self.prefix(rows)
        parts = [
            self.answer(self._fastest_hidden(shared, part))
            for part in _portions(suffixes, self.budget // len(rows))
        ]
        return _odds(
            torch.cat([score for score, _ in parts], dim=1),
            None if parts[0][1] is None else torch.cat([m for _, m in parts if m is not None], 1),
        )

    # --- tier A ------------------------------------------------------------------------------

    def _fastest_hidden(self, shared: Shared, suffixes: Sequence[Sequence[int]]) -> Tensor:
        """Run the suffixes in the way that was fastest for such a shape on this device."""
        if not self.family.packs or len(suffixes) == 1:
            return self.hidden(shared, suffixes, "expanded")
        if self._method is not None:
            return self.hidden(shared, suffixes, self._method)
        sizes = (*shared.valid.shape, len(suffixes), sum(map(len, suffixes)))
        shape = tuple(size.bit_length() for size in sizes)
        if shape not in self._fastest:
            self._fastest[shape] = self._measure(shared, suffixes)
        return self.hidden(shared, suffixes, self._fastest[shape])

    def _measure(self, shared: Shared, suffixes: Sequence[Sequence[int]]) -> Method:
        methods: list[Method] = ["expanded", "packed"]
        if not self._by_layer and self._window is None:
            methods.append("split")
        took: dict[Method, float] = {}
        for method in methods * 2:  # the first time of each is its warm-up
            self._finish()
            began = time.perf_counter()
            self.hidden(shared, suffixes, method)
            self._finish()
            took[method] = time.perf_counter() - began
        return min(took, key=lambda method: took[method])

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _expanded(self, shared: Shared, suffixes: Sequence[Sequence[int]]) -> Tensor:
        rows, count = shared.valid.shape[0], len(suffixes)
        fill = self.dialogue.tokenizer.pad_token_id
        ids = torch.tensor(pad(suffixes, fill), device=self.device)
        lengths = torch.tensor([len(s) for s in suffixes], device=self.device)
        width = ids.shape[1]
        step = torch.arange(width, device=self.device)
        # A question sees its own tokens up to itself, and every real token of its prefix.
        own = (step[:, None] >= step[None, :]).expand(rows, count, width, width)
        before = shared.valid[:, None, None, :].expand(rows, count, width, -1)
        positions = (shared.start[:, None, None] + step).expand(rows, count, width)
        seen = torch.cat([before, own], dim=-1).flatten(0, 1)[:, None]
        apart = step[:, None] + shared.valid.sum(1)[:, None, None] - self._places(shared, step)
        apart = apart[:, None].expand(rows, count, width, -1).flatten(0, 1)[:, None]
        cache = DynamicCache()
        for layer, held in enumerate(shared.cache.layers):
            if held.keys is not None and held.keys.numel():
                cache.update(_repeat(held.keys, count), _repeat(held.values, count), layer)
        out = self._later(
            shared,
            ids.repeat(rows, 1),
            positions.flatten(0, 1),
            self._masks(seen, apart),
            cache,
            count,
        )
        states = out.view(rows, count, width, -1)
        last = (lengths - 1)[None, :, None, None].expand(rows, count, 1, states.shape[-1])
        last_states: Tensor = states.gather(2, last).squeeze(2)
        return last_states

    def _in_one_row(
        self, shared: Shared, suffixes: Sequence[Sequence[int]], *, split: bool
    ) -> Tensor:
        rows = shared.valid.shape[0]
        layout = layout_of(tuple(map(len, suffixes)), self.device)
        ids = torch.tensor([token for s in suffixes for token in s], device=self.device)
        positions = shared.start[:, None] + layout.steps
        before = shared.valid[:, None, :].expand(rows, len(ids), -1)
        cache = DynamicCache()
        for layer, held in enumerate(shared.cache.layers):
            cache.update(held.keys, held.values, layer)
        if split:
            with laid_out(self._text, layout, shared.valid):
                out = self._later(
                    shared, ids.expand(rows, -1), positions, before[:, None, :1], cache, 1
                )
        else:
            own = layout.blocks.expand(rows, -1, -1)
            seen = torch.cat([before, own], dim=-1)[:, None]
            reach = layout.steps[:, None] + shared.valid.sum(1)[:, None, None]
            apart = (reach - self._places(shared, layout.steps))[:, None]
            out = self._later(
                shared, ids.expand(rows, -1), positions, self._masks(seen, apart), cache, 1
            )
        return out[:, layout.ends]

    def _places(self, shared: Shared, steps: Tensor) -> Tensor:
        """Return where each cached and each suffix token stands: rows × 1 × tokens."""
        cached = shared.valid.cumsum(1) - 1
        own = shared.valid.sum(1)[:, None] + steps
        return torch.cat([cached, own], dim=1)[:, None]

    def _masks(self, seen: Tensor, apart: Tensor) -> Any:
        """Return the mask in the form that the model takes, with the window where it has one."""
        near = seen if self._window is None else seen & (apart < self._window)
        if self._by_layer:
            return {
                "full_attention": self._form(seen),
                "sliding_attention": self._form(near),
            }
        return self._form(near)

    def _form(self, seen: Tensor) -> Tensor:
        if self._text._attn_implementation == "sdpa":  # noqa: SLF001 -- it has no other name
            return seen
        lowest = torch.finfo(self.model.dtype).min
        return torch.zeros_like(seen, dtype=self.model.dtype).masked_fill(~seen, lowest)

    def _later(
        self,
        shared: Shared,
        ids: Tensor,
        positions: Tensor,
        masks: Any,
        cache: DynamicCache,
        count: int,
    ) -> Tensor:
        """Run tokens that come after the prefix."""
        extra = {name: value.repeat_interleave(count, 0) for name, value in shared.again.items()}
        last = shared.valid.sum(1) - 1
        for name in self.family.carries:
            if name in shared.inputs:
                value = shared.inputs[name]
                row = value[torch.arange(len(last), device=self.device), last]
                extra[name] = torch.stack([row] * ids.shape[1], 1).repeat_interleave(count, 0)
        if self.family.positions == "grid":
            positions = positions.expand(3, *positions.shape)
        out = self.base(
            input_ids=ids,
            attention_mask=masks,
            position_ids=positions,
            use_cache=True,
            **{self._cache_name: cache},
            **extra,
        )
        hidden: Tensor = out.last_hidden_state
        return hidden

    def _positions(self, inputs: Mapping[str, Tensor], valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return the prefix's positions, and the position at which its suffixes begin."""
        plain = (valid.cumsum(1) - 1).clamp(min=0)
        if self.family.positions == "grid":
            if "image_grid_thw" in inputs:
                names = ("mm_token_type_ids", "image_grid_thw", "attention_mask")
                held = {name: inputs[name] for name in names if name in inputs}
                grid, _ = self.base.get_rope_index(inputs["input_ids"], **held)
                return grid, grid.amax(0).masked_fill(~valid, -1).amax(1) + 1
            return plain.expand(3, *plain.shape), valid.sum(1)
        first = 1 if self.family.positions == "from_one" else 0
        return plain + first, valid.sum(1) + first

    # --- tiers B and C -----------------------------------------------------------------------

    def _on_features(
        self, rows: Sequence[Row], suffixes: Sequence[Sequence[int]]
    ) -> list[list[Odds]]:
        """Encode each image once, then run every question as a whole sequence on its features."""
        inputs = self.inputs([self.dialogue.prefix(row.shared) for row in rows], rows)
        features = self.base.get_image_features(inputs["pixel_values"])
        out: list[list[Odds]] = []
        for number, ids in enumerate(inputs["input_ids"]):
            head = ids[inputs["attention_mask"][number].bool()].tolist()
            odds: list[Odds] = []
            for part in _portions(suffixes, self.budget, beside=len(head)):
                whole = [[*head, *suffix] for suffix in part]
                made = self._padded(whole)
                one = features.pooler_output[number : number + 1].expand(len(part), -1, -1)
                seen = self.base(
                    **made,
                    token_type_ids=torch.zeros_like(made["input_ids"]),
                    mm_encoder_outputs={"image": type(features)(pooler_output=one)},
                )
                ends = made["attention_mask"].sum(1) - 1
                states = seen.last_hidden_state[torch.arange(len(part)), ends]
                score, mass = self.answer(states[None])
                odds += _odds(score, mass)[0]
            out.append(odds)
        return out

    def _padded(self, whole: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        lengths = torch.tensor([len(ids) for ids in whole], device=self.device)
        ids = torch.tensor(pad(whole, self.dialogue.tokenizer.pad_token_id), device=self.device)
        step = torch.arange(ids.shape[1], device=self.device)
        valid = step < lengths[:, None]
        positions, _ = self._positions({}, valid)
        return {"input_ids": ids, "attention_mask": valid.long(), "position_ids": positions}

    def _separate(self, rows: Sequence[Row], asks: Sequence[str]) -> list[list[Odds]]:
        """Run every question as a whole prompt of its own, through the model's own forward."""
        out = []
        for row in rows:
            texts = [self.dialogue.whole(row.shared, ask) for ask in asks]
            size = max(1, self.budget // (self._length(row) + max(map(len, texts)) // 3))
            parts = [texts[at : at + size] for at in range(0, len(texts), size)]
            out.append([odds for part in parts for odds in self.whole([row] * len(part), part)])
        return out

    def whole(self, rows: Sequence[Row], texts: Sequence[str]) -> list[Odds]:
        """Return the odds of whole prompts, nothing shared: what every sharing is held against."""
        inputs = self.inputs(texts, rows)
        ends = inputs["attention_mask"].sum(1) - 1
        kept, places = torch.unique(ends, return_inverse=True)
        logits = self.model(**inputs, logits_to_keep=kept).logits.float()
        logits = logits[torch.arange(len(ends)), places if logits.shape[1] == len(kept) else ends]
        pair = logits[:, [self.dialogue.yes, self.dialogue.no]]
        mass = (pair.logsumexp(-1) - logits.logsumexp(-1)).exp()
        return _odds((pair[:, 0] - pair[:, 1])[None], mass[None])[0]

    # --- continuing --------------------------------------------------------------------------

    def continue_(
        self, row: Row, ask: str, choose: Callable[[Tensor], int | None], *, limit: int
    ) -> list[int]:
        """Return the tokens that follow a question, each chosen from its logits; None ends it."""
        raise NotImplementedError


def _repeat(held: Tensor, count: int) -> Tensor:
    if held.shape[0] == 1:
        return held.expand(count, -1, -1, -1)
    return held.repeat_interleave(count, 0)


def _portions(
    suffixes: Sequence[Sequence[int]], budget: int, *, beside: int = 0
) -> Iterator[Sequence[Sequence[int]]]:
    """Yield the suffixes in order, in portions of at most so many tokens."""
    first, held = 0, 0
    for number, suffix in enumerate(suffixes):
        if held and held + beside + len(suffix) > budget:
            yield suffixes[first:number]
            first, held = number, 0
        held += beside + len(suffix)
    yield suffixes[first:]


def _odds(score: Tensor, mass: Tensor | None) -> list[list[Odds]]:
    scores: list[list[float]] = score.tolist()
    if mass is None:
        return [[Odds(score=one) for one in row] for row in scores]
    masses: list[list[float]] = mass.tolist()
    return [
        [Odds(score=s, mass=m) for s, m in zip(row, beside, strict=True)]
        for row, beside in zip(scores, masses, strict=True)
    ]


__all__ = ["SPLIT", "Layout", "Method", "Odds", "Row", "Scorer", "Shared", "YesNo"]
