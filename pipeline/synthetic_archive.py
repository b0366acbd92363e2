"""Policies with every feature that changes a decision, and archives of any size that hold decisions under them.

For the backtest's bench and its tests: circumstances, answers and freshness are random, and what was decided is what
the older set decides.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import policies
from pipeline.archive import Archive, ArchiveFile, table_of
from pipeline.archived_rows import SCHEMAS
from pipeline.backtest import action_of, redecide
from pipeline.calibration import (
    Calibration,
    Calibrations,
    Curve,
    Kept,
    Labels,
    logistic,
    write,
)
from pipeline.decide import questions_for
from pipeline.messages import DECISIONS, VERDICTS, UploadEvent
from pipeline.stored import questions, read
from policies.folder import read_policies
from policies.schema import MissRate, PolicySet, Precision

#: The classifier that answered, and one whose answers are in the archive from before.
CLASSIFIER: Final = "sha256:" + "c" * 64
_FORMER: Final = "sha256:" + "f" * 64
#: The policy whose questions have no calibration.
_AS_DECIDED: Final = "beer"
_SURE: Final = Precision(precision=0.99, confidence=0.95)
_FEW: Final = MissRate(miss_rate=0.02, confidence=0.95)
_STATES: Final = ("fresh", "stale", "none")
#: Decisions in one file, as the archive's consumer writes them.
_A_FILE: Final = 20_000
#: One decision in so many was judged by people.
_JUDGED_OF: Final = 50
#: Share of questions that stayed without an answer.
_SILENT: Final = 0.02


def _policy(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "policy": name,
        "title": name.title(),
        "version": 1,
        "status": "live",
        "question": f"Does it break the rule on {name}?",
        "clauses": {"W1": {"text": "Sells one."}, "W2": {"text": "Praises one."}},
        "severity": "high",
        "action": "remove",
        "bands": {"review": 0.3, "act": 0.9},
        "review": {"queue": "weapons", "meanwhile": "hold"},
        **fields,
    }


def _own(**fields: Any) -> dict[str, Any]:
    return {"W1": {"text": "Sells one."}, "W2": {"text": "Praises one.", **fields}}


#: What was in force when the archive was written: 12 questions.
OLD: Final = (
    _policy("arms", clauses=_own(severity="critical")),
    _policy("beer"),
    _policy("dice", clauses=_own(regions=["GB"])),
    _policy("fire"),
    _policy("hate", clauses=_own(action="hold", severity="medium"), review={"queue": "abuse"}),
    _policy("scam", status="shadow", review={"queue": "fraud"}),
    _policy("snow", reads=["image"]),
    _policy("toys"),
    _policy("vice", review={"queue": "adult", "meanwhile": "restrict"}),
)
#: The edit: every feature that changes a decision, and no wording.
NEW: Final = (
    _policy(
        "arms",
        clauses=_own(severity="critical", bands={"act": "never"}, review={"queue": "threats"}),
        bands={"review": 0.4, "act": 0.8},
        overrides=[
            {"when": {"surface": "news"}, "bands": {"act": "never"}},
            {"when": {"audience": ["teens", "general"]}, "severity": "critical", "action": "hold"},
            {"when": {"region": "DE"}, "action": "restrict", "bands": {"review": 0.1}},
        ],
    ),
    _policy(
        "beer",
        action="label",
        languages=[],
        bands={"review": 0.5, "act": 0.7, "uncalibrated": "act"},
    ),
    _policy("dice", rollout="40%", severity="medium", clauses=_own(regions=["GB"])),
    _policy(
        "fire",
        bands={"review": _FEW.model_dump(), "act": _SURE.model_dump()},
        when_unavailable={"after": "15m", "action": "restrict", "then": "review"},
    ),
    _policy(
        "hate",
        clauses=_own(action="hold", severity="medium", review={"approval": False}),
        action="restrict",
        review={"queue": "abuse", "approval": True},
    ),
    _policy(
        "scam",
        severity="critical",
        bands={"review": 0.95, "act": "never"},
        review={"queue": "fraud", "meanwhile": "restrict"},
    ),
    _policy("snow", reads=["image"], status="shadow"),
    _policy("toys", review={"queue": "regulated"}, audit={"passed": "10%", "acted": "60%"}),
    _policy("vice", review={"queue": "adult", "meanwhile": "allow"}),
)

_GONE: Final = object()
#: Feature -> policy, path in it, and what stands there where the feature is taken out.
_WITHOUT: Final[Mapping[str, tuple[str, tuple[str | int, ...], Any]]] = {
    "bands": ("arms", ("bands",), {"review": 0.3, "act": 0.9}),
    "a clause's bands": ("arms", ("clauses", "W2", "bands"), _GONE),
    "a clause's queue": ("arms", ("clauses", "W2", "review"), _GONE),
    "a clause's severity": ("arms", ("clauses", "W2", "severity"), "low"),
    "a clause's action": ("hate", ("clauses", "W2", "action"), "remove"),
    "a clause's regions": ("dice", ("clauses", "W2", "regions"), ["GB", "DE", "FR"]),
    "an override by a value": ("arms", ("overrides", 0, "when"), {"surface": "profile"}),
    "an override by a list": ("arms", ("overrides", 1, "when"), {"audience": "adults"}),
    "an override's severity": ("arms", ("overrides", 1, "severity"), "low"),
    "an override by region": ("arms", ("overrides", 2, "when"), {"region": "JP"}),
    "act: never in an override": ("arms", ("overrides", 0, "bands"), {"act": 0.8}),
    "action": ("beer", ("action",), "remove"),
    "languages": ("beer", ("languages",), ["en"]),
    "uncalibrated: act": ("beer", ("bands", "uncalibrated"), _GONE),
    "rollout": ("dice", ("rollout",), "100%"),
    "severity": ("dice", ("severity",), "critical"),
    "a promise of precision": ("fire", ("bands", "act"), 0.97),
    "a promise of a miss rate": ("fire", ("bands", "review"), 0.5),
    "when_unavailable": ("fire", ("when_unavailable",), {"action": "allow", "then": "review"}),
    "when_unavailable: then": ("fire", ("when_unavailable", "then"), "rescore"),
    "approval": ("hate", ("review", "approval"), False),
    "status: live": ("scam", ("status",), "shadow"),
    "status: shadow": ("snow", ("status",), "live"),
    "audit: passed": ("toys", ("audit", "passed"), "0%"),
    "audit: acted": ("toys", ("audit", "acted"), "0%"),
    "queue": ("toys", ("review", "queue"), "weapons"),
    "meanwhile": ("vice", ("review", "meanwhile"), "hold"),
}
#: How many features there are.
FEATURES: Final = len(_WITHOUT)


def features() -> Iterator[tuple[str, tuple[dict[str, Any], ...]]]:
    """Yield each feature of the newer set, and that set without it."""
    for feature, (name, path, instead) in _WITHOUT.items():
        changed = json.loads(json.dumps(NEW))
        place: Any = next(policy for policy in changed if policy["policy"] == name)
        for step in path[:-1]:
            place = place[step]
        if instead is _GONE:
            del place[path[-1]]
        else:
            place[path[-1]] = instead
        yield feature, tuple(changed)


def write_policies(folder: Path, written: Sequence[Mapping[str, Any]]) -> PolicySet:
    """Write a folder of policies beside the queues and context keys that ship, and return its set."""
    folder.mkdir(parents=True, exist_ok=True)
    house = Path(policies.__file__).parent
    for name in ("queues.yaml", "context.yaml"):
        (folder / name).write_bytes((house / name).read_bytes())
    for policy in written:
        # Everything that is JSON is YAML.
        (folder / f"{policy['policy']}.yaml").write_text(json.dumps(policy, indent=1) + "\n")
    return read_policies(folder)


def write_calibrations(folder: Path, new: PolicySet, *, now: datetime) -> Calibrations:
    """Write calibrations that take the scores for less sure than they were, and keep the newer set's promises.

    One policy's questions, and the classifier of before, have none: of those the archive's probabilities stand.
    """
    scores = tuple(float(x) for x in range(-22, 23))
    curve = Curve(scores=scores, probabilities=tuple(logistic(0.8 * x) for x in scores))
    kept = tuple(
        Kept(promise=promise, value=value, labels=1000, errors=0, bound=0.0)
        for promise, value in ((_SURE, 0.85), (_FEW, 0.2))
    )
    made = [
        Calibration(
            question=question.id,
            question_digest=question.digest,
            policy_version=1,
            classifier=CLASSIFIER,
            method="platt",
            curve=curve,
            low=curve,
            high=curve,
            labels=Labels(violates=500, allowed=500),
            kept=kept if policy.policy == "fire" else (),
            fitted_at=now,
        )
        for policy, question in questions(new)
        if policy.policy != _AS_DECIDED
    ]
    for calibration in made:
        write(folder, calibration)
    return Calibrations.of(made)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Circumstances:
    """One kind of upload, and which questions it is asked."""

    surface: str | None
    regions: tuple[str, ...] | None
    media: bool
    text: bool
    #: The context as JSON, up to the reach that follows.
    context: str
    asked: NDArray[np.bool_]


def fill(
    archive: Archive,
    old: PolicySet,
    count: int,
    *,
    now: datetime,
    seed: int = 1,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Write so many decisions of the last seven days under the older set, and verdicts on some of them."""
    rng = np.random.default_rng(seed)
    kinds = list(_kinds(old))
    judged: list[dict[str, Any]] = []
    for first in range(0, count, _A_FILE):
        size = min(_A_FILE, count - first)
        begun = now - timedelta(days=7) * (1 - first / max(count, 1)) + timedelta(minutes=1)
        table = _decisions(old, kinds, first, size, begun, rng)
        day = begun.strftime("%Y-%m-%d")
        last = first + size - 1
        file = ArchiveFile(topic=DECISIONS, day=day, partition=0, first=first, last=last)
        archive.write(file, table)
        ids = table.column("decision_id").to_pylist()[::_JUDGED_OF]
        advance(first + size)
        judged += [_verdict(d, len(judged) + n, now, rng) for n, d in enumerate(ids)]
    if judged:
        day = now.strftime("%Y-%m-%d")
        file = ArchiveFile(topic=VERDICTS, day=day, partition=0, first=0, last=len(judged) - 1)
        archive.write(file, table_of(VERDICTS, judged))


def _kinds(old: PolicySet) -> Iterator[_Circumstances]:
    order = [question.id for _, question in questions(old)]
    for surface, audience, regions, (media, text) in product(
        ("feed", "news", None),
        ("teens", None),
        (("DE",), ("GB", "FR"), ("DE", "GB"), None),
        ((True, True), (True, False), (False, True)),
    ):
        given = {"audience": audience, "regions": regions, "surface": surface}
        context = {name: value for name, value in given.items() if value is not None}
        event = UploadEvent.model_validate(
            {
                "event_id": "e",
                "content_id": "c",
                "media": [{"uri": "m"}] if media else [],
                "text": "t" if text else "",
                "context": context,
            }
        )
        asked = {question.id for _, question in questions_for(event, old)}
        yield _Circumstances(
            surface=surface,
            regions=regions,
            media=media,
            text=text,
            context=json.dumps(context)[:-1] + (", " if context else ""),
            asked=np.array([name in asked for name in order]),
        )


def _decisions(
    old: PolicySet,
    kinds: Sequence[_Circumstances],
    first: int,
    size: int,
    begun: datetime,
    rng: np.random.Generator,
) -> Any:
    kind = rng.integers(0, len(kinds), size)
    of = [kinds[n] for n in kind.tolist()]
    present = np.stack([k.asked for k in kinds])[kind] & (
        rng.random((size, len(kinds[0].asked))) > _SILENT
    )
    probability = np.round(rng.random(present.shape) ** 4, 6)
    # A third is calm, so that not everything is under review; in half of that, one question alone is sure.
    calm = rng.random(size) < 1 / 3
    probability[calm] *= 0.05
    sure = np.flatnonzero(calm)[::2]
    probability[sure, rng.integers(0, present.shape[1], len(sure))] = 0.98
    fresh = rng.choice(3, present.shape, p=[0.8, 0.1, 0.1])
    maker = rng.choice(2, present.shape, p=[0.95, 0.05])
    reach = np.round(rng.random(size) * 10_000, 1).tolist()
    shas = [f"sha256:{word}" for word in _words(size, 32, rng)]
    # A million objects of `uuid.UUID` would take longer than all the rest of their decisions.
    ids = [f"{w[:8]}-{w[8:12]}-{w[12:16]}-{w[16:20]}-{w[20:]}" for w in _words(size, 16, rng)]
    columns: dict[str, Any] = {
        "partition": np.zeros(size, np.int32),
        "offset": np.arange(first, first + size),
        "decision_id": ids,
        "source_topic": ["media.uploads"] * size,
        "source_partition": np.zeros(size, np.int32),
        "source_offset": np.arange(first, first + size),
        "event_id": [f"event-{n}" for n in range(first, first + size)],
        "content_id": [f"post-{n}" for n in range(first, first + size)],
        "author_id": [f"author-{n % 99_991}" for n in range(first, first + size)],
        "media": [[sha] if k.media else [] for k, sha in zip(of, shas, strict=True)],
        "text": [sha if k.text else None for k, sha in zip(of, shas, strict=True)],
        "language": [("en", "de", None)[n] for n in rng.integers(0, 3, size).tolist()],
        "surface": [k.surface for k in of],
        "regions": [None if k.regions is None else list(k.regions) for k in of],
        "context": [f'{k.context}"reach": {r}}}' for k, r in zip(of, reach, strict=True)],
        "regional": ["{}"] * size,
        "policy_set": [old.digest] * size,
        "decided_by": ["pipeline"] * size,
        "decided_at": [begun + timedelta(milliseconds=10 * n) for n in range(size)],
        "findings": _findings(old, present, probability, fresh, maker),
    }
    # Read as the backtest reads it, and decided under the older set: that is what stands there as decided.
    told = {name: columns[name] for name in columns} | {
        "action": ["allow"] * size,
        "queue": pa.nulls(size, pa.string()),
    }
    made = redecide(read([_table(told, size)], old), old, {})
    columns["action"] = [action_of(rank).value for rank in made.ranks.tolist()]
    columns["queue"] = [None if n < 0 else made.queue_names[n] for n in made.queue.tolist()]
    columns["findings"] = _with_outcomes(columns["findings"], made.outcome[present])
    return _table(columns, size)


def _table(columns: Mapping[str, Any], size: int) -> Any:
    schema = SCHEMAS[DECISIONS]
    filled = [
        pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.nulls(size, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(filled, schema=schema)


def _findings(
    old: PolicySet,
    present: NDArray[np.bool_],
    probability: NDArray[np.float64],
    fresh: NDArray[np.int64],
    maker: NDArray[np.int64],
) -> Any:
    """Return the findings as a column, each with an outcome that is still to come."""
    asked = questions(old)
    _, column = np.nonzero(present)
    p = probability[present]
    place = np.arange(len(p))

    text, number = pa.string(), pa.float64()
    values = {
        "policy": _of([policy.policy for policy, _ in asked], column, text),
        "policy_version": _of([policy.version for policy, _ in asked], column, pa.int32()),
        "status": _of([policy.status.value for policy, _ in asked], column, text),
        "severity": _of([policy.severity.value for policy, _ in asked], column, text),
        "clause": _of([question.clause for _, question in asked], column, text),
        "question": _of([question.id for _, question in asked], column, text),
        "question_digest": _of([question.digest for _, question in asked], column, text),
        "score": pa.array(_odds(p), number),
        "probability": pa.array(p, number),
        # One in ten was read in tiles, too, and is less sure as a whole.
        "whole": pa.array(np.where(place % 10 == 0, p / 2, np.nan), from_pandas=True),
        # Half of those are of before its score was kept.
        "whole_score": pa.array(np.where(place % 20 == 0, _odds(p / 2), np.nan), from_pandas=True),
        "low": pa.array(p * 0.9, number),
        "high": pa.array(np.minimum(p * 1.1, 1), number),
        "calibration": _of(_STATES, fresh[present], text),
        "answered_by": _of([CLASSIFIER, _FORMER], maker[present], text),
    }
    kind = SCHEMAS[DECISIONS].field("findings").type.value_type
    children = [
        values[field.name] if field.name in values else pa.nulls(len(p), field.type)
        for field in kind
    ]
    ends = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    return pa.ListArray.from_arrays(
        pa.array(ends, pa.int32()), pa.StructArray.from_arrays(children, fields=list(kind))
    )


def _odds(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log-odds of probabilities, which may be 0."""
    found: NDArray[np.float64] = np.log((p + 1e-9) / (1 - p + 1e-9))
    return found


def _with_outcomes(findings: Any, outcome: NDArray[Any]) -> Any:
    flat = findings.values
    place = flat.type.get_field_index("outcome")
    children = flat.flatten()
    children[place] = _of(["none", "review", "acted"], outcome, pa.string())
    return pa.ListArray.from_arrays(
        findings.offsets, pa.StructArray.from_arrays(children, fields=list(flat.type))
    )


def _of(values: Sequence[Any], codes: NDArray[Any], kind: Any) -> Any:
    """Return a column of these values, given by their numbers."""
    return pa.array(values, kind).take(pa.array(codes))


def _words(count: int, size: int, rng: np.random.Generator) -> list[str]:
    """Return so many random words of so many bytes, in hexadecimal digits."""
    whole = rng.bytes(count * size).hex()
    return [whole[n : n + 2 * size] for n in range(0, len(whole), 2 * size)]


def _verdict(
    decision_id: str, number: int, now: datetime, rng: np.random.Generator
) -> dict[str, Any]:
    answer = "violates" if rng.random() < 0.5 else "allowed"  # noqa: PLR2004 -- either half of the time
    return {
        "partition": 0,
        "offset": number,
        "verdict_id": f"verdict-{number}",
        "job_id": f"job-{number}",
        "decision_id": decision_id,
        "reviewer": "reviewer",
        "part": "first",
        "answers": [{"policy": "arms", "clause": None, "answer": answer, "carve_out": None}],
        "decided_at": now.astimezone(UTC),
    }
