"""Attention for many questions packed behind one prefix: in two parts joined exactly, or branch by branch.

In two parts, every question attends to the prefix in one large product, and to itself in a small one; the two
softmaxes are one softmax over both (as in Hydragen), so the result is that of plain attention.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AttentionInterface

#: The name under which transformers finds this attention.
SPLIT: Final = "weir_split"
BRANCHED: Final = "weir_branched"


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Branches:
    """A tree of suffixes in an order in which what nearly all begin with comes first, then one branch after the other.

    A branch (a policy with its clauses) sees the trunk and itself, and nothing of other branches is computed for it.
    """

    ids: Tensor
    steps: Tensor
    ends: Tensor
    seen: Tensor
    #: Tokens of the trunk, and where each branch begins and ends.
    trunk: int
    spans: tuple[tuple[int, int], ...]


@lru_cache(maxsize=64)
def branches_of(suffixes: tuple[tuple[int, ...], ...], device: torch.device) -> Branches:
    """Return these suffixes as a tree whose branches stand apart."""
    tree = tree_of(suffixes, torch.device("cpu"))
    follows = [int(tree.seen[:, place].sum()) for place in range(len(tree.ids))]
    # What more than half of the tokens follow is trunk: cut there, branches are about as small as they can be.
    trunk = [place for place, count in enumerate(follows) if 2 * count > len(follows)]
    held = set(trunk)
    tops: dict[int, list[int]] = {}
    for place in range(len(follows)):
        if place not in held:
            above = tree.seen[place].nonzero().flatten().tolist()
            tops.setdefault(min(set(above) - held), []).append(place)
    order = [*trunk, *(place for branch in tops.values() for place in branch)]
    spans = []
    begin = len(trunk)
    for branch in tops.values():
        spans.append((begin, begin + len(branch)))
        begin += len(branch)
    moved = torch.tensor(order)
    back = torch.empty_like(moved)
    back[moved] = torch.arange(len(order))
    return Branches(
        ids=tree.ids[moved].to(device),
        steps=tree.steps[moved].to(device),
        ends=back[tree.ends].to(device),
        seen=tree.seen[moved][:, moved].to(device),
        trunk=len(trunk),
        spans=tuple(spans),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """Some tokens of a packed row: which, and what each sees of prefix, trunk and itself."""

    begin: int
    end: int
    mask: Tensor


@contextmanager
def branched(config: Any, branches: Branches, valid: Tensor, dtype: torch.dtype) -> Iterator[None]:
    """Let a text model's layers attend branch by branch while inside; the caller holds its lock."""
    spans = ((0, branches.trunk), *branches.spans)
    parts = []
    for begin, end in spans:
        if begin == end:
            continue
        known = branches.seen[begin:end, : branches.trunk]
        # The trunk is known to itself already.
        own = branches.seen[begin:end, begin:end] if begin >= branches.trunk else known[:, :0]
        here = torch.cat([known, own], dim=1).expand(len(valid), -1, -1)
        before = valid[:, None, :].expand(-1, end - begin, -1)
        seen = torch.cat([before, here], dim=-1)[:, None]
        mask = torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
        parts.append(_Part(begin=begin, end=end, mask=mask))
    held = valid.shape[1] + branches.trunk
    before_name = config._attn_implementation  # noqa: SLF001 -- transformers looks it up at each call
    token = _parts.set((tuple(parts), held))
    config._attn_implementation = BRANCHED  # noqa: SLF001
    try:
        yield
    finally:
        config._attn_implementation = before_name  # noqa: SLF001
        _parts.reset(token)


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
    """Return the attention of a tree of suffixes, one branch at a time, over prefix, trunk and itself."""
    del module, attention_mask, dropout, kwargs
    parts, held = _parts.get()
    prefix = key.shape[2] - query.shape[2]
    found = []
    for part in parts:
        first = prefix + part.begin
        if first >= held:
            keys = torch.cat([key[:, :, :held], key[:, :, first : prefix + part.end]], dim=2)
            values = torch.cat([value[:, :, :held], value[:, :, first : prefix + part.end]], dim=2)
        else:
            keys, values = key[:, :, :held], value[:, :, :held]
        out = torch.nn.functional.scaled_dot_product_attention(
            query[:, :, part.begin : part.end],
            keys,
            values,
            attn_mask=part.mask,
            scale=scaling,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        found.append(out.transpose(1, 2))
    return torch.cat(found, dim=1), None


_current: ContextVar[tuple[Layout, Tensor]] = ContextVar("layout")
_parts: ContextVar[tuple[tuple[_Part, ...], int]] = ContextVar("parts")


@contextmanager
def laid_out(config: Any, layout: Layout, valid: Tensor) -> Iterator[None]:
    """Let a text model's layers attend in two parts while inside; the caller holds its lock."""
    before = config._attn_implementation  # noqa: SLF001 -- transformers looks it up at each call
    token = _current.set((layout, valid))
    config._attn_implementation = SPLIT  # noqa: SLF001
    try:
        yield
    finally:
        config._attn_implementation = before  # noqa: SLF001
        _current.reset(token)


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


AttentionInterface.register(SPLIT, split_attention)
AttentionInterface.register(BRANCHED, branched_attention)
