"""Which archived decisions stand for all others where questions are asked anew, and what those lead to. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.asking import Answered, standing
from pipeline.calibration import Calibrations
from pipeline.sampling import Sampled, draw
from pipeline.stored import Flags, Stored, questions
from policies.schema import PolicySet, Status
from workers.upload import Settle

#: Where a promise stands for a number, the sample's strata part here.
_REVIEW, _ACT = 0.3, 0.9
#: A stratum wants so many rows, or there are too many strata for the sample.
_ROWS: Final = 8


def changed(stored: Stored, policies: PolicySet) -> list[str]:
    """Return the live questions of which the archive holds not only answers to these words."""
    return [
        question.id
        for policy, question in questions(policies)
        if policy.status is Status.LIVE
        and stored.digests.get(question.id, frozenset()) != {question.digest}
    ]


def sample(
    stored: Stored,
    policies: PolicySet,
    asked: Collection[str],
    *,
    judged: Collection[str],
    size: int,
    seed: int = 0,
) -> Sampled:
    """Return a sample of the decisions: all that people have judged, and so many others of every kind."""
    known = pc.is_in(stored.decision_ids, value_set=pa.array(judged, pa.string()))
    sure = known.to_numpy(zero_copy_only=False).astype(bool)
    kinds = strata(stored, policies, asked, most=max(1, size // _ROWS))
    return draw(kinds, sure, size, rng=np.random.default_rng(seed))


def strata(
    stored: Stored, policies: PolicySet, asked: Collection[str], *, most: int
) -> NDArray[np.int64]:
    """Return the stratum of each decision.

    By what was done, whether a person looked, which question that is asked anew came nearest to acting in its old
    words, how near, and the surface; where those are more than `most`, without the surface, then without the question.
    """
    columns = [
        (n, policy.rule_under(question.clause, None))
        for n, (policy, question) in enumerate(questions(policies))
        if question.id in asked
    ]
    nearest = np.full(len(stored.group), -1)
    heat = np.full(len(stored.group), -1)
    for column, rule in columns:
        review = rule.review_at if isinstance(rule.review_at, float) else _REVIEW
        act = rule.act_at if isinstance(rule.act_at, float) else max(_ACT, review)
        p = stored.probability[:, column]
        band = np.where(np.isnan(p), -1, np.digitize(p, sorted((review / 2, review, act))))
        hotter = band > heat
        nearest[hotter], heat[hotter] = column, band[hotter]
    told = [stored.ranks, stored.queues.known(), heat]
    for further in ([nearest, stored.surfaces.codes], [nearest], []):
        _, numbers = np.unique(np.stack([*told, *further], axis=1), axis=0, return_inverse=True)
        found = numbers.reshape(-1).astype(np.int64)
        if found.max(initial=0) < most:
            break
    return found


def answered_anew(
    stored: Stored,
    sampled: Sampled,
    answers: Mapping[str, Sequence[Answered]],
    policies: PolicySet,
    asked: Collection[str],
    *,
    calibrations: Calibrations,
    settles: Settle,
    now: datetime,
) -> tuple[Stored, Sampled]:
    """Return the sampled decisions with the new answers in the columns of the questions asked, and their sample.

    Decisions whose uploads could not be scored again are left out, and others of their stratum stand for them.
    """
    names = stored.decision_ids.take(pa.array(sampled.rows)).to_pylist()
    kept = sampled.kept(np.array([name in answers for name in names], bool))
    part = replace(stored.only(kept.rows), stands_for=kept.weights)
    columns = {q.id: n for n, (_, q) in enumerate(questions(policies)) if q.id in asked}
    values = {"probability": part.probability, "whole": part.whole}
    arrays: dict[str, NDArray[Any]] = {name: array.copy() for name, array in values.items()}
    fresh: Flags = part.fresh.copy()
    answered_by = part.answered_by.copy()
    makers = {name: n for n, name in enumerate(part.classifiers)}
    for column in columns.values():
        for array in arrays.values():
            array[:, column] = np.nan
        fresh[:, column], answered_by[:, column] = False, -1
    for row, name in enumerate(part.decision_ids.to_pylist()):
        for question, found, digest in standing(answers[name], settles).values():
            if question.id not in columns:
                continue
            at = row, columns[question.id]
            answer = calibrations.answer(question, found, digest, now=now)
            arrays["probability"][at] = answer.probability
            arrays["whole"][at] = np.nan if answer.whole is None else answer.whole
            fresh[at] = answer.calibration == "fresh"
            answered_by[at] = makers.setdefault(digest, len(makers))
    anew = replace(
        part,
        probability=arrays["probability"],
        whole=arrays["whole"],
        fresh=fresh,
        answered_by=answered_by,
        classifiers=list(makers),
    )
    return anew, kept
