"""Writing on after a question, one chosen token at a time, on the prefix that scoring uses."""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from workers.passes import Passes, Row, complete

#: Chooses the next token from its logits; None ends the text.
Choose = Callable[[Tensor], int | None]


def written(passes: Passes, row: Row, ask: str, choose: Choose, *, limit: int) -> list[int]:
    """Return the tokens that follow a question, at most so many."""
    row = complete(row, passes.family)
    with torch.inference_mode():
        if passes.family.tier == "A":
            return _on_cache(passes, row, ask, choose, limit)
        return _whole(passes, row, ask, choose, limit)


def _on_cache(passes: Passes, row: Row, ask: str, choose: Choose, limit: int) -> list[int]:
    shared = passes.prefix([row])
    head = passes.model.get_output_embeddings()
    tokens: list[int] = []
    following = list(passes.dialogue.suffix(ask, images=row.shared.images))
    done = 0
    while len(tokens) < limit:
        width = len(following)
        own = torch.arange(done + width, device=passes.device)
        step = own[done:]
        # A prefix that was kept out of a batch has that batch's padding, which nothing may see.
        before = shared.valid[:, None].expand(-1, width, -1)
        seen = torch.cat([before, (step[:, None] >= own).expand(len(before), -1, -1)], dim=-1)
        reach = shared.valid.sum(1)[:, None, None] + step[:, None]
        apart = reach - passes.places(shared, own)
        hidden = passes.later(
            shared,
            torch.tensor([following], device=passes.device),
            shared.start[:, None] + step,
            passes.masks(seen[:, None], apart[:, None]),
            shared.cache,
            1,
        )
        chosen = choose(head(hidden[0, -1]).float())
        if chosen is None:
            break
        tokens.append(chosen)
        done += width
        following = [chosen]
    return tokens


class _Chosen(LogitsProcessor):  # type: ignore[misc]
    """Leaves only the chosen token, or the end."""

    def __init__(self, choose: Choose, end: int) -> None:
        self._choose = choose
        self._end = end
        self.tokens: list[int] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores that leave one token."""
        del input_ids
        chosen = self._choose(scores[0].float())
        left = torch.full_like(scores, float("-inf"))
        left[:, self._end if chosen is None else chosen] = 0.0
        if chosen is not None:
            self.tokens.append(chosen)
        return left


def _whole(passes: Passes, row: Row, ask: str, choose: Choose, limit: int) -> list[int]:
    tokenizer = passes.dialogue.tokenizer
    chosen = _Chosen(choose, tokenizer.eos_token_id)
    passes.model.generate(
        **passes.inputs([passes.dialogue.whole(row.shared, ask)], [row]),
        max_new_tokens=limit,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        logits_processor=LogitsProcessorList([chosen]),
    )
    return chosen.tokens
