"""What the model card may claim: its figures are of the weights that ship, and only what reaches them is live."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from policies.folder import read_policies
from policies.schema import Policy, Status
from workers.mini.evaluate import Sizes, rows_of
from workers.mini.truth import TRUTHS

HERE = Path(__file__).parents[3]
MODEL = HERE / "workers" / "mini"
FIGURES = json.loads((MODEL / "figures.json").read_text())
#: What a shipped policy must reach on unseen scenes before it may act for somebody who installs Weir.
LEAST_AUROC, MOST_ECE, LEAST_SCENES, LEAST_BROKEN = 0.93, 0.04, 2000, 100


def test_the_figures_are_of_the_weights_that_ship() -> None:
    """Figures of other weights, of scenes for choices or of a few scenes would say nothing."""
    weights = hashlib.sha256((MODEL / "model.safetensors").read_bytes()).hexdigest()
    assert FIGURES["weights"] == weights
    assert (FIGURES["split"], FIGURES["sizes"]) == ("test", asdict(Sizes()))


def test_the_card_says_what_was_measured() -> None:
    """Every line of the card's table is a figure of figures.json, and none is missing."""
    card = (MODEL / "README.md").read_text(encoding="utf-8")
    table = card.partition("<!-- figures -->")[2].partition("<!-- /figures -->")[0]
    said = [tuple(line.strip("| ").split(" | ")) for line in table.splitlines() if "|" in line]
    assert said[2:] == [tuple(cell for cell in row if cell) for row in rows_of(FIGURES)]


@pytest.mark.parametrize(
    "policy",
    [p for p in read_policies(HERE / "policies") if p.policy in TRUTHS],
    ids=lambda p: p.policy,
)
def test_a_policy_is_live_where_the_bundled_model_can_judge_it(policy: Policy) -> None:
    """Live is what reaches the figures on 2,000 scenes with every one of its questions; the rest are drafts."""
    found = [FIGURES["policies"][question.id] for question in policy.questions]
    good = all(
        one["n"] >= LEAST_SCENES
        and one["positives"] >= LEAST_BROKEN
        and one["value"] >= LEAST_AUROC
        and one["ece"] <= MOST_ECE
        for one in found
    )
    assert policy.status is (Status.LIVE if good else Status.DRAFT)


def test_what_the_bundled_model_knows_nothing_of_is_a_draft() -> None:
    """Policies without a truth on composed scenes were never measured."""
    others = [p for p in read_policies(HERE / "policies") if p.policy not in TRUTHS]
    assert {policy.status for policy in others} == {Status.DRAFT}
