"""What single answers are worth is learned from those that others looked at again."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.calibrating import at, fit_answers
from pipeline.imputing import expected
from pipeline.reliability import Vector
from pipeline.scored import Scores

_COUNT = 4_000


def _answered(seed: int, *, looked_again: float, wrong: float) -> tuple[Scores, Vector, Vector]:
    """Return labels of one reviewer who lets violations pass with this chance, their truth and its chances."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(-1, 3, _COUNT)
    chance = 1 / (1 + np.exp(-scores))
    truth = (rng.random(_COUNT) < chance).astype(float)
    first = np.where(rng.random(_COUNT) < wrong, 0.0, truth)
    again = rng.random(_COUNT) < looked_again
    scored = Scores(
        scores=scores,
        labels=np.where(again, truth, first),
        weights=np.ones(_COUNT),
        clusters=tuple(map(str, range(_COUNT))),
        adjudicated=again,
        first=np.where(again, first, np.nan),
    )
    return scored, truth, chance


def test_what_reviewers_overlook_is_counted_in() -> None:
    """A reviewer lets four of ten violations pass: the answers say too few of them, what is expected says as many."""
    scored, truth, chance = _answered(1, looked_again=0.3, wrong=0.4)

    found = expected(scored)

    assert scored.labels.mean() < 0.8 * truth.mean()
    assert abs(found.mean() - truth.mean()) < 0.015
    said = at(fit_answers(scored, draws=2).curve, scored.scores)
    assert np.abs(said - chance).mean() < 0.03


def test_settled_labels_stay() -> None:
    """What more than one person said is not guessed at."""
    scored, _, _ = _answered(2, looked_again=0.3, wrong=0.4)

    again = scored.settled

    assert (expected(scored)[again] == scored.labels[again]).all()


def test_where_nothing_is_known_of_first_answers_labels_are_as_they_are() -> None:
    """Nobody looked again, or what was said first was not kept."""
    scored, _, _ = _answered(3, looked_again=0.0, wrong=0.4)
    unkept = Scores(
        scores=scored.scores,
        labels=scored.labels,
        weights=scored.weights,
        clusters=scored.clusters,
        adjudicated=np.arange(_COUNT) < 500,
    )

    assert (expected(scored) == scored.labels).all()
    assert (expected(unkept) == scored.labels).all()


@given(
    rows=st.lists(
        st.tuples(
            st.floats(-1e4, 1e4) | st.sampled_from([np.inf, -np.inf]),
            st.sampled_from([0.0, 1.0]),
            st.sampled_from([0.0, 1.0]),
            st.booleans(),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_few_and_wild_labels_give_chances(rows: list[tuple[float, float, float, bool]]) -> None:
    """Whatever the labels are, each is expected to be a violation with a chance between 0 and 1."""
    scores, labels, first, again = (np.array(column) for column in zip(*rows, strict=True))
    scored = Scores(
        scores=scores.astype(float),
        labels=labels.astype(float),
        weights=np.ones(len(rows)),
        clusters=tuple(map(str, range(len(rows)))),
        adjudicated=again.astype(bool),
        first=np.where(again, first, np.nan).astype(float),
    )

    found = expected(scored)

    assert ((found >= 0) & (found <= 1)).all()
