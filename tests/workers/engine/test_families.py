"""Every family of the table: shared and separate scores are the same, and the test can fail."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from policies.question import Question
from workers import prompt
from workers.attention import branches_of, tree_of
from workers.families import FAMILIES
from workers.passes import Method, Row, Shared
from workers.scoring import Scorer

# PaliGemma's own processor hands tensors to numpy in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

TOLERANCE = 1e-4

#: Proven at loading by workers/trial.py alone: its processor needs torchvision.
UNBUILT = {"mistral3"}
KINDS = sorted(set(FAMILIES) - UNBUILT)

Noise = Callable[..., Image.Image]


def rows_for(made: Any, noise: Noise) -> list[Row]:
    """Return rows with images of several sizes, captions of several lengths, and text alone."""
    captions = ("", "buy this", "a longer caption about <image> pistols, </s> toys and a museum")
    everything = (0, 1, 2, 3)
    seen = [
        Row(
            shared=prompt.prefix(images=1, caption=caption),
            image=noise(number, 60 + 20 * number, 40),
            asked=everything,
        )
        for number, caption in enumerate(captions)
    ]
    text = [
        Row(shared=prompt.prefix(images=0, caption=caption), image=None, asked=(0, 2))
        for caption in ("only text", "another caption, somewhat longer than the one before")
    ]
    if not made.sees:
        return text
    return seen if FAMILIES[made.kind].needs_image else seen + text


def apart(scorer: Scorer, row: Row, asks: Sequence[str]) -> list[float]:
    """Return the scores of whole prompts, one at a time, by the model's own forward."""
    with torch.inference_mode():
        texts = [scorer.dialogue.whole(row.shared, asks[ask]) for ask in row.asked]
        return [scorer.whole([row], [text])[0].score for text in texts]


def worst(got: Sequence[Sequence[Any]], wanted: Sequence[Sequence[float]]) -> float:
    """Return the largest difference."""
    differences: list[float] = [
        abs(odds.score - value)
        for row, values in zip(got, wanted, strict=True)
        for odds, value in zip(row, values, strict=True)
    ]
    return max(differences)


@pytest.mark.parametrize("kind", KINDS)
def test_shared_is_separate(
    kind: str, tiny: Callable[[str], Any], questions: tuple[Question, ...], noise: Noise
) -> None:
    """Every way of sharing gives the scores of separate prompts, several images in one batch."""
    made = tiny(kind)
    asks = [prompt.suffix(question) for question in questions]
    rows = rows_for(made, noise)
    wanted = [apart(made.scorer(), row, asks) for row in rows]
    for method in methods_of(made):
        assert worst(made.scorer(method).score(rows, asks), wanted) < TOLERANCE, method
    spread = [value for values in wanted for value in values]
    assert max(spread) - min(spread) > 100 * TOLERANCE


@pytest.mark.parametrize("kind", [kind for kind in KINDS if FAMILIES[kind].tier == "A"])
def test_planted_faults_show(
    kind: str, tiny: Callable[[str], Any], questions: tuple[Question, ...], noise: Noise
) -> None:
    """Another image, positions off by one, or a missing mask move a score far past tolerance."""
    made = tiny(kind)
    asks = [prompt.suffix(question) for question in questions]
    scorer = made.scorer("expanded")
    rows = rows_for(made, noise)
    wanted = [apart(scorer, row, asks) for row in rows[:1]]

    def moved(shared: Shared) -> float:
        images = rows[0].shared.images
        suffixes = [scorer.dialogue.suffix(asks[ask], images=images) for ask in rows[0].asked]
        score, _ = scorer.answer(scorer.passes.hidden(shared, suffixes, "expanded"))
        scores: list[float] = score[0].tolist()
        return max(abs(a - b) for a, b in zip(scores, wanted[0], strict=True))

    with torch.inference_mode():
        right = scorer.passes.prefix(rows[:1])
        assert moved(right) < TOLERANCE
        late = replace(right, start=right.start + 1)
        assert moved(late) > 100 * TOLERANCE
        half = right.valid.clone()
        half[:, -12:-4] = False
        assert moved(replace(right, valid=half)) > 100 * TOLERANCE
        if made.sees:
            other = scorer.passes.prefix([replace(rows[0], image=noise(99, 60, 40))])
            assert moved(other) > 100 * TOLERANCE


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"llama", "mistral"}])
def test_images_never_exchange_scores(
    kind: str, tiny: Callable[[str], Any], questions: tuple[Question, ...], noise: Noise
) -> None:
    """Two images under one prompt keep their scores when their places in the batch change."""
    made = tiny(kind)
    if not made.sees:
        pytest.skip("reads no images")
    asks = [prompt.suffix(question) for question in questions]
    rows = [
        Row(shared=prompt.prefix(images=1), image=noise(number), asked=(0, 1, 2, 3))
        for number in (1, 2)
    ]
    scorer = made.scorer()
    forth = scorer.score(rows, asks)
    back = scorer.score(rows[::-1], asks)[::-1]
    for row, again in zip(forth, back, strict=True):
        for one, other in zip(row, again, strict=True):
            assert abs(one.score - other.score) < TOLERANCE
    apart_by = max(abs(a.score - b.score) for a, b in zip(*forth, strict=True))
    assert apart_by > 100 * TOLERANCE


def test_unknown_family_is_asked_separately(
    tiny: Callable[[str], Any], questions: tuple[Question, ...], noise: Noise
) -> None:
    """A model outside the table answers in tier C with the scores of separate prompts."""
    from workers.dialogue import Dialogue
    from workers.families import UNKNOWN

    made = tiny("llava")
    asks = [prompt.suffix(question) for question in questions]
    rows = rows_for(made, noise)
    scorer = Scorer(made.model, Dialogue(made.processor, UNKNOWN), UNKNOWN)
    assert worst(scorer.score(rows, asks), [apart(scorer, row, asks) for row in rows]) < TOLERANCE


def methods_of(made: Any) -> list[Method]:
    """Return the ways in which this family may share."""
    family = FAMILIES[made.kind]
    if family.tier != "A" or not family.packs:
        return ["expanded"]
    windowed = made.kind in {"gemma3", "gemma3_text", "mistral"}
    return ["expanded", "packed"] if windowed else ["expanded", "packed", "split", "branched"]


def test_common_beginnings_run_once() -> None:
    """Suffixes that begin alike share those tokens; each token sees what it follows and itself."""
    tree = tree_of(((5, 6, 7), (5, 6, 8, 9), (4,)), torch.device("cpu"))
    assert tree.ids.tolist() == [5, 6, 7, 8, 9, 4]
    assert tree.steps.tolist() == [0, 1, 2, 2, 3, 0]
    assert tree.ends.tolist() == [2, 4, 5]
    assert [row.nonzero().flatten().tolist() for row in tree.seen] == [
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 1, 3],
        [0, 1, 3, 4],
        [5],
    ]


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple), min_size=1, max_size=6)
)
def test_runs_hold_every_suffix_once(suffixes: list[tuple[int, ...]]) -> None:
    """Each suffix is the tokens of the runs that lead to its end, and no token stands there twice."""
    tree = branches_of(tuple(suffixes), torch.device("cpu"))
    ids = tree.ids.tolist()
    for suffix, end in zip(suffixes, tree.ends.tolist(), strict=True):
        (run,) = [run for run in tree.runs if run.begin <= end < run.end]
        spans = [*run.after, (run.begin, end + 1)]
        assert tuple(token for begin, stop in spans for token in ids[begin:stop]) == suffix
        assert tree.steps[end] == len(suffix) - 1
    assert len(ids) == len(tree_of(tuple(suffixes), torch.device("cpu")).ids)
    assert [place for run in tree.runs for place in range(run.begin, run.end)] == list(
        range(len(ids))
    )


def test_a_brief_wording_asks_once(
    tiny: Callable[[str], Any], questions: tuple[Question, ...], noise: Noise
) -> None:
    """Briefly worded, what is asked stands in the shared part alone, and shared scores are those of whole prompts."""
    made = tiny("llava")
    scorer = made.scorer("branched")
    asks = [prompt.suffix(question, "brief") for question in questions]
    shared = prompt.prefix(images=1, caption="for sale", wording="brief")
    row = Row(shared=shared, image=noise(1), asked=tuple(range(len(asks))))
    whole = scorer.dialogue.whole(shared, asks[0])
    assert whole.count(prompt.ASK_FIRST) == 1
    assert prompt.ASK not in whole
    assert "W1: Offers a weapon for sale." in asks[0]  # an exception names it
    assert "D1:" not in asks[1]
    assert worst(scorer.score([row], asks), [apart(scorer, row, asks)]) < TOLERANCE
    full = prompt.prefix(images=1, caption="for sale")
    assert scorer.dialogue.prefix(full) != scorer.dialogue.prefix(shared)
