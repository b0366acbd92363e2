"""What new words, or a new model, would do to archived decisions: asked of a sample, fitted on labels that count on.

1. `plan`: which uploads are asked about; those that people answered about, and a sample of the decisions.
2. `cost`: a few of them are scored, to say beforehand what all will take.
3. `fit`: every classifier answers about the labelled ones, and calibrations are fitted on what people had said.
4. `decide`: the sample is scored under those, in the order of the cascade, and decided again.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Final

import pyarrow as pa

from pipeline.answered import Answered as Label
from pipeline.archive import Archive
from pipeline.backtest import redecide, thresholds_of
from pipeline.backtest_report import Anew, Judged, Report, account
from pipeline.calibrating import Calibrated
from pipeline.calibration import Calibrations
from pipeline.cascading import settling
from pipeline.contents import uploads_of
from pipeline.errors import RefusedError
from pipeline.labels import Labelled
from pipeline.recalibrating import Meaning
from pipeline.refitting import Unfitted, labels_for, refit, scores_anew
from pipeline.resampling import answered_anew, sample
from pipeline.rescoring import Rescored, Rescoring
from pipeline.sampling import Sampled
from pipeline.scored import Scores, score
from pipeline.stored import Stored
from policies.question import Question
from policies.schema import Policy, PolicySet
from workers.upload import Upload

#: Uploads that are scored to tell what all will take.
_TIMED: Final = 8
_Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which uploads are asked about."""

    sampled: Sampled
    #: Decision id -> upload: of the sample, and of what people answered beside it.
    uploads: Mapping[str, Upload]
    #: Question id -> people's answers that count for it.
    labels: Mapping[str, Sequence[Label]]
    #: The decisions that those answers are about.
    labelled: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What scoring again will take, as far as a few uploads tell."""

    uploads: int
    labelled: int
    questions: int
    timed: int
    seconds: float


@dataclass(slots=True, kw_only=True)
class Reworded:
    """Asks a set's new questions of archived uploads."""

    archive: Archive
    policies: PolicySet
    #: Ids of the questions that are asked anew.
    asked: Sequence[str]
    rescoring: Rescoring
    calibrations: Calibrations
    now: datetime
    #: Labelled uploads of a file, in place of the archive's answers.
    file: Sequence[Labelled] = ()
    source: str = "archive"
    _rescored: Rescored = field(default_factory=Rescored)

    def plan(
        self,
        stored: Stored,
        *,
        judged: Collection[str],
        answers: Sequence[Label],
        size: int,
    ) -> Plan:
        """Return which uploads are asked about.

        Raises:
            RefusedError: no classifier can be asked, or no upload is there to ask about.
        """
        lost = [q.id for q in self._questions() if not self._covered(q)]
        if lost:
            names = ", ".join(c.name for c in self.rescoring.classifiers)
            raise RefusedError(
                f"no classifier judges {', '.join(lost)} (configured: {names}): configure one that does, or write "
                "status: draft"
            )
        sampled = sample(stored, self.policies, self.asked, judged=list(judged), size=size)
        names = stored.decision_ids.take(pa.array(sampled.rows)).to_pylist()
        labels = {
            question.id: labels_for(policy, question, answers)
            for policy, question in self._pairs()
            if not self.file
        }
        labelled = frozenset(label.decision_id for of in labels.values() for label in of)
        uploads = uploads_of(self.archive, {*names, *labelled})
        if not uploads.keys() & set(names):
            raise RefusedError(
                f"the wording of {', '.join(self.asked)} is new, and none of {len(names):,} sampled uploads is in the "
                "archive to be scored again: `weir archive run` keeps them (WEIR_ARCHIVE_UPLOADS); or run the policy "
                "as a shadow first"
            )
        return Plan(sampled=sampled, uploads=uploads, labels=labels, labelled=labelled)

    def cost(self, plan: Plan) -> Cost:
        """Score a few uploads, and return what all of them will take."""
        # Whatever loads or compiles at the first call is no part of it.
        first = dict(islice(plan.uploads.items(), _TIMED))
        self.rescoring.score(dict(islice(first.items(), 1)), self._questions(), _never)
        timed = self.rescoring.score(first, self._questions(), _never)
        count = len(plan.uploads) + len(self.file)
        each_s = timed.spent_s / max(1, len(timed.answers))
        return Cost(
            uploads=count,
            labelled=len(plan.labelled & plan.uploads.keys()) + len(self.file),
            questions=len(self.asked),
            timed=len(timed.answers),
            seconds=each_s * count,
        )

    def fit(self, plan: Plan, *, advance: _Advance) -> tuple[list[Calibrated], list[Unfitted]]:
        """Return the calibrations that people's answers give to what is asked now."""
        theirs = {name: up for name, up in plan.uploads.items() if name in plan.labelled}
        # Every classifier of a cascade needs a calibration of its own.
        self.rescoring.score(
            theirs, self._questions(), _never, into=self._rescored, advance=advance
        )
        from_file = self._scores_of_file(advance)
        fitted: list[Calibrated] = []
        unfitted: list[Unfitted] = []
        for policy, question in self._pairs():
            by_classifier = from_file.get(question.id) or scores_anew(
                plan.labels.get(question.id, ()), question, self._rescored.answers
            )
            found, few = refit(policy, question, by_classifier, now=self.now, source=self.source)
            if not by_classifier:
                few = [Unfitted(question=question.id, violates=0, allowed=0)]
            fitted += found
            unfitted += few
        known = [*self.calibrations.by_words.values(), *(one.calibration for one in fitted)]
        self.calibrations = replace(
            Calibrations.of(known, drifting=self.calibrations.drifting),
            alarms=self.calibrations.alarms,
        )
        return fitted, unfitted

    def decide(
        self,
        stored: Stored,
        plan: Plan,
        *,
        verdicts: Mapping[str, Judged],
        minutes_a_job: float,
        fits: tuple[Sequence[Calibrated], Sequence[Unfitted]],
        meanings: Sequence[Meaning] = (),
        advance: _Advance,
    ) -> Report:
        """Return what the sample comes to, decided again under the new answers.

        Raises:
            RefusedError: none of the sampled uploads could be scored.
        """
        names = stored.decision_ids.take(pa.array(plan.sampled.rows)).to_pylist()
        done = self._rescored
        open_ = {n: plan.uploads[n] for n in names if n in plan.uploads and n not in done.answers}
        settles = settling(lambda: self.calibrations, self.policies, lambda: self.now)
        self.rescoring.score(open_, self._questions(), settles, into=done, advance=advance)
        part, kept = answered_anew(
            stored,
            plan.sampled,
            done.answers,
            self.policies,
            self.asked,
            calibrations=self.calibrations,
            settles=settles,
            now=self.now,
        )
        if not len(kept.rows):
            why = next(iter(done.left_out.values()), "they are not there")
            raise RefusedError(f"none of {len(names):,} sampled uploads could be scored: {why}")
        made = redecide(part, self.policies, thresholds_of(self.calibrations, self.policies))
        anew = Anew(
            questions=tuple(self.asked),
            uploads=len(kept.rows),
            left_out=len(names) - len(kept.rows),
            labelled=len((plan.labelled & done.answers.keys()) - set(names)) + len(self.file),
            classifier_s=round(done.spent_s, 3),
            fitted=tuple(one.calibration.question for one in fits[0]),
            unfitted=tuple(fits[1]),
        )
        return account(
            part,
            made,
            self.policies,
            verdicts=verdicts,
            minutes_a_job=minutes_a_job,
            meanings=meanings,
            sampled=(kept, anew),
        )

    def _scores_of_file(self, advance: _Advance) -> dict[str, dict[str, Scores]]:
        found: dict[str, dict[str, Scores]] = {}
        for classifier in self.rescoring.classifiers if self.file else ():
            scored = score(
                self.file,
                classifier,
                self._questions(),
                reading=self.rescoring.reading,
                advance=advance,
            )
            for question, scores in scored.items():
                found.setdefault(question, {})[classifier.digest] = scores
        return found

    def _pairs(self) -> list[tuple[Policy, Question]]:
        return [(p, q) for p in self.policies for q in p.questions if q.id in self.asked]

    def _questions(self) -> list[Question]:
        return [question for _, question in self._pairs()]

    def _covered(self, question: Question) -> bool:
        return any(classifier.covers(question) for classifier in self.rescoring.classifiers)


def _never(question: Question, found: object, digest: str) -> bool:
    del question, found, digest
    return False
