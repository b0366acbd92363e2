"""Which classifier is asked which question."""

import itertools
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.question import Forbidden, Part, Question
from tests.workers.simulated import QUESTIONS
from workers.passage import Leg, Questions, legs_for, without

BOTH: frozenset[Part] = frozenset({"image", "caption"})
IMAGE: frozenset[Part] = frozenset({"image"})
CAPTION: frozenset[Part] = frozenset({"caption"})
PARTS = [frozenset(), IMAGE, CAPTION, BOTH]


def ask(reads: frozenset[Part], name: str = "q") -> Question:
    """Return a question about these parts."""
    return Question(
        id=name, policy=name, reads=reads, question=name, forbidden=(Forbidden(id="W1", text="t"),)
    )


def test_the_first_that_covers_it() -> None:
    """A question goes to the first classifier that covers it and reads all that counts."""
    known = [(IMAGE, [True]), (BOTH, [False]), (BOTH, [True])]
    assert legs_for([ask(BOTH)], BOTH, known) == [Leg(2, (0,))]
    assert legs_for([ask(BOTH)], IMAGE, known) == [Leg(0, (0,))]
    assert legs_for([ask(CAPTION)], BOTH, known) == [Leg(2, (0,))]


def test_better_some_than_none() -> None:
    """Where nobody reads all of it, the first who reads some is asked."""
    assert legs_for([ask(BOTH)], BOTH, [(CAPTION, [True])]) == [Leg(0, (0,))]


def test_nothing_to_read() -> None:
    """A question that reads nothing of the upload is not asked."""
    assert legs_for([ask(IMAGE)], CAPTION, [(BOTH, [True])]) == []


def test_who_must_be_known() -> None:
    """A classifier that has not said what it covers is waited for only if its word may count."""
    assert legs_for([ask(BOTH)], BOTH, [None, (BOTH, [True])]) is None
    assert legs_for([ask(BOTH)], BOTH, [(BOTH, [True]), None]) == [Leg(0, (0,))]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(PARTS), max_size=4),
    st.sampled_from(PARTS),
    st.lists(st.tuples(st.sampled_from(PARTS), st.booleans()), max_size=3),
)
def test_every_answerable_question_once(
    reads: list[frozenset[Part]],
    parts: frozenset[Part],
    known: list[tuple[frozenset[Part], bool]],
) -> None:
    """Each question is asked once if any classifier covers it and reads what there is, and never otherwise."""
    questions = [ask(r) for r in reads]
    legs = legs_for(questions, parts, [(r, [covers] * len(reads)) for r, covers in known])
    assert legs is not None
    asked = list(itertools.chain.from_iterable(leg.questions for leg in legs))
    assert len(set(asked)) == len(asked)
    answerable = {
        number
        for number, question in enumerate(questions)
        if any(covers and r & question.reads & parts for r, covers in known)
    }
    assert set(asked) == answerable


def test_the_digest_of_questions_tells_all_apart() -> None:
    """Question sets that differ in wording, parts or mapping have different digests; equal ones share theirs."""
    first = QUESTIONS.all[0]
    others = [
        replace(first, question="other"),
        replace(first, reads=IMAGE),
        replace(first, maps_to={"llavaguard": "O1"}),
        replace(first, id="other"),
    ]
    digests = {Questions((question,)).digest for question in (first, *others)}
    assert len(digests) == 5
    assert Questions((replace(first),)).digest == Questions((first,)).digest


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=4),
    st.sampled_from(PARTS),
    st.lists(st.tuples(st.sampled_from(PARTS), st.booleans()), min_size=1, max_size=3),
    st.data(),
)
def test_a_cascade_ends_where_the_first_answer_would(
    reads: list[frozenset[Part]],
    parts: frozenset[Part],
    known: list[tuple[frozenset[Part], bool]],
    data: st.DataObject,
) -> None:
    """A cascade begins with the classifier that would answer alone, and what is settled is asked no more."""
    questions = [ask(read, f"q{number}") for number, read in enumerate(reads)]
    covers = [(read, [covered] * len(questions)) for read, covered in known]
    alone = legs_for(questions, parts, covers) or []
    cascade = legs_for(questions, parts, covers, cascade=True) or []
    first: dict[int, int] = {}
    for leg in cascade:
        for number in leg.questions:
            first.setdefault(number, leg.classifier)
    assert first == {number: leg.classifier for leg in alone for number in leg.questions}
    settled = data.draw(st.sets(st.integers(0, len(questions) - 1)))
    left = without(cascade, settled)
    assert not settled & {number for leg in left for number in leg.questions}
    assert all(leg.questions for leg in left)
