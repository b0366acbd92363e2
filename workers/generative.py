"""Any image-text-to-text checkpoint as a classifier: the log-odds of Yes against No."""

from collections.abc import Sequence
from typing import Final, cast, get_args

from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from policies.question import Part, Question
from workers import prompt, weights
from workers.classifier import Classification, Item, Picture, Rationale, asked, outdoes
from workers.dialogue import Dialogue
from workers.errors import CheckpointError
from workers.families import FAMILIES, UNKNOWN, Family
from workers.passes import Row
from workers.processors import described, load_processor
from workers.rationale import Reasons
from workers.scoring import Odds, Scorer
from workers.spec import ClassifierSpec
from workers.trial import holds

#: Raised when the same checkpoint and prompt would give other scores than before.
_ENGINE: Final = 1


class GenerativeClassifier:
    """Asks a vision-language model (or a language model, for text alone) one policy at a time."""

    def __init__(self, spec: ClassifierSpec) -> None:
        self._spec = spec
        weights.check_options(
            spec, weights.LOADING | {"token_budget", "sharing", "mass", "image_backend", "wording"}
        )
        self.wording = _wording_of(spec)
        folder = weights.folder_of(spec)
        config = weights.config_of(folder)
        text_only = spec.kind == "text"
        if text_only:
            self.model = weights.model_of(AutoModelForCausalLM, spec, folder)
            processor = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            self._reads: frozenset[Part] = frozenset({"caption"})
        else:
            self.model = weights.model_of(AutoModelForImageTextToText, spec, folder)
            backend = str(spec.options.get("image_backend", "pil"))
            processor = load_processor(folder, backend=backend)
            self._reads = frozenset(spec.reads)
        self.family: Family = FAMILIES.get(str(config.get("model_type")), UNKNOWN)
        self._processor = processor
        self.scorer = self._scorer(self.family)
        if self.family.tier != "C" and not holds(self.scorer, images=not text_only):
            self.family = UNKNOWN
            self.scorer = self._scorer(self.family)
        self.scorer.keeps = spec.rationales
        self._reasons: Reasons | None = None
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
                "template": self.dialogue.template,
                "prompt": prompt.TEMPLATE
                if self.wording == "full"
                else f"{prompt.TEMPLATE} {self.wording}",
                "reads": sorted(self._reads),
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
        return self._reads

    def covers(self, question: Question) -> bool:
        """Return whether this classifier can judge the question: any that it may be asked."""
        return self._spec.asks(question) and bool(question.reads & self._reads)

    def classify(
        self, items: Sequence[Item], questions: Sequence[Question]
    ) -> list[list[Classification]]:
        """Return one list of classifications an item, the highest over its pictures."""
        questions = [question for question in questions if self.covers(question)]
        asks = [prompt.suffix(question, self.wording) for question in questions]
        sheet = Sheet(self._reads, self.wording)
        for number, item in enumerate(items):
            sheet.add(number, item, questions)
        best: list[dict[int, Classification]] = [{} for _ in items]
        for entry, odds in zip(sheet.entries, self.scorer.score(sheet.rows, asks), strict=True):
            for ask, one in zip(entry.row.asked, odds, strict=True):
                found = best[entry.item].get(ask)
                if found is None or outdoes(one.score, found.score):
                    best[entry.item][ask] = _classification(questions[ask], entry, one)
        return [[answers[ask] for ask in sorted(answers)] for answers in best]

    def explain(
        self, item: Item, findings: Sequence[tuple[Question, Classification]]
    ) -> list[Rationale]:
        """Return a rationale for each finding, in order; empty where they are switched off."""
        if not self._spec.rationales or not findings:
            return []
        if self._reasons is None:
            self._reasons = Reasons(self.scorer, self.wording, reads=self._reads)
        return [self._reasons.explain(item, question, found) for question, found in findings]

    def _scorer(self, family: Family) -> Scorer:
        options = self._spec.options
        self.dialogue = Dialogue(self._processor, family)
        return Scorer(
            self.model,
            self.dialogue,
            family,
            budget=options.get("token_budget"),
            method=options.get("sharing"),
            mass=bool(options.get("mass", False)),
        )


class Entry:
    """One row of a batch, with the item and the picture that it came from."""

    __slots__ = ("item", "picture", "row")

    def __init__(self, item: int, picture: Picture | None, row: Row) -> None:
        self.item = item
        self.picture = picture
        self.row = row


class Sheet:
    """The rows that a batch of items needs: one for each picture and kind of reading.

    A question that reads only images gets a prompt without the caption, so that the same picture
    has the same score whatever is written beside it.
    """

    def __init__(self, reads: frozenset[Part], wording: prompt.Wording = "full") -> None:
        self._wording = wording
        self.entries: list[Entry] = []
        self._reads = reads

    @property
    def rows(self) -> list[Row]:
        """The rows alone, in order."""
        return [entry.row for entry in self.entries]

    def shared(self, *, images: int, caption: str, text_in_image: str) -> prompt.Prefix:
        """Return what all questions about a row share."""
        return prompt.prefix(
            images=images, caption=caption, text_in_image=text_in_image, wording=self._wording
        )

    def add(self, number: int, item: Item, questions: Sequence[Question]) -> None:
        """Add the rows of one item."""
        seen: list[int] = []
        joint: list[int] = []
        written: list[int] = []
        for ask, question in enumerate(questions):
            if not asked(question, item, self._reads):
                continue
            parts = question.reads & self._reads
            if "image" not in parts or not item.pictures:
                written.append(ask)
            elif "caption" in parts and item.caption:
                joint.append(ask)
            else:
                seen.append(ask)
        for picture in item.pictures if seen or joint else ():
            image = Image.fromarray(picture.pixels)
            self._put(number, picture, image, "", item.text_in_image, seen)
            self._put(number, picture, image, item.caption, item.text_in_image, joint)
        self._put(number, None, None, item.caption, item.text_in_image, written)

    def _put(
        self,
        number: int,
        picture: Picture | None,
        image: Image.Image | None,
        caption: str,
        text: str,
        asks: Sequence[int],
    ) -> None:
        if not asks:
            return
        shared = self.shared(images=0 if image is None else 1, caption=caption, text_in_image=text)
        self.entries.append(Entry(number, picture, Row(shared=shared, image=image, asked=(*asks,))))


def _classification(question: Question, entry: Entry, odds: Odds) -> Classification:
    picture = entry.picture
    return Classification(
        question=question.id,
        score=odds.score,
        media=None if picture is None else picture.media,
        time_s=None if picture is None else picture.time_s,
        mass=odds.mass,
    )


def _wording_of(spec: ClassifierSpec) -> prompt.Wording:
    wording = spec.options.get("wording", "full")
    if wording not in get_args(prompt.Wording):
        told = " or ".join(get_args(prompt.Wording))
        raise CheckpointError(
            "options", f"classifier {spec.name}: wording is {told}, not {wording!r}"
        )
    return cast("prompt.Wording", wording)
