"""Guard models as classifiers, each asked in its own dialect on the shared prefix."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AutoModelForImageClassification, AutoModelForImageTextToText

from policies.question import Part, Question
from workers import prompt, weights
from workers.classifier import Classification, Item, Rationale, outdoes
from workers.dialects import Asked, Dialect, Judged, dialect_for, joint
from workers.dialogue import QUESTION, Dialogue
from workers.errors import CheckpointError
from workers.families import FAMILIES, UNKNOWN, Family
from workers.generative import Sheet
from workers.passes import Passes, Row
from workers.processors import described, load_processor
from workers.scoring import Scorer
from workers.spec import ClassifierSpec
from workers.trial import holds

#: The model type whose family a guard shares, where its own name is not in the table.
_KIN: Final = {"shieldgemma2": "gemma3"}
#: Raised when the same checkpoint and prompt would give other scores than before.
_ENGINE: Final = 2


class GuardDialogue(Dialogue):
    """Renders a guard's own turn: image, content, and what it is asked."""

    def __init__(self, processor: Any, family: Family, dialect: Dialect) -> None:
        self._dialect = dialect
        self.words = (dialect.violates, dialect.allowed)
        super().__init__(processor, family)

    def turn(self, shared: prompt.Prefix) -> list[dict[str, Any]]:
        """Return the conversation with marks where content and question stand."""
        if isinstance(self._dialect, Asked):
            text = f"{shared.content}{QUESTION}" if self._dialect.content else QUESTION
        else:
            text = f"{shared.content}{self._dialect.policy}"
        images = ({"type": "image"} for _ in range(shared.images))
        return [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]

    def prefix(self, shared: prompt.Prefix) -> str:
        """Return the text of the shared part; content, where there is any, is a line of its own before what follows."""
        followed = isinstance(self._dialect, Asked) or self._dialect.policy
        if shared.content and followed:
            shared = replace(shared, content=f"{shared.content}\n")
        return super().prefix(shared)

    def framed(self, shared: prompt.Prefix) -> str:
        """Return the whole prompt; a verdict comes after it, and that is what is continued."""
        text = super().framed(shared)
        return text if isinstance(self._dialect, Asked) else text + QUESTION

    def before_answer(self) -> str:
        """Return the text right before the deciding word."""
        if isinstance(self._dialect, Asked):
            return super().before_answer()
        return self._dialect.lead


class Contents(Sheet):
    """A guard's rows: it was trained on content as it was written, not as a quotation."""

    def shared(self, *, images: int, caption: str, text_in_image: str) -> prompt.Prefix:
        """Return the content of one row."""
        content = "\n".join(filter(None, (caption, text_in_image)))
        return prompt.Prefix(system="", images=images, content=content)


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
        self._processor = _plain_call(processor)
        self.family: Family = FAMILIES.get(_KIN.get(kind, kind), UNKNOWN)
        if self.family.tier == "B":
            self.family = UNKNOWN
        self.scorer = self._scorer(self.family)
        if self.family.tier != "C" and not holds(self.scorer, images="image" in spec.reads):
            self.family = UNKNOWN
            self.scorer = self._scorer(self.family)
        self._digest = weights.digest(
            {
                "engine": _ENGINE,
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
        sheet = Contents(self.reads)
        for number, item in enumerate(items):
            sheet.add(number, item, covered)
        best: list[dict[int, Classification]] = [{} for _ in items]
        for entry, scores in zip(sheet.entries, self._scores(sheet.rows, covered), strict=True):
            picture = entry.picture
            for ask, score in zip(entry.row.asked, scores, strict=True):
                found = best[entry.item].get(ask)
                if found is None or outdoes(score, found.score):
                    best[entry.item][ask] = Classification(
                        question=covered[ask].id,
                        score=score,
                        media=None if picture is None else picture.media,
                        time_s=None if picture is None else picture.time_s,
                    )
        return [[answers[ask] for ask in sorted(answers)] for answers in best]

    def explain(
        self, item: Item, findings: Sequence[tuple[Question, Classification]]
    ) -> list[Rationale]:
        """Return nothing: a guard's prose is bound to its own categories, not to clauses."""
        del item, findings
        return []

    def _scorer(self, family: Family) -> Scorer:
        self.dialogue = GuardDialogue(self._processor, family, self.dialect)
        return Scorer(
            self.model, self.dialogue, family, budget=self._spec.options.get("token_budget")
        )

    def _scores(self, rows: Sequence[Row], questions: Sequence[Question]) -> list[list[float]]:
        if isinstance(self.dialect, Asked):
            texts = [self.dialect.words(question) or "" for question in questions]
            return [[odds.score for odds in row] for row in self.scorer.score(rows, texts)]
        return [
            self._judged(self.dialect, row, [questions[ask] for ask in row.asked]) for row in rows
        ]

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
