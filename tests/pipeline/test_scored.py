"""Labelled uploads that a classifier refuses are left out by name; a classifier that is away ends the run in words."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image, ImageDraw, ImageFont

from pipeline.cli import main
from pipeline.labels import Labelled
from pipeline.scored import score
from policies.question import Forbidden, Question
from workers.bounds import Bounds
from workers.classifier import Classification, Item
from workers.errors import (
    CheckpointError,
    ClassifierUnavailableError,
    MediaRefusedError,
    PoisonError,
    WorkerError,
)
from workers.reading import Reading
from workers.signals.ocr import available
from workers.spec import ClassifierSpec
from workers.stub import StubClassifier

SCAMS = Question(
    id="scams",
    policy="scams",
    question="Is it a scam?",
    forbidden=(Forbidden(id="S1", text="Promises money."),),
)
READING = Reading(bounds=Bounds())
REFUSED = {3, 4, 17}
ROWS = [
    Labelled(
        id=str(number),
        caption=f"caption {number}{' refuse' if number in REFUSED else ''}",
        answers={"scams": number % 3 == 0},
    )
    for number in range(20)
]


class Faulty(StubClassifier):
    """A stub whose whole call fails where one caption says so."""

    def __init__(self, fault: WorkerError) -> None:
        super().__init__(ClassifierSpec(kind="stub", model="stub"))
        self._fault = fault

    def classify(
        self, items: Sequence[Item], questions: Sequence[Question]
    ) -> list[list[Classification]]:
        """Answer as a stub does, or fail."""
        if any("refuse" in item.caption for item in items):
            raise self._fault
        return super().classify(items, questions)


@pytest.mark.parametrize(
    "fault",
    [
        WorkerError("remote-refusal", "filtered"),
        MediaRefusedError("image-shape", "too thin"),
        PoisonError("poison"),
    ],
)
def test_what_is_refused_costs_no_neighbour(fault: WorkerError) -> None:
    """Each upload that a classifier refuses is reported once, with why; all others have their own scores."""
    told: list[tuple[str, str]] = []
    passed: list[int] = []
    scored = score(
        ROWS,
        Faulty(fault),
        [SCAMS],
        reading=READING,
        advance=passed.append,
        refused=lambda row, why: told.append((row.id, why)),
    )
    assert told == [(str(number), str(fault)) for number in sorted(REFUSED)]
    assert sum(passed) == len(ROWS)
    kept = [row for row in ROWS if int(row.id) not in REFUSED]
    alone = StubClassifier(ClassifierSpec(kind="stub", model="stub"))
    wanted = [alone.classify([Item(caption=row.caption)], [SCAMS])[0][0].score for row in kept]
    assert scored["scams"].scores.tolist() == wanted
    assert scored["scams"].clusters == tuple(row.id for row in kept)


@pytest.mark.parametrize(
    "fault", [ClassifierUnavailableError("remote-budget"), CheckpointError("remote-key")]
)
def test_what_no_upload_mends_is_raised(fault: WorkerError) -> None:
    """A classifier that is away or set wrongly is no upload's fault: nothing is left out for it."""
    told: list[str] = []
    with pytest.raises(type(fault)):
        score(
            ROWS,
            Faulty(fault),
            [SCAMS],
            reading=READING,
            refused=lambda row, _: told.append(row.id),
        )
    assert told == []


COMMANDS = {
    "eval": ("model", "eval", "--json"),
    "calibrate": ("calibrate", "--dry-run", "--json", "--policy", "scams"),
    "cascade": ("bench", "cascade", "--json"),
}


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Return a file of labelled captions, some of which say `refuse`."""
    path = tmp_path / "labels.jsonl"
    rows = [{"id": row.id, "caption": row.caption, "answers": row.answers} for row in ROWS]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_goes_on_without_what_is_refused(
    command: str, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures come of all that is not refused, and the rest is named."""
    stub = {"kind": "stub", "model": "stub", "options": {"refuse_on": "refuse"}}
    configured = [{"name": name, **stub} for name in ("one", "two")]
    monkeypatch.setenv("WEIR_CLASSIFIERS", json.dumps(configured))
    done = CliRunner().invoke(main, [*COMMANDS[command], str(labels)])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)
    assert all(f"{number}: left out: told" in done.stderr for number in REFUSED)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Return a folder of labelled pictures without captions, with words in them."""
    rows = []
    for number in range(8):
        image = Image.new("RGB", (320, 80), "white")
        words = f"BUY NUMBER {number}"
        ImageDraw.Draw(image).text((10, 20), words, "black", font=ImageFont.load_default(26))
        image.save(tmp_path / f"{number}.png")
        answers = {"scams": number % 4 < 2}
        rows.append({"id": str(number), "media": [f"{number}.png"], "answers": answers})
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


@pytest.mark.skipif(not available(), reason="needs the extra `ocr`")
@pytest.mark.parametrize("command", COMMANDS)
def test_text_in_labelled_pictures_is_read_as_in_live_ones(
    command: str, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where live uploads' pictures are read, classifiers of captions judge labelled ones by their words too."""
    stub = {"kind": "stub", "model": "stub", "reads": ["caption"]}
    configured = [{"name": name, **stub} for name in ("one", "two")]
    monkeypatch.setenv("WEIR_CLASSIFIERS", json.dumps(configured))
    unread = CliRunner().invoke(main, [*COMMANDS[command], str(written)])
    assert unread.exit_code == 1
    monkeypatch.setenv("WEIR_MEDIA_READ_TEXT", "true")
    done = CliRunner().invoke(main, [*COMMANDS[command], str(written)])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_labelled_media_keep_the_bounds_of_live_ones(
    command: str, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture that the pipeline would refuse for its size is no label of anything."""
    stub = {"kind": "stub", "model": "stub"}
    configured = [{"name": name, **stub} for name in ("one", "two")]
    monkeypatch.setenv("WEIR_CLASSIFIERS", json.dumps(configured))
    monkeypatch.setenv("WEIR_MEDIA_MAX_PIXELS", "1000")
    done = CliRunner().invoke(main, [*COMMANDS[command], str(written)])
    assert done.exit_code == 1
    assert all(f"{number}: left out: " in done.stderr for number in range(8))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_classifier_that_is_away_is_named(
    command: str, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing answers at the endpoint the command ends with a sentence, and exits 1."""
    options = {"endpoint": "http://127.0.0.1:9/v1", "retries": 0, "deadline_s": 5}
    remote = {"name": "far", "kind": "remote", "model": "far", "options": options}
    monkeypatch.setenv("WEIR_CLASSIFIERS", json.dumps([remote]))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    done = CliRunner().invoke(main, [*COMMANDS[command], str(labels)])
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert "Error: remote" in done.stderr
