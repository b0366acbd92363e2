"""`weir calibrate`: from labelled uploads to calibration files."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pipeline.calibrating import calibrate
from pipeline.calibration import Calibrations
from pipeline.cli import main
from pipeline.diagrams import reliability_page
from pipeline.errors import PipelineError
from pipeline.labels import Labelled, read_labels
from pipeline.scored import score
from policies.question import Part, Question
from policies.schema import Policy, Precision
from workers.bounds import Bounds
from workers.classifier import Classification, Item, Rationale
from workers.reading import Reading

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
READING = Reading(bounds=Bounds())


class Brightness:
    """A classifier of one idea: the brighter the picture, the more it violates, and far too sure of it."""

    name = "brightness"
    digest = "sha256:brightness"
    reads: frozenset[Part] = frozenset({"image"})

    def covers(self, question: Question) -> bool:
        """It judges whatever reads images."""
        return "image" in question.reads

    def classify(
        self, items: Sequence[Item], questions: Sequence[Question]
    ) -> list[list[Classification]]:
        """Its score is the mean brightness, five times too large."""
        return [
            [
                Classification(
                    question=question.id, score=(item.pictures[0].pixels.mean() - 128) / 6, media=0
                )
                for question in questions
            ]
            for item in items
        ]

    def explain(
        self, item: Item, findings: Sequence[tuple[Question, Classification]]
    ) -> list[Rationale]:
        """It has no words."""
        del item, findings
        return []


def bright_policy(act: object = 0.9) -> Policy:
    """Return a policy on bright pictures."""
    return Policy.model_validate(
        {
            "policy": "bright",
            "title": "Bright",
            "version": 3,
            "status": "live",
            "reads": ["image"],
            "question": "Is it bright?",
            "clauses": {"B1": {"text": "Is bright."}},
            "severity": "low",
            "action": "remove",
            "bands": {"review": 0.3, "act": act},
            "review": {"queue": "bright"},
        }
    )


def pictures(folder: Path, count: int, seed: int = 0) -> Path:
    """Write labelled pictures whose brightness tells only roughly whether they violate."""
    rng = np.random.default_rng(seed)
    lines = []
    for number in range(count):
        level = int(rng.integers(20, 236))
        violates = bool(rng.random() < 1 / (1 + np.exp(-(level - 128) / 30)))
        Image.new("L", (8, 8), level).save(folder / f"{number}.png")
        row = {"id": str(number), "media": [f"{number}.png"], "answers": {"bright": violates}}
        lines.append(json.dumps(row))
    (folder / "labels.jsonl").write_text("\n".join(lines))
    return folder


def test_labelled_pictures_become_a_calibration_that_keeps_its_word(tmp_path: Path) -> None:
    """Over-confident scores are brought down, and the file belongs to this wording and model."""
    rows = read_labels(pictures(tmp_path, 150))
    policy = bright_policy(act={"precision": 0.6, "confidence": 0.7})
    question = policy.questions[0]

    scored = score(rows, Brightness(), policy.questions, reading=READING)
    found = calibrate(policy, question, scored["bright"], classifier="sha256:brightness", now=NOW)

    assert found.ece_after.value < found.ece_before
    assert found.calibration.policy_version == 3
    kept = found.calibration.kept[0]
    assert kept.promise == Precision(precision=0.6, confidence=0.7)
    assert kept.value is not None
    answer = Calibrations.of([found.calibration]).answer(
        question, Classification(question="bright", score=18.0), "sha256:brightness", now=NOW
    )
    assert answer.calibration == "fresh"
    assert answer.probability < 0.999
    assert answer.thresholds == {kept.promise: kept.value}
    page = reliability_page([found])
    assert page.count("<circle") >= 5
    assert "<script" not in page


def test_unreadable_media_are_named_and_left_out(tmp_path: Path) -> None:
    """One broken picture among the labelled is reported; the rest counts."""
    folder = pictures(tmp_path, 20)
    (folder / "3.png").write_bytes(b"not a picture")
    refused: list[str] = []

    scored = score(
        read_labels(folder),
        Brightness(),
        bright_policy().questions,
        reading=READING,
        refused=lambda row, _: refused.append(row.id),
    )

    assert refused == ["3"]
    assert len(scored["bright"].labels) == 19


def test_the_command_writes_one_file_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`weir calibrate` on captions, with the shipped stub, writes files that load and prints JSON."""
    monkeypatch.setenv("WEIR_CLASSIFIERS", '[{"name": "s", "kind": "stub", "model": "stub"}]')
    rows = [
        {"id": str(n), "caption": f"caption {n}", "answers": {"scams": n % 3 == 0}}
        for n in range(60)
    ]
    labels = tmp_path / "labels.jsonl"
    labels.write_text("\n".join(json.dumps(row) for row in rows))
    out = tmp_path / "calibrations"

    done = CliRunner().invoke(
        main, ["calibrate", str(labels), "--out", str(out), "--json", "--policy", "scams"]
    )

    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [row["question"] for row in told] == ["scams"]
    assert (told[0]["violates"], told[0]["allowed"]) == (20, 40)
    assert len(Calibrations.load(out).by_key) == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ('{"id": "1", "answers": {}}', "answers"),
        ('{"id": "1", "answers": {"x": true}, "colour": 3}', "colour"),
        ('{"id": "1", "media": ["gone.png"], "answers": {"x": true}}', "does not exist"),
        ("", "no labelled uploads"),
    ],
)
def test_labels_that_cannot_be_read_say_where(tmp_path: Path, line: str, says: str) -> None:
    """A wrong line is named by file and line number, and what is wrong with it."""
    path = tmp_path / "labels.jsonl"
    path.write_text(line)

    with pytest.raises(PipelineError, match=says):
        read_labels(path)


def test_parquet_holds_the_same_rows(tmp_path: Path) -> None:
    """Labels exported as Parquet read like those in JSON lines."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"id": "a", "caption": "x", "answers": {"scams": True, "hate": None}, "weight": 2.0}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "labels.parquet")

    assert read_labels(tmp_path) == [
        Labelled(id="a", caption="x", answers={"scams": True}, weight=2.0)
    ]
