"""What every classifier keeps to, whatever model is behind it; run on each one that ships."""

from collections.abc import Callable

import numpy as np
import pytest

from policies.question import Forbidden, Part, Question
from workers.classifier import Classifier, Item, Picture, asked
from workers.loading import load
from workers.spec import ClassifierSpec

BOTH: frozenset[Part] = frozenset({"image", "caption"})


def question(name: str, *reads: Part) -> Question:
    """Return a question about these parts."""
    return Question(
        id=name,
        policy=name,
        reads=frozenset(reads),
        question=f"Does the upload show or offer {name}?",
        forbidden=(Forbidden(id="W1", text=f"Shows {name}."),),
    )


QUESTIONS = (
    question("weapons", "image", "caption"),
    question("nudity", "image"),
    question("insults", "caption"),
)


def photo(seed: int, *, media: int = 0, time_s: float | None = None) -> Picture:
    """Return a picture as workers get it from the object store: read-only."""
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 56, 3), dtype=np.uint8)
    pixels.setflags(write=False)
    return Picture(media=media, pixels=pixels, time_s=time_s)


ITEMS = (
    Item(caption="A pistol for sale"),
    Item(pictures=(photo(1),)),
    Item(pictures=(photo(2), photo(3, media=1)), caption="Two of them"),
    Item(pictures=(photo(4, time_s=0.5), photo(5, time_s=1.5))),
    Item(pictures=(photo(6),), text_in_image="BUY NOW"),
)

#: What is loaded for each contract test; each stands for one kind of classifier.
SPECS = {
    "stub": ClassifierSpec(name="stub", model="stub", kind="stub"),
    "stub of images": ClassifierSpec(name="eyes", model="stub", kind="stub", reads=("image",)),
    "stub of captions": ClassifierSpec(name="ears", model="stub", kind="stub", reads=("caption",)),
    "stub of one policy": ClassifierSpec(
        name="one", model="stub", kind="stub", policies=("weapons",)
    ),
}


@pytest.fixture(scope="module", params=list(SPECS))
def spec(request: pytest.FixtureRequest) -> ClassifierSpec:
    """Return the settings of one classifier."""
    return SPECS[request.param]


@pytest.fixture(scope="module")
def classifier(spec: ClassifierSpec) -> Classifier:
    """Return one classifier, loaded as the pool loads it."""
    return load(spec)


Load = Callable[[ClassifierSpec], Classifier]


def test_it_says_who_it_is(spec: ClassifierSpec, classifier: Classifier) -> None:
    """A classifier has the name of its settings, the same digest each time, and reads no more than it may."""
    assert classifier.name == spec.name
    assert classifier.digest.startswith("sha256:")
    assert classifier.digest == load(spec).digest
    assert classifier.reads
    assert classifier.reads <= frozenset(spec.reads)


def test_it_answers_what_it_can(classifier: Classifier) -> None:
    """Each item gets an answer to exactly the questions that are covered and have something to read in it."""
    answers = classifier.classify(ITEMS, QUESTIONS)
    assert len(answers) == len(ITEMS)
    for item, found in zip(ITEMS, answers, strict=True):
        expected = [
            q.id for q in QUESTIONS if classifier.covers(q) and asked(q, item, classifier.reads)
        ]
        assert [c.question for c in found] == expected


def test_scores_are_numbers(classifier: Classifier) -> None:
    """Scores are finite, and a mass is a probability."""
    for found in classifier.classify(ITEMS, QUESTIONS):
        assert all(np.isfinite(c.score) for c in found)
        assert all(c.mass is None or 0.0 <= c.mass <= 1.0 + 1e-6 for c in found)


def test_it_says_where(classifier: Classifier) -> None:
    """An answer names a picture that is there, at its time, or none where it came from text alone."""
    for item, found in zip(ITEMS, classifier.classify(ITEMS, QUESTIONS), strict=True):
        places = {(picture.media, picture.time_s) for picture in item.pictures}
        for c in found:
            assert (c.media, c.time_s) in places | {(None, None)}
            if "image" not in next(q.reads for q in QUESTIONS if q.id == c.question):
                assert c.media is None


def test_neighbours_do_not_matter(classifier: Classifier) -> None:
    """An item's scores are the same alone, in a batch, and in another order."""
    together = classifier.classify(ITEMS, QUESTIONS)
    turned = classifier.classify(ITEMS[::-1], QUESTIONS)[::-1]
    for item, one, other in zip(ITEMS, together, turned, strict=True):
        (alone,) = classifier.classify([item], QUESTIONS)
        for a, b, c in zip(alone, one, other, strict=True):
            assert a.question == b.question == c.question
            assert a.score == pytest.approx(b.score, abs=1e-3)
            assert a.score == pytest.approx(c.score, abs=1e-3)


def test_the_highest_picture_counts(classifier: Classifier) -> None:
    """With several pictures the score is at least that of each one alone under the same caption."""
    item = ITEMS[2]
    (found,) = classifier.classify([item], QUESTIONS[1:2])
    singles = [
        classifier.classify([Item(pictures=(p,), caption=item.caption)], QUESTIONS[1:2])[0]
        for p in item.pictures
    ]
    for c in found:
        assert c.score == pytest.approx(max(s[0].score for s in singles), abs=1e-3)


def test_nothing_asked_nothing_answered(classifier: Classifier) -> None:
    """No items give no answers, and no questions give an empty answer an item."""
    assert classifier.classify([], QUESTIONS) == []
    assert classifier.classify(ITEMS[:2], []) == [[], []]


def test_reasons_are_for_the_findings(classifier: Classifier) -> None:
    """Reasons come in the order of the findings, each with a clause that its question has, or none at all."""
    item = ITEMS[2]
    (found,) = classifier.classify([item], QUESTIONS)
    by_id = {q.id: q for q in QUESTIONS}
    findings = [(by_id[c.question], c) for c in found]
    reasons = classifier.explain(item, findings)
    assert [r.question for r in reasons] in ([], [c.question for c in found])
    for reason in reasons:
        clauses = {clause.id for clause in by_id[reason.question].forbidden}
        assert reason.clause is None or reason.clause in clauses
