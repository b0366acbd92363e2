"""The backtest decides what `decide` decides, and says what an edit of a policy would do."""

import json
import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.archive import Archive
from pipeline.archive_query import ask, connect
from pipeline.archiving import write_batch
from pipeline.backtest import action_of, redecide
from pipeline.calibration import Calibration, Calibrations, Curve, Labels, logistic
from pipeline.calibration import write as write_calibration
from pipeline.cli import main
from pipeline.config import Store
from pipeline.decide import Answer, Origin, decide
from pipeline.messages import (
    DECISIONS,
    VERDICTS,
    Content,
    Decision,
    Source,
    UploadEvent,
)
from pipeline.messages import Calibration as Freshness
from pipeline.records import Record
from pipeline.stored import Stored, questions, read, selected
from policies.folder import read_policies
from policies.schema import MissRate, Policy, PolicySet, Precision
from workers.classifier import Classification

HOUSE = Path(__file__).parents[2]
NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
SURE = Precision(precision=0.99, confidence=0.95)
FEW = MissRate(miss_rate=0.02, confidence=0.95)
KEPT: dict[Precision | MissRate, float | None] = {SURE: 0.85, FEW: 0.2}


def policy(name: str, **fields: Any) -> Policy:
    """Return a live policy with a joint question and one of a clause's own."""
    return Policy.model_validate(
        {
            "policy": name,
            "title": name.title(),
            "version": 1,
            "status": "live",
            "question": "Does it break the rule?",
            "clauses": {"W1": {"text": "Sells one."}, "W2": {"text": "Praises one."}},
            "severity": "high",
            "action": "remove",
            "bands": {"review": 0.3, "act": 0.9},
            "review": {"queue": name, "meanwhile": "hold"},
            **fields,
        }
    )


OLD = PolicySet(
    (
        policy("arms"),
        policy("beer"),
        policy("dice", clauses={"W1": {"text": "A."}, "W2": {"text": "B.", "regions": ["GB"]}}),
        policy("fire"),
        policy("hate"),
        policy("scam", status="shadow"),
        policy("snow"),
    )
)
#: Every feature that changes a decision, in one set.
NEW = PolicySet(
    (
        policy(
            "arms",
            bands={"review": 0.4, "act": 0.8},
            overrides=[
                {"when": {"surface": "news"}, "bands": {"act": "never"}},
                {"when": {"audience": ["teens", "kids"]}, "severity": "critical", "action": "hold"},
                {"when": {"region": "DE"}, "action": "restrict", "bands": {"review": 0.1}},
            ],
        ),
        policy(
            "beer",
            action="label",
            languages=[],
            bands={"review": 0.5, "act": 0.7, "uncalibrated": "act"},
        ),
        policy(
            "dice",
            rollout="40%",
            severity="medium",
            clauses={"W1": {"text": "A."}, "W2": {"text": "B.", "regions": ["GB"]}},
        ),
        policy(
            "fire",
            bands={"review": FEW.model_dump(), "act": SURE.model_dump()},
            when_unavailable={"after": "15m", "action": "restrict", "then": "review"},
        ),
        policy("hate", action="restrict", review={"queue": "hate", "approval": True}),
        policy("scam", severity="critical", bands={"review": 0.95, "act": "never"}),
        policy("snow", status="shadow"),
    )
)


def upload(number: int, rng: random.Random) -> UploadEvent:
    """Return an upload in random circumstances."""
    context: dict[str, Any] = {"reach": round(rng.random() * 1000, 1)}
    circumstances: dict[str, list[Any]] = {
        "surface": ["feed", "news", None],
        "audience": ["teens", "adults", None],
        "regions": [["DE"], ["GB", "FR"], ["DE", "GB"], [], None],
    }
    for key, values in circumstances.items():
        if (value := rng.choice(values)) is not None:
            context[key] = value
    media, text = rng.choice([(True, True), (True, False), (False, True)])
    return UploadEvent.model_validate(
        {
            "event_id": f"e{number}",
            "content_id": f"c{number}",
            "media": [{"uri": "a.jpg"}] if media else [],
            "text": "a caption" if text else "",
            "context": context,
        }
    )


def answers(rng: random.Random) -> list[Answer]:
    """Return random answers, some missing, some not calibrated."""
    found = []
    states: list[Freshness] = ["fresh", "fresh", "stale", "none"]
    for _, question in questions(OLD):
        if rng.random() < 0.03:
            continue
        probability = rng.random() ** 3
        state = rng.choice(states)
        found.append(
            Answer(
                question=question.id,
                score=math.log((probability + 1e-9) / (1 - probability + 1e-9)),
                probability=probability,
                calibration=state,
                answered_by="sha256:x",
                thresholds=KEPT if state == "fresh" else {},
            )
        )
    return found


def archived(
    archive: Archive, count: int, *, policies: PolicySet = OLD
) -> list[tuple[UploadEvent, list[Answer], Origin]]:
    """Fill an archive with decisions under a set, the old one if none is named, and return what they were made from."""
    rng = random.Random(7)
    made, records = [], []
    for number in range(count):
        event, given = upload(number, rng), answers(rng)
        content = Content(
            media=("sha256:m",) if event.media else (),
            text="sha256:t" if event.text else None,
            language=rng.choice(["en", "de", None]),
        )
        origin = Origin(
            source=Source(topic="media.uploads", partition=0, offset=number),
            decision_id=f"d{number}",
            content=content,
        )
        made.append((event, given, origin))
        value = decide(event, given, policies, origin=origin, now=NOW).model_dump_json().encode()
        records.append(
            Record(
                topic=DECISIONS, partition=0, offset=number, timestamp_s=0, key=b"c", value=value
            )
        )
    write_batch(archive, records)
    return made


def record(topic: str, number: int, value: str) -> Record:
    """Return a record of our own."""
    return Record(
        topic=topic, partition=0, offset=number, timestamp_s=0, key=b"c", value=value.encode()
    )


def stored(archive: Archive, policies: PolicySet) -> Stored:
    """Return the archive in the columns of these policies."""
    return read(selected(archive, since=NOW), policies)


def told(decision: Decision, policies: PolicySet) -> tuple[Any, ...]:
    """Return what the backtest says of a decision, as `decide` has it."""
    outcomes = {f.question: f.outcome for f in decision.findings}
    return (
        decision.action,
        dict(decision.regional),
        None if decision.review is None else decision.review.queue,
        [outcomes.get(q.id, "none") for _, q in questions(policies)],
    )


@pytest.mark.parametrize("policies", [NEW, OLD], ids=["changed", "unchanged"])
def test_the_backtest_decides_as_decide_does(tmp_path: Path, policies: PolicySet) -> None:
    """Action, regions, queue and each finding's outcome are equal on 600 decisions with every feature."""
    archive = Archive(str(tmp_path / "archive"), Store())
    made = archived(archive, 600)
    found = stored(archive, policies)
    thresholds = {(q.id, "sha256:x"): KEPT for _, q in questions(policies)}

    again = redecide(found, policies, thresholds)

    words = ("none", "review", "acted")
    for row, (event, given, origin) in enumerate(made):
        action = action_of(int(again.ranks[row]))
        regional = {
            region: action_of(int(ranks[row]))
            for region, ranks in again.regional.items()
            if ranks[row] >= 0 and action_of(int(ranks[row])) is not action
        }
        queue = again.queue_names[again.queue[row]] if again.queue[row] >= 0 else None
        mine = (action, regional, queue, [words[n] for n in again.outcome[row]])
        assert mine == told(decide(event, given, policies, origin=origin, now=NOW), policies), row


def write_folder(folder: Path, act: float) -> Path:
    """Write a folder of one policy that acts from this probability on."""
    folder.mkdir()
    fields = policy("arms").model_dump(
        mode="json", include={"policy", "title", "version", "status", "severity", "action"}
    ) | {
        "question": "Does it break the rule?",
        "clauses": {"W1": {"text": "Sells one."}, "W2": {"text": "Praises one."}},
        "bands": {"review": 0.3, "act": act},
        "review": {"queue": "arms", "meanwhile": "hold"},
    }
    (folder / "arms.yaml").write_text(json.dumps(fields))
    # The pipeline's own queues must be there, so the new one stands beside those that ship.
    shipped = (HOUSE / "policies" / "queues.yaml").read_text()
    (folder / "queues.yaml").write_text(shipped + "\n  arms: {title: Arms, due: 4h}\n")
    return folder


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """Return a shell whose archive holds 400 decisions, the first 60 of them judged by people."""
    archive = Archive(str(tmp_path / "archive"), Store())
    archived(archive, 400)
    records = []
    for number in range(60):
        verdict = {
            "verdict_id": f"v{number}",
            "job_id": f"j{number}",
            "decision_id": f"d{number}",
            "reviewer": "r",
            "lease": 1,
            "answers": [{"policy": "arms", "answer": "violates" if number % 2 else "allowed"}],
            "decided_at": NOW.isoformat(),
        }
        value = json.dumps(verdict).encode()
        records.append(
            Record(topic=VERDICTS, partition=0, offset=number, timestamp_s=0, key=b"c", value=value)
        )
    write_batch(archive, records)
    monkeypatch.setenv("WEIR_ARCHIVE", str(tmp_path / "archive"))
    return CliRunner()


def said(number: int, answer: str, **fields: Any) -> dict[str, Any]:
    """Return a person's answer about a decision."""
    return {
        "verdict_id": f"w{number}-{answer}",
        "job_id": f"j{number}",
        "decision_id": f"d{number}",
        "reviewer": "r",
        "lease": 1,
        "answers": [{"policy": "arms", "answer": answer}],
        "decided_at": (NOW + timedelta(minutes=1)).isoformat(),
        **fields,
    }


def test_a_verdict_that_replaces_another_is_the_label(
    shell: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever gave a verdict, or a lead, may replace it, and then theirs counts; a stranger's counts for nothing."""
    archive = Archive(str(tmp_path / "own"), Store())
    archived(archive, 4)
    verdicts = [
        *(said(n, "violates", verdict_id=f"v{n}", decided_at=NOW.isoformat()) for n in range(4)),
        said(0, "allowed", withdraws="v0"),
        said(1, "allowed", withdraws="v1", reviewer="lead", part="adjudication"),
        said(2, "allowed", withdraws="v2", reviewer="stranger"),
        # A second thought about a second thought.
        said(3, "allowed", withdraws="v3"),
        said(3, "violates", withdraws="w3-allowed", decided_at=NOW.isoformat()),
    ]
    write_batch(archive, [record(VERDICTS, n, json.dumps(v)) for n, v in enumerate(verdicts)])
    monkeypatch.setenv("WEIR_ARCHIVE", str(tmp_path / "own"))
    # Nothing passes and nothing acts, so that every violation is one that was judged.
    folder = write_folder(tmp_path / "new", act=0.9)

    done = shell.invoke(main, ["policy", "backtest", str(folder), "--since", "9999d", "--json"])

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["violations_judged"] == 2


def test_what_people_saw_by_lot_stands_for_what_they_did_not(
    shell: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of violations that passed one in ten was drawn for people: each counts ten times, and widens the interval."""
    rare = PolicySet((policy("arms", audit={"passed": "10%"}),))
    archive = Archive(str(tmp_path / "own"), Store())
    archived(archive, 2000, policies=rare)
    judged = ask(
        connect(archive),
        "SELECT decision_id, review_reason FROM decisions WHERE action <> 'remove' AND queue IS NOT NULL",
    ).read_all()
    by_lot = [
        name
        for name, why in zip(*judged.select([0, 1]).to_pydict().values(), strict=True)
        if why == "audit"
    ]
    verdicts = [
        {**said(0, "violates"), "verdict_id": f"v-{name}", "decision_id": name}
        for name in judged["decision_id"].to_pylist()
    ]
    write_batch(archive, [record(VERDICTS, n, json.dumps(v)) for n, v in enumerate(verdicts)])
    monkeypatch.setenv("WEIR_ARCHIVE", str(tmp_path / "own"))
    folder = write_folder(tmp_path / "new", act=0.9)

    done = shell.invoke(main, ["policy", "backtest", str(folder), "--since", "9999d", "--json"])

    missed = json.loads(done.stdout)["missed"]
    seen = len(verdicts) - len(by_lot)
    assert missed["value"] == pytest.approx(10 * len(by_lot) / (10 * len(by_lot) + seen))
    assert missed["high"] - missed["low"] > 0.08


def calibration(policies: PolicySet, *, slope: float, digest: str | None = None) -> Calibration:
    """Return a calibration of the first question that takes scores for this much of what they say."""
    question = policies.questions[0]
    scores = tuple(float(x) for x in range(-22, 23))
    curve = Curve(scores=scores, probabilities=tuple(logistic(slope * x) for x in scores))
    return Calibration(
        question=question.id,
        question_digest=digest or question.digest,
        policy_version=1,
        classifier="sha256:x",
        method="platt",
        curve=curve,
        low=curve,
        high=curve,
        labels=Labels(violates=300, allowed=300),
        fitted_at=datetime.now(UTC),
    )


def test_stored_scores_mean_what_the_calibration_in_force_says(
    shell: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No word changed and yet decisions do, exactly as `decide` has them; the report says how scores were read."""
    folder = write_folder(tmp_path / "new", act=0.9)
    policies = read_policies(folder)
    known = Calibrations.of([calibration(policies, slope=0.4)])
    write_calibration(tmp_path / "calibrations", next(iter(known.by_words.values())))
    monkeypatch.setenv("WEIR_CALIBRATIONS", str(tmp_path / "calibrations"))
    words = ["policy", "backtest", str(folder), "--since", "9999d"]

    done = shell.invoke(main, [*words, "--json"])
    shown = shell.invoke(main, words)
    monkeypatch.setenv("WEIR_CALIBRATIONS", str(tmp_path / "none"))
    without = shell.invoke(main, words)

    assert done.exit_code == 0, done.output
    told_json = json.loads(done.stdout)
    (meaning,) = told_json["meanings"]
    assert (meaning["question"], meaning["fresh"]) == ("arms", True)
    now = datetime.now(UTC)
    (question,) = policies.questions
    looked = 0
    for upload_, given, origin in archived(Archive(str(tmp_path / "again"), Store()), 400):
        renewed = [
            known.answer(
                question, Classification(question="arms", score=a.score), "sha256:x", now=now
            )
            for a in given
            if a.question == "arms"
        ]
        decision = decide(upload_, renewed, policies, origin=origin, now=now)
        looked += decision.review is not None
    assert told_json["jobs_after"] == looked > 0
    assert "scores by the calibration in force | arms (" in shown.stdout
    assert "probabilities as decided then | arms: no calibration" in without.stdout


def test_a_calibration_of_other_words_leaves_stored_scores_stale(
    shell: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was fresh when it was decided on is not, where the calibration in force belongs to other words."""
    folder = write_folder(tmp_path / "new", act=0.9)
    other = calibration(read_policies(folder), slope=1.0, digest="sha256:other")
    write_calibration(tmp_path / "calibrations", other)
    monkeypatch.setenv("WEIR_CALIBRATIONS", str(tmp_path / "calibrations"))

    done = shell.invoke(main, ["policy", "backtest", str(folder), "--since", "9999d"])

    assert done.exit_code == 1
    assert "live without a fresh calibration: arms" in done.stderr
    assert ", stale)" in done.stdout


def test_the_report_tells_what_an_edit_does(shell: CliRunner, tmp_path: Path) -> None:
    """Every change is counted, with examples and intervals, as JSON, Markdown and a page; a limit fails it."""
    folder = write_folder(tmp_path / "new", act=0.35)
    words = ["policy", "backtest", str(folder), "--since", "9999d"]

    done = shell.invoke(main, [*words, "--json", "--html", str(tmp_path / "page.html")])
    told_json = json.loads(done.stdout)
    text = shell.invoke(main, [*words, "--markdown", "--fail-if", "wrong_removals > 0.5%"])

    assert done.exit_code == 0, done.output
    assert told_json["decisions"] == 400
    assert told_json["flipped"] == sum(flip["count"] for flip in told_json["flips"]) > 0
    assert told_json["violations_judged"] == 30
    assert 0 <= told_json["missed"]["low"] <= told_json["missed"]["high"] <= 1
    assert told_json["review_hours"] < 0
    assert text.exit_code == 1
    assert "wrong_removals may be" in text.stderr
    assert "| review jobs |" in text.stdout
    assert "<svg" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("text", ["wrong_removals", "beauty > 3", "missed < 3%", "flips > x"])
def test_a_limit_is_a_measure_and_a_number(shell: CliRunner, tmp_path: Path, text: str) -> None:
    """Anything else is wrong use, with an example of what to write."""
    folder = write_folder(tmp_path / "new", act=0.9)

    done = shell.invoke(main, ["policy", "backtest", str(folder), "--fail-if", text])

    assert done.exit_code == 2
    assert "wrong_removals > 0.5%" in " ".join(done.output.split())
