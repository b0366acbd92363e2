"""Every family of the table: shared and separate scores are the same, and the test can fail."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from policies.question import Question
from workers import prompt
from workers.attention import branches_of, layout_of, tree_of
from workers.families import FAMILIES
from workers.passes import Method, Row, Shared
from workers.scoring import Scorer

# PaliGemma's own processor hands tensors to numpy in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

TOLERANCE = 1e-4

KINDS = sorted(FAMILIES)

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


Suffixes = list[tuple[int, ...]]


@contextmanager
def changed(laid: Any, **fields: Any) -> Iterator[None]:
    """Change a layout that the passes keep, so that the pass itself runs on the wrong one."""
    before = {name: getattr(laid, name) for name in fields}
    for name, value in fields.items():
        object.__setattr__(laid, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            object.__setattr__(laid, name, value)


@contextmanager
def seeing_each_other(method: Method, suffixes: Suffixes) -> Iterator[Suffixes]:
    """Let every question see the tokens of others: for packed ones by their layout, which is what masks are made of."""
    key, device = tuple(suffixes), torch.device("cpu")
    if method == "packed":
        tree = tree_of(key, device)
        with changed(tree, seen=torch.ones_like(tree.seen)):
            yield suffixes
    elif method == "split":
        layout = layout_of(key, device)
        places = torch.arange(len(layout.ids))
        with changed(layout, places=places[None], back=places):
            yield suffixes
    elif method == "branched":
        branches = branches_of(key, device)
        runs = [replace(run, after=((0, run.begin),)) for run in branches.runs]
        with changed(branches, runs=tuple(runs)):
            yield suffixes
    else:  # a row each: there a question sees others where they stand before it
        yield [sum(suffixes[: number + 1], ()) for number in range(len(suffixes))]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if FAMILIES[kind].tier == "A"])
def test_planted_faults_show(
    kind: str, tiny: Callable[[str], Any], questions: tuple[Question, ...], noise: Noise
) -> None:
    """In every way of sharing another image, positions off by one and each missing mask move a score far."""
    made = tiny(kind)
    asks = [prompt.suffix(question) for question in questions]
    scorer = made.scorer()
    rows = rows_for(made, noise)[:3:2] if made.sees else rows_for(made, noise)
    wanted = [apart(scorer, row, asks) for row in rows]
    images = rows[0].shared.images
    suffixes = [scorer.dialogue.suffix(asks[ask], images=images) for ask in rows[0].asked]

    def moved(shared: Shared, asked: Suffixes) -> float:
        score, _ = scorer.answer(scorer.passes.hidden(shared, asked, method))
        return float((score - torch.tensor(wanted)).abs().max())

    with torch.inference_mode():
        right = scorer.passes.prefix(rows)
        assert not right.valid.all()  # one row is padded
        part = right.valid.clone()
        part[:, -12:-4] = False
        faults = {
            "positions off by one": replace(right, start=right.start + 1),
            "padding is seen": replace(right, valid=torch.ones_like(right.valid)),
            "some of the prefix is not seen": replace(right, valid=part),
        }
        if made.sees:
            other = replace(rows[0], image=noise(99, 60, 40))
            faults["another image"] = scorer.passes.prefix([other, rows[1]])
        for method in methods_of(made):
            assert moved(right, suffixes) < TOLERANCE, method
            for fault, shared in faults.items():
                assert moved(shared, suffixes) > 100 * TOLERANCE, (method, fault)
            with seeing_each_other(method, suffixes) as exposed:
                assert moved(right, exposed) > 100 * TOLERANCE, (method, "questions see each other")
            assert moved(right, suffixes) < TOLERANCE, method


@pytest.mark.parametrize("kind", [kind for kind in KINDS if FAMILIES[kind].tier == "B"])
def test_another_image_shows(
    kind: str, tiny: Callable[[str], Any], questions: tuple[Question, ...], noise: Noise
) -> None:
    """Where only what the tower saw is shared, another image moves the scores of its row, and of no other."""
    made = tiny(kind)
    asks = [prompt.suffix(question) for question in questions]
    scorer = made.scorer()
    first, second = rows_for(made, noise)[:2]
    wanted = [apart(scorer, row, asks) for row in (first, second)]
    got = scorer.score([replace(first, image=noise(99, 60, 40)), second], asks)
    assert worst(got[:1], wanted[:1]) > 100 * TOLERANCE
    assert worst(got[1:], wanted[1:]) < TOLERANCE


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
