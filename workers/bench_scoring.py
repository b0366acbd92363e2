"""What many questions on one image cost: shared prefixes against every plain way of asking."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from workers import prompt
from workers.arithmetic import Arithmetic, peak_of
from workers.attention import tree_of
from workers.dialogue import Dialogue
from workers.families import FAMILIES
from workers.passes import Method, Row
from workers.random_models import Shape, build, guard_of
from workers.scoring import Scorer

#: Shortest question, in tokens, that counts as of a policy's length.
LEAST_TOKENS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Seconds for a batch of images under so many questions each, by each way of asking."""

    questions: int
    images: int
    #: The median of what a batch takes.
    shared_s: float
    #: What 99 of 100 batches stay within; of few repeats the longest.
    shared_p99_s: float
    #: CPU time of this process, all its threads; other work on the machine disturbs it less than the clock's.
    shared_cpu_s: float
    #: What of it a processor takes for a batch's pictures; nothing where they were prepared before the clock started.
    preparing_s: float
    #: The plain ways, for one image; None where they were left out.
    one_by_one_s: float | None
    one_batch_s: float | None
    #: ShieldGemma 2's own processor and classifier, for one image: image and prompt once more for
    #: every policy, and pictures made anew for each; Gemma's family only.
    replicated_s: float | None
    #: What the saving against one by one would be if only arithmetic counted.
    ideal: float
    #: FLOPs of a batch, by the way that was taken.
    flops: float
    #: The share of the device's peak that they make; None where the peak is unknown.
    utilisation: float | None
    method: str

    @property
    def image_s(self) -> float:
        """Seconds for one image of the batch."""
        return self.shared_s / self.images

    @property
    def saving(self) -> float | None:
        """How many times faster than one by one."""
        return None if self.one_by_one_s is None else self.one_by_one_s / self.image_s


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
    #: FLOPs of the vision tower for one image, and of the prefix behind it.
    tower_flops: float
    prefix_flops: float
    #: The device's peak in TFLOP/s.
    peak_tflops: float | None
    #: Whether pictures were prepared before the clock started, so that figures are the model's alone.
    prepared: bool
    #: How many images a batch has that is asked one by one.
    plain_images: int


def use_threads(count: int) -> None:
    """Let the CPU work with so many threads."""
    torch.set_num_threads(count)


def steps(
    counts: Sequence[int], *, repeats: int, plain: bool, images: int = 1, methods: int = 1
) -> int:
    """Return how many questions will be answered in all, for a progress bar."""
    shared = (1 + repeats) * sum(counts) * images * methods
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
    images: int = 1,
    peak_tflops: float | None = None,
    plain: bool = True,
    plain_images: int = 1,
    methods: Sequence[Method | None] = (None,),
    prepared: bool = False,
    wording: prompt.Wording = "full",
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[Setting, list[Measured]]:
    """Return the figures of a model of this shape with random weights; `advance` is told of questions answered.

    There is one for each number of questions and each way of sharing; None is the fastest, measured first.
    Each plain way is run once a number of questions, however often the shared one is repeated: they take many times as
    long, and so vary less. Asking one by one is one run over the longest list, added up question by question.
    """
    model, processor = build(shape, asks, device=device, dtype=getattr(torch, dtype))
    family = FAMILIES[str(model.config.model_type)]
    dialogue = Dialogue(_Remembering(processor) if prepared else processor, family)
    scorers = [Scorer(model, dialogue, family, method=method) for method in methods]
    scorer = scorers[0]
    random = np.random.default_rng(0)
    pictures = [
        Image.fromarray(random.integers(0, 255, (image_px, image_px, 3), dtype=np.uint8))
        for _ in range(images)
    ]
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
    rows = [Row(shared=shared, image=picture, asked=()) for picture in pictures]
    with torch.inference_mode():
        inputs = scorer.passes.inputs([scorer.dialogue.prefix(shared)], rows[:1])
    prefix = int(inputs["attention_mask"].sum())
    length = statistics.fmean(
        len(scorer.dialogue.suffix(ask, images=1)) for ask in long_enough[: max(counts)]
    )
    arithmetic = Arithmetic.of(model, patches=_patches(model, inputs), prefix=prefix)
    told = torch.cuda.get_device_name() if device == "cuda" else device
    setting = Setting(
        shape=shape,
        device=told,
        dtype=dtype,
        parameters=sum(p.numel() for p in model.parameters()),
        image_px=image_px,
        prefix_tokens=prefix,
        question_tokens=length,
        tower_flops=arithmetic.tower,
        prefix_flops=arithmetic.beginning - arithmetic.tower,
        peak_tflops=peak_of(told) if peak_tflops is None else peak_tflops,
        prepared=prepared,
        plain_images=min(plain_images, images),
    )
    benches = [
        _Bench(one, processor, rows, long_enough, arithmetic, setting, repeats, advance)
        for one in scorers
    ]
    slow = list(benches[0].one_by_one(max(counts))) if plain else []
    crowd = {count: benches[0].at_once(count) for count in counts} if plain else {}
    return setting, [
        replace(bench.run(count, slow[:count]), **crowd.get(count, {}))  # type: ignore[arg-type]
        for count in counts
        for bench in benches
    ]


class _Remembering:
    """A processor that prepares the same texts and pictures once."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._made: dict[Any, Any] = {}

    def __call__(self, *, text: Any, images: Any = (), **arguments: Any) -> Any:
        key = (str(text), tuple(id(image) for each in images for image in each))
        if key not in self._made:
            told = {"images": images, **arguments} if images else arguments
            self._made[key] = self._processor(text=text, **told)
        return self._made[key]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)


class _Bench:
    def __init__(
        self,
        scorer: Scorer,
        processor: Any,
        rows: Sequence[Row],
        asks: Sequence[str],
        arithmetic: Arithmetic,
        setting: Setting,
        repeats: int,
        advance: Callable[[int], None],
    ) -> None:
        self._scorer = scorer
        self._processor = processor
        self._rows = rows
        self._asks = asks
        self._arithmetic = arithmetic
        self._setting = setting
        self._repeats = repeats
        self._advance = advance

    def one_by_one(self, count: int) -> Iterator[float]:
        """Yield the time that each of so many questions takes alone, for one image."""
        rows = self._rows[: self._setting.plain_images]
        texts = [self._scorer.dialogue.whole(rows[0].shared, ask) for ask in self._asks[:count]]
        self._whole(rows, texts[:1] * len(rows))  # the first pass of a process takes longer
        for text in texts:
            yield self._whole(rows, [text] * len(rows)) / len(rows)
            self._advance(1)

    def at_once(self, count: int) -> dict[str, float]:
        """Return the time that so many questions about one image take in one batch, nothing shared."""
        row, asks = self._rows[0], self._asks[:count]
        texts = [self._scorer.dialogue.whole(row.shared, ask) for ask in asks]
        took = {"one_batch_s": self._whole([row] * count, texts)}
        if self._scorer.model.config.model_type == "gemma3":
            took["replicated_s"] = self._replicated(row, asks)
        self._advance(count)
        return took

    def _whole(self, rows: Sequence[Row], texts: Sequence[str]) -> float:
        """Return the time that whole prompts take, nothing shared."""
        if self._setting.prepared:
            self._scorer.passes.inputs(texts, rows)
        ((wall_s, _),) = _timed(lambda: self._scorer.whole(rows, texts), 1)
        return wall_s

    def run(self, count: int, alone_s: Sequence[float]) -> Measured:
        """Return the figures for so many questions, given what they take alone; empty: no plain way is measured."""
        rows = [replace(row, asked=tuple(range(count))) for row in self._rows]
        asks = self._asks[:count]
        # Of several pictures the first goes alone at first, and tells what it takes.
        for _ in range(min(len(rows), 2)):
            self._scorer.score(rows, asks)  # measures the ways of sharing, once a shape
        self._advance(count * len(rows))
        shared = []
        for figures in _timed(lambda: self._scorer.score(rows, asks), self._repeats):
            shared.append(figures)
            self._advance(count * len(rows))
        walls, cpus = zip(*shared, strict=True)
        method = self._scorer.chosen(count)
        suffixes = [self._scorer.dialogue.suffix(ask, images=1) for ask in asks]
        flops = len(rows) * self._flops(suffixes, method)
        shared_s = statistics.median(walls)
        peak = self._setting.peak_tflops
        return Measured(
            questions=count,
            images=len(rows),
            shared_s=shared_s,
            shared_p99_s=float(np.quantile(walls, 0.99, method="higher")),
            shared_cpu_s=statistics.median(cpus),
            preparing_s=self._preparing(),
            one_by_one_s=sum(alone_s) if alone_s else None,
            one_batch_s=None,
            replicated_s=None,
            ideal=self._arithmetic.ideal(list(map(len, suffixes))),
            flops=flops,
            utilisation=None if peak is None else flops / shared_s / peak / 1e12,
            method=method,
        )

    def _preparing(self) -> float:
        """Return the time that a processor takes for the batch's pictures."""
        texts = [self._scorer.dialogue.prefix(row.shared) for row in self._rows]
        ((wall_s, _),) = _timed(lambda: self._scorer.passes.inputs(texts, self._rows), 1)
        return 0.0 if self._setting.prepared else wall_s

    def _flops(self, suffixes: Sequence[tuple[int, ...]], method: str) -> float:
        """Return what one image costs in this way: in some, what questions begin with alike runs once."""
        if method in {"packed", "branched"}:
            steps = tree_of(tuple(suffixes), torch.device("cpu")).steps.tolist()
        else:
            steps = [step for suffix in suffixes for step in range(len(suffix))]
        return self._arithmetic.beginning + self._arithmetic.asked(steps)

    def _replicated(self, row: Row, asks: Sequence[str]) -> float:
        """Return what transformers' own ShieldGemma 2 takes for one image and these policies."""
        # A policy is all the text that its turn holds; the template is that of the other ways.
        policies = {
            str(number): f"{row.shared.system}\n{row.shared.content}\n{ask}"
            for number, ask in enumerate(asks)
        }
        dialogue = self._scorer.dialogue
        guard, processor = guard_of(
            self._scorer.model, self._processor, policies, yes=dialogue.yes, no=dialogue.no
        )

        def classify() -> None:
            made = processor(images=[row.image], return_tensors="pt").to(
                self._scorer.device, self._scorer.model.dtype
            )
            # By default it computes the whole output layer for every token, which nothing reads.
            guard(**made, logits_to_keep=1)

        ((wall_s, _),) = _timed(classify, 1)
        return wall_s


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
