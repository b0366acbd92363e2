"""Plain image and text classifiers: their labels stand for policies by configuration."""

from collections.abc import Sequence
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from policies.question import Part, Question
from workers import weights
from workers.classifier import Classification, Item, Rationale, asked
from workers.errors import CheckpointError
from workers.spec import ClassifierSpec

#: Most tokens of a caption, however many the model could read.
_LONGEST: Final = 4096


class LabelClassifier:
    """A model with fixed labels: the score is the log-odds of a policy's labels against the rest."""

    def __init__(self, spec: ClassifierSpec) -> None:
        self._spec = spec
        weights.check_options(spec, weights.LOADING)
        folder = weights.folder_of(spec)
        sees = spec.kind == "image"
        self._reads: frozenset[Part] = frozenset({"image"} if sees else {"caption"})
        kind = AutoModelForImageClassification if sees else AutoModelForSequenceClassification
        self.model = weights.model_of(kind, spec, folder)
        local = {"local_files_only": True, "trust_remote_code": False}
        self._processor: Any = (
            AutoImageProcessor.from_pretrained(folder, backend="pil", **local)
            if sees
            else AutoTokenizer.from_pretrained(folder, **local)
        )
        self._longest = 0 if sees else min(self._processor.model_max_length, _places(self.model))
        self._rows = self._labels()
        self._many = self.model.config.problem_type == "multi_label_classification"
        self._digest = weights.digest(
            {
                "engine": 1,
                "model": spec.model,
                "revision": weights.revision_of(folder),
                "dtype": str(self.model.dtype),
                **weights.loading_of(spec),
                "attention": weights.attention_of(self.model),
                "processor": self._processor.to_dict() if sees else None,
                "labels": sorted(spec.labels.items()),
                **({} if sees else {"longest": self._longest}),
            }
        )

    @property
    def name(self) -> str:
        """The name that configuration gives this classifier."""
        return self._spec.name

    @property
    def digest(self) -> str:
        """`sha256:…` of all that a calibration depends on."""
        return self._digest

    @property
    def reads(self) -> frozenset[Part]:
        """Images or captions, never both."""
        return self._reads

    def covers(self, question: Question) -> bool:
        """Return whether a label is mapped to the question or to its policy."""
        mapped = question.id in self._rows
        return mapped and self._spec.asks(question) and bool(question.reads & self._reads)

    def classify(
        self, items: Sequence[Item], questions: Sequence[Question]
    ) -> list[list[Classification]]:
        """Return one list of classifications an item, the highest over its pictures."""
        covered = [question for question in questions if self.covers(question)]
        found: list[list[Classification]] = []
        for item in items:
            wanted = [question for question in covered if asked(question, item, self._reads)]
            found.append(self._item(item, wanted) if wanted else [])
        return found

    def explain(
        self, item: Item, findings: Sequence[tuple[Question, Classification]]
    ) -> list[Rationale]:
        """Return nothing: a label has no reasons."""
        del item, findings
        return []

    def _item(self, item: Item, questions: Sequence[Question]) -> list[Classification]:
        answers = []
        logits = self._logits(item)
        for question in questions:
            scores = _log_odds(logits, self._rows[question.id], many=self._many)
            top = int(scores.argmax())
            picture = item.pictures[top] if "image" in self._reads else None
            answers.append(
                Classification(
                    question=question.id,
                    score=float(scores[top]),
                    media=None if picture is None else picture.media,
                    time_s=None if picture is None else picture.time_s,
                )
            )
        return answers

    def _logits(self, item: Item) -> Tensor:
        if "image" in self._reads:
            images = [Image.fromarray(picture.pixels) for picture in item.pictures]
            inputs = self._processor(images=images, return_tensors="pt")
        else:
            text = "\n".join(filter(None, (item.caption, item.text_in_image)))
            inputs = self._processor(
                [text], truncation=True, max_length=self._longest, return_tensors="pt"
            )
        held = {
            name: value.to(self.model.device, self.model.dtype)
            if value.is_floating_point()
            else value.to(self.model.device)
            for name, value in inputs.items()
        }
        with torch.inference_mode():
            logits: Tensor = self.model(**held).logits.float()
        return logits

    def _labels(self) -> dict[str, list[int]]:
        """Return question (or policy) -> the numbers of its labels.

        Raises:
            CheckpointError: a mapped label is not one of the model's.
        """
        numbers = {name: number for number, name in self.model.config.id2label.items()}
        rows: dict[str, list[int]] = {}
        for label, policy in self._spec.labels.items():
            if label not in numbers:
                told = ", ".join(sorted(numbers)[:20])
                raise CheckpointError(
                    "labels",
                    f"classifier {self._spec.name} has no label {label!r}; it has {told}",
                )
            rows.setdefault(policy, []).append(int(numbers[label]))
        full = [policy for policy, held in rows.items() if len(held) == len(numbers) > 1]
        if full:
            raise CheckpointError(
                "labels", f"every label of {self._spec.name} means {full[0]}: nothing is a No"
            )
        return rows


def _places(model: Any) -> int:
    """Return how many tokens a text model has places for."""
    places = int(getattr(model.config, "max_position_embeddings", 512))
    for name, module in model.named_modules():
        padding: int | None = getattr(module, "padding_idx", None)
        # RoBERTa and its kin count places from behind the mark of padding.
        if name.endswith(".position_embeddings") and padding is not None:
            return min(places - padding - 1, _LONGEST)
    return min(places, _LONGEST)


def _log_odds(logits: Tensor, rows: Sequence[int], *, many: bool) -> Tensor:
    """Return the log-odds of any of these labels, for each row of logits."""
    if many:  # labels that may hold together: none of them holds with the product of their Noes
        none = torch.nn.functional.logsigmoid(-logits[:, rows]).sum(1)
        return torch.log(-torch.expm1(none).clamp(max=-1e-12)) - none
    others = [number for number in range(logits.shape[1]) if number not in rows]
    if logits.shape[1] == 1:
        return logits[:, 0]
    return logits[:, rows].logsumexp(1) - logits[:, others].logsumexp(1)
