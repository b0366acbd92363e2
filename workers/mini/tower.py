"""First stage: the vision tower learns which concept is in which cell, and the box of what is there."""

import itertools
import json
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from rich.progress import Progress
from sklearn.metrics import roc_auc_score
from torch import multiprocessing, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModel, EfficientNetConfig, EfficientNetModel

from workers.mini import pretrained
from workers.mini.concepts import CONCEPTS
from workers.mini.lasting import Lasting, keep, kept
from workers.mini.material import FOLDER, Split
from workers.mini.scenes import CROWD as USUAL
from workers.mini.scenes import SIDE_PX, Composer, Scene

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

#: Sizes of the tower: EfficientNet-Lite0 without the last halving, so 160 pixels in, 10 by 10 cells out. Lite has no
#: squeeze and excitation; transformers' blocks always have, so theirs is as small as can be and lets all through.
TOWER = {
    "image_size": SIDE_PX,
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "strides": [1, 2, 2, 2, 1, 1, 1],
    "hidden_act": "relu6",
    "hidden_dim": 1280,
    "squeeze_expansion_ratio": 1e-9,
    "drop_connect_rate": 0.0,
}

#: How many features the tower gives for each cell.
FEATURES = 1280

#: How many of its first blocks stay as they were published: edges and textures are the same everywhere.
FROZEN = 5

#: How likely a training scene has 1, 2, … things: crowded ones teach more for the same work.
CROWD = (0.04, 0.1, 0.2, 0.24, 0.2, 0.14, 0.08)

#: What the dense head says of a cell: one number a concept, then left, top, right and bottom of the thing's box.
OUTPUTS = len(CONCEPTS) + 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerPlan(Lasting):
    """How long and how the tower is trained.

    `rate` is the dense head's and `tower_share` the tower's share of it; `keep` is what the running average keeps at
    each fourth step. On a CPU each of `learners` composes its own scenes; for a GPU `composers` processes do.
    """

    steps: int = 12_000
    batch: int = 16
    rate: float = 2e-3
    tower_share: float = 0.25
    decay_from: float = 0.4
    keep: float = 0.99
    seed: int = 7
    learners: int = field(default=2, compare=False)
    log_every: int = field(default=150, compare=False)
    device: str = field(default="cpu", compare=False)
    composers: int = field(default=0, compare=False)


def untrained() -> EfficientNetModel:
    """Return a tower of this project's sizes, untrained, whose squeeze and excitation lets all through."""
    tower: EfficientNetModel = AutoModel.from_config(EfficientNetConfig(**TOWER)).eval()
    with torch.no_grad():
        for block in tower.encoder.blocks:
            for weight in block.squeeze_excite.parameters():
                weight.zero_()
            block.squeeze_excite.expand.bias.fill_(20.0)
    return tower


def _normalised(tower: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Yield where a convolution stands with its normalisation: the module around them and their names in it."""
    for around in tower.modules():
        for (first, convolution), (second, norm) in itertools.pairwise(around.named_children()):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                yield around, first, second


def folded(tower: EfficientNetModel) -> EfficientNetModel:
    """Return this tower with its normalisations folded into the convolutions: it says the same, faster."""
    for around, first, second in list(_normalised(tower)):
        fused = fuse_conv_bn_eval(getattr(around, first), getattr(around, second))
        setattr(around, first, fused)
        setattr(around, second, nn.Identity())
    for block in tower.encoder.blocks:
        block.squeeze_excite = nn.Identity()
    return tower


def unfolded(seer: "Seer") -> EfficientNetModel:
    """Return the tower as transformers builds it, with normalisations that add the folded biases and nothing else."""
    tower = untrained()
    parts = dict(seer.tower.named_modules())
    names = {module: name for name, module in tower.named_modules()}
    with torch.no_grad():
        for around, first, second in _normalised(tower):
            convolution, norm = getattr(around, first), getattr(around, second)
            learned = parts[names[convolution]]
            convolution.weight.copy_(learned.weight)
            norm.weight.fill_((1 + norm.eps) ** 0.5)
            norm.bias.copy_(learned.bias)
    return tower


class Seer(nn.Module):
    """The vision tower, folded, with its dense head, which becomes the projector's first layer later."""

    def __init__(self, packs: Path | None = None) -> None:
        """Build it untrained, or from the published weights where `packs` says where archives are kept."""
        super().__init__()
        tower = untrained()
        if packs is not None:
            pretrained.start(tower, packs)
        self.tower = folded(tower)
        for part in (self.tower.embeddings, *self.tower.encoder.blocks[:FROZEN]):
            part.requires_grad_(requires_grad=False)
        self.head = nn.Linear(FEATURES, OUTPUTS)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        with torch.no_grad():
            self.head.bias[: len(CONCEPTS)] = -6.0

    @property
    def device(self) -> torch.device:
        """Return where it is."""
        return self.head.weight.device

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits, images by cells by outputs."""
        features = self.tower(pixels).last_hidden_state
        logits: torch.Tensor = self.head(features.flatten(2).transpose(1, 2))
        return logits


def as_input(pixels: npt.NDArray[np.uint8], device: str | torch.device = "cpu") -> torch.Tensor:
    """Return uint8 images (N, H, W, 3) as the processor gives them to the model: from -1 to 1."""
    tensor = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float()
    return (tensor / 127.5 - 1).contiguous(memory_format=torch.channels_last)


Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], npt.NDArray[np.float32]]


class Composed(Dataset[list[Scene]]):
    """Composed scenes by the number of their batch: the same number gives the same scenes, in whichever process."""

    def __init__(
        self,
        split: Split,
        *,
        seed: int,
        size: int,
        learner: int = 0,
        crowd: Sequence[float] = CROWD,
    ) -> None:
        self.split: Split = split
        self.seed, self.learner, self.size, self.crowd = seed, learner, size, crowd
        self._composer: Composer | None = None

    def __getitem__(self, number: int) -> list[Scene]:
        """Return a batch of newly composed scenes."""
        if self._composer is None:  # made where it is used: it does not travel between processes
            cv2.setNumThreads(1)
            self._composer = Composer(self.split, self.seed + self.learner)
        self._composer.rng = np.random.default_rng((self.seed, self.learner, number))
        return [self._composer.compose(crowd=self.crowd) for _ in range(self.size)]


def ahead(lessons: Dataset[Any], numbers: Iterable[int], processes: int) -> Iterator[Any]:
    """Yield a data set's elements of these numbers in order, made ahead by other processes; with 0 by this one."""
    # Copies of one that has the modules already: a dozen of them are there at once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["workers.mini.language"])
    loader = DataLoader(
        lessons,
        batch_size=None,
        sampler=numbers,
        num_workers=processes,
        collate_fn=_as_is,
        multiprocessing_context=context if processes else None,
    )
    return iter(loader)


def _as_is(batch: Any) -> Any:
    return batch


def batches(
    *, seed: int, learner: int, start: int, size: int, composers: int = 0
) -> Iterator[Batch]:
    """Yield composed batches without end, and some time after each its mirror image; the same for the same seed.

    `composers` processes compose ahead; with 0 this one does.
    """
    composed = Composed("train", seed=seed, size=size, learner=learner)
    waiting: deque[Batch] = deque()
    for scenes in ahead(composed, itertools.count(start // 2), composers):
        batch = _stacked(scenes)
        yield batch
        waiting.append(_mirrored(batch))
        if len(waiting) > 30:
            yield waiting.popleft()


def _stacked(scenes: Sequence[Scene]) -> Batch:
    return (
        np.stack([scene.pixels for scene in scenes]),
        np.stack([scene.cells for scene in scenes]),
        np.stack([scene.boxes for scene in scenes]),
    )


def _mirrored(batch: Batch) -> Batch:
    pixels, cells, boxes = batch
    there = boxes.sum(-1, keepdims=True) > 0
    mirrored = np.where(there, boxes * [-1, 1, -1, 1] + [1, 0, 1, 0], 0)[..., [2, 1, 0, 3]]
    return (
        pixels[:, :, ::-1].copy(),
        cells[:, :, ::-1].copy(),
        mirrored[:, :, ::-1].astype(np.float32),
    )


def loss_of(logits: torch.Tensor, cells: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Return what the dense head has to learn: cells, presence in the picture, boxes."""
    count = len(CONCEPTS)
    dense, box = logits[..., :count], logits[..., count:].sigmoid()
    cells = cells.to(logits.device).flatten(1, 2).float()
    boxes = boxes.to(logits.device).flatten(1, 2)
    per_cell = functional.binary_cross_entropy_with_logits(dense, cells, reduction="sum") / 10
    presence = functional.binary_cross_entropy_with_logits(
        dense.logsumexp(1), cells.amax(1), reduction="sum"
    )
    # Which of all things it is, where there is one: likes are told apart sooner than by the cells' own losses.
    shares = cells / cells.sum(-1, keepdim=True).clamp(min=1)
    which = -(shares * dense.log_softmax(-1)).sum() / 20
    there = boxes.sum(-1, keepdim=True) > 0
    place = ((box - boxes).abs() * there).sum() / there.sum().clamp(min=1)
    return (per_cell + presence / 3 + which) / len(logits) + place


def presence_auroc(seer: Seer, scenes: Batch) -> npt.NDArray[np.float64]:
    """Return the AUROC of each concept that has both answers among these scenes, by the dense head alone."""
    seer.eval()
    pixels, cells, _ = scenes
    truth = np.asarray(cells.any((1, 2)))
    with torch.no_grad():
        scores = torch.cat(
            [
                seer(as_input(part, seer.device))[..., : len(CONCEPTS)].logsumexp(1).cpu()
                for part in np.array_split(pixels, 20)
            ]
        )
    kept = [index for index in range(len(CONCEPTS)) if 0 < truth[:, index].sum() < len(truth)]
    return np.array([roc_auc_score(truth[:, index], scores[:, index].numpy()) for index in kept])


def validation(count: int = 700, split: Split = "validation", *, composers: int = 0) -> Batch:
    """Return scenes in a style kept for choices."""
    composed = Composed(split, seed=4242, size=50, crowd=USUAL)
    parts = ahead(composed, range(-(-count // 50)), composers)
    return _stacked([scene for part in parts for scene in part][:count])


def train_tower(folder: Path, plan: TowerPlan, *, start_from: "Seer | None" = None) -> Path:
    """Train the tower, keeping a running average of its weights, and return the file of that average.

    Without `start_from` it starts from the published weights.
    Several learners share one set of weights and step on it without waiting for each other: where other work takes
    one core for a while, the other learner goes on. One learner alone gives the same weights for the same seed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(plan.seed)
    seer = start_from or Seer(FOLDER / "packs")
    nn.Module.to(seer, plan.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = deepcopy(seer).requires_grad_(requires_grad=False)
    start, spent_s = 0, 0.0
    if saved := kept(folder / "tower-state.pt", plan, plan.device):
        seer.load_state_dict(saved["seer"])
        average.load_state_dict(saved["average"])
        start, spent_s = saved["step"], saved["seconds"]
    if plan.share(start, spent_s) >= 1:
        return folder / "tower.pt"
    if plan.learners > 1:
        seer.share_memory()
    context = multiprocessing.get_context("spawn")
    steps = context.Value("q", start)
    learners = [
        context.Process(
            target=_learn, args=(number, folder, plan, seer, steps, start, spent_s), daemon=True
        )
        for number in range(1, plan.learners)
    ]
    for learner in learners:
        learner.start()
    try:
        _learn(0, folder, plan, seer, steps, start, spent_s, average)
    finally:
        for learner in learners:
            learner.terminate()
    return folder / "tower.pt"


def _optimiser(seer: Seer, folder: Path, plan: TowerPlan) -> torch.optim.AdamW:
    """Return the optimiser with the moments of the last run, if there was one."""
    groups = []
    for part, share in ((seer.tower, plan.tower_share), (seer.head, 1.0)):
        trained = [weight for weight in part.parameters() if weight.requires_grad]
        for decay, some in (
            (0.05, [weight for weight in trained if weight.dim() > 1]),
            (0.0, [weight for weight in trained if weight.dim() <= 1]),
        ):
            groups.append({"params": some, "weight_decay": decay, "share": share})
    optimiser = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.99), fused=True)
    if saved := kept(folder / "tower-state.pt", plan, plan.device):
        optimiser.load_state_dict(saved["optimiser"])
    return optimiser


def _learn(
    learner: int,
    folder: Path,
    plan: TowerPlan,
    seer: Seer,
    steps: "Synchronized[int]",
    start: int,
    spent_s: float,
    average: Seer | None = None,
) -> None:
    """Step on the shared weights until all learners together are at the end; the first keeps average and log."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    optimiser = _optimiser(seer, folder, plan)
    checked = validation(composers=plan.composers) if average is not None else None
    # On a GPU in half precision; the losses are told in full.
    half = plan.device == "cuda"
    begun = time.monotonic() - spent_s
    logged, mine = start, 0
    with Progress(disable=average is None) as progress:
        task = progress.add_task("tower", total=1.0)
        for pixels, cells, boxes in batches(
            seed=plan.seed,
            learner=learner,
            start=start,
            size=plan.batch,
            composers=plan.composers,
        ):
            step = steps.value
            share = plan.share(step, time.monotonic() - begun)
            left = min(1.0, (1 - share) / (1 - plan.decay_from))
            for group in optimiser.param_groups:
                group["lr"] = (
                    plan.rate * group["share"] * min(1.0, (mine + 1) / 100) * max(0.01, left)
                )
            seer.train()
            with torch.autocast(plan.device, torch.bfloat16, enabled=half):
                logits = seer(as_input(pixels, plan.device))
            loss = loss_of(logits.float(), torch.from_numpy(cells), torch.from_numpy(boxes))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(seer.parameters(), 5.0)
            optimiser.step()
            mine += 1
            with steps.get_lock():
                steps.value += 1
            if average is not None and checked is not None:
                if mine % 4 == 0:
                    _follow(average, seer, min(plan.keep, (1 + step) / (80 + step)))
                progress.update(task, completed=share)
                if step >= logged + plan.log_every or share >= 1:
                    logged = step
                    seconds = round(time.monotonic() - begun)
                    _keep(folder, plan, seer, average, optimiser, step, seconds)
                    _log(folder, average, checked, step, seconds, loss.item(), left)
            if share >= 1:
                return


def _keep(
    folder: Path,
    plan: TowerPlan,
    seer: Seer,
    average: Seer,
    optimiser: torch.optim.AdamW,
    step: int,
    seconds: float,
) -> None:
    torch.save(average.state_dict(), folder / "tower.part")
    (folder / "tower.part").replace(folder / "tower.pt")
    parts = {
        "seer": seer.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": step,
        "seconds": seconds,
    }
    keep(folder / "tower-state.pt", plan, parts)


def _log(
    folder: Path, average: Seer, checked: Batch, step: int, seconds: int, loss: float, left: float
) -> None:
    scores = presence_auroc(average, checked)
    line = {
        "stage": "tower",
        "step": step,
        "seconds": seconds,
        "loss": loss,
        "left": round(left, 3),
        "median": float(np.median(scores)),
        "p10": float(np.quantile(scores, 0.1)),
    }
    with (folder / "tower.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")


def _follow(average: nn.Module, seer: nn.Module, keep: float) -> None:
    with torch.no_grad():
        for mean, now in zip(
            average.state_dict().values(), seer.state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - keep)
            else:
                mean.copy_(now)
