"""A stage of training that was cut off goes on where it was, and only as it was begun."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from workers.mini.language import LanguagePlan
from workers.mini.lasting import OtherOptionsError, keep, kept

PLAN = LanguagePlan(name="test", steps=100, seed=3, begun_from="abc")


def test_a_stage_goes_on_from_what_it_kept(tmp_path: Path) -> None:
    """What was kept comes back, time that was spent included; before that there is nothing."""
    state = tmp_path / "test.pt"
    assert kept(state, PLAN) is None

    keep(state, PLAN, {"weights": torch.ones(2), "step": 40, "seconds": 12.5})
    saved = kept(state, PLAN)

    assert saved is not None
    assert (saved["step"], saved["seconds"], saved["weights"].tolist()) == (40, 12.5, [1.0, 1.0])
    assert [path.name for path in tmp_path.iterdir()] == ["test.pt"]


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 4}, "seed 3"), ({"rate": 1.0}, "rate 0.002"), ({"begun_from": "d"}, "from abc")],
)
def test_a_stage_does_not_go_on_with_other_options(
    change: dict[str, float | str], named: str, tmp_path: Path
) -> None:
    """Another seed, rate or start is refused by name, instead of training nothing or something else in silence."""
    keep(tmp_path / "test.pt", PLAN, {"step": 40, "seconds": 1.0})

    with pytest.raises(OtherOptionsError, match=named):
        kept(tmp_path / "test.pt", replace(PLAN, **change))  # type: ignore[arg-type]


def test_who_does_the_work_does_not_count(tmp_path: Path) -> None:
    """More processes may compose lessons, and the folder may be named from elsewhere: the lessons are the same."""
    here = replace(PLAN, seen=Path("runs/a/seen.npz"))
    keep(tmp_path / "test.pt", here, {"step": 40, "seconds": 1.0})

    there = replace(here, teachers=4, seen=tmp_path / "seen.npz")
    assert kept(tmp_path / "test.pt", there) is not None
