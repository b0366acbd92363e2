"""Asks the bundled checkpoint many questions about composed uploads, and counts with intervals."""

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForImageTextToText, AutoProcessor

from policies.question import Question
from workers import prompt
from workers.mini.answering import answers_of
from workers.mini.lessons import Item
from workers.mini.rows import Packer, collate
from workers.mini.scenes import Pixels
from workers.mini.sights import Sight
from workers.mini.tower import OUTPUTS, as_input, folded

Figures = dict[str, Any]
Numbers = npt.NDArray[np.float64]
Truths = npt.NDArray[np.bool_]


class Examiner:
    """Asks the checkpoint many questions about many composed uploads."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self.processor = AutoProcessor.from_pretrained(folder)
        self.words = self.processor.tokenizer
        self.yes, self.no = self.words.convert_tokens_to_ids(["Yes", "No"])
        self.packer = Packer(self.words)
        self._tower = folded(deepcopy(self.model.model.vision_tower))

    def look(self, pixels: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        """Return what the projector's first layer says of each picture."""
        seen = []
        for first in range(0, len(pixels), 32):
            with torch.no_grad():
                part = as_input(np.stack(pixels[first : first + 32]))
                features = self._tower(part).last_hidden_state.flatten(2).transpose(1, 2)
                seen.append(
                    self.model.model.multi_modal_projector.linear_1(features)
                    .sigmoid()[..., :OUTPUTS]
                    .numpy()
                )
        return np.concatenate(seen)

    def ask(
        self, asked: Iterable[tuple[Sight | None, str, Sequence[Item]]], total: int | None = None
    ) -> list[list[float]]:
        """Return the log-odds of Yes for each question about each upload (sight or none, content, questions)."""
        odds: list[list[float]] = []
        waiting: list[tuple[Sight | None, str, Sequence[Item]]] = []

        def flush() -> None:
            rows = [
                self.packer.row(content, items, images=int(sight is not None))
                for sight, content, items in waiting
            ]
            batch = collate(rows, [sight for sight, _, _ in waiting], self.words.pad_token_id)
            found = answers_of(self.model, batch, self.yes, self.no).tolist()
            for _, _, items in waiting:
                odds.append(found[: len(items)])
                del found[: len(items)]
            waiting.clear()

        for each in track(asked, description="asking", total=total, transient=True):
            waiting.append(each)
            if len(waiting) == 8:
                flush()
        if waiting:
            flush()
        return odds


def item(question: Question, *, answer: bool = False, kind: str = "") -> Item:
    """Return a question as text."""
    return Item(text=prompt.suffix(question), answer=answer, kind=kind)


def content(caption: str, text_in_image: str = "") -> str:
    """Return the quoted words of an upload as the prompt has them."""
    return prompt.prefix(images=1, caption=caption, text_in_image=text_in_image).content


# ---- intervals


def wilson(good: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share."""
    z = float(norm.ppf(0.975))
    middle = (good + z * z / 2) / (count + z * z)
    half = z * np.sqrt(good * (count - good) / count + z * z / 4) / (count + z * z)
    return float(middle - half), float(middle + half)


def share(hits: Sequence[bool], groups: Sequence[str] = ()) -> Figures:
    """Return a share with its interval: Wilson's, or where that is wider the bootstrap's over `groups`.

    Those are such as lines that were used several times: what happens with one of them happens with it again.
    """
    good, count = sum(hits), len(hits)
    value = good / max(1, count)
    low, high = wilson(good, count)
    if not groups:
        return {"value": value, "interval": (low, high), "n": count}
    right = np.asarray(hits, float)
    which = np.unique(np.array(groups), return_inverse=True)[1]
    sums, sizes = np.bincount(which, right), np.bincount(which)
    drawn = bootstrap(lambda some: float(sums[some].sum() / sizes[some].sum()), len(sizes))
    return {
        "value": value,
        "interval": (min(low, drawn[0]), max(high, drawn[1])),
        "n": count,
        "groups": len(sizes),
    }


def bootstrap(
    value: Callable[[npt.NDArray[np.int64]], float], count: int, rounds: int = 300
) -> tuple[float, float]:
    """Return the 95 % interval of a value over resampled rows."""
    rng = np.random.default_rng(0)
    found = [value(rng.integers(count, size=count)) for _ in range(rounds)]
    return float(np.nanquantile(found, 0.025)), float(np.nanquantile(found, 0.975))


def auroc(
    truth: Sequence[bool] | Truths,
    score: Sequence[float] | Numbers,
    groups: Sequence[int] | None = None,
) -> Figures:
    """Return AUROC with its interval; questions of one of `groups`, such as a scene, are drawn together."""
    right, odds = np.asarray(truth, bool), np.asarray(score, float)
    group = np.arange(len(right)) if groups is None else np.unique(groups, return_inverse=True)[1]

    def value(drawn: npt.NDArray[np.int64]) -> float:
        weight = np.bincount(drawn, minlength=int(group.max()) + 1)[group]
        return weighted_auroc(right, odds, weight)

    count = int(group.max()) + 1
    return {
        "value": value(np.arange(count)),
        "interval": bootstrap(value, count),
        "n": len(right),
        "positives": int(right.sum()),
    }


def weighted_auroc(truth: Truths, score: Numbers, weight: npt.NDArray[np.int64]) -> float:
    """Return AUROC where each row counts so often, or NaN where only one answer is left."""
    kept = weight > 0
    if len(set(truth[kept].tolist())) < 2:
        return float("nan")
    return float(roc_auc_score(truth[kept], score[kept], sample_weight=weight[kept]))


def ece(probability: Numbers, truth: npt.NDArray[np.bool_], bins: int = 10) -> float:
    """Return the expected calibration error over bins of equal mass."""
    order = np.argsort(probability)
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(
        sum(
            len(part) / len(order) * abs(probability[part].mean() - truth[part].mean())
            for part in parts
        )
    )
