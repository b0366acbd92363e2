"""One prefix, many suffixes: the forward passes, their positions and their masks."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any, Final, Literal

import torch
from PIL import Image
from torch import Tensor
from transformers import DynamicCache

from workers import prompt
from workers.attention import (
    branched,
    branches_of,
    laid_out,
    layout_of,
    see_in_windows,
    tree_of,
)
from workers.dialogue import Dialogue, pad
from workers.errors import MediaRefusedError
from workers.families import Family

#: How suffixes run on the prefix.
#: expanded: one row each, on a copy of the cache.
#: packed: one row for all, under a mask; what suffixes begin with alike stands there once.
#: split: one row for all, attention in two parts, so that no masked block is computed.
#: branched: packed, with attention for one policy's questions at a time.
Method = Literal["expanded", "packed", "split", "branched"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One picture (or text alone) with the numbers of the questions asked about it."""

    shared: prompt.Prefix
    image: Image.Image | None
    asked: tuple[int, ...]


#: Tokens of prefixes that are kept because their uploads may have to be explained.
_KEPT_TOKENS: Final = 8_192
#: Stands where a model refuses a prompt without an image.
_BLANK: Final = Image.new("RGB", (64, 64), (128, 128, 128))


def complete(row: Row, family: Family) -> Row:
    """Return the row as the family can take it: with a grey image where there must be one."""
    if row.image is not None or not family.needs_image:
        return row
    return replace(row, shared=replace(row.shared, images=1), image=_BLANK)


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


class Prefixes:
    """What prefixes left that may be asked again, the newest ones, up to so many tokens together."""

    def __init__(self, tokens: int, carries: Sequence[str]) -> None:
        self._tokens = tokens
        self._carries = carries
        self._held: OrderedDict[_Key, Shared] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def find(self, row: Row) -> Shared | None:
        """Return what this row's prefix left, if it is still there."""
        return self._held.get(_key(row)) if self._held else None

    def keep(self, row: Row, shared: Shared, number: int) -> None:
        """Keep what one row of a batch of prefixes left."""
        key = _key(row)
        self._held.pop(key, None)
        self._held[key] = _one(shared, number, self._carries)
        held = sum(one.valid.shape[1] for one in self._held.values())
        while held > self._tokens and self._held:
            _, oldest = self._held.popitem(last=False)
            held -= oldest.valid.shape[1]


_Key = tuple[prompt.Prefix, bytes]


def _key(row: Row) -> _Key:
    image = b""
    if row.image is not None:
        told = f"{row.image.size} {row.image.mode} ".encode()
        image = hashlib.blake2b(told + row.image.tobytes(), digest_size=16).digest()
    return row.shared, image


def _one(shared: Shared, number: int, carries: Sequence[str]) -> Shared:
    row = slice(number, number + 1)
    cache = DynamicCache()
    for layer, held in enumerate(shared.cache.layers):
        if held.keys is not None and held.keys.numel():
            cache.update(held.keys[row].clone(), held.values[row].clone(), layer)
    return Shared(
        # Of what went in, only this is asked for again.
        inputs={
            name: value[row].clone() for name, value in shared.inputs.items() if name in carries
        },
        cache=cache,
        valid=shared.valid[row],
        start=shared.start[row],
        again={name: value[row].clone() for name, value in shared.again.items()},
    )


class Passes:
    """Runs prefixes and what follows them on one model."""

    def __init__(self, model: Any, dialogue: Dialogue, family: Family) -> None:
        self.model = model
        self.dialogue = dialogue
        self.family = family
        self.device: torch.device = model.device
        self.base = model.base_model
        see_in_windows(model)
        names = signature(self.base.forward).parameters
        #: transformers renamed the argument between the releases that we support.
        self._cache_name = "cache" if "cache" in names else "past_key_values"
        self._text = model.get_decoder().config
        types = set(getattr(self._text, "layer_types", None) or ())
        self._window: int | None = getattr(self._text, "sliding_window", None)
        #: What was scored and may have to be explained; see `Scorer`.
        self.kept = Prefixes(_KEPT_TOKENS, family.carries)
        self._by_layer = family.masks == "by_layer" or len(types) > 1
        if types == {"full_attention"}:
            self._window = None

    @property
    def splits(self) -> bool:
        """Whether attention may run in two parts: where every token sees all that is before it."""
        return self.family.packs and not self._by_layer and self._window is None

    def prefix(self, rows: Sequence[Row]) -> Shared:
        """Run the shared part of each row once and keep its keys and values."""
        if len(rows) == 1 and (found := self.kept.find(rows[0])) is not None:
            return Shared(
                inputs=found.inputs,
                cache=_again(found.cache),
                valid=found.valid,
                start=found.start,
                again=found.again,
            )
        inputs = self.inputs([self.dialogue.prefix(row.shared) for row in rows], rows)
        valid = inputs["attention_mask"].bool()
        positions, start = self.positions(inputs, valid)
        cache = DynamicCache()
        out = self.base(
            **inputs, position_ids=positions, use_cache=True, **{self._cache_name: cache}
        )
        again = {}
        for name in self.family.again:
            again[name] = out.image_outputs.last_hidden_state
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
        runs = {"split": self._split, "packed": self._packed, "branched": self._branched}
        return runs[method](shared, suffixes)

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
        apart = step[:, None] + shared.valid.sum(1)[:, None, None] - self.places(shared, step)
        apart = apart[:, None].expand(rows, count, width, -1).flatten(0, 1)[:, None]
        cache = DynamicCache()
        for layer, held in enumerate(shared.cache.layers):
            if held.keys is not None and held.keys.numel():
                cache.update(_repeat(held.keys, count), _repeat(held.values, count), layer)
        out = self.later(
            shared,
            ids.repeat(rows, 1),
            positions.flatten(0, 1),
            self.masks(seen, apart),
            cache,
            count,
        )
        states = out.view(rows, count, width, -1)
        last = (lengths - 1)[None, :, None, None].expand(rows, count, 1, states.shape[-1])
        last_states: Tensor = states.gather(2, last).squeeze(2)
        return last_states

    def _packed(self, shared: Shared, suffixes: Sequence[Sequence[int]]) -> Tensor:
        tree = tree_of(tuple(map(tuple, suffixes)), self.device)
        rows, width = shared.valid.shape[0], len(tree.ids)
        before = shared.valid[:, None, :].expand(rows, width, -1)
        seen = torch.cat([before, tree.seen.expand(rows, -1, -1)], dim=-1)[:, None]
        reach = tree.steps[:, None] + shared.valid.sum(1)[:, None, None]
        apart = (reach - self.places(shared, tree.steps))[:, None]
        out = self.later(
            shared,
            tree.ids.expand(rows, -1),
            shared.start[:, None] + tree.steps,
            self.masks(seen, apart),
            _again(shared.cache),
            1,
        )
        return out[:, tree.ends]

    def _split(self, shared: Shared, suffixes: Sequence[Sequence[int]]) -> Tensor:
        layout = layout_of(tuple(map(tuple, suffixes)), self.device)
        rows = shared.valid.shape[0]
        unused = shared.valid[:, None, None, :].expand(rows, 1, len(layout.ids), -1)
        with laid_out(self._text, layout, shared.valid):
            out = self.later(
                shared,
                layout.ids.expand(rows, -1),
                shared.start[:, None] + layout.steps,
                unused[:, :, :1],
                _again(shared.cache),
                1,
            )
        return out[:, layout.ends]

    def _branched(self, shared: Shared, suffixes: Sequence[Sequence[int]]) -> Tensor:
        tree = branches_of(tuple(map(tuple, suffixes)), self.device)
        rows = shared.valid.shape[0]
        unused = shared.valid[:, None, None, :].expand(rows, 1, len(tree.ids), -1)
        # Without masks a GPU has a faster kernel.
        bare = self.device.type == "cuda" and bool(shared.valid.all())
        with branched(self._text, tree, shared.valid, self.model.dtype, bare=bare):
            out = self.later(
                shared,
                tree.ids.expand(rows, -1),
                shared.start[:, None] + tree.steps,
                unused[:, :, :1],
                _again(shared.cache),
                1,
            )
        return out[:, tree.ends]

    def places(self, shared: Shared, steps: Tensor) -> Tensor:
        """Return where each cached and each suffix token stands: rows × 1 × tokens."""
        cached = shared.valid.cumsum(1) - 1
        own = shared.valid.sum(1)[:, None] + steps
        return torch.cat([cached, own], dim=1)[:, None]

    def masks(self, seen: Tensor, apart: Tensor) -> Any:
        """Return the mask in the form that the model takes, with the window where it has one."""
        near = seen if self._window is None else seen & (apart < self._window)
        if self._by_layer:
            return {
                "full_attention": self._form(seen),
                "sliding_attention": self._form(near),
            }
        return self._form(near)

    def _form(self, seen: Tensor) -> Tensor:
        # On a CPU a boolean mask would be made into numbers again in every layer.
        if self.device.type != "cpu" and self._text._attn_implementation == "sdpa":  # noqa: SLF001 -- it has no other name
            return seen
        lowest = torch.finfo(self.model.dtype).min
        return torch.zeros_like(seen, dtype=self.model.dtype).masked_fill(~seen, lowest)

    def later(
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

    def positions(self, inputs: Mapping[str, Tensor], valid: Tensor) -> tuple[Tensor, Tensor]:
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


def _again(cache: DynamicCache) -> DynamicCache:
    """Return a cache that begins with the same keys and values and leaves the first as it is."""
    copied = DynamicCache()
    for layer, held in enumerate(cache.layers):
        if held.keys is not None and held.keys.numel():
            copied.update(held.keys, held.values, layer)
    return copied


def _repeat(held: Tensor, count: int) -> Tensor:
    if held.shape[0] == 1:
        return held.expand(count, -1, -1, -1)
    return held.repeat_interleave(count, 0)
