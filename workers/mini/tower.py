"""First stage: the vision tower learns which concept is in which cell, and the box of what is there."""

import json
import multiprocessing
import time
from collections import deque
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import Progress
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional
from transformers import AutoModel, ResNetConfig

from workers.mini.concepts import CONCEPTS
from workers.mini.material import Split
from workers.mini.scenes import Composer

#: Sizes of the tower: 128 pixels in, 8 by 8 cells out.
TOWER = {
    "embedding_size": 24,
    "hidden_sizes": [32, 96, 256],
    "depths": [1, 2, 2],
    "layer_type": "basic",
}

#: How likely a training scene has 1, 2, … things: crowded ones teach more for the same work.
CROWD = (0.1, 0.2, 0.25, 0.2, 0.15, 0.1)

#: What the dense head says of a cell: one number a concept, then left, top, right and bottom of the thing's box.
OUTPUTS = len(CONCEPTS) + 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerPlan:
    """How long and how the tower is trained."""

    steps: int = 6_600
    batch: int = 16
    rate: float = 3e-3
    decay_from: float = 0.6
    seed: int = 7


class Seer(nn.Module):
    """The vision tower with its dense head, which becomes the projector's first layer later."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = AutoModel.from_config(ResNetConfig(**TOWER))
        self.head = nn.Linear(TOWER["hidden_sizes"][-1], OUTPUTS)  # type: ignore[index]
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        with torch.no_grad():
            self.head.bias[: len(CONCEPTS)] = -6.0

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits, images by cells by outputs."""
        features = self.tower(pixels).last_hidden_state
        logits: torch.Tensor = self.head(features.flatten(2).transpose(1, 2))
        return logits


def as_input(pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Return uint8 images (N, H, W, 3) as the processor gives them to the model: from -1 to 1."""
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    return (tensor / 127.5 - 1).contiguous(memory_format=torch.channels_last)


Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], npt.NDArray[np.float32]]


def _compose(
    queue: "multiprocessing.Queue[Batch]",
    seed: int,
    numbers: range,
    size: int,
    split: Split,
) -> None:
    import cv2

    cv2.setNumThreads(1)
    composer = Composer(split, seed)
    for number in numbers:
        composer.rng = np.random.default_rng((seed, number))
        scenes = [composer.compose(crowd=CROWD) for _ in range(size)]
        queue.put(
            (
                np.stack([scene.pixels for scene in scenes]),
                np.stack([scene.cells for scene in scenes]),
                np.stack([scene.boxes for scene in scenes]),
            )
        )


def batches(
    *,
    seed: int,
    start: int,
    stop: int,
    size: int,
    split: Split = "train",
    workers: int = 1,
) -> Iterator[Batch]:
    """Yield composed batches from child processes, the same ones for the same seed and numbers."""
    context = multiprocessing.get_context("spawn")
    queues: list[multiprocessing.Queue[Batch]] = [context.Queue(8) for _ in range(workers)]
    children = [
        context.Process(
            target=_compose,
            args=(queue, seed + 1000 * place, range(start, stop), size, split),
            daemon=True,
        )
        for place, queue in enumerate(queues)
    ]
    for child in children:
        child.start()
    try:
        for number in range(start, stop):
            yield queues[number % workers].get()
    finally:
        for child in children:
            child.terminate()


def _twice(stream: Iterator[Batch]) -> Iterator[Batch]:
    """Yield every batch, and some time later its mirror image: composing costs a third of a step."""
    waiting: deque[Batch] = deque()
    for pixels, cells, boxes in stream:
        yield pixels, cells, boxes
        there = boxes.sum(-1, keepdims=True) > 0
        mirrored = np.where(there, boxes * [-1, 1, -1, 1] + [1, 0, 1, 0], 0)[..., [2, 1, 0, 3]]
        waiting.append(
            (
                pixels[:, :, ::-1].copy(),
                cells[:, :, ::-1].copy(),
                mirrored[:, :, ::-1].astype(np.float32),
            )
        )
        if len(waiting) > 30:
            yield waiting.popleft()
    yield from waiting


def loss_of(logits: torch.Tensor, cells: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Return what the dense head has to learn: cells, presence in the picture, boxes."""
    count = len(CONCEPTS)
    dense, box = logits[..., :count], logits[..., count:].sigmoid()
    cells = cells.flatten(1, 2).float()
    boxes = boxes.flatten(1, 2)
    per_cell = functional.binary_cross_entropy_with_logits(dense, cells, reduction="sum") / 10
    presence = functional.binary_cross_entropy_with_logits(
        dense.logsumexp(1), cells.amax(1), reduction="sum"
    )
    there = boxes.sum(-1, keepdim=True) > 0
    place = ((box - boxes).abs() * there).sum() / there.sum().clamp(min=1)
    return (per_cell + presence / 3) / len(logits) + place


def presence_auroc(seer: Seer, scenes: Batch) -> npt.NDArray[np.float64]:
    """Return the AUROC of each concept that has both answers among these scenes, by the dense head alone."""
    seer.eval()
    pixels, cells, _ = scenes
    truth = np.asarray(cells.any((1, 2)))
    with torch.no_grad():
        scores = torch.cat(
            [
                seer(as_input(part))[..., : len(CONCEPTS)].logsumexp(1)
                for part in np.array_split(pixels, 20)
            ]
        )
    kept = [index for index in range(len(CONCEPTS)) if 0 < truth[:, index].sum() < len(truth)]
    return np.array([roc_auc_score(truth[:, index], scores[:, index].numpy()) for index in kept])


def validation(count: int = 700, split: Split = "validation") -> Batch:
    """Return scenes in a style kept for choices."""
    composer = Composer(split, 4242)
    scenes = [composer.compose() for _ in range(count)]
    return (
        np.stack([scene.pixels for scene in scenes]),
        np.stack([scene.cells for scene in scenes]),
        np.stack([scene.boxes for scene in scenes]),
    )


def train_tower(folder: Path, plan: TowerPlan, *, resume: bool = True) -> Path:
    """Train the tower, keeping a running average of its weights, and return the file of that average."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(plan.seed)
    torch.set_flush_denormal(True)
    seer = Seer()
    nn.Module.to(seer, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = deepcopy(seer).requires_grad_(requires_grad=False)
    decayed = [weight for weight in seer.parameters() if weight.dim() > 1]
    plain = [weight for weight in seer.parameters() if weight.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.99), fused=True)
    start, state, kept = 0, folder / "tower-state.pt", folder / "tower.pt"
    if resume and state.exists():
        saved = torch.load(state, weights_only=True)
        seer.load_state_dict(saved["seer"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        start = saved["step"]
    checked = validation()
    begun = time.monotonic()
    with Progress() as progress, (folder / "tower.jsonl").open("a") as log:
        task = progress.add_task("tower", total=plan.steps, completed=start)
        stream = _twice(
            batches(
                seed=plan.seed,
                start=start // 2,
                stop=plan.steps // 2,
                size=plan.batch,
            )
        )
        for step, (pixels, cells, boxes) in enumerate(stream, start + 1):
            share = step / plan.steps
            rate = plan.rate * min(1.0, step / 100, max(0.01, (1 - share) / (1 - plan.decay_from)))
            for group in optimiser.param_groups:
                group["lr"] = rate
            seer.train()
            loss = loss_of(seer(as_input(pixels)), torch.from_numpy(cells), torch.from_numpy(boxes))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(seer.parameters(), 5.0)
            optimiser.step()
            if step % 4 == 0:
                _follow(average, seer, min(0.992, (1 + step) / (80 + step)))
            progress.advance(task)
            if step in {100, 200} or step % 400 == 0 or step == plan.steps:
                scores = presence_auroc(average, checked)
                line = {
                    "stage": "tower",
                    "step": step,
                    "seconds": round(time.monotonic() - begun),
                    "loss": float(loss),
                    "median": float(np.median(scores)),
                    "p10": float(np.quantile(scores, 0.1)),
                }
                log.write(json.dumps(line) + "\n")
                log.flush()
                torch.save(average.state_dict(), kept)
                torch.save(
                    {
                        "seer": seer.state_dict(),
                        "average": average.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "step": step,
                    },
                    state,
                )
    return kept


def _follow(average: nn.Module, seer: nn.Module, keep: float) -> None:
    with torch.no_grad():
        for mean, now in zip(
            average.state_dict().values(), seer.state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - keep)
            else:
                mean.copy_(now)
