"""What runs side by side: within the budget, whole prompts too, and with the scores of separate prompts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from policies.question import Question
from workers import prompt
from workers.dialogue import Dialogue
from workers.families import FAMILIES, UNKNOWN, Family
from workers.lengths import Lengths, packed, padded
from workers.passes import Method, Row
from workers.scoring import Scorer

# PaliGemma's own processor hands tensors to numpy in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

Noise = Callable[..., Image.Image]
CAPTIONS = (
    "",
    "buy this",
    "a longer caption about pistols, toys and a museum",
    "as new",
    "an old one",
)


@contextmanager
def watched(model: Any) -> Iterator[list[tuple[int, int]]]:
    """Yield a list of the language part's passes: rows, and tokens a row with those that are cached."""
    passes: list[tuple[int, int]] = []

    def note(_: Any, __: Any, given: dict[str, Any]) -> None:
        ids = given.get("input_ids")
        rows, fresh = (given["inputs_embeds"] if ids is None else ids).shape[:2]
        cache = given.get("cache", given.get("past_key_values"))
        passes.append((rows, fresh + (0 if cache is None else cache.get_seq_length())))

    handle = model.get_decoder().register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield passes
    finally:
        handle.remove()


def rows_of(noise: Noise, asked: Sequence[int]) -> list[Row]:
    """Return rows with pictures of one size and captions of several lengths."""
    return [
        Row(
            shared=prompt.prefix(images=1, caption=caption),
            image=noise(number, 60, 40),
            asked=tuple(asked),
        )
        for number, caption in enumerate(CAPTIONS)
    ]


@pytest.mark.parametrize(
    ("kind", "family"),
    [
        ("paligemma", FAMILIES["paligemma"]),
        *((kind, UNKNOWN) for kind in ("llava", "qwen2_vl", "idefics3", "mllama", "gemma3")),
    ],
)
def test_questions_about_several_images_run_side_by_side(
    kind: str,
    family: Family,
    tiny: Callable[[str], Any],
    questions: tuple[Question, ...],
    noise: Noise,
) -> None:
    """In tiers B and C one pass holds questions about several images, within the budget, each with its own score."""
    made = tiny(kind)
    asks = [prompt.suffix(question) for question in questions]
    scorer = Scorer(made.model, Dialogue(made.processor, family), family, budget=4_000)
    rows = rows_of(noise, range(len(asks)))
    scorer.score(rows, asks)  # how long they are is known from now on
    with watched(made.model) as passes:
        got = scorer.score(rows, asks)
    assert max(count for count, _ in passes) > len(asks)
    assert all(count * tokens <= scorer.budget for count, tokens in passes)
    with torch.inference_mode():
        for row, odds in zip(rows, got, strict=True):
            alone = [scorer.whole([row], [scorer.dialogue.whole(row.shared, ask)]) for ask in asks]
            assert [one.score for one in odds] == pytest.approx(
                [one.score for (one,) in alone], abs=1e-4
            )


@pytest.mark.parametrize("method", ["expanded", "packed", "split", "branched", None])
def test_large_pictures_stay_within_the_budget(
    method: Method | None,
    tiny: Callable[[str], Any],
    questions: tuple[Question, ...],
    noise: Noise,
) -> None:
    """However many tokens a picture takes, no pass holds more than the budget, copies of the prefix counted."""
    made = tiny("qwen2_vl")
    processor = deepcopy(made.processor)
    processor.image_processor.size = {"shortest_edge": 14**2, "longest_edge": 14**2 * 1_400}
    family = FAMILIES["qwen2_vl"]
    scorer = Scorer(made.model, Dialogue(processor, family), family, budget=4_000, method=method)
    asks = [prompt.suffix(question) for question in questions]
    rows = [
        Row(shared=prompt.prefix(images=1), image=noise(n, 490 - 14 * n, 490), asked=(0, 1, 2, 3))
        for n in range(4)
    ]
    with watched(made.model) as passes:
        scorer.score(rows, asks)
    assert max(tokens for _, tokens in passes) > 1_200
    assert all(count * tokens <= scorer.budget for count, tokens in passes)
    assert max(count for count, _ in passes) > 1


def test_lengths_are_learned_from_every_row(noise: Noise) -> None:
    """What each row of a batch took is known for its picture's size; an unseen size takes the most of them."""
    lengths = Lengths()
    small, large, between, huge = (
        Row(shared=prompt.prefix(images=1), image=noise(1, edge, 40), asked=(0,))
        for edge in (20, 400, 100, 800)
    )
    text = Row(shared=prompt.prefix(images=0, caption="only text"), image=None, asked=(0,))
    assert not lengths.known(text)
    lengths.learn(small, 150)
    lengths.learn(large, 1_300)
    assert (lengths.of(small), lengths.of(large), lengths.of(between)) == (150, 1_300, 1_300)
    assert lengths.known(between)
    assert lengths.known(text)
    assert not lengths.known(huge)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(-10, 120))
def test_portions_hold_all_in_order(lengths: list[int], budget: int) -> None:
    """Every question is in one portion, in order, and no portion of several is over the budget."""
    for cut, size in (
        (padded, lambda part: len(part) * max(part)),
        (packed, sum),
    ):
        parts = [lengths[part] for part in cut(lengths, budget)]
        assert [length for part in parts for length in part] == lengths
        assert all(len(part) == 1 or size(part) <= budget for part in parts)
