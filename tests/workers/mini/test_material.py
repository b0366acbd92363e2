"""What drawings show, and what is said where something to compose scenes from is missing."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from workers.mini.concepts import CONCEPTS
from workers.mini.material import Drawings, MaterialError, concept_of, fetched, keep, load
from workers.mini.scenes import Composer


@pytest.mark.parametrize(
    ("drawing", "style", "shown"),
    [
        ("1f52b:pistol", "noto-v1", "pistol"),
        ("1f52b:pistol", "noto", "water pistol"),
        ("1f52b:pistol", "openmoji", "pistol"),
        ("1f52b:water-pistol", "openmoji", "water pistol"),
        ("1f52b", "twemoji", "water pistol"),
    ],
)
def test_one_code_point_is_a_gun_in_some_styles_and_a_toy_in_others(
    drawing: str, style: str, shown: str
) -> None:
    """What U+1F52B shows is said by the style, and by the drawing's own name where a style has both."""
    assert CONCEPTS[concept_of(drawing, style)].name == shown


def test_no_scenes_for_figures_without_their_backgrounds(tmp_path: Path) -> None:
    """Without wallpapers scenes of validation and test would stand before those of training: they are refused."""
    keep(tmp_path / "wallpapers.npz", pixels=np.zeros((0, 256, 256, 3), np.uint8))
    drawings = Drawings(
        pixels=np.zeros((1, 8, 8, 4), np.uint8), style=np.array([0]), concept=np.array([0])
    )
    with pytest.raises(MaterialError, match="gnome-backgrounds"):
        Composer("test", 1, drawings=drawings, folder=tmp_path)


def test_what_is_missing_is_named_with_what_to_do(tmp_path: Path) -> None:
    """Absent drawings, an absent program and a failing one each say what they are."""
    with pytest.raises(MaterialError, match=r"run `python -m workers\.mini\.material` first"):
        load(tmp_path)
    with pytest.raises(MaterialError, match="no-such-program` is needed"):
        fetched(["no-such-program"], cwd=tmp_path)
    with pytest.raises(MaterialError, match="no such package"):
        fetched([sys.executable, "-c", "import sys; sys.exit('no such package')"], cwd=tmp_path)


def test_training_without_its_extra_says_what_to_install() -> None:
    """Whoever installed Weir alone and wants to train is told of the extra, not of a module."""
    without = "import sys; sys.modules['cv2'] = None; from pipeline.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", without, "model", "train-mini", "--help"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 1
    assert "cv2 is not installed: pip install 'weir-moderation[train]'" in done.stderr
