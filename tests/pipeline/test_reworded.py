"""A changed wording, or a changed model: a sample is scored again, labels count on, and automation goes on."""

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Sequence
from copy import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from pipeline.archive import Archive
from pipeline.archiving import write_batch
from pipeline.calibration import Calibration, Calibrations, Curve, Labels, logistic, write
from pipeline.cli import main
from pipeline.config import Store
from pipeline.contents import uploads_of
from pipeline.decide import Origin, decide
from pipeline.messages import (
    DECISIONS,
    UPLOADS,
    VERDICTS,
    Content,
    Decision,
    MediaRef,
    Source,
    UploadEvent,
    text_digest,
)
from pipeline.records import Record
from policies.folder import read_policies
from policies.schema import PolicySet
from workers.classifier import Item
from workers.spec import ClassifierSpec
from workers.stub import StubClassifier

HOUSE = Path(__file__).parents[2]
NOW = datetime.now(UTC) - timedelta(hours=3)
#: Uploads in the archive.
COUNT = 600
STUB = StubClassifier(ClassifierSpec(name="stub", kind="stub", model="stub"))


def folder_of(root: Path, question: str = "Does it brake the rule?", **fields: Any) -> Path:
    """Write a folder with one policy that acts, and has people see half of what nobody else would."""
    root.mkdir()
    policy = {
        "policy": "arms",
        "title": "Arms",
        "version": 1,
        "status": "live",
        "question": question,
        "clauses": {"W1": {"text": "Sells one."}},
        "severity": "high",
        "action": "remove",
        "bands": {"review": 0.3, "act": 0.9},
        "review": {"queue": "arms", "meanwhile": "hold"},
        "audit": {"passed": "50%", "acted": "50%"},
        **fields,
    }
    (root / "arms.yaml").write_text(json.dumps(policy))
    shipped = (HOUSE / "policies" / "queues.yaml").read_text()
    (root / "queues.yaml").write_text(shipped + "\n  arms: {title: Arms, due: 4h}\n")
    return root


def calibration(policies: PolicySet) -> Calibration:
    """Return the calibration of what is in force: scores mean what they say."""
    (question,) = policies.questions
    scores = tuple(float(x) for x in range(-8, 9))
    curve = Curve(scores=scores, probabilities=tuple(logistic(s) for s in scores))
    return Calibration(
        question="arms",
        question_digest=question.digest,
        policy_version=1,
        classifier=STUB.digest,
        method="platt",
        curve=curve,
        low=curve,
        high=curve,
        labels=Labels(violates=300, allowed=300),
        fitted_at=NOW,
    )


def score(policies: PolicySet, caption: str, classifier: StubClassifier = STUB) -> float:
    """Return what the classifier says of a caption."""
    ((found,),) = classifier.classify([Item(caption=caption)], policies.questions)
    return found.score


def record(topic: str, number: int, value: str) -> Record:
    """Return a record of an hour ago."""
    return Record(
        topic=topic,
        partition=0,
        offset=number,
        timestamp_s=NOW.timestamp() - 1,
        key=f"c{number}".encode(),
        value=value.encode(),
    )


def event(number: int) -> UploadEvent:
    """Return an upload of a few words."""
    surface = ("feed", "news")[number % 2]
    return UploadEvent.model_validate(
        {
            "event_id": f"e{number}",
            "content_id": f"c{number}",
            "text": f"caption {number}",
            "context": {"surface": surface},
        }
    )


class World:
    """An archive of decisions by the stub, under a policy with a typo; people judged what they were shown.

    What violates is what the words without the typo are sure of, with some chance.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.old = read_policies(folder_of(root / "old"))
        self.new = read_policies(folder_of(root / "new", question="Does it break the rule?"))
        write(self.calibrations, calibration(self.old))
        self.decisions: list[Decision] = []
        rng = random.Random(3)
        known = Calibrations.load(self.calibrations)
        verdicts: list[Record] = []
        for number in range(COUNT):
            upload = event(number)
            ((found,),) = STUB.classify([Item(caption=upload.text)], self.old.questions)
            answer = known.answer(self.old.questions[0], found, STUB.digest, now=NOW)
            origin = Origin(
                source=Source(topic=UPLOADS, partition=0, offset=number),
                decision_id=f"d{number}",
                content=Content(text=text_digest(upload.text), language="en"),
            )
            made = decide(upload, [answer], self.old, origin=origin, now=NOW)
            self.decisions.append(made)
            if made.review is not None:
                violates = rng.random() < logistic(score(self.new, upload.text))
                verdicts.append(verdict(len(verdicts), number, violates=violates))
        self.judged = len(verdicts)
        write_batch(
            self.archive,
            [record(DECISIONS, n, d.model_dump_json()) for n, d in enumerate(self.decisions)],
        )
        write_batch(self.archive, verdicts)
        events = [record(UPLOADS, n, event(n).model_dump_json()) for n in range(COUNT)]
        write_batch(self.archive, events)

    def at(self, root: Path) -> "World":
        """Return a copy in another folder."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        other = copy(self)
        other.root = root
        return other

    @property
    def archive(self) -> Archive:
        """Return the archive."""
        return Archive(str(self.root / "archive"), Store())

    @property
    def calibrations(self) -> Path:
        """Return the folder of calibrations."""
        return self.root / "calibrations"

    @property
    def new_folder(self) -> Path:
        """Return the folder of the policy without the typo."""
        return self.root / "new"

    def files(self) -> list[str]:
        """Return the names of the calibrations there are."""
        return sorted(path.name for path in self.calibrations.glob("*.json"))


def verdict(offset: int, number: int, *, violates: bool) -> Record:
    """Return a person's answer about a decision."""
    answer = {"policy": "arms", "answer": "violates" if violates else "allowed"}
    value = {
        "verdict_id": f"v{number}",
        "job_id": f"d{number}",
        "decision_id": f"d{number}",
        "reviewer": "r",
        "lease": 1,
        "answers": [answer],
        "decided_at": (NOW + timedelta(minutes=1)).isoformat(),
    }
    return record(VERDICTS, offset, json.dumps(value))


Weir = Callable[..., Result]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return the archive, which no test changes."""
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    """Return an archive of this test's own."""
    return made.at(tmp_path)


@pytest.fixture
def weir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weir:
    """Return a function that backtests a folder against the archive, with the stub as the classifier."""
    monkeypatch.setenv("WEIR_ARCHIVE", str(tmp_path / "archive"))
    monkeypatch.setenv("WEIR_CALIBRATIONS", str(tmp_path / "calibrations"))
    monkeypatch.setenv("WEIR_CLASSIFIERS", '[{"name": "stub", "kind": "stub", "model": "stub"}]')

    def run(folder: Path, *words: str) -> Result:
        return CliRunner().invoke(main, ["policy", "backtest", str(folder), *words])

    return run


def redecided(world: World, calibrations: Calibrations) -> list[tuple[Any, ...]]:
    """Return what `decide` makes of every upload under the new words, all of them scored again."""
    (question,) = world.new.questions
    found = []
    for number, old in enumerate(world.decisions):
        upload = event(number)
        ((said,),) = STUB.classify([Item(caption=upload.text)], world.new.questions)
        answer = calibrations.answer(question, said, STUB.digest, now=datetime.now(UTC))
        origin = Origin(source=old.source, decision_id=old.decision_id, content=old.content)
        made = decide(upload, [answer], world.new, origin=origin, now=NOW)
        found.append((old.action, old.review is None, made.action, made.review is None))
    return found


def test_fixing_a_typo_leaves_automation_on(world: World, weir: Weir) -> None:
    """The new words get a calibration of the old labels, fresh and true, and the sample says what they will do."""
    done = weir(world.new_folder, "--json", "--sample", "200")

    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    anew = told["estimates"]["anew"]
    assert anew["questions"] == anew["fitted"] == ["arms"]
    assert (told["decisions"], told["not_fresh"], anew["left_out"]) == (COUNT, [], 0)
    assert anew["uploads"] >= world.judged + 190
    assert f"{world.judged:,} of them because people answered about them" in done.stderr
    # Merged, the new words act where they are sure, as people said they may.
    calibrations = Calibrations.load(world.calibrations)
    (question,) = world.new.questions
    fitted = calibrations.by_words["arms", STUB.digest, question.digest]
    errors = [abs(fitted.curve.at(s) - logistic(s)) for s in np.linspace(-5, 5, 21)]
    assert np.mean(errors) < 0.06
    assert fitted.labels.violates + fitted.labels.allowed == world.judged
    truth = redecided(world, calibrations)
    removed = sum(action == "remove" for _, _, action, _ in truth)
    assert removed > 50
    # What the sample says holds for all of them.
    flips = told["estimates"]["flips"]
    changed = sum((a, b) != (c, d) for a, b, c, d in truth) / COUNT
    assert flips["low"] <= changed <= flips["high"]
    looks = told["estimates"]["looks"]
    assert looks["low"] <= sum(not alone for *_, alone in truth) / COUNT <= looks["high"]
    # What is in force until the merge stays as it is.
    (old,) = world.old.questions
    assert ("arms", STUB.digest, old.digest) in calibrations.by_words


def test_a_raised_version_begins_without_labels(world: World, weir: Weir, tmp_path: Path) -> None:
    """Labels of another meaning do not count: nothing is fitted, and the merge wants the reviewers' hours accepted."""
    before = world.files()
    folder = folder_of(tmp_path / "meaning", question="Does it break the rule?", version=2)

    done = weir(folder, "--sample", "100")
    accepted = weir(folder, "--sample", "100", "--accept-review-hours", "1000")

    assert done.exit_code == 1
    assert "live without a fresh calibration: arms" in done.stderr
    assert "0 violations and 0 allowed: too few to fit" in done.stdout
    assert accepted.exit_code == 0, accepted.output
    assert world.files() == before


def test_the_cost_is_said_and_nothing_is_done(world: World, weir: Weir) -> None:
    """With --cost the uploads and the classifiers' seconds are told; no calibration is written, nothing reported."""
    before = world.files()

    done = weir(world.new_folder, "--cost", "--sample", "150")

    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    assert "uploads are scored again on arms" in done.stderr
    assert "s of the classifiers, timed on 8" in done.stderr
    assert world.files() == before


def test_a_new_model_goes_the_same_way(
    world: World, weir: Weir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The words stay, the model becomes a cascade: each classifier of it is fitted on the labels of the old one."""
    first: dict[str, Any] = {
        "name": "first",
        "kind": "stub",
        "model": "stub",
        "options": {"bias": -1},
    }
    second: dict[str, Any] = {**first, "name": "second", "options": {"bias": 1.5}}
    monkeypatch.setenv("WEIR_CLASSIFIERS", json.dumps([first, second]))

    done = weir(tmp_path / "old", "--new-model", "--json", "--sample", "50")

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["not_fresh"] == []
    (old,) = world.old.questions
    known = Calibrations.load(world.calibrations).by_words
    digests = {classifier for _, classifier, words in known if words == old.digest}
    models = {StubClassifier(ClassifierSpec(**one)).digest for one in (first, second)}
    assert digests == {STUB.digest, *models}


def test_without_archived_uploads_it_says_what_to_do(world: World, weir: Weir) -> None:
    """Digests alone cannot be scored again; the message names the setting that keeps what can."""
    shutil.rmtree(world.root / "archive" / UPLOADS)

    done = weir(world.new_folder)

    assert done.exit_code == 1
    assert "WEIR_ARCHIVE_UPLOADS" in done.output


def pictures(folder: Path, names: Sequence[str]) -> None:
    """Write a small picture of each name."""
    folder.mkdir()
    for number, name in enumerate(names):
        Image.new("RGB", (32, 32), (number * 40, 90, 160)).save(folder / name)


def test_pictures_come_from_the_media_store_and_only_as_they_were_judged(
    tmp_path: Path, weir: Weir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload whose picture was replaced or is gone is left out, and counted."""
    names = [f"p{n}.png" for n in range(6)]
    store = tmp_path / "media"
    pictures(store, names)
    folder = folder_of(tmp_path / "new", reads=["image"], bands={"review": 0.3, "act": "never"})
    old = read_policies(folder_of(tmp_path / "old", question="Is it?", reads=["image"]))
    archive = Archive(str(tmp_path / "archive"), Store())
    events, decisions = [], []
    for number, name in enumerate(names):
        upload = UploadEvent(
            event_id=f"e{number}", content_id=f"c{number}", media=(MediaRef(uri=name),)
        )
        digest = "sha256:" + hashlib.sha256((store / name).read_bytes()).hexdigest()
        origin = Origin(
            source=Source(topic=UPLOADS, partition=0, offset=number),
            decision_id=f"d{number}",
            content=Content(media=(digest,)),
        )
        made = decide(upload, [], old, origin=origin, now=NOW)
        events.append(record(UPLOADS, number, upload.model_dump_json()))
        decisions.append(record(DECISIONS, number, made.model_dump_json()))
    write_batch(archive, events)
    write_batch(archive, decisions)
    (store / "p1.png").write_bytes((store / "p2.png").read_bytes())
    (store / "p3.png").unlink()
    monkeypatch.setenv("WEIR_STORE_FOLDER", str(store))

    done = weir(folder, "--json")

    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["decisions"] == 6
    anew = told["estimates"]["anew"]
    assert (anew["uploads"], anew["left_out"]) == (4, 2)


def test_an_upload_counts_only_as_it_was_judged(world: World) -> None:
    """A reused event id with other words is not taken for what was decided."""
    other = event(5).model_copy(update={"text": "other words"})
    write_batch(world.archive, [record(UPLOADS, COUNT, other.model_dump_json())])

    found = uploads_of(world.archive, ["d5", "d6", "gone"])

    assert {name: upload.caption for name, upload in found.items()} == {
        "d5": "caption 5",
        "d6": "caption 6",
    }
