"""Agreement between people."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.agreement import Agreement, Checked, agreement, reliability

answers = st.sampled_from(["violates", "allowed", "cannot_tell"])


def test_kappa_of_a_known_table() -> None:
    """The textbook table (20 yes-yes, 5, 10, 15 no-no of 50) gives 70 percent and a kappa of 0.4."""
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15

    assert agreement(pairs) == Agreement(pairs=50, percent=70.0, kappa=0.4)


def test_nothing_to_compare_has_no_figure() -> None:
    """No pairs give no figures, and two who always say the same one thing have no kappa."""
    assert agreement([]) == Agreement(pairs=0, percent=None, kappa=None)
    assert agreement([("y", "y")] * 3) == Agreement(pairs=3, percent=100.0, kappa=None)


@given(st.lists(st.tuples(answers, answers), min_size=1))
def test_agreement_is_symmetric_and_bounded(pairs: list[tuple[str, str]]) -> None:
    """It does not matter who is named first, and kappa never exceeds 1."""
    found = agreement(pairs)

    assert found == agreement([(other, one) for one, other in pairs])
    assert found.kappa is None or found.kappa <= 1


def test_reliability_is_by_reviewer_and_policy() -> None:
    """Each reviewer is compared with what counts, for each policy by itself."""
    found = reliability(
        [
            Checked(reviewer="ann", policy="weapons", said="violates", right="violates"),
            Checked(reviewer="ann", policy="weapons", said="allowed", right="violates"),
            Checked(reviewer="ann", policy="drugs", said="allowed", right="allowed"),
            Checked(reviewer="bob", policy="weapons", said="allowed", right="allowed"),
        ]
    )

    assert found["ann", "weapons"].percent == pytest.approx(50)
    assert found["ann", "drugs"].percent == pytest.approx(100)
    assert list(found) == [("ann", "drugs"), ("ann", "weapons"), ("bob", "weapons")]
