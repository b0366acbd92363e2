"""What a score means: calibrations are read from files and applied here; they are fitted in `fitting`.

Pure but for reading the folder. A calibration belongs to one question (by its digest) and one
classifier digest, and to nothing else.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, model_validator

from pipeline.decide import Answer
from pipeline.errors import PipelineError
from pipeline.messages import Calibration as Freshness
from pipeline.messages import Time
from policies.question import Question
from policies.schema import MissRate, Precision
from workers.classifier import Classification

#: A calibration older than this is stale: what people upload drifts.
MAX_AGE = timedelta(days=180)
#: The file in which `weir monitor` keeps its alarms.
ALARMS = "ALARMS"


class Curve(BaseModel):
    """A piecewise linear map from score (log-odds) to probability, flat beyond its ends."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scores: Annotated[tuple[float, ...], Field(min_length=1)]
    probabilities: Annotated[tuple[float, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if len(self.scores) != len(self.probabilities):
            raise ValueError("scores and probabilities differ in length")
        if any(b <= a for a, b in zip(self.scores, self.scores[1:], strict=False)):
            raise ValueError("scores must rise")
        if not all(0 <= p <= 1 for p in self.probabilities):
            raise ValueError("probabilities lie between 0 and 1")
        return self

    def at(self, score: float) -> float:
        """Return the probability at this score; of what is no number, no number."""
        if math.isnan(score):
            # A search would put it behind the last score, where what is surest to violate stands.
            return score
        right = bisect_right(self.scores, score)
        if right == 0:
            return self.probabilities[0]
        if right == len(self.scores):
            return self.probabilities[-1]
        x0, x1 = self.scores[right - 1], self.scores[right]
        y0, y1 = self.probabilities[right - 1], self.probabilities[right]
        return y0 + (y1 - y0) * (score - x0) / (x1 - x0)


class Labels(BaseModel):
    """What a calibration was fitted on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    violates: Annotated[int, Field(ge=0)]
    allowed: Annotated[int, Field(ge=0)]
    source: str = ""


class Kept(BaseModel):
    """A promise of a policy's bands, and the threshold that keeps it (None: none does, with these labels)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    promise: Precision | MissRate
    value: float | None
    labels: int
    errors: int
    bound: float
    labels_needed: int = 0
    kind: str = ""
    #: How often the single answers that prove it may be wrong; 0: they are adjudicated.
    reviewer_error: float = 0.0


class Calibration(BaseModel):
    """One calibration file: what the scores of one classifier mean for one question."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str
    question_digest: str
    policy_version: Annotated[int, Field(ge=1)]
    classifier: str
    method: Literal["default", "temperature", "platt", "beta", "isotonic", "venn_abers"]
    curve: Curve
    low: Curve
    high: Curve
    labels: Labels
    #: The share of violations that the curve stands for, where it is not that of the labels.
    prior: float | None = None
    kept: tuple[Kept, ...] = ()
    log_loss: float | None = None
    ece: float | None = None
    fitted_at: Time

    @property
    def file_name(self) -> str:
        """Return the name that this calibration's file has: one a question, question digest and classifier digest.

        So the calibration of new words can lie there before they are merged, beside that of the old.
        """
        model = self.classifier.removeprefix("sha256:")[:12]
        words = self.question_digest.removeprefix("sha256:")[:8]
        return f"{self.question.replace('/', '.')}-{model}-{words}.json"

    @property
    def key(self) -> tuple[str, str, str]:
        """Return what it belongs to: question, classifier digest and question digest."""
        return self.question, self.classifier, self.question_digest


class Alarm(BaseModel):
    """What `weir monitor` found against a calibration: a promise that no longer holds, or scores that drift."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str
    classifier: str
    #: Of the calibration that it is about; a new fit begins anew.
    fitted_at: Time
    kind: Literal["risk", "drift"]
    promise: Precision | MissRate | None = None
    seen: int
    errors: int = 0
    evidence: float
    raised_at: Time


class _Alarms(RootModel[tuple[Alarm, ...]]):
    pass


_NOTHING: Final[Mapping[Precision | MissRate, float | None]] = MappingProxyType({})


class _Meaning(NamedTuple):
    """What is the same for every answer of one classifier to one question, worked out once."""

    calibration: Calibration | None
    #: None: it was never made for these words, or the scores have drifted since.
    fresh_until: datetime | None
    #: What is kept as long as it is fresh.
    thresholds: Mapping[Precision | MissRate, float | None]
    alarm: Literal["risk", "drift"] | None


@dataclass(frozen=True)
class Calibrations:
    """All calibrations of one folder; `drifting` names questions whose drift alarm is on."""

    #: The newest of each question and classifier, whatever its words.
    by_key: Mapping[tuple[str, str], Calibration] = field(default_factory=dict)
    drifting: frozenset[str] = frozenset()
    #: By question, classifier digest and question digest.
    by_words: Mapping[tuple[str, str, str], Calibration] = field(default_factory=dict)
    alarms: Mapping[tuple[str, str, str], tuple[Alarm, ...]] = field(default_factory=dict)
    _meanings: dict[tuple[str, str, str], _Meaning] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    @classmethod
    def of(
        cls, calibrations: Sequence[Calibration], *, drifting: frozenset[str] = frozenset()
    ) -> Self:
        """Return these calibrations, found by question id, classifier digest and question digest."""
        by_age = sorted(calibrations, key=lambda c: c.fitted_at)
        return cls(
            {(c.question, c.classifier): c for c in by_age}, drifting, {c.key: c for c in by_age}
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the calibrations in a folder; a folder that does not exist holds none.

        Raises:
            PipelineError: a file is not a calibration.
        """
        found = []
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
            try:
                found.append(Calibration.model_validate_json(path.read_bytes()))
            except ValidationError as error:
                first = error.errors()[0]
                field = ".".join(str(part) for part in first["loc"])
                raise PipelineError(
                    f"{path}: not a calibration: {field}: {first['msg']}; "
                    "remove it or run `weir calibrate` again"
                ) from error
        read = cls.of(found)
        return replace(read, alarms=read.matching(read_alarms(folder)))

    def matching(self, alarms: Sequence[Alarm]) -> dict[tuple[str, str, str], tuple[Alarm, ...]]:
        """Return the alarms that are about these calibrations as they were fitted last."""
        found: dict[tuple[str, str, str], tuple[Alarm, ...]] = {}
        for key, calibration in self.by_words.items():
            about = (calibration.question, calibration.classifier, calibration.fitted_at)
            mine = tuple(a for a in alarms if (a.question, a.classifier, a.fitted_at) == about)
            if mine:
                found[key] = mine
        return found

    def find(self, question: Question, classifier: str) -> Calibration | None:
        """Return the calibration of these words, else the newest of others, else None."""
        words = (question.id, classifier, question.digest)
        return self.by_words.get(words) or self.by_key.get(words[:2])

    def kept(self, calibration: Calibration) -> dict[Precision | MissRate, float | None]:
        """Return the thresholds that keep its promises, without those that were refuted."""
        alarms = self.alarms.get(calibration.key, ())
        if any(alarm.kind == "drift" for alarm in alarms):
            return {}
        refuted = {alarm.promise for alarm in alarms}
        return {k.promise: k.value for k in calibration.kept if k.promise not in refuted}

    def fresh(self, question: Question, classifier: str, *, now: datetime) -> bool:
        """Return whether what this classifier says to these words means what it was calibrated to mean."""
        until = self._meaning(question, classifier).fresh_until
        return until is not None and now <= until

    def answer(
        self, question: Question, classification: Classification, classifier: str, *, now: datetime
    ) -> Answer:
        """Return what the classification means, marked `fresh`, `stale` or `none`."""
        words = (question.id, classifier, question.digest)
        meaning = self._meanings.get(words)
        if meaning is None:
            meaning = self._meanings[words] = self._meaning(question, classifier)
        score, whole = classification.score, classification.whole
        curve, until = meaning.calibration, meaning.fresh_until
        freshness: Freshness
        if curve is None:
            probability, interval, freshness = logistic(score), None, "none"
            whole = None if whole is None else logistic(whole)
        else:
            probability = curve.curve.at(score)
            low, high = curve.low.at(score), curve.high.at(score)
            interval = (min(low, probability), max(high, probability))
            freshness = "fresh" if until is not None and now <= until else "stale"
            whole = None if whole is None else curve.curve.at(whole)
        # By place: by name it takes twice as long.
        return Answer(
            question.id,
            score,
            probability,
            freshness,
            classifier,
            interval,
            classification.media,
            classification.time_s,
            classification.box,
            whole,
            meaning.thresholds if freshness == "fresh" else _NOTHING,
            meaning.alarm,
            classification.whole,
        )

    def _meaning(self, question: Question, classifier: str) -> _Meaning:
        calibration = self.find(question, classifier)
        alarms = () if calibration is None else self.alarms.get(calibration.key, ())
        drifts = question.id in self.drifting or any(a.kind == "drift" for a in alarms)
        # A promise is kept only as long as what it was proven on still holds.
        usable = (
            calibration is not None
            and calibration.question_digest == question.digest
            and not drifts
        )
        return _Meaning(
            calibration=calibration,
            fresh_until=calibration.fitted_at + MAX_AGE if calibration and usable else None,
            thresholds=self.kept(calibration) if calibration and usable else _NOTHING,
            alarm="drift" if drifts else "risk" if alarms else None,
        )


def read_alarms(folder: Path) -> tuple[Alarm, ...]:
    """Return the alarms that `weir monitor` left beside the calibrations.

    Raises:
        PipelineError: the file holds something else.
    """
    path = folder / ALARMS
    if not path.is_file():
        return ()
    try:
        return _Alarms.model_validate_json(path.read_bytes()).root
    except ValidationError as error:
        raise PipelineError(
            f"{path}: holds no alarms; remove it and run `weir monitor` again"
        ) from error


def write(folder: Path, calibration: Calibration) -> Path:
    """Put a calibration into a folder, whole or not at all, and return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / calibration.file_name
    aside = path.with_name(path.name + ".writing")
    aside.write_text(calibration.model_dump_json(indent=1) + "\n", encoding="utf-8")
    aside.replace(path)
    return path


def write_alarms(folder: Path, alarms: Sequence[Alarm]) -> None:
    """Put the alarms beside the calibrations, whole or not at all."""
    aside = folder / f"{ALARMS}.writing"
    aside.write_text(_Alarms(tuple(alarms)).model_dump_json(indent=1) + "\n", encoding="utf-8")
    aside.replace(folder / ALARMS)


def logistic(score: float) -> float:
    """Return the probability that a log-odds stands for."""
    if score >= 0:
        return 1 / (1 + math.exp(-min(score, 700)))
    odds = math.exp(max(score, -700))
    return odds / (1 + odds)
