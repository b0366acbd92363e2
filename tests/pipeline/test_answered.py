"""What people answered about archived decisions, and what it says of the whole."""

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline import telemetry
from pipeline.answered import Answered, Group, Looked, look
from pipeline.archive import Archive
from pipeline.archiving import write_batch
from pipeline.calibration import (
    Calibration,
    Calibrations,
    Curve,
    Kept,
    Labels,
    write_alarms,
)
from pipeline.calibration_folder import CalibrationFolder
from pipeline.cli import main
from pipeline.config import Store
from pipeline.decide import Answer, Origin, decide
from pipeline.messages import DECISIONS, VERDICTS, Content, Source, UploadEvent, Verdict
from pipeline.quality import Where
from pipeline.records import Record
from pipeline.watching import watch
from policies.schema import Policy, PolicySet, Precision
from tests.pipeline.test_decide import policy
from workers.classifier import Classification

NOW = datetime.now(UTC) - timedelta(days=1)
SURE = Precision(precision=0.95)
POLICY: Policy = policy(
    clauses={"W1": {"text": "Sells one."}},
    audit={"passed": "10%", "acted": "25%"},
    bands={"review": 0.3, "act": 0.9},
)


def record(topic: str, number: int, value: str) -> Record:
    """Return a record of our own."""
    return Record(
        topic=topic, partition=0, offset=number, timestamp_s=0, key=b"c", value=value.encode()
    )


def fill(archive: Archive, count: int, *, again: bool = True) -> float:
    """Archive decisions and the verdicts of people who are right, and return the share that violates."""
    rng = np.random.default_rng(4)
    policies = PolicySet((POLICY,))
    decisions: list[Record] = []
    verdicts: list[Record] = []
    violations = 0
    for number in range(count):
        score = float(rng.normal(-2, 2.5))
        violates = bool(rng.random() < 1 / (1 + math.exp(-score)))
        violations += violates
        decision = decide(
            UploadEvent.model_validate(
                {
                    "event_id": f"e{number}",
                    "content_id": f"c{number}",
                    "text": "a caption",
                    "context": {"surface": ("feed", "news")[number % 2], "regions": ["DE", "AT"]},
                }
            ),
            [
                Answer(
                    question="weapons",
                    score=score * 2,  # far too sure
                    probability=1 / (1 + math.exp(-score)),
                    calibration="fresh",
                    answered_by="sha256:m",
                )
            ],
            policies,
            origin=Origin(
                source=Source(topic="media.uploads", partition=0, offset=number),
                decision_id=f"d{number}",
                content=Content(text=f"sha256:{number}", language="en"),
            ),
            now=NOW,
        )
        decisions.append(record(DECISIONS, number, decision.model_dump_json()))
        if decision.review is None:
            continue
        for part in ("first", "second") if again else ("first",):
            verdict = Verdict.model_validate(
                {
                    "verdict_id": f"v{number}{part}",
                    "job_id": f"d{number}",
                    "decision_id": f"d{number}",
                    "reviewer": f"r-{part}",
                    "lease": 1,
                    "part": part,
                    "answers": [
                        {
                            "policy": "weapons",
                            "clause": "W1" if violates else None,
                            "answer": "violates" if violates else "allowed",
                        }
                    ],
                    "decided_at": NOW + timedelta(seconds=len(verdicts)),
                }
            )
            verdicts.append(record(VERDICTS, len(verdicts), verdict.model_dump_json()))
    write_batch(archive, decisions)
    write_batch(archive, verdicts)
    return violations / count


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Return an archive's folder and the share of its uploads that violates."""
    folder = tmp_path_factory.mktemp("archive")
    return folder, fill(Archive(str(folder), Store()), 4000)


def looked(folder: Path) -> Looked:
    """Return what people answered of the last days."""
    return look(Archive(str(folder), Store()), since=NOW - timedelta(days=2))


def shell(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CliRunner:
    """Return a shell whose archive, policies and calibrations lie in these folders."""
    (tmp_path / "policies").mkdir(exist_ok=True)
    text = json.dumps(POLICY.model_dump(mode="json", exclude_defaults=True))
    (tmp_path / "policies" / "weapons.yaml").write_text(text)
    monkeypatch.setenv("WEIR_ARCHIVE", str(folder))
    monkeypatch.setenv("WEIR_POLICIES", str(tmp_path / "policies"))
    monkeypatch.setenv("WEIR_CALIBRATIONS", str(tmp_path / "calibrations"))
    return CliRunner()


def test_every_decision_is_counted_and_every_answer_has_its_chance(
    filled: tuple[Path, float],
) -> None:
    """Chances are those of the policy's audit, and one where a band asked a person."""
    found = looked(filled[0])

    assert sum(found.counts.values()) == 4000
    chances = {
        where: {a.chance for a in found.answers if a.where == where}
        for where in ("passed", "review", "acted")
    }
    assert chances == {"passed": {0.1}, "review": {1.0}, "acted": {0.25}}
    assert all(a.final is a.first for a in found.answers)


def test_the_report_estimates_what_is_true(
    filled: tuple[Path, float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`weir report quality` finds the share that violates from a sample, in all and by surface and region."""
    folder, truth = filled

    done = shell(folder, monkeypatch, tmp_path).invoke(
        main, ["report", "quality", "--json", "--by", "surface", "--by", "region"]
    )

    assert done.exit_code == 0, done.output
    rows = {(row["by"], row["value"]): row for row in json.loads(done.stdout)}
    assert set(rows) == {
        (None, None),
        ("surface", "feed"),
        ("surface", "news"),
        ("region", "AT"),
        ("region", "DE"),
    }
    everywhere = rows[None, None]
    _, low, high = everywhere["prevalence"]
    assert low <= truth <= high
    assert high - low < 0.1
    assert everywhere["precision"][0] > 0.85
    assert 0 < everywhere["miss_rate"][0] < 0.5


def test_single_answers_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody looked again the table says that answers are taken at their word."""
    fill(Archive(str(tmp_path / "archive"), Store()), 300, again=False)

    done = shell(tmp_path / "archive", monkeypatch, tmp_path).invoke(main, ["report", "quality"])

    assert done.exit_code == 0, done.output
    assert "taken at their word" in done.stdout


def test_answers_in_the_archive_become_a_calibration_that_keeps_its_promises(
    filled: tuple[Path, float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`weir calibrate` without a file fits the archived scores; `weir monitor` finds nothing against it."""
    run = shell(filled[0], monkeypatch, tmp_path)

    done = run.invoke(main, ["calibrate", "--json"])
    held = run.invoke(main, ["monitor", "--json"])

    assert done.exit_code == 0, done.output
    (told,) = json.loads(done.stdout)
    assert (told["question"], told["classifier"]) == ("weapons", "sha256:m")
    assert told["ece_after"][0] < told["ece_before"]
    found = Calibrations.load(tmp_path / "calibrations").by_key["weapons", "sha256:m"]
    # Scores were twice the log-odds: the curve takes that back, though people saw a biased sample.
    assert found.curve.at(2.0) == pytest.approx(1 / (1 + math.exp(-1.0)), abs=0.08)
    assert held.exit_code == 0, held.output


def answered(number: int, *, violates: bool, where: Where = "acted") -> Answered:
    """Return an answer about a decision that was audited by lot."""
    return Answered(
        question="weapons",
        question_digest=POLICY.questions[0].digest,
        policy_version=1,
        classifier="sha256:m",
        score=3.0,
        probability=0.95,
        where=where,
        chance=1.0,
        first=violates,
        final=violates,
        cluster=str(number),
        content_id=f"c{number}",
        decision_id=f"d{number}",
        group=Group(surface=None, language=None, regions=()),
        at=NOW + timedelta(seconds=number),
    )


def promised() -> Calibration:
    """Return a calibration that keeps one promise from 0.9 on."""
    curve = Curve(scores=(-5.0, 5.0), probabilities=(0.01, 0.99))
    return Calibration(
        question="weapons",
        question_digest=POLICY.questions[0].digest,
        policy_version=1,
        classifier="sha256:m",
        method="platt",
        curve=curve,
        low=curve,
        high=curve,
        labels=Labels(violates=100, allowed=100),
        kept=(Kept(promise=SURE, value=0.9, labels=100, errors=0, bound=0.04),),
        fitted_at=NOW,
    )


def test_a_refuted_promise_is_turned_off_in_decisions_and_metrics(tmp_path: Path) -> None:
    """After enough wrong actions the alarm stands beside the calibration; thresholds go, and findings say why."""
    calibration = promised()
    (tmp_path / calibration.file_name).write_text(calibration.model_dump_json())
    times = iter([0.0, 0.0, 10.0])
    folder = CalibrationFolder(tmp_path, clock=lambda: next(times))
    question, score = POLICY.questions[0], Classification(question="weapons", score=5.0)
    before = folder.current().answer(question, score, "sha256:m", now=NOW)
    calm = [answered(n, violates=True) for n in range(200)]
    wrong = [answered(n, violates=n % 3 > 0) for n in range(200, 300)]

    fine = watch([calibration], calm, {}, before=(), now=NOW)
    found = watch([calibration], [*calm, *wrong], {}, before=(), now=NOW)
    write_alarms(tmp_path, [one.alarm for one in found if one.alarm])
    after = folder.current().answer(question, score, "sha256:m", now=NOW)

    assert [one.alarm for one in fine] == [None]
    assert (before.thresholds, before.alarm) == ({SURE: 0.9}, None)
    assert (after.thresholds, after.alarm, after.calibration) == ({}, "risk", "fresh")
    names = {"question": "weapons", "classifier": "sha256:m", "promise": str(SURE)}
    assert telemetry.REGISTRY.get_sample_value("weir_promise_in_force", names) == 0
    # It stays off, whatever the next answers are, until a new fit.
    again = watch([calibration], calm, {}, before=[a.alarm for a in found if a.alarm], now=NOW)
    assert again[0].alarm is not None
    refitted = calibration.model_copy(update={"fitted_at": NOW + timedelta(days=1)})
    assert watch([refitted], [], {}, before=[again[0].alarm], now=NOW)[0].alarm is None


def test_scores_that_moved_make_a_calibration_stale(tmp_path: Path) -> None:
    """The drift alarm needs no answers; with it findings are stale and nothing acts by them."""
    calibration = promised()
    (tmp_path / calibration.file_name).write_text(calibration.model_dump_json())
    rng = np.random.default_rng(5)
    scores = {("weapons", "sha256:m"): (rng.normal(0, 1, 2000), rng.normal(1.2, 1, 2000))}

    found = watch([calibration], [], scores, before=(), now=NOW)
    write_alarms(tmp_path, [one.alarm for one in found if one.alarm])

    answer = Calibrations.load(tmp_path).answer(
        POLICY.questions[0], Classification(question="weapons", score=5.0), "sha256:m", now=NOW
    )
    assert (answer.calibration, answer.alarm, answer.thresholds) == ("stale", "drift", {})
