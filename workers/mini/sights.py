"""What the tower says of pictures: of composed ones, or of such as nobody drew."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import logit, logsumexp

from workers.mini.concepts import CONCEPTS
from workers.mini.material import keep
from workers.mini.network import EASE, LIFT
from workers.mini.scenes import CELLS, Shown
from workers.mini.tower import OUTPUTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What the projector's first layer says of one picture, and what is really there."""

    outputs: npt.NDArray[np.float32]
    shown: tuple[Shown, ...]
    imagined: bool = False

    @property
    def evidence(self) -> npt.NDArray[np.float64]:
        """Return the log-odds of each concept's presence by the dense head: the sum of its odds over all cells."""
        chance = np.clip(self.outputs[:, : len(CONCEPTS)].astype(np.float64), 1e-6, 1 - 1e-6)
        found: npt.NDArray[np.float64] = logsumexp((logit(chance) - LIFT) / EASE, axis=0)
        return found


def imagined(rng: np.random.Generator) -> Sight:
    """Return what a good but not perfect eye would say of a scene that nobody drew."""
    count = int(rng.choice([1, 2, 3, 4, 5], p=[0.1, 0.25, 0.3, 0.2, 0.15]))
    concepts = rng.choice(len(CONCEPTS), size=count, replace=False)
    logits = rng.normal(-7.5, 1.2, (CELLS, CELLS, len(CONCEPTS))).astype(np.float32)
    boxes = rng.uniform(0.2, 0.8, (CELLS, CELLS, 4)).astype(np.float32)
    shown = []
    for concept in concepts.tolist():
        size = rng.uniform(0.18, 0.5, 2)
        corner = rng.uniform(0, 1 - size)
        box = (*corner.tolist(), *(corner + size).tolist())
        x0, y0, x1, y1 = (int(CELLS * edge) for edge in box)
        rows, columns = slice(y0, max(y1, y0 + 1)), slice(x0, max(x1, x0 + 1))
        patch = logits[rows, columns]
        strength = rng.normal(3.0, 1.5)
        patch[..., concept] = strength + rng.normal(0, 1.2, patch.shape[:2])
        if rng.random() < 0.3:  # something else that it could be
            patch[..., int(rng.integers(len(CONCEPTS)))] += rng.uniform(2, 6)
        boxes[rows, columns] = np.array(box) + rng.normal(0, 0.03, (*patch.shape[:2], 4))
        shown.append(Shown(concept=concept, box=box))
    outputs = np.concatenate([1 / (1 + np.exp(-logits)), np.clip(boxes, 0, 1)], axis=2)
    made = outputs.reshape(CELLS**2, OUTPUTS).astype(np.float32)
    return Sight(outputs=eased(made), shown=tuple(shown), imagined=True)


def eased(
    outputs: npt.NDArray[np.float32],
    *,
    gain: float = 1.0,
    lift: float | npt.NDArray[np.float64] = 0.0,
) -> npt.NDArray[np.float32]:
    """Return the dense head's probabilities as image tokens are made of them: doubts count too.

    `gain` and `lift` change its log-odds before, as another drawing style would.
    """
    count = len(CONCEPTS)
    chance = np.clip(outputs[..., :count], 1e-6, 1 - 1e-6)
    odds = (np.log(chance) - np.log1p(-chance)) * gain + lift
    soft = 1 / (1 + np.exp(-(EASE * odds + LIFT)))
    return np.concatenate([soft, outputs[..., count:]], axis=-1).astype(np.float32)


class Sights:
    """What the tower said of many composed scenes, kept on disk so that it need not say it again."""

    def __init__(self, outputs: npt.NDArray[np.float16], shown: list[tuple[Shown, ...]]) -> None:
        self._outputs = outputs
        self._shown = shown

    def __len__(self) -> int:
        return len(self._shown)

    def __getitem__(self, index: int) -> Sight:
        raw = self.raw(index)
        return Sight(outputs=eased(raw.outputs), shown=raw.shown)

    def raw(self, index: int) -> Sight:
        """Return a sight with the dense head's own probabilities."""
        return Sight(outputs=self._outputs[index].astype(np.float32), shown=self._shown[index])

    def save(self, path: Path) -> None:
        """Write what was seen."""
        things = [
            (index, thing.concept, *thing.box)
            for index, shown in enumerate(self._shown)
            for thing in shown
        ]
        keep(path, outputs=self._outputs, things=np.array(things, np.float64))

    @classmethod
    def load(cls, path: Path) -> "Sights":
        """Read what was seen."""
        with np.load(path) as kept:
            outputs, things = kept["outputs"], kept["things"]
        shown: list[list[Shown]] = [[] for _ in range(len(outputs))]
        for index, concept, x0, y0, x1, y1 in things.tolist():
            shown[int(index)].append(Shown(concept=int(concept), box=(x0, y0, x1, y1)))
        return cls(outputs, [tuple(each) for each in shown])


def any_sight(rng: np.random.Generator, seen: Sights | None, imagine: float) -> Sight:
    """Return an imagined sight, in this share of cases, or a real one as another drawing style would have made it."""
    if seen is None or rng.random() < imagine:
        return imagined(rng)
    raw = seen.raw(int(rng.integers(len(seen))))
    lift = rng.uniform(-0.6, 0.6) + rng.normal(0, 0.3, len(CONCEPTS))
    outputs = eased(raw.outputs, gain=rng.uniform(0.75, 1.1), lift=lift)
    return Sight(outputs=outputs, shown=raw.shown)
