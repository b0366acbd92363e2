"""Guard models as classifiers, each asked in its own dialect on the shared prefix."""

from collections.abc import Sequence
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageClassification, AutoModelForImageTextToText

from policies.question import Part, Question
from workers import prompt, weights
from workers.classifier import Classification, Item, Picture, Rationale, asked, outdoes
from workers.dialects import Asked, Dialect, Judged, dialect_for, joint
from workers.dialogue import QUESTION, Dialogue
from workers.errors import CheckpointError
from workers.families import FAMILIES, UNKNOWN, Family
from workers.passes import Passes, Row
from workers.processors import described, load_processor
from workers.scoring import Scorer
from workers.spec import ClassifierSpec

#: The model type whose family a guard shares, where its own name is not in the table.
_KIN: Final = {"shieldgemma2": "gemma3"}


class GuardDialogue(Dialogue):
    """Renders a guard's own turn: image, content, and what it is asked."""

    def __init__(self, processor: Any, family: Family, dialect: Dialect) -> None:
        self._dialect = dialect
        self.words = (dialect.violates, dialect.allowed)
        super().__init__(processor, family)

    def turn(self, shared: prompt.Prefix) -> list[dict[str, Any]]:
        """Return the conversation with marks where content and question stand."""
        if isinstance(self._dialect, Asked):
            parts = [shared.content, QUESTION] if self._dialect.content else [QUESTION]
        else:
            parts = [shared.content, self._dialect.policy]
        text = "\n".join(part for part in parts if part)
        images = ({"type": "image"} for _ in range(shared.images))
        return [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]

    def framed(self, shared: prompt.Prefix) -> str:
        """Return the whole prompt; a verdict comes after it, and that is what is continued."""
        text = super().framed(shared)
        return text if isinstance(self._dialect, Asked) else text + QUESTION

    def before_answer(self) -> str:
        """Return the text right before the deciding word."""
        if isinstance(self._dialect, Asked):
            return super().before_answer()
        return self._dialect.lead


class GuardClassifier:
    """A guard model: covers what a policy maps to its categories, and nothing else."""

    def __init__(self, spec: ClassifierSpec) -> None:
        self._spec = spec
        weights.check_options(
            spec, weights.LOADING | {"dialect", "policy_text", "lead", "yes", "no", "token_budget"}
        )
        folder = weights.folder_of(spec)
        config = weights.config_of(folder)
        kind = str(config.get("model_type"))
        processor = load_processor(folder)
        self.dialect = dialect_for(spec.options.get("dialect"), kind, spec.options, processor)
        if kind == "shieldgemma2":
            self.model = weights.model_of(AutoModelForImageClassification, spec, folder).model
        else:
            self.model = weights.model_of(AutoModelForImageTextToText, spec, folder)
        family = FAMILIES.get(_KIN.get(kind, kind), UNKNOWN)
        if family.tier == "B":
            family = UNKNOWN
        self.dialogue = GuardDialogue(_plain_call(processor), family, self.dialect)
        self.scorer = Scorer(
            self.model, self.dialogue, family, budget=spec.options.get("token_budget")
        )
        self._digest = weights.digest(
            {
                "engine": 1,
                "model": spec.model,
                "revision": weights.revision_of(folder),
                "dtype": str(self.model.dtype),
                **weights.loading_of(spec),
                "quantisation": config.get("quantization_config"),
                "attention": weights.attention_of(self.model),
                "processor": described(processor),
                "dialect": repr(self.dialect),
                "template": self.dialogue.template,
                "prompt": prompt.TEMPLATE,
                "reads": sorted(self.reads),
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
        """Which parts of an upload this classifier can look at."""
        parts: frozenset[Part] = frozenset(self._spec.reads)
        blind = isinstance(self.dialect, Asked) and not self.dialect.content
        return parts - {"caption"} if blind else parts

    def covers(self, question: Question) -> bool:
        """Return whether the policy maps to one of the guard's categories."""
        if not self._spec.asks(question) or not question.reads & self.reads:
            return False
        if isinstance(self.dialect, Asked):
            return self.dialect.words(question) is not None
        return self.dialect.category(question) is not None

    def classify(
        self, items: Sequence[Item], questions: Sequence[Question]
    ) -> list[list[Classification]]:
        """Return one list of classifications an item, the highest over its pictures."""
        covered = [question for question in questions if self.covers(question)]
        return [self._item(item, covered) for item in items]

    def explain(
        self, item: Item, findings: Sequence[tuple[Question, Classification]]
    ) -> list[Rationale]:
        """Return nothing: a guard's prose is bound to its own categories, not to clauses."""
        del item, findings
        return []

    def _item(self, item: Item, questions: Sequence[Question]) -> list[Classification]:
        wanted = [question for question in questions if asked(question, item, self.reads)]
        if not wanted:
            return []
        best: dict[str, Classification] = {}
        for picture in item.pictures or (None,):
            for question, score in zip(wanted, self._scores(item, picture, wanted), strict=True):
                if question.id not in best or outdoes(score, best[question.id].score):
                    best[question.id] = Classification(
                        question=question.id,
                        score=score,
                        media=None if picture is None else picture.media,
                        time_s=None if picture is None else picture.time_s,
                    )
        return [best[question.id] for question in wanted]

    def _scores(
        self, item: Item, picture: Picture | None, questions: Sequence[Question]
    ) -> list[float]:
        caption = item.caption if "caption" in self.reads else ""
        row = Row(
            shared=prompt.Prefix(
                system="",
                images=0 if picture is None else 1,
                content="\n".join(filter(None, (caption, item.text_in_image))),
            ),
            image=None if picture is None else Image.fromarray(picture.pixels),
            asked=tuple(range(len(questions))),
        )
        if isinstance(self.dialect, Asked):
            texts = [self.dialect.words(question) or "" for question in questions]
            return [odds.score for odds in self.scorer.score([row], texts)[0]]
        return self._judged(self.dialect, row, questions)

    def _judged(self, dialect: Judged, row: Row, questions: Sequence[Question]) -> list[float]:
        """Return the joint log-odds of an unsafe verdict and each question's category."""
        said = [dialect.lead, dialect.lead + dialect.violates + dialect.then]
        with torch.inference_mode():
            verdict, numbers = next_logits(self.scorer.passes, row, said)
        unsafe = verdict[self.dialogue.yes] - verdict[self.dialogue.no]
        tokens = {
            number: self.dialogue.first_token(said[1], number)
            for number in dialect.categories.values()
        }
        if len(set(tokens.values())) < len(tokens):
            raise CheckpointError(
                "dialect", f"the tokenizer of {self.name} does not keep category numbers apart"
            )
        shares = numbers[list(tokens.values())].softmax(-1).tolist()
        by_number = dict(zip(tokens, shares, strict=True))
        return [
            joint(float(unsafe), by_number[dialect.category(question) or ""])
            for question in questions
        ]


def next_logits(passes: Passes, row: Row, said: Sequence[str]) -> list[Tensor]:
    """Return the logits of the token after each of several beginnings of the answer."""
    head = passes.model.get_output_embeddings()
    if passes.family.tier == "A":
        shared = passes.prefix([row])
        suffixes = [passes.dialogue.suffix(text, images=row.shared.images) for text in said]
        return list(head(passes.hidden(shared, suffixes, "expanded")[0]).float())
    found = []
    for text in said:
        inputs = passes.inputs([passes.dialogue.whole(row.shared, text)], [row])
        found.append(passes.model(**inputs).logits[0, -1].float())
    return found


def _plain_call(processor: Any) -> Any:
    """Return a processor that takes text and images as others do.

    ShieldGemma 2's own makes one prompt, and one copy of the image, for each of its policies.
    """
    if type(processor).__name__ != "ShieldGemma2Processor":
        return processor
    from transformers import Gemma3Processor

    return Gemma3Processor(
        image_processor=processor.image_processor,
        tokenizer=processor.tokenizer,
        chat_template=processor.chat_template,
        image_seq_length=processor.image_seq_length,
    )
