"""Dual encoders as a cheap first pass: how much nearer a picture lies to what violates.

Every policy's texts are embedded once; a picture costs one pass through the image side. The score
is the margin between the nearest text that violates and the nearest that is allowed, scaled as the
model itself scales similarities.
"""

from collections.abc import Sequence
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModel

from policies.question import Part, Question
from workers import weights
from workers.classifier import Classification, Item, Rationale, asked, outdoes
from workers.errors import CheckpointError
from workers.processors import load_processor
from workers.spec import ClassifierSpec

#: What an ordinary upload is like, for the side of what is allowed.
ORDINARY: Final = (
    "an ordinary photo",
    "an everyday picture of people",
    "a landscape",
    "food on a table",
    "an animal",
    "a screenshot",
)


class ContrastiveClassifier:
    """CLIP, SigLIP or SigLIP 2; reads images only."""

    def __init__(self, spec: ClassifierSpec) -> None:
        self._spec = spec
        weights.check_options(spec, weights.LOADING | {"ordinary"})
        folder = weights.folder_of(spec)
        self.model = weights.model_of(AutoModel, spec, folder)
        if not hasattr(self.model, "get_image_features") or not hasattr(self.model, "logit_scale"):
            raise CheckpointError(
                "checkpoint",
                f"classifier {spec.name}: {type(self.model).__name__} is no dual encoder;"
                " contrastive takes CLIP, SigLIP and SigLIP 2",
            )
        self._processor = load_processor(folder)
        self._ordinary = tuple(spec.options.get("ordinary", ORDINARY))
        self._texts: dict[str, tuple[Tensor, Tensor]] = {}
        self._digest = weights.digest(
            {
                "engine": 1,
                "model": spec.model,
                "revision": weights.revision_of(folder),
                "dtype": str(self.model.dtype),
                **weights.loading_of(spec),
                "attention": weights.attention_of(self.model),
                "processor": self._processor.image_processor.to_dict(),
                "ordinary": self._ordinary,
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
        """Only images: it sees no relation between a picture and its caption."""
        return frozenset({"image"})

    def covers(self, question: Question) -> bool:
        """Return whether the question can be about an image and configuration lets it be asked."""
        return self._spec.asks(question) and "image" in question.reads

    def classify(
        self, items: Sequence[Item], questions: Sequence[Question]
    ) -> list[list[Classification]]:
        """Return one list of classifications an item, the highest over its pictures."""
        covered = [question for question in questions if self.covers(question)]
        places = [
            (number, picture) for number, item in enumerate(items) for picture in item.pictures
        ]
        best: list[dict[str, Classification]] = [{} for _ in items]
        if covered and places:
            images = self._images([Image.fromarray(picture.pixels) for _, picture in places])
            for question in covered:
                for (number, picture), score in zip(
                    places, self._margins(images, question), strict=True
                ):
                    held = best[number].get(question.id)
                    if held is None or outdoes(score, held.score):
                        best[number][question.id] = Classification(
                            question=question.id,
                            score=score,
                            media=picture.media,
                            time_s=picture.time_s,
                        )
        return [
            [
                best[number][question.id]
                for question in covered
                if asked(question, item, self.reads) and question.id in best[number]
            ]
            for number, item in enumerate(items)
        ]

    def explain(
        self, item: Item, findings: Sequence[tuple[Question, Classification]]
    ) -> list[Rationale]:
        """Return nothing: a distance has no reasons."""
        del item, findings
        return []

    def _margins(self, images: Tensor, question: Question) -> list[float]:
        violates, allowed = self._embedded(question)
        scale = float(self.model.logit_scale.detach().exp())
        with torch.inference_mode():
            near = (images @ violates.T).amax(1) - (images @ allowed.T).amax(1)
        margins: list[float] = (near * scale).tolist()
        return margins

    def _embedded(self, question: Question) -> tuple[Tensor, Tensor]:
        """Return the embedded texts of what violates and of what is allowed, made once."""
        if question.digest not in self._texts:
            violates = [clause.text for clause in question.forbidden]
            violates += [text for clause in question.forbidden for text in clause.examples]
            allowed = [exempt.text for exempt in question.allowed] + list(self._ordinary)
            self._texts[question.digest] = (self._words(violates), self._words(allowed))
        return self._texts[question.digest]

    def _words(self, texts: list[str]) -> Tensor:
        # SigLIP was trained on texts padded to their full length, and judges others worse.
        padding = "max_length" if "siglip" in self.model.config.model_type else True
        inputs = self._processor.tokenizer(
            texts,
            padding=padding,
            truncation=True,
            max_length=self.model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        names = {"input_ids", "attention_mask"}
        held = {k: v.to(self.model.device) for k, v in inputs.items() if k in names}
        with torch.inference_mode():
            return _unit(self.model.get_text_features(**held))

    def _images(self, images: list[Image.Image]) -> Tensor:
        inputs = self._processor.image_processor(images=images, return_tensors="pt")
        held: dict[str, Any] = {
            name: value.to(self.model.device, self.model.dtype)
            if value.is_floating_point()
            else value.to(self.model.device)
            for name, value in inputs.items()
        }
        with torch.inference_mode():
            return _unit(self.model.get_image_features(**held))


def _unit(features: Any) -> Tensor:
    """Return features of length one; transformers gives a tensor or an output that holds it."""
    tensor: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return torch.nn.functional.normalize(tensor.float(), dim=-1)
