"""What many questions on one image cost: shared prefixes against every plain way of asking."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from PIL import Image

from workers import prompt
from workers.dialogue import Dialogue
from workers.families import FAMILIES
from workers.passes import Method, Row
from workers.random_models import Shape, build, vision_tokens
from workers.scoring import Scorer

#: Shortest question, in tokens, that counts as of a policy's length.
LEAST_TOKENS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Seconds for one image under so many questions, by each way of asking."""

    questions: int
    shared_s: float
    #: CPU time of this process, all its threads; other work on the machine disturbs it less than the clock's.
    shared_cpu_s: float
    #: The plain ways; None where they were left out.
    one_by_one_s: float | None
    one_batch_s: float | None
    #: ShieldGemma 2's own path: image and prompt once more for every policy; Gemma's family only.
    replicated_s: float | None
    #: What the saving against one by one would be if only arithmetic counted.
    ideal: float
    method: str

    @property
    def saving(self) -> float | None:
        """How many times faster than one by one."""
        return None if self.one_by_one_s is None else self.one_by_one_s / self.shared_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What was measured on what."""

    shape: Shape
    device: str
    dtype: str
    parameters: int
    image_px: int
    prefix_tokens: int
    question_tokens: float
    vision_tokens: float


def use_threads(count: int) -> None:
    """Let the CPU work with so many threads."""
    torch.set_num_threads(count)


def steps(counts: Sequence[int], *, repeats: int, plain: bool) -> int:
    """Return how many questions will be answered in all, for a progress bar."""
    shared = (1 + repeats) * sum(counts)
    return shared + max(counts) + sum(counts) if plain else shared


def measure(  # noqa: PLR0913 -- one argument an option of the command
    asks: Sequence[str],
    counts: Sequence[int],
    *,
    shape: Shape,
    device: str,
    dtype: Literal["float32", "bfloat16"],
    image_px: int,
    repeats: int,
    plain: bool = True,
    method: Method | None = None,
    wording: prompt.Wording = "full",
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[Setting, list[Measured]]:
    """Return the figures of a model of this shape with random weights; `advance` is told of questions answered.

    Each plain way is run once a number of questions, however often the shared one is repeated: they take many times as
    long, and so vary less. Asking one by one is one run over the longest list, added up question by question.
    """
    model, processor = build(shape, asks, device=device, dtype=getattr(torch, dtype))
    family = FAMILIES[str(model.config.model_type)]
    scorer = Scorer(model, Dialogue(processor, family), family, method=method)
    noise = np.random.default_rng(0).integers(0, 255, (image_px, image_px, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    shared = prompt.prefix(
        images=1, caption="For sale, as good as new, message me.", wording=wording
    )
    long_enough = [
        ask for ask in asks if len(scorer.dialogue.suffix(ask, images=1)) >= LEAST_TOKENS
    ]
    if len(long_enough) < max(counts):
        raise ValueError(
            f"{len(long_enough)} questions of {LEAST_TOKENS} tokens or more, {max(counts)} wanted"
        )
    row = Row(shared=shared, image=image, asked=())
    with torch.inference_mode():
        inputs = scorer.passes.inputs([scorer.dialogue.prefix(shared)], [row])
    prefix = int(inputs["attention_mask"].sum())
    length = statistics.fmean(
        len(scorer.dialogue.suffix(ask, images=1)) for ask in long_enough[: max(counts)]
    )
    seen = vision_tokens(model, _patches(model, inputs))
    setting = Setting(
        shape=shape,
        device=torch.cuda.get_device_name() if device == "cuda" else device,
        dtype=dtype,
        parameters=sum(p.numel() for p in model.parameters()),
        image_px=image_px,
        prefix_tokens=prefix,
        question_tokens=length,
        vision_tokens=seen,
    )
    bench = _Bench(scorer, row, long_enough, repeats, advance)
    slow = list(bench.one_by_one(max(counts))) if plain else []
    figures = []
    for count in counts:
        ideal = count * (seen + prefix + length) / (seen + prefix + count * length)
        figures.append(bench.run(count, ideal, slow[:count]))
    return setting, figures


class _Bench:
    def __init__(
        self,
        scorer: Scorer,
        row: Row,
        asks: Sequence[str],
        repeats: int,
        advance: Callable[[int], None],
    ) -> None:
        self._scorer = scorer
        self._row = row
        self._asks = asks
        self._repeats = repeats
        self._advance = advance

    def one_by_one(self, count: int) -> Iterator[float]:
        """Yield the time that each of so many questions takes alone."""
        texts = [self._scorer.dialogue.whole(self._row.shared, ask) for ask in self._asks[:count]]
        self._scorer.whole([self._row], texts[:1])  # the first pass of a process takes longer
        for text in texts:
            for wall_s, _ in _timed(partial(self._scorer.whole, [self._row], [text]), 1):
                yield wall_s
            self._advance(1)

    def run(self, count: int, ideal: float, alone_s: Sequence[float]) -> Measured:
        """Return the figures for so many questions, given what they take alone; empty: no plain way is measured."""
        row = Row(shared=self._row.shared, image=self._row.image, asked=tuple(range(count)))
        asks = self._asks[:count]
        texts = [self._scorer.dialogue.whole(row.shared, ask) for ask in asks]
        self._scorer.score([row], asks)  # measures the ways of sharing, once a shape
        self._advance(count)
        shared = []
        for figures in _timed(lambda: self._scorer.score([row], asks), self._repeats):
            shared.append(figures)
            self._advance(count)
        shared_s, shared_cpu_s = (statistics.median(times) for times in zip(*shared, strict=True))
        one_batch_s = None
        if alone_s:
            ((one_batch_s, _),) = _timed(lambda: self._scorer.whole([row] * count, texts), 1)
            self._advance(count)
        gemma = self._scorer.model.config.model_type == "gemma3"
        return Measured(
            questions=count,
            shared_s=shared_s,
            shared_cpu_s=shared_cpu_s,
            one_by_one_s=sum(alone_s) if alone_s else None,
            one_batch_s=one_batch_s,
            # Its processor does just this: the image again for every policy, all in one batch.
            replicated_s=one_batch_s if gemma else None,
            ideal=ideal,
            method=self._scorer.chosen(count),
        )


def _timed(work: Callable[[], object], repeats: int) -> Iterator[tuple[float, float]]:
    """Yield the time by the clock and of the CPU that each run takes."""
    for _ in range(repeats):
        _finish()
        began, began_cpu = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            work()
        _finish()
        yield time.perf_counter() - began, time.process_time() - began_cpu


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _patches(model: object, inputs: dict[str, torch.Tensor]) -> int:
    """Return how many patches the vision tower sees."""
    pixels = inputs["pixel_values"]
    if "image_grid_thw" in inputs:
        return int(pixels.shape[0])
    patch = int(model.config.vision_config.patch_size)  # type: ignore[attr-defined]
    return int(pixels.numel() / 3 / patch / patch)
