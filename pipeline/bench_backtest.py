"""The backtest under load: an archive of any size, decided again by the command, and checked against `decide`.

1. `fill`: decisions under one set, with 12 questions each, in an archive of their own.
2. `time`: `weir policy backtest` of another set, as a process of its own on two cores.
3. `compare`: a sample is decided one by one, before and after; each feature of the set must matter in it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.archive import Archive
from pipeline.backtest import Redecided, action_of, redecide, thresholds_of
from pipeline.calibration import Calibrations
from pipeline.config import Store, environment
from pipeline.decide import Answer, Origin, decide
from pipeline.messages import DECISIONS, Content, Decision, Source, UploadEvent
from pipeline.recalibrating import Recalibration
from pipeline.stored import Stored, questions, read, selected
from pipeline.synthetic_archive import (
    FEATURES,
    NEW,
    OLD,
    features,
    fill,
    write_calibrations,
    write_policies,
)
from policies.question import Question
from policies.schema import Action, PolicySet
from workers.classifier import Classification

_WORDS: Final = ("none", "review", "acted")
_ROW: Final = ("offset", "decision_id", "content_id", "language", "context", "media", "text")
_FINDING: Final = (
    "question",
    "score",
    "probability",
    "whole",
    "whole_score",
    "calibration",
    "answered_by",
)
#: An archive is looked at as a whole.
_WHOLE: Final = "9d"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What came of it."""

    decisions: int
    questions: int
    #: Of the command as a process, from its start to its end, and what it took of the cores meanwhile.
    wall_s: float
    cpu_s: float
    peak_mb: float
    #: Processes that wanted the cores at the end, ours included: above two, `wall_s` is too long.
    load: float
    changed: int
    compared: int
    #: Compared decisions of which the backtest says anything else than `decide`, before or after.
    different: int
    #: Whether the command counts the changes that deciding in this process counts.
    same_count: bool
    #: Feature -> compared decisions that come out otherwise without it.
    features: Mapping[str, int]


def measure(
    count: int, *, sample: int, advance: Callable[[str, int, int], None] = lambda *_: None
) -> Figures:
    """Fill an archive, run the command on it, and compare; `advance` gets what, how much is done, of how much."""
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        old, new = write_policies(root / "old", OLD), write_policies(root / "new", NEW)
        calibrations = write_calibrations(root / "calibrations", new, now=now)
        thresholds = thresholds_of(calibrations, new)
        meant = Recalibration(calibrations=calibrations, policies=new, now=now)
        archive = Archive(str(root / "archive"), Store())
        fill(archive, old, count, now=now, advance=lambda n: advance("decisions", n, count))
        advance("backtest", 0, 1)
        told, wall_s, usage = _run(root)
        load = os.getloadavg()[0]
        stored = read(selected(archive, since=now - timedelta(days=9)), new, meant=meant)
        made = redecide(stored, new, thresholds)
        looked = stored.queues.known()
        changed = (stored.ranks != made.ranks) | (looked != (made.queue >= 0))
        rows = np.unique(np.linspace(0, len(stored.group) - 1, min(sample, count)).astype(int))
        different = 0
        for done, (row, case) in enumerate(zip(rows.tolist(), _cases(archive, rows), strict=True)):
            different += not _same(row, case, (old, new), (stored, made), calibrations)
            advance("compared", done + 1, len(rows))
        part = stored.only(rows)
        whole = redecide(part, new, thresholds)
        found: dict[str, int] = {}
        for feature, without in features():
            advance(f"without {feature}", len(found), FEATURES)
            less = write_policies(root / f"without-{len(found)}", without)
            found[feature] = _differing(whole, redecide(part, less, thresholds))
    return Figures(
        decisions=count,
        questions=len(questions(new)),
        wall_s=round(wall_s, 1),
        cpu_s=round(usage.ru_utime + usage.ru_stime, 1),
        # Linux counts in KiB, macOS in bytes.
        peak_mb=round(usage.ru_maxrss / (1000 if sys.platform == "linux" else 1_000_000), 1),
        load=round(load, 1),
        changed=int(changed.sum()),
        compared=len(rows),
        different=different,
        same_count=told["flipped"] == int(changed.sum()),
        features=found,
    )


def _run(root: Path) -> tuple[dict[str, Any], float, Any]:
    words = [str(root / "new"), "--since", _WHOLE, "--json", "--html", str(root / "page.html")]
    env = {
        **environment(),
        "WEIR_ARCHIVE": str(root / "archive"),
        "WEIR_CALIBRATIONS": str(root / "calibrations"),
        "WEIR_CONFIG": str(root / "none.toml"),
    }
    began_s = time.monotonic()
    with (root / "report.json").open("wb") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "policy", "backtest", *words],
            stdout=file,
            env=env,
            cwd=Path(__file__).parent.parent,
            preexec_fn=_on_two_cores,  # noqa: PLW1509 -- it touches nothing that a thread holds
        )
        # The child's own use, whatever other children there were.
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.monotonic() - began_s
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, "weir policy backtest")
    return json.loads((root / "report.json").read_text()), wall_s, usage


def _on_two_cores() -> None:
    if sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])


def _cases(archive: Archive, rows: NDArray[Any]) -> Iterator[dict[str, Any]]:
    """Yield the archived decisions at these places, as they stand there."""
    wanted = [*_ROW, *(f"findings.list.element.{name}" for name in _FINDING)]
    first = 0
    for table in archive.each(archive.files(DECISIONS), wanted):
        here = rows[(rows >= first) & (rows < first + len(table))] - first
        yield from table.take(here).to_pylist()
        first += len(table)


def _decided(
    case: Mapping[str, Any], policies: PolicySet, calibrations: Calibrations | None = None
) -> Decision:
    """Decide one upload on the stored answers, which mean what they meant unless calibrations say otherwise."""
    event = UploadEvent.model_validate(
        {
            "event_id": "e",
            "content_id": case["content_id"],
            "media": [{"uri": uri} for uri in case["media"]],
            "text": case["text"] or "",
            "context": json.loads(case["context"]),
        }
    )
    answers = [Answer(**finding) for finding in case["findings"]]
    if calibrations is not None:
        asked = {question.id: question for _, question in questions(policies)}
        answers = [_renewed(a, asked[a.question], calibrations) for a in answers]
    origin = Origin(
        source=Source(topic="media.uploads", partition=0, offset=case["offset"]),
        decision_id=case["decision_id"],
        content=Content(language=case["language"]),
    )
    return decide(event, answers, policies, origin=origin, now=datetime.now(UTC))


def _renewed(answer: Answer, question: Question, calibrations: Calibrations) -> Answer:
    if calibrations.find(question, answer.answered_by) is None:
        return answer
    said = Classification(question=question.id, score=answer.score, whole=answer.whole_score)
    made = calibrations.answer(question, said, answer.answered_by, now=datetime.now(UTC))
    return made if answer.whole_score is not None else made._replace(whole=answer.whole)


def _same(
    row: int,
    case: Mapping[str, Any],
    sets: tuple[PolicySet, PolicySet],
    columns: tuple[Stored, Redecided],
    calibrations: Calibrations,
) -> bool:
    """Return whether the flip of a row is the one that `decide` makes: action, regions, queue, every outcome."""
    (old, new), (stored, made) = sets, columns
    before, after = _decided(case, old), _decided(case, new, calibrations)
    action = action_of(int(made.ranks[row]))
    regional = {
        region: action_of(int(ranks[row]))
        for region, ranks in made.regional.items()
        if ranks[row] >= 0 and action_of(int(ranks[row])) is not action
    }
    outcomes = {finding.question: finding.outcome for finding in after.findings}
    queue = made.queue_names[made.queue[row]] if made.queue[row] >= 0 else None
    return (
        before.action.rank == stored.ranks[row]
        and _queue(before) == stored.queues.values[stored.queues.codes[row]]
        and after.action is action
        and dict(after.regional) == regional
        and _queue(after) == queue
        and [outcomes.get(q.id, "none") for _, q in questions(new)]
        == [_WORDS[n] for n in made.outcome[row]]
    )


def _queue(decision: Decision) -> str | None:
    return None if decision.review is None else decision.review.queue


def _differing(one: Redecided, other: Redecided) -> int:
    differs = (one.ranks != other.ranks) | (one.outcome != other.outcome).any(axis=1)
    differs |= _named(one) != _named(other)
    none = np.full(len(one.ranks), -1, np.int8)
    for region in one.regional.keys() | other.regional.keys():
        here, there = (_shown(m, m.regional.get(region, none)) for m in (one, other))
        differs |= here != there
    return int(differs.sum())


def _shown(made: Redecided, ranks: NDArray[np.int8]) -> NDArray[np.int8]:
    # Where a region says nothing of its own, what is decided everywhere holds there.
    return np.where(ranks < Action.ALLOW.rank, made.ranks, ranks)


def _named(made: Redecided) -> NDArray[Any]:
    return np.array([*made.queue_names, ""])[made.queue]
