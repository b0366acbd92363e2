"""Fitting a checkpoint to one platform: LoRA on answered questions, merged into a checkpoint that loads as any other.

What is learned is exactly what is asked later: the log-odds of Yes against No after the same prompt. Only the language
part learns; a vision tower that a few thousand labels have moved sees worse everywhere else.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from policies.question import Question
from workers import prompt, weights
from workers.classifier import Item
from workers.errors import CheckpointError
from workers.generative import GenerativeClassifier, Sheet
from workers.passes import Row, complete

#: What of a checkpoint's folder is not copied beside the tuned weights.
_NOT_COPIED: Final = {".safetensors", ".bin", ".md"}
_NOT_NAMED: Final = {"model.safetensors.index.json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a checkpoint is tuned.

    Args:
        rank: Of the low-rank updates.
        epochs: How often every answer is learned from.
        rate: The learning rate at its highest; it rises for a tenth of the steps and falls to nothing.
        batch: Questions a step; they are of one upload, or of few.
        seed: Of the order and of the updates' start.
    """

    rank: int = 8
    epochs: int = 3
    rate: float = 2e-4
    batch: int = 8
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One upload with the answers to learn from."""

    item: Item
    answers: tuple[tuple[Question, bool], ...]


@dataclass(frozen=True, slots=True)
class _Lesson:
    row: Row
    text: str
    answer: bool


def tune(
    classifier: GenerativeClassifier,
    examples: Sequence[Example],
    recipe: Recipe,
    folder: Path,
    *,
    source: Path,
    advance: Callable[[float], None] = lambda _: None,
) -> None:
    """Learn from the examples and write the checkpoint into a new folder; the classifier is used up by it.

    Configuration, tokenizer and processor are copied from the folder `source`; `advance` gets each step's loss.

    Raises:
        CheckpointError: there is nothing to learn from, the extra `tune` is missing, or the folder exists.
    """
    if folder.exists():
        raise CheckpointError("tune", f"{folder} exists; name a new folder for the checkpoint")
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as fault:
        raise CheckpointError(
            "tune-missing", "tuning needs `pip install 'weir-moderation[tune]'`"
        ) from fault
    lessons = list(_lessons(classifier, examples))
    answers = {lesson.answer for lesson in lessons}
    if len(answers) < 2:  # noqa: PLR2004 -- both of Yes and No
        raise CheckpointError("tune", "labels of both kinds are needed, and there is only one")
    torch.manual_seed(recipe.seed)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=2 * recipe.rank,
        target_modules=_layers(classifier.model),
        bias="none",
    )
    wrapped = get_peft_model(classifier.model, config)
    _learn(classifier, wrapped, lessons, recipe, advance)
    merged = wrapped.merge_and_unload()
    folder.mkdir(parents=True)
    own = weights.config_of(source)
    kept = getattr(torch, str(own.get("dtype") or own.get("torch_dtype") or "float32"))
    merged.to(kept).save_pretrained(folder, safe_serialization=True)
    for path in source.iterdir():
        # Its own files say what is done to pixels and text; what saving wrote is only weights and configuration.
        named = path.suffix in _NOT_COPIED or path.name in _NOT_NAMED
        if path.is_file() and not named and path.suffix in {".json", ".jinja", ".model", ".txt"}:
            shutil.copyfile(path, folder / path.name)
    (folder / "tuning.json").write_text(json.dumps(asdict(recipe), indent=1) + "\n")


def _learn(
    classifier: GenerativeClassifier,
    wrapped: Any,
    lessons: Sequence[_Lesson],
    recipe: Recipe,
    advance: Callable[[float], None],
) -> None:
    learned = [value for value in wrapped.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=recipe.rate, weight_decay=0.0)
    steps = recipe.epochs * -(-len(lessons) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.rate, total_steps=max(steps, 2), pct_start=0.1
    )
    # Where one answer is rare, always giving the other must not pay.
    yes = sum(lesson.answer for lesson in lessons)
    weight = torch.tensor((len(lessons) - yes) / yes, device=classifier.model.device).clamp(0.2, 5)
    order = np.random.default_rng(recipe.seed)
    wrapped.train()
    for _ in range(recipe.epochs):
        shuffled = [lessons[at] for at in order.permutation(len(lessons))]
        # An image prompt and a text prompt do not share a batch.
        for part in (True, False):
            of_kind = [lesson for lesson in shuffled if (lesson.row.image is not None) == part]
            for begin in range(0, len(of_kind), recipe.batch):
                batch = of_kind[begin : begin + recipe.batch]
                score, _ = classifier.scorer.whole_scores(
                    [lesson.row for lesson in batch], [lesson.text for lesson in batch]
                )
                wanted = score.new_tensor([float(lesson.answer) for lesson in batch])
                loss = binary_cross_entropy_with_logits(score, wanted, pos_weight=weight)
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(learned, 1.0)
                optimiser.step()
                schedule.step() if schedule.last_epoch < steps - 1 else None
                optimiser.zero_grad()
                advance(float(loss.detach()))
    wrapped.eval()


def _lessons(classifier: GenerativeClassifier, examples: Sequence[Example]) -> Iterator[_Lesson]:
    dialogue = classifier.dialogue
    for example in examples:
        questions = [question for question, _ in example.answers if classifier.covers(question)]
        truth = {question.id: answer for question, answer in example.answers}
        sheet = Sheet(classifier.reads, classifier.wording)
        sheet.add(0, example.item, questions)
        for entry in sheet.entries:
            row = complete(entry.row, classifier.family)
            for ask in row.asked:
                text = prompt.suffix(questions[ask], classifier.wording)
                whole = dialogue.whole(row.shared, text)
                yield _Lesson(row, whole, truth[questions[ask].id])


def _layers(model: Any) -> list[str]:
    """Return the linear layers of the language part, its output layer left out."""
    head = model.get_output_embeddings()
    return [
        name
        for name, part in model.named_modules()
        if isinstance(part, torch.nn.Linear)
        and part is not head
        and not any(word in name for word in (*weights.SEEING, "projector", "connector"))
    ]
