"""What can be believed of an upload by what is seen of it and said in it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from workers.mini.lessons import KINDS, Belief, Said, Teacher, concerned
from workers.mini.sights import Sight, Sights, any_sight

#: How often a plain question's thing is shown: less than half, as most policies are about what most uploads are not.
PRESENT = 0.42

#: From which log-odds on evidence counts more: below, things are mostly missed as a whole.
MISSED = -2.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Believing:
    """How what is seen and said becomes a belief: a logistic regression of the truth of things that are asked about.

    `evidence` weighs the dense head's log-odds, `found` how far they are above `MISSED`, `named` whether the caption
    names the thing, `others` whether it names anything, `breadth` the logarithm of how many things a question is
    about; `habits` are offsets for each kind of question.
    """

    evidence: float
    found: float
    named: float
    others: float
    breadth: float
    habits: Mapping[str, float]

    def of(self, sight: Sight, said: Said) -> Belief:
        """Return the belief of one who sees and reads this."""
        seen, names = sight.evidence, sorted(said.upload.names)
        odds = self.evidence * seen + self.found * np.maximum(seen - MISSED, 0)
        odds += self.others * bool(names)
        odds[names] += self.named
        return Belief(odds=odds, breadth=self.breadth, habits=self.habits)


def fitted(seed: int, seen: Sights | None, *, imagine: float, uploads: int = 1_500) -> Believing:
    """Return how to believe sights like those that are taught with: imagined ones in this share, else real ones."""
    rng = np.random.default_rng((seed, 2**31))
    teacher = Teacher(rng, present=PRESENT)
    known: list[list[float]] = []
    truth: list[bool] = []
    for _ in range(uploads):
        sight = any_sight(rng, seen, imagine)
        evidence = sight.evidence
        said = teacher.words(frozenset(thing.concept for thing in sight.shown))
        names = said.upload.names
        for kind in teacher.kinds(said.upload, 6):
            among = sorted(concerned(teacher.ask(said.upload, kind)))
            habit = [float(kind == each) for each in KINDS]
            for one in among:
                found = max(evidence[one] - MISSED, 0.0)
                said_so = [float(one in names), float(bool(names))]
                known.append([evidence[one], found, *said_so, np.log(len(among)), *habit])
                truth.append(one in said.upload.shown)
    learned = LogisticRegression(C=1e3, max_iter=500, fit_intercept=False)
    weighed = learned.fit(np.array(known), truth).coef_[0].tolist()
    named = ("evidence", "found", "named", "others", "breadth")
    return Believing(
        **dict(zip(named, weighed[: len(named)], strict=True)),
        habits=dict(zip(KINDS, weighed[len(named) :], strict=True)),
    )
