"""Attention for many questions packed behind one prefix (in two parts joined exactly, or run by run), and for pictures.

In two parts, every question attends to the prefix in one large product, and to itself in a small one; the two
softmaxes are one softmax over both (as in Hydragen), so the result is that of plain attention.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from itertools import pairwise
from typing import Any, Final, TypeVar

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import AttentionInterface

_Told = TypeVar("_Told")

#: The names under which transformers finds these attentions.
SPLIT: Final = "weir_split"
BRANCHED: Final = "weir_branched"
#: To what has "flash" in its name, vision towers hand all windows at once, with their bounds.
WINDOWS: Final = "weir_flash_windows"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """Where each of several suffixes stands in one packed row, one after the other."""

    #: (tokens,): the tokens of the row.
    ids: Tensor

    #: (tokens,): each token's place inside its suffix.
    steps: Tensor
    #: (suffixes,): the place of each suffix's last token.
    ends: Tensor
    #: (suffixes, longest): the packed place of each suffix's tokens; padding points at place 0.
    places: Tensor
    #: (tokens,): where each packed token lies in the padded form.
    back: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tree:
    """Several suffixes in one packed row, what they begin with alike standing there once.

    A policy's question and definitions open each of its clauses' questions too: a token that
    follows the same tokens after the same prefix has the same states, so one is enough for all.
    """

    #: (tokens,): the tokens of the row.
    ids: Tensor
    #: (tokens,): how many suffix tokens stand before each.
    steps: Tensor
    #: (suffixes,): the place of each suffix's last token.
    ends: Tensor
    #: (tokens, tokens): which tokens see which: themselves and what they follow.
    seen: Tensor


@lru_cache(maxsize=64)
def tree_of(suffixes: tuple[tuple[int, ...], ...], device: torch.device) -> Tree:
    """Return these suffixes as a tree of tokens."""
    places: dict[tuple[int, int], int] = {}
    ids: list[int] = []
    parents: list[int] = []
    ends = []
    for suffix in suffixes:
        at = -1
        for token in suffix:
            found = places.setdefault((at, token), len(ids))
            if found == len(ids):
                ids.append(token)
                parents.append(at)
            at = found
        ends.append(at)
    seen = torch.eye(len(ids), dtype=torch.bool)
    steps = torch.zeros(len(ids), dtype=torch.long)
    for place, parent in enumerate(parents):  # a parent always stands before its children
        if parent >= 0:
            seen[place] |= seen[parent]
            steps[place] = steps[parent] + 1
    return Tree(
        ids=torch.tensor(ids, device=device),
        steps=steps.to(device),
        ends=torch.tensor(ends, device=device),
        seen=seen.to(device),
    )


@lru_cache(maxsize=64)
def layout_of(suffixes: tuple[tuple[int, ...], ...], device: torch.device) -> Layout:
    """Return the layout of these suffixes."""
    lengths = tuple(map(len, suffixes))
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    steps = torch.cat([torch.arange(length) for length in lengths])
    ends = torch.tensor(lengths).cumsum(0) - 1
    first = ends + 1 - torch.tensor(lengths)
    longest = max(lengths)
    grid = torch.arange(longest)[None, :]
    places = torch.where(grid < torch.tensor(lengths)[:, None], first[:, None] + grid, 0)
    return Layout(
        ids=torch.tensor([token for suffix in suffixes for token in suffix], device=device),
        steps=steps.to(device),
        ends=ends.to(device),
        places=places.to(device),
        back=(owner * longest + steps).to(device),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Some tokens that follow one another without a branch, and the runs that they follow, the first one first."""

    begin: int
    end: int
    after: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Branches:
    """A tree of suffixes as runs between its branches.

    A run sees the prefix, the runs that it follows and itself; nothing of other branches is computed for it.
    """

    ids: Tensor
    steps: Tensor
    ends: Tensor
    runs: tuple[Run, ...]


@lru_cache(maxsize=64)
def branches_of(suffixes: tuple[tuple[int, ...], ...], device: torch.device) -> Branches:
    """Return these suffixes as runs of a tree of tokens."""
    ids: list[int] = []
    steps: list[int] = []
    runs: list[Run] = []
    ends = [0] * len(suffixes)

    def grow(group: list[int], step: int, after: tuple[tuple[int, int], ...]) -> None:
        """Lay out the suffixes of a group, which are alike up to a step, from there on."""
        begin = len(ids)
        alive = group
        while True:
            for number in [n for n in alive if len(suffixes[n]) == step]:
                ends[number] = len(ids) - 1
            alive = [n for n in alive if len(suffixes[n]) > step]
            if len({suffixes[n][step] for n in alive}) != 1:
                break
            ids.append(suffixes[alive[0]][step])
            steps.append(step)
            step += 1
        if len(ids) > begin:
            runs.append(Run(begin=begin, end=len(ids), after=after))
            after = (*after, (begin, len(ids)))
        for token in dict.fromkeys(suffixes[n][step] for n in alive):
            grow([n for n in alive if suffixes[n][step] == token], step, after)

    grow(list(range(len(suffixes))), 0, ())
    return Branches(
        ids=torch.tensor(ids, device=device),
        steps=torch.tensor(steps, device=device),
        ends=torch.tensor(ends, device=device),
        runs=tuple(runs),
    )


@contextmanager
def _attending(config: Any, name: str, told: ContextVar[_Told], value: _Told) -> Iterator[None]:
    """Let layers attend by the function of this name, which finds the value in its variable."""
    usual = config._attn_implementation  # noqa: SLF001 -- transformers looks it up at each call
    token = told.set(value)
    config._attn_implementation = name  # noqa: SLF001
    try:
        yield
    finally:
        config._attn_implementation = usual  # noqa: SLF001
        told.reset(token)


@contextmanager
def branched(
    config: Any,
    branches: Branches,
    valid: Tensor,
    dtype: torch.dtype,
    *,
    bare: bool = False,
) -> Iterator[None]:
    """Let a text model's layers attend run by run while inside; the caller holds its lock.

    `bare` leaves masks out, which is right where all of the prefix's tokens are real.
    """
    parts: list[tuple[Run, Tensor]] = []
    for run in branches.runs:
        length = run.end - run.begin
        earlier = sum(end - begin for begin, end in run.after)
        if bare:
            parts.append((run, causal_lower_right(length, valid.shape[1] + earlier + length)))
            continue
        own = torch.ones(length, length, dtype=torch.bool, device=valid.device).tril()
        known = own.new_ones(length, earlier)
        here = torch.cat([known, own], dim=1).expand(len(valid), -1, -1)
        before = valid[:, None, :].expand(-1, length, -1)
        seen = torch.cat([before, here], dim=-1)[:, None]
        mask = torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
        parts.append((run, mask))
    with _attending(config, BRANCHED, _parts, (tuple(parts), valid.shape[1])):
        yield


def branched_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return the attention of a tree of suffixes, one run at a time."""
    del module, attention_mask, dropout, kwargs
    parts, prefix = _parts.get()
    found = []
    for run, mask in parts:
        spans = [
            (0, prefix),
            *((prefix + begin, prefix + end) for begin, end in (*run.after, (run.begin, run.end))),
        ]
        keys, values = (
            torch.cat([held[:, :, begin:end] for begin, end in spans], dim=2)
            for held in (key, value)
        )
        out = torch.nn.functional.scaled_dot_product_attention(
            query[:, :, run.begin : run.end],
            keys,
            values,
            attn_mask=mask,
            scale=scaling,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        found.append(out.transpose(1, 2))
    return torch.cat(found, dim=1), None


_current: ContextVar[tuple[Layout, Tensor]] = ContextVar("layout")
_parts: ContextVar[tuple[tuple[tuple[Run, Tensor], ...], int]] = ContextVar("parts")


@contextmanager
def laid_out(config: Any, layout: Layout, valid: Tensor) -> Iterator[None]:
    """Let a text model's layers attend in two parts while inside; the caller holds its lock."""
    with _attending(config, SPLIT, _current, (layout, valid)):
        yield


def split_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return the attention of packed suffixes over their prefix and over themselves."""
    del module, attention_mask, dropout, kwargs
    layout, valid = _current.get()
    batch, heads, tokens, width = query.shape
    prefix = key.shape[2] - tokens
    kv_heads = key.shape[1]
    group = heads // kv_heads
    scale = width**-0.5 if scaling is None else scaling
    query = query * scale

    # All tokens of all questions against the prefix, heads that share keys side by side.
    wide = query.reshape(batch, kv_heads, group * tokens, width)
    far = wide @ key[:, :, :prefix].transpose(-1, -2)
    if not bool(valid.all()):
        far = far.masked_fill(~valid[:, None, None, :], torch.finfo(far.dtype).min)
    far = far.view(batch, heads, tokens, prefix)

    # Each question against itself, in padded form.
    count, longest = layout.places.shape
    own_q = query[:, :, layout.places].view(batch, kv_heads, group, count, longest, width)
    own_k = key[:, :, prefix:][:, :, layout.places]
    own_v = value[:, :, prefix:][:, :, layout.places]
    near = own_q @ own_k[:, :, None].transpose(-1, -2)
    later = torch.ones(longest, longest, dtype=torch.bool, device=query.device).triu(1)
    near = near.masked_fill(later, torch.finfo(near.dtype).min)
    near = near.view(batch, heads, count * longest, longest)[:, :, layout.back]

    # One softmax over both parts.
    weights = torch.cat([far, near], dim=-1).softmax(-1, dtype=torch.float32).to(value.dtype)
    far, near = weights[..., :prefix], weights[..., prefix:]
    out = far.reshape(batch, kv_heads, group * tokens, prefix) @ value[:, :, :prefix]
    out = out.view(batch, heads, tokens, width)
    padded = near.new_zeros(batch, heads, count * longest, longest)
    padded[:, :, layout.back] = near
    padded = padded.view(batch, kv_heads, group, count, longest, longest)
    own = (padded @ own_v[:, :, None]).view(batch, heads, count * longest, width)
    out = out + own[:, :, layout.back]
    return out.transpose(1, 2).contiguous(), None


def see_in_windows(model: Any) -> None:
    """Let a vision tower that sees in windows see all that are of one size at once.

    transformers runs each picture's windows one after the other: of a large picture some eighty in
    each layer, so that a GPU waits for the next one most of the time.
    """
    tower = getattr(model.base_model, "visual", None)
    if tower is None or tower.config._attn_implementation != "sdpa":  # noqa: SLF001
        return
    if any("cu_seqlens" in signature(part.forward).parameters for part in tower.modules()):
        tower.config._attn_implementation = WINDOWS  # noqa: SLF001


#: Bounds of windows -> for each size, the places of their tokens: windows × tokens. All layers are given the same.
_places: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _places_of(bounds: Tensor) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] | None = _places.get(bounds)  # type: ignore[no-untyped-call]
    if found is None:
        begins: dict[int, list[int]] = {}
        for begin, end in pairwise(bounds.tolist()):
            begins.setdefault(end - begin, []).append(begin)
        found = tuple(
            torch.tensor(many, device=bounds.device)[:, None]
            + torch.arange(length, device=bounds.device)
            for length, many in begins.items()
        )
        _places[bounds] = found
    return found


def windowed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    cu_seq_lens_q: Tensor,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return the attention of windows that stand one after the other, those of one size together."""
    del module, attention_mask, dropout, kwargs
    tokens = [held[0].transpose(0, 1) for held in (query, key, value)]
    out = torch.empty_like(tokens[0])
    for places in _places_of(cu_seq_lens_q):
        asking, asked, told = (held[places].transpose(1, 2) for held in tokens)
        found = torch.nn.functional.scaled_dot_product_attention(asking, asked, told, scale=scaling)
        out[places] = found.transpose(1, 2)
    return out[None], None


AttentionInterface.register(SPLIT, split_attention)
AttentionInterface.register(BRANCHED, branched_attention)
AttentionInterface.register(WINDOWS, windowed_attention)
