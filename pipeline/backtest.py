"""The archive decided again under other policies, from stored scores: what `decide` would do, by whole columns.

Uploads whose circumstances are the same to every rule make one group; each rule is looked up once a group, and its
bands are held against the group's column of probabilities.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.calibration import Calibrations
from pipeline.caps import capped
from pipeline.decide import INTAKE, questions_for, regions
from pipeline.lottery import lot
from pipeline.messages import Context, MediaRef, UploadEvent
from pipeline.stored import Circumstances, Codes, Flags, Numbers, Stored, questions
from policies.question import Question
from policies.schema import Action, MissRate, Policy, PolicySet, Precision, Rule, Status

_BY_RANK: Final = {action.rank: action for action in Action}
_DAY_US: Final = 86_400_000_000
#: What `outcome` says of a question that acted.
_ACTED: Final = 2
#: (question id, classifier digest) -> the thresholds that keep promises.
Thresholds = Mapping[tuple[str, str], Mapping[Precision | MissRate, float | None]]


def thresholds_of(calibrations: Calibrations, policies: PolicySet) -> Thresholds:
    """Return the thresholds that keep promises, by question and classifier, for the words that are asked now."""
    words = {question.id: question.digest for question in policies.questions}
    return {
        key[:2]: calibrations.kept(calibration)
        for key, calibration in calibrations.by_words.items()
        if words.get(calibration.question) == calibration.question_digest
    }


@dataclass(slots=True, kw_only=True)
class Redecided:
    """What the other policies decide, row by row."""

    ranks: NDArray[np.int8]
    #: Region -> ranks there; -1 where the region says nothing of its own about that row.
    regional: dict[str, NDArray[np.int8]]
    #: Index into `queue_names`; -1: no person looks.
    queue: Codes
    queue_names: list[str]
    #: Row × question: 0 nothing, 1 review, 2 acted.
    outcome: NDArray[np.int8]
    _queue_codes: dict[str, int] = field(default_factory=dict)

    def code(self, queue: str) -> int:
        """Return the index of a queue's name."""
        if queue not in self._queue_codes:
            self._queue_codes[queue] = len(self.queue_names)
            self.queue_names.append(queue)
        return self._queue_codes[queue]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """What one question asks for under one rule, for the rows of a group."""

    column: int
    policy: Policy
    rule: Rule
    live: Flags
    acts: Flags
    seen: Flags
    rank: NDArray[np.int8]
    probability: Numbers

    @property
    def leads(self) -> Flags:
        return self.acts | self.seen


def redecide(stored: Stored, policies: PolicySet, thresholds: Thresholds) -> Redecided:
    """Return what these policies decide on the stored answers; equal to `decide`, row by row."""
    shares = _Shares.of(stored, policies)
    made = _redecided(stored, policies, thresholds, shares)
    spent = _spent(stored, policies, made)
    if not spent:
        return made
    return _redecided(stored, policies, thresholds, replace(shares, spent=spent))


def _spent(stored: Stored, policies: PolicySet, made: Redecided) -> dict[str, Flags]:
    """Return of each policy with a cap for which contents it had acted often enough that day (UTC) before."""
    asked = questions(policies)
    found = {}
    order = np.argsort(stored.decided_us, kind="stable")
    day = stored.decided_us[order] // _DAY_US
    for name, cap in capped(policies).items():
        own = np.array([policy.policy == name for policy, _ in asked], bool)
        # Until the cap it acts as if there were none, and what comes after does not count.
        acts = (made.outcome[order][:, own] == _ACTED).any(axis=1) * stored.weights[order]
        before = np.cumsum(acts) - acts
        _, first, number = np.unique(day, return_index=True, return_inverse=True)
        over = before - before[first][number] >= cap
        if over.any():
            found[name] = np.zeros(len(order), bool)
            found[name][order] = over
    return found


def _redecided(
    stored: Stored, policies: PolicySet, thresholds: Thresholds, shares: "_Shares"
) -> Redecided:
    count = len(stored.group)
    asked = questions(policies)
    made = Redecided(
        ranks=np.zeros(count, np.int8),
        regional={r: np.full(count, -1, np.int8) for r in policies.regions},
        queue=np.full(count, -1, np.int32),
        queue_names=[],
        outcome=np.zeros((count, len(asked)), np.int8),
    )
    order = np.argsort(stored.group, kind="stable")
    edges = np.searchsorted(stored.group[order], np.arange(len(stored.groups) + 1))
    for number in range(len(stored.groups)):
        rows = order[edges[number] : edges[number + 1]]
        if not len(rows):
            continue
        _Group(stored, policies, thresholds, shares, made, rows).decide(stored.groups[number])
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shares:
    """What hangs on the content's id alone."""

    #: Policy that acts on a share of the contents -> on which.
    rollout: Mapping[str, Flags]
    #: Each content's lot for audits; None where no policy has any.
    lots: Numbers | None
    #: Policy -> the contents for which its cap of the day is spent.
    spent: Mapping[str, Flags] = field(default_factory=dict)

    @classmethod
    def of(cls, stored: Stored, policies: PolicySet) -> "_Shares":
        count = len(stored.group)
        live = [policy for policy in policies if policy.status is Status.LIVE]
        partial = [policy for policy in live if policy.rollout < 1]
        audited = any(policy.audit.passed or policy.audit.acted for policy in live)
        ids = stored.content_ids.to_pylist() if partial or audited else []
        return cls(
            rollout={p.policy: np.fromiter(map(p.acts_on, ids), bool, count) for p in partial},
            lots=np.fromiter(map(lot, ids), float, count) if audited else None,
        )


class _Group:
    """The rows of one group, decided together."""

    def __init__(
        self,
        stored: Stored,
        policies: PolicySet,
        thresholds: Thresholds,
        shares: _Shares,
        made: Redecided,
        rows: NDArray[Any],
    ) -> None:
        self._stored = stored
        self._policies = policies
        self._thresholds = thresholds
        self._shares = shares
        self._made = made
        self._rows = rows
        self._place = {q.id: n for n, (_, q) in enumerate(questions(policies))}

    def decide(self, circumstances: Circumstances) -> None:
        """Fill in what is decided on these rows."""
        context_json, language, media, text = circumstances
        event = UploadEvent(
            event_id="e",
            content_id="c",
            media=(MediaRef(uri="m"),) if media else (),
            text="t" if text else "",
            context=Context.model_validate(json.loads(context_json)),
        )
        context = event.context.values()
        rows, made = self._rows, self._made
        live = [(p, q) for p, q in questions_for(event, self._policies) if p.status is Status.LIVE]
        silent = self._silent(live)
        quiet = np.zeros(len(rows), np.int8)
        for policy, flags in silent:
            np.maximum(quiet, np.where(flags, policy.when_unavailable.action.rank, 0), out=quiet)
        everywhere = [
            self._judge(p, q, context, language) for p, q in live if p.binds(q.clause, None)
        ]
        made.ranks[rows] = _strictest(everywhere, quiet)
        abroad: dict[int, list[_Judged]] = {}
        for region in regions(event, self._policies):
            there = [
                self._judge(p, q, {**context, "region": region}, language)
                for p, q in live
                if region in p.regions and p.binds(q.clause, region)
            ]
            same = [j for j in everywhere if region not in j.policy.regions]
            made.regional[region][rows] = _strictest([*there, *same], quiet)
            for judged in there:
                abroad.setdefault(judged.column, []).append(judged)
        self._follow(everywhere, abroad, silent)

    def _live(self, policy: Policy) -> Flags:
        share = self._shares.rollout.get(policy.policy)
        return np.ones(len(self._rows), bool) if share is None else share[self._rows]

    def _silent(self, live: list[tuple[Policy, Question]]) -> list[tuple[Policy, Flags]]:
        found = []
        for policy, question in live:
            column = self._stored.probability[self._rows, self._place[question.id]]
            found.append((policy, np.isnan(column) & self._live(policy)))
        return found

    def _judge(
        self, policy: Policy, question: Question, context: Mapping[str, Any], language: str | None
    ) -> _Judged:
        rule = policy.rule(question.clause, context)
        column = self._place[question.id]
        p = self._stored.probability[self._rows, column]
        fresh = self._stored.fresh[self._rows, column]
        live = self._live(policy) & ~np.isnan(p)
        act_at = self._band(rule.act_at, question.id, column)
        wanted = self._band(rule.review_at, question.id, column)
        review_at = np.where(np.isnan(wanted), 0.0, wanted)
        tested = language is None or not policy.languages or language in policy.languages
        # Read whole, the picture would pass: what one of its tiles alone shows, a person decides.
        at_odds = (self._stored.whole[self._rows, column] < review_at) & (review_at <= p)
        may = (fresh | rule.acts_uncalibrated) & tested & (not rule.approval) & ~at_odds
        # A comparison with what is no number is false: no threshold, no act.
        sure = live & (p >= act_at)
        acts = sure & may
        spent = self._shares.spent.get(policy.policy)
        if spent is not None:
            acts &= ~spent[self._rows]
        seen = live & ~acts & ((p >= review_at) | sure)
        rank = np.where(acts, rule.action.rank, np.where(seen, rule.meanwhile.rank, 0))
        if rule.action is Action.HOLD:
            seen = seen | acts
        return _Judged(
            column=column,
            policy=policy,
            rule=rule,
            live=live,
            acts=acts,
            seen=seen,
            rank=rank.astype(np.int8),
            probability=p,
        )

    def _band(
        self, band: float | Precision | MissRate | None, question: str, column: int
    ) -> Numbers | float:
        if not isinstance(band, (Precision, MissRate)):
            return np.nan if band is None else band
        kept = [self._thresholds.get((question, c), {}).get(band) for c in self._stored.classifiers]
        # The last one is for rows without an answer, whose code is -1.
        table = np.array([*(np.nan if k is None else k for k in kept), np.nan], float)
        found: Numbers = table[self._stored.answered_by[self._rows, column]]
        # A promise holds only as long as the calibration that it was proven on.
        return np.where(self._stored.fresh[self._rows, column], found, np.nan)

    def _follow(
        self,
        everywhere: list[_Judged],
        abroad: Mapping[int, list[_Judged]],
        silent: list[tuple[Policy, Flags]],
    ) -> None:
        made, rows = self._made, self._rows
        weight = np.full(len(rows), -1.0)
        surest = np.full(len(rows), -1.0)
        queue = np.full(len(rows), -1, np.int32)
        for policy, flags in silent:
            heavier = (
                flags
                & (policy.when_unavailable.then == "review")
                & (policy.severity.weight > weight)
            )
            weight[heavier] = policy.severity.weight
            queue[heavier] = made.code(policy.review.queue or INTAKE)
        # Whatever a model found goes before what it was silent on.
        weight[:] = -1.0

        def add(judged: _Judged, chosen: Flags) -> None:
            outcome = np.where(judged.acts, 2, np.where(judged.seen, 1, 0))
            made.outcome[rows[chosen], judged.column] = outcome[chosen]
            heavy = judged.rule.severity.weight
            first = (
                chosen
                & judged.seen
                & ((heavy > weight) | ((heavy == weight) & (judged.probability > surest)))
            )
            weight[first] = heavy
            surest[first] = judged.probability[first]
            queue[first] = made.code(judged.rule.queue)

        led: dict[int, Flags] = {}
        wherever = [(judged, judged.live) for judged in everywhere]
        for judged in everywhere:
            led[judged.column] = judged.leads
        for column, several in abroad.items():
            best = np.full(len(rows), -1)
            owner = np.full(len(rows), -1)
            for number, judged in enumerate(several):
                # A person is asked where any region asks for one; else the strictest action counts.
                value = judged.seen * 10 + judged.rank
                more = judged.leads & (value > best)
                best[more], owner[more] = value[more], number
            free = ~led.get(column, np.zeros(len(rows), bool))
            for number, judged in enumerate(several):
                wherever.append((judged, free & (owner == number)))
        for judged, chosen in wherever:
            add(judged, chosen)
        if self._shares.lots is not None:
            by_lot = self._audited(wherever, self._shares.lots[rows])
            queue = np.where(queue < 0, by_lot, queue)
        made.queue[rows] = queue

    def _audited(self, wherever: list[tuple[_Judged, Flags]], lots: Numbers) -> Codes:
        """Return the queue in which a person sees by lot what was decided without one; -1: nobody does."""
        alone = [(judged, chosen & judged.live & ~judged.seen) for judged, chosen in wherever]
        drawn: dict[int, Flags] = {}
        for judged, rows in alone:
            audit = judged.policy.audit
            hit = rows & (lots < np.where(judged.acts, audit.acted, audit.passed))
            drawn[judged.column] = drawn.get(judged.column, False) | hit
        weight, surest = np.full(len(lots), -1.0), np.full(len(lots), -1.0)
        queue = np.full(len(lots), -1, np.int32)
        for judged, rows in alone:
            heavy, p = judged.rule.severity.weight, judged.probability
            first = (heavy > weight) | ((heavy == weight) & (p > surest))
            first &= rows & drawn[judged.column]
            weight[first], surest[first] = heavy, p[first]
            queue[first] = self._made.code(judged.rule.queue)
        return queue


def _strictest(judged: Iterable[_Judged], quiet: NDArray[np.int8]) -> NDArray[np.int8]:
    found = quiet.copy()
    for one in judged:
        np.maximum(found, one.rank, out=found)
    return found


def action_of(rank: int) -> Action:
    """Return the action of this strictness."""
    return _BY_RANK[rank]
