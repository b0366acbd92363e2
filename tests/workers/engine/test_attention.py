"""Attention that is arranged otherwise than transformers arranges it gives what plain attention gives."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from workers.attention import branched, branched_attention, branches_of, tree_of, windowed_attention

SUFFIXES = ((5, 6, 7), (5, 6, 8, 9), (5, 1), (4,))
PREFIX = 6


def _states(tokens: int, *, heads: int, kept: int = 1) -> torch.Tensor:
    return torch.randn(kept, heads, tokens, 8, generator=torch.Generator().manual_seed(tokens))


@pytest.mark.parametrize("bare", [True, False])
def test_run_by_run_is_attention_over_the_tree(*, bare: bool) -> None:
    """Without masks, where every token of the prefix is real, and with them, runs see what the tree lets them see."""
    device = torch.device("cpu")
    tree, branches = tree_of(SUFFIXES, device), branches_of(SUFFIXES, device)
    tokens = len(branches.ids)
    query = _states(tokens, heads=4, kept=2)
    key, value = (_states(PREFIX + tokens, heads=heads, kept=2) for heads in (2, 2))
    config = SimpleNamespace(_attn_implementation="sdpa")
    valid = torch.ones(2, PREFIX, dtype=torch.bool)
    with branched(config, branches, valid, torch.float32, bare=bare):
        found, _ = branched_attention(None, query, key, value, None)
    # The tree holds the same tokens, perhaps in another order: token by token they are compared by what they see.
    order = [tree.ids.tolist().index(token) for token in branches.ids.tolist()]
    own = tree.seen[order][:, order]
    mask = torch.cat([torch.ones(tokens, PREFIX, dtype=torch.bool), own], dim=1)
    wanted = scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
    torch.testing.assert_close(found, wanted.transpose(1, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sizes", [(4, 4, 4), (4, 2, 4, 1)])
def test_windows_at_once_are_windows_one_by_one(sizes: tuple[int, ...]) -> None:
    """Windows of one size or of several see themselves and nothing else."""
    query, key, value = (_states(sum(sizes), heads=3) + shift for shift in (0, 1, 2))
    bounds = torch.tensor([0, *torch.tensor(sizes).cumsum(0).tolist()], dtype=torch.int32)
    found, _ = windowed_attention(None, query, key, value, None, cu_seq_lens_q=bounds)
    parts = [torch.tensor_split(each, bounds[1:-1].tolist(), dim=2) for each in (query, key, value)]
    one_by_one = [scaled_dot_product_attention(*window) for window in zip(*parts, strict=True)]
    torch.testing.assert_close(found, torch.cat(one_by_one, dim=2).transpose(1, 2))
