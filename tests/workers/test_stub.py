"""The stub's own options."""

import time

import pytest

from policies.question import Forbidden, Question
from workers.classifier import Item
from workers.errors import CheckpointError, MediaRefusedError
from workers.loading import load
from workers.spec import ClassifierSpec

QUESTION = Question(id="q", policy="q", question="?", forbidden=(Forbidden(id="W1", text="t"),))


def stub(**options: object) -> ClassifierSpec:
    """Return a stub with these options."""
    return ClassifierSpec(name="stub", model="stub", kind="stub", options=options)


def test_unknown_options_are_refused() -> None:
    """An option that a stub does not have is refused, with those that there are."""
    with pytest.raises(CheckpointError, match="batch_s"):
        load(stub(batch=1))


def test_time_passes_as_told() -> None:
    """A call takes as long as its options say."""
    started = time.monotonic()
    load(stub(batch_s=0.1, item_s=0.05)).classify(
        [Item(caption="a"), Item(caption="b")], [QUESTION]
    )
    assert time.monotonic() - started >= 0.2


def test_it_fails_only_as_told() -> None:
    """A caption that it is told to refuse raises, the same caption does not without the option."""
    item = Item(caption="refuse this")
    assert load(stub()).classify([item], [QUESTION])
    with pytest.raises(MediaRefusedError):
        load(stub(refuse_on="refuse")).classify([item], [QUESTION])


def test_other_content_other_score() -> None:
    """Different captions have different scores, moved by the bias."""
    items = [Item(caption=str(number)) for number in range(50)]
    plain = [found[0].score for found in load(stub()).classify(items, [QUESTION])]
    moved = [found[0].score for found in load(stub(bias=-9.0)).classify(items, [QUESTION])]
    assert len(set(plain)) > 40
    assert moved == pytest.approx([score - 9.0 for score in plain])
