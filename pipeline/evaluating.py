"""How good a classifier is at each question, from labelled uploads, and which is good enough."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.calibration import Calibrations, logistic
from pipeline.labels import Labelled
from pipeline.reliability import (
    Figure,
    Vector,
    auroc,
    average_precision,
    bootstrap,
    ece,
    ece_floor,
    wilson,
)
from pipeline.scored import Scores, score
from policies.question import Part, Question
from policies.schema import Policy
from workers.classifier import Classification, Classifier, Item, Rationale
from workers.reading import Reading

#: Draws for the interval of a difference between two classifiers.
_DRAWS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class AtBand:
    """What a band lets through: of all labelled, at this probability."""

    band: str
    probability: float
    precision: Figure
    recall: Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """One classifier's figures on one question."""

    question: str
    classifier: str
    digest: str
    violates: int
    allowed: int
    auroc: Figure
    average_precision: Figure
    ece: Figure
    #: What a perfect classifier's error would be, by chance, with as many labels.
    ece_floor: float
    calibrated: bool
    bands: tuple[AtBand, ...]
    #: Mean probability of Yes and No together; None where the classifier does not tell.
    mass: float | None
    ms_per_upload: float
    #: None where no upload has pictures that the classifier reads; one without any counts as one.
    ms_per_image: float | None
    scores: Scores = field(repr=False)
    probabilities: Vector = field(repr=False)


class Watched:
    """A classifier that keeps count of its time, of what it looked at and of the mass on Yes and No."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self.seconds = 0.0
        self.uploads = 0
        self.pictures = 0
        self.bare = 0
        self.masses: dict[str, list[float]] = {}

    @property
    def name(self) -> str:
        """The classifier's own name."""
        return self._classifier.name

    @property
    def digest(self) -> str:
        """The classifier's own digest."""
        return self._classifier.digest

    @property
    def reads(self) -> frozenset[Part]:
        """What the classifier reads."""
        return self._classifier.reads

    def covers(self, question: Question) -> bool:
        """Return whether the classifier covers the question."""
        return self._classifier.covers(question)

    def classify(
        self, items: Sequence[Item], questions: Sequence[Question]
    ) -> list[list[Classification]]:
        """Return the classifier's answers."""
        began = time.perf_counter()
        found = self._classifier.classify(items, questions)
        self.seconds += time.perf_counter() - began
        self.uploads += len(items)
        self.pictures += sum(len(item.pictures) for item in items)
        self.bare += sum(not item.pictures for item in items)
        for answer in (answer for answers in found for answer in answers):
            if answer.mass is not None:
                self.masses.setdefault(answer.question, []).append(answer.mass)
        return found

    @property
    def ms_per_upload(self) -> float:
        """What an upload took."""
        return 1e3 * self.seconds / max(self.uploads, 1)

    @property
    def ms_per_image(self) -> float | None:
        """What a picture took, an upload without any counted as one; None where it looked at none."""
        if not self.pictures or "image" not in self.reads:
            return None
        return 1e3 * self.seconds / (self.pictures + self.bare)

    def explain(
        self, item: Item, findings: Sequence[tuple[Question, Classification]]
    ) -> list[Rationale]:
        """Return the classifier's reasons."""
        return self._classifier.explain(item, findings)


def evaluate(
    labelled: Sequence[Labelled],
    classifier: Classifier,
    policies: Sequence[Policy],
    calibrations: Calibrations,
    *,
    reading: Reading,
    advance: Callable[[int], None] = lambda _: None,
    refused: Callable[[Labelled, str], None] = lambda _row, _why: None,
) -> list[Evaluated]:
    """Return the figures of every question that was labelled and that the classifier covers."""
    owners = {question.id: policy for policy in policies for question in policy.questions}
    questions = [question for policy in policies for question in policy.questions]
    watched = Watched(classifier)
    scored = score(labelled, watched, questions, reading=reading, advance=advance, refused=refused)
    by_id = {question.id: question for question in questions}
    found = []
    for name, column in scored.items():
        question, policy = by_id[name], owners[name]
        probabilities, calibrated = _meant(question, column, classifier, calibrations)
        masses = watched.masses.get(name)
        found.append(
            Evaluated(
                question=name,
                classifier=classifier.name,
                digest=classifier.digest,
                violates=int(column.labels.sum()),
                allowed=int(len(column.labels) - column.labels.sum()),
                auroc=bootstrap(auroc, column.scores, column.labels),
                average_precision=bootstrap(average_precision, column.scores, column.labels),
                ece=bootstrap(ece, probabilities, column.labels),
                ece_floor=ece_floor(probabilities),
                calibrated=calibrated,
                bands=_bands(policy, question, probabilities, column.labels),
                mass=float(np.mean(masses)) if masses else None,
                ms_per_upload=watched.ms_per_upload,
                ms_per_image=watched.ms_per_image,
                scores=column,
                probabilities=probabilities,
            )
        )
    return found


def good_enough(found: Sequence[Evaluated], *, seed: int = 0) -> Mapping[str, str]:
    """Return, for each question, the cheapest classifier that is not measurably worse than the best.

    Measurably worse: the 95 % interval of the difference in AUROC, over the same drawn uploads,
    lies wholly below zero.
    """
    chosen: dict[str, str] = {}
    for name in dict.fromkeys(one.question for one in found):
        rivals = [one for one in found if one.question == name and np.isfinite(one.auroc.value)]
        if not rivals:
            continue
        best = max(rivals, key=lambda one: one.auroc.value)
        kept = [one for one in rivals if one is best or not _worse(one, best, seed)]
        chosen[name] = min(kept, key=lambda one: one.ms_per_upload).classifier
    return chosen


def _worse(one: Evaluated, best: Evaluated, seed: int) -> bool:
    a, b = one.scores, best.scores
    if len(a.scores) != len(b.scores):
        return one.auroc.high < best.auroc.low
    rng = np.random.default_rng(seed)
    differences = []
    for _ in range(_DRAWS):
        pick = rng.integers(0, len(a.labels), len(a.labels))
        differences.append(
            auroc(a.scores[pick], a.labels[pick]) - auroc(b.scores[pick], b.labels[pick])
        )
    return bool(np.nanquantile(differences, 0.975) < 0)


def _meant(
    question: Question, column: Scores, classifier: Classifier, calibrations: Calibrations
) -> tuple[Vector, bool]:
    """Return what the scores mean: calibrated where a calibration fits, else the plain logistic."""
    calibration = calibrations.find(question, classifier.digest)
    if calibration is None or calibration.question_digest != question.digest:
        return np.array([logistic(value) for value in column.scores]), False
    return np.array([calibration.curve.at(value) for value in column.scores]), True


def _bands(
    policy: Policy, question: Question, probabilities: Vector, labels: Vector
) -> tuple[AtBand, ...]:
    rule = policy.rule(question.clause, {})
    bands = (("review", rule.review_at), ("act", rule.act_at))
    return tuple(
        _at(name, at, probabilities, labels) for name, at in bands if isinstance(at, float)
    )


def _at(name: str, probability: float, probabilities: Vector, labels: Vector) -> AtBand:
    above = probabilities >= probability
    hits = int(labels[above].sum())
    return AtBand(
        band=name,
        probability=probability,
        precision=wilson(hits, int(above.sum())),
        recall=wilson(hits, int(labels.sum())),
    )
