"""What stored scores mean now: put through the calibrations in force, whatever they meant when they were decided on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from pipeline.calibrating import at
from pipeline.calibration import Calibrations
from pipeline.stored import Read, questions
from policies.schema import PolicySet


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What the stored answers of one classifier to one question were taken to mean."""

    question: str
    classifier: str
    answers: int
    #: When the calibration in force was fitted; None: none is here, so they mean what they meant when decided on.
    fitted_at: datetime | None
    fresh: bool


@dataclass(slots=True, kw_only=True)
class Recalibration:
    """Gives what is read from the archive the meaning that it has under these calibrations."""

    calibrations: Calibrations
    policies: PolicySet
    now: datetime
    _answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    _fresh: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __call__(self, read: Read, classifiers: Sequence[str]) -> None:
        """Put the scores of what was read through the calibrations, in place; what has none stays as it is."""
        for column, (_, question) in enumerate(questions(self.policies)):
            makers = read.answered_by[:, column]
            for number in np.unique(makers[makers >= 0]).tolist():
                rows = np.flatnonzero(makers == number)
                key = question.id, classifiers[number]
                calibration = self.calibrations.find(question, key[1])
                if calibration is not None:
                    score, whole = read.score[rows, column], read.whole_score[rows, column]
                    read.probability[rows, column] = at(calibration.curve, score)
                    # Archives of before it was kept have only the probability.
                    read.whole[rows, column] = np.where(
                        np.isnan(whole), read.whole[rows, column], at(calibration.curve, whole)
                    )
                    read.fresh[rows, column] = self.calibrations.fresh(
                        question, key[1], now=self.now
                    )
                self._answers[key] += len(rows)
                self._fresh[key] += int(read.fresh[rows, column].sum())

    def meanings(self) -> tuple[Meaning, ...]:
        """Return what the answers were taken to mean, question by question."""
        asked = {question.id: question for _, question in questions(self.policies)}
        found = []
        for key in sorted(self._answers):
            calibration = self.calibrations.find(asked[key[0]], key[1])
            found.append(
                Meaning(
                    question=key[0],
                    classifier=key[1],
                    answers=self._answers[key],
                    fitted_at=None if calibration is None else calibration.fitted_at,
                    fresh=self._fresh[key] > 0,
                )
            )
        return tuple(found)
