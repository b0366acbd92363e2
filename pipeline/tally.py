"""What people's verdicts add up to: agreement, reliability, overturned automatic decisions, unclear clauses. Pure.

Records may come in any order across topics. The first verdict on a job and part counts, as it does for decisions.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pipeline.agreement import Agreement, agreement
from pipeline.messages import Decision, Finding, ReviewEvent, Verdict, VerdictAnswer
from pipeline.review import Person

T = TypeVar("T")

#: How many jobs are remembered to pair the verdicts on them; older ones have long been decided.
_JOBS: Final = 100_000
#: From this probability on the model said that the upload violates.
_YES: Final = 0.5
#: Parts in which somebody looks without knowing what others said.
_FRESH: Final = {"first", "second"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Overturned:
    """How often people who looked at what the pipeline did by itself found that nothing was violated."""

    looked_at: int
    overturned: int

    @property
    def percent(self) -> float | None:
        """Return the share that was overturned; None where nobody looked."""
        return 100 * self.overturned / self.looked_at if self.looked_at else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """How often something was said of a clause; no clause: of its policy."""

    policy: str
    clause: str
    count: int
    of: int

    @property
    def percent(self) -> float:
        """Return its share of all answers to this clause."""
        return 100 * self.count / self.of if self.of else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchoring:
    """How people agree with the model where its opinion is shown, and where it is hidden until they commit."""

    shown: Agreement
    hidden: Agreement


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What verdicts add up to; `""` among the policies stands for all of them."""

    verdicts: int
    agreement: Mapping[str, Agreement]  # of two who looked at the same item, by policy
    reliability: Mapping[tuple[str, str], Agreement]  # with what counts, by reviewer and policy
    overturned: Mapping[str, Overturned]  # by policy
    unclear: tuple[
        Ranked, ...
    ]  # clauses, and carve-outs, that reviewers found unclear, the worst first
    disputed: tuple[Ranked, ...]  # clauses on which two answered differently, the worst first
    anchoring: Anchoring

    def of(self, person: Person) -> dict[str, Agreement]:
        """Return a reviewer's own reliability by policy: theirs to see before anybody else's."""
        return {
            policy: found for (who, policy), found in self.reliability.items() if who == person.id
        }


@dataclass(slots=True)
class Tally:
    """Counts verdicts as they come."""

    _verdicts: int = 0
    _jobs: OrderedDict[str, dict[str, Verdict]] = field(default_factory=OrderedDict)
    _by_id: OrderedDict[str, Verdict] = field(default_factory=OrderedDict)
    _decisions: OrderedDict[str, list[Decision]] = field(default_factory=OrderedDict)
    _known: dict[str, dict[str, str]] = field(default_factory=dict)
    _unknown: dict[str, list[Verdict]] = field(default_factory=dict)
    _by_people: OrderedDict[str, None] = field(default_factory=OrderedDict)
    _pairs: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    _checked: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    _acted: Counter[str] = field(default_factory=Counter)
    _overturned: Counter[str] = field(default_factory=Counter)
    _answered: Counter[tuple[str, str]] = field(default_factory=Counter)
    _unclear: Counter[tuple[str, str]] = field(default_factory=Counter)
    _compared: Counter[tuple[str, str]] = field(default_factory=Counter)
    _disputed: Counter[tuple[str, str]] = field(default_factory=Counter)
    _anchored: Counter[tuple[bool, str, str]] = field(default_factory=Counter)

    def known(self, event: ReviewEvent) -> None:
        """Take the right answers of an item that is mixed in among others."""
        if event.kind != "golden":
            return
        self._known[event.decision_id] = {a.policy: a.answer for a in event.answers}
        for verdict in self._unknown.pop(event.decision_id, []):
            self._check(verdict, self._known[event.decision_id])

    def verdict(self, verdict: Verdict) -> None:
        """Take a verdict; what was said in a sealed queue counts for nothing."""
        if verdict.sealed:
            return
        if verdict.part == "golden":
            self._verdicts += 1
            right = self._known.get(verdict.decision_id)
            if right is None:
                self._unknown.setdefault(verdict.decision_id, []).append(verdict)
            else:
                self._check(verdict, right)
            return
        job = self._jobs.setdefault(verdict.job_id, {})
        if verdict.withdraws is None and verdict.part in job:
            return
        self._verdicts += 1
        for answer in verdict.answers:
            self._answered[_clause(answer)] += 1
            self._unclear[_clause(answer)] += verdict.policy_unclear
        if verdict.withdraws is None:
            self._compare(verdict, job)
        job[verdict.part] = verdict
        _remember(self._by_id, verdict.verdict_id, verdict)
        for decision in self._decisions.pop(verdict.verdict_id, []):
            self._decided(decision, verdict)
        _bound(self._jobs)

    def decision(self, decision: Decision) -> None:
        """Take a decision by a person."""
        if decision.decided_by != "person" or decision.verdict_id is None:
            return
        _remember(self._by_people, decision.decision_id, None)
        verdict = self._by_id.get(decision.verdict_id)
        if verdict is None:
            self._decisions.setdefault(decision.verdict_id, []).append(decision)
            _bound(self._decisions)
        else:
            self._decided(decision, verdict)

    def figures(self) -> Figures:
        """Return what it adds up to so far."""
        policies = sorted({policy for policy, _, _ in self._pairs})
        both = sorted({(who, policy) for who, policy, _, _ in self._checked})
        return Figures(
            verdicts=self._verdicts,
            agreement={"": agreement(_pairs(self._pairs))}
            | {policy: agreement(_pairs(self._pairs, policy)) for policy in policies},
            reliability={pair: agreement(_pairs(self._checked, *pair)) for pair in both},
            overturned={
                policy: Overturned(looked_at=count, overturned=self._overturned[policy])
                for policy, count in sorted(self._acted.items())
            },
            unclear=_ranked(self._unclear, self._answered),
            disputed=_ranked(self._disputed, self._compared),
            anchoring=Anchoring(
                shown=agreement(_pairs(self._anchored, True)),
                hidden=agreement(_pairs(self._anchored, False)),
            ),
        )

    def _check(self, verdict: Verdict, right: Mapping[str, str]) -> None:
        for answer in verdict.answers:
            if answer.policy in right:
                key = (verdict.reviewer, answer.policy, answer.answer, right[answer.policy])
                self._checked[key] += 1

    def _compare(self, verdict: Verdict, job: Mapping[str, Verdict]) -> None:
        said = {answer.policy: answer for answer in verdict.answers}
        if verdict.part == "second" and "first" in job:
            for answer in job["first"].answers:
                other = said.get(answer.policy)
                if other is None:
                    continue
                self._pairs[answer.policy, answer.answer, other.answer] += 1
                differs = answer.answer != other.answer or answer.clause != other.clause
                for clause in {_clause(answer), _clause(other)}:
                    self._compared[clause] += 1
                    self._disputed[clause] += differs
        if verdict.part == "adjudication":
            right = {answer.policy: answer.answer for answer in verdict.answers}
            for before in job.values():
                self._check(before, right)
                self._settle(before, said)

    def _settle(self, unclear: Verdict, said: Mapping[str, VerdictAnswer]) -> None:
        """Say of which clause a policy was unclear: of the one that the last word names, or its carve-out."""
        for answer in unclear.answers:
            last = said.get(answer.policy)
            name = "" if last is None else last.clause or last.carve_out or ""
            if unclear.policy_unclear and not answer.clause and name:
                for counted in (self._unclear, self._answered):
                    counted[answer.policy, ""] -= 1
                    counted[answer.policy, name] += 1

    def _decided(self, decision: Decision, verdict: Verdict) -> None:
        """Hold a person's answers against what the pipeline found, and did by itself."""
        # What is appealed against, or withdrawn, may be another person's: that says nothing of the pipeline.
        by_pipeline = decision.supersedes not in self._by_people
        for finding, answer in _answers(decision.findings, verdict.answers):
            if answer.answer == "cannot_tell" or not by_pipeline:
                continue
            if finding.outcome == "acted":
                self._acted[finding.policy] += 1
                self._overturned[finding.policy] += answer.answer == "allowed"
            if verdict.part in _FRESH:
                model = "violates" if finding.probability >= _YES else "allowed"
                self._anchored[verdict.saw_model, answer.answer, model] += 1


def _answers(
    findings: Sequence[Finding], answers: Sequence[VerdictAnswer]
) -> Iterator[tuple[Finding, VerdictAnswer]]:
    """Yield each answer with the finding that it answers: its clause's own, or its policy's."""
    by_question = {finding.question: finding for finding in findings}
    for answer in answers:
        own = by_question.get(f"{answer.policy}/{answer.clause}")
        found = own or by_question.get(answer.policy)
        if found is not None:
            yield found, answer


def _clause(answer: VerdictAnswer) -> tuple[str, str]:
    return answer.policy, answer.clause or ""


def _pairs(counted: Counter[Any], *begin: str | bool) -> list[tuple[str, str]]:
    """Return the last two of each key that begins so, as often as it was counted."""
    pairs: list[tuple[str, str]] = []
    for key, count in counted.items():
        if key[: len(begin)] == begin:
            pairs += [key[-2:]] * count
    return pairs


def _ranked(counted: Counter[tuple[str, str]], of: Counter[tuple[str, str]]) -> tuple[Ranked, ...]:
    rows = [
        Ranked(policy=policy, clause=clause, count=count, of=of[policy, clause])
        for (policy, clause), count in counted.items()
        if count
    ]
    return tuple(sorted(rows, key=lambda r: (-r.count, -r.percent, r.policy, r.clause)))


def _remember(kept: OrderedDict[str, T], name: str, value: T) -> None:
    kept[name] = value
    _bound(kept)


def _bound(kept: OrderedDict[str, T]) -> None:
    while len(kept) > _JOBS:
        kept.popitem(last=False)
