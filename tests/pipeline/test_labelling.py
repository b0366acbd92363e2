"""`weir archive labels`: what people judged leaves the archive as labelled uploads, and nothing else does."""

import hashlib
import io
import json
import stat
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from pipeline.answered import Answered, answers_in
from pipeline.archive import Archive
from pipeline.archiving import write_batch
from pipeline.cli import main
from pipeline.config import Store
from pipeline.erasing import apply
from pipeline.errors import RefusedError
from pipeline.labelling import Export, choose, rows_of
from pipeline.labels import Labelled, read_labels
from pipeline.legal import Erasures
from pipeline.messages import (
    DECISIONS,
    REVIEWS,
    UPLOADS,
    VERDICTS,
    Content,
    Decision,
    MediaRef,
    UploadEvent,
    text_digest,
)
from policies.folder import read_policies
from tests.pipeline import test_sealed as sealed
from tests.pipeline.test_answered import answered
from tests.pipeline.test_reworded import folder_of
from workers.bounds import Bounds
from workers.folder import FolderStore
from workers.upload import Location, Upload

NOW = sealed.NOW
VIOLATES: list[dict[str, Any]] = [{"policy": "arms", "answer": "violates"}]
ALLOWED: list[dict[str, Any]] = [{"policy": "arms", "answer": "allowed"}]
#: Content -> which picture it has; the others are captions alone.
PICTURES = {"c0": 0, "c1": 1, "c2": 2, "c3": 2, "c4": 4, "c5": 5, "c6": 6, "c11": 11}
COUNT = 13


def picture(number: int) -> bytes:
    """Return a small picture like no other."""
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (20 * number, 90, 200)).save(file, "PNG")
    return file.getvalue()


def decision(number: int) -> Decision:
    """Return what the pipeline decided about a content; c2 went to a sealed queue, c0 and c12 to a person by lot."""
    name = f"c{number}"
    made = sealed.decision(sealed.OPEN, queue="minor_safety" if name == "c2" else "arms")
    assert made.review is not None
    chance = {"c0": 0.5, "c12": 0.25}.get(name, 1.0)
    version = 2 if name == "c8" else 1
    named = {"policy": "arms", "question": "arms", "policy_version": version}
    media: tuple[str, ...] = ()
    if name in PICTURES:
        media = ("sha256:" + hashlib.sha256(picture(PICTURES[name])).hexdigest(),)
    return made.model_copy(
        update={
            "decision_id": f"d-{name}",
            "event_id": f"e-{name}",
            "content_id": name,
            "content": Content(media=media, text=text_digest(f"caption {number}"), language="en"),
            "context": {"surface": "feed", "author_age": "minor"},
            "review": made.review.model_copy(
                update={"questions": ("arms",), "propensities": (chance,)}
            ),
            "findings": tuple(f.model_copy(update=named) for f in made.findings),
        }
    )


def upload(number: int) -> UploadEvent:
    """Return the upload of a content."""
    name = f"c{number}"
    return UploadEvent(
        event_id=f"e-{name}",
        content_id=name,
        author_id="jane",
        media=(MediaRef(uri=f"{name}.png"),) if name in PICTURES else (),
        text=f"caption {number}",
    )


def said(number: int, answers: list[dict[str, Any]], **more: Any) -> tuple[str, Any]:
    """Return what somebody said of a content."""
    return f"c{number}", sealed.verdict(f"c{number}", answers=answers, **more)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder with an archive, media and a policy, in which people judged all but c10."""
    archive = Archive(str(tmp_path / "archive"), Store())
    folder_of(tmp_path / "policies")
    (tmp_path / "media").mkdir()
    for name, number in PICTURES.items():
        (tmp_path / "media" / f"{name}.png").write_bytes(picture(number))
    (tmp_path / "media" / "c4.png").unlink()
    (tmp_path / "media" / "c11.png").write_bytes(b"another one by now")
    later = NOW - timedelta(minutes=30)
    verdicts = [
        said(0, VIOLATES, verdict_id="v0", part="audit"),
        said(0, ALLOWED, verdict_id="w0", part="adjudication", reviewer="lead", decided_at=later),
        *(said(number, VIOLATES) for number in (1, 2, 3, 4, 7, 8, 11)),
        said(5, VIOLATES, verdict_id="v5"),
        said(5, [], verdict_id="w5", withdraws="v5", decided_at=later),
        said(6, VIOLATES, verdict_id="v6"),
        said(6, ALLOWED, verdict_id="w6", withdraws="v6", decided_at=later),
        said(9, VIOLATES, part="golden"),
        said(12, ALLOWED, part="audit"),
    ]
    decisions = [(f"c{number}", decision(number)) for number in range(COUNT)]
    uploads = [(f"c{number}", upload(number)) for number in range(COUNT)]
    for topic, some in ((DECISIONS, decisions), (UPLOADS, uploads), (VERDICTS, verdicts)):
        write_batch(archive, sealed.records(topic, *some), sealed=sealed.SEALED)
    apply(archive, Erasures(contents={"c7": NOW}, authors={}))
    return tmp_path


Weir = Callable[..., Result]


@pytest.fixture
def weir(root: Path, monkeypatch: pytest.MonkeyPatch) -> Weir:
    """Return a shell whose archive, media and policies are these, with the stub as the classifier."""
    monkeypatch.setenv("WEIR_ARCHIVE", str(root / "archive"))
    monkeypatch.setenv("WEIR_STORE_FOLDER", str(root / "media"))
    monkeypatch.setenv("WEIR_POLICIES", str(root / "policies"))
    monkeypatch.setenv("WEIR_CALIBRATIONS", str(root / "calibrations"))
    monkeypatch.setenv("WEIR_CLASSIFIERS", '[{"name": "stub", "kind": "stub", "model": "stub"}]')
    return lambda *words: CliRunner().invoke(main, [str(word) for word in words])


def by_id(folder: Path) -> Mapping[str, Labelled]:
    """Return what an export holds."""
    return {row.id: row for row in read_labels(folder)}


def test_what_people_judged_is_exported_and_nothing_else(root: Path, weir: Weir) -> None:
    """No sealed content nor its picture elsewhere, nothing erased, withdrawn, golden or of another version."""
    done = weir("archive", "labels", root / "out", "--json")

    assert done.exit_code == 0, done.output
    rows = by_id(root / "out")
    assert set(rows) == {"c0", "c1", "c6", "c12"}
    assert {name: row.answers["arms"] for name, row in rows.items()} == {
        "c0": False,
        "c1": True,
        "c6": False,
        "c12": False,
    }
    assert (rows["c0"].weight, rows["c0"].adjudicated, rows["c0"].first) == (
        2,
        True,
        {"arms": True},
    )
    assert (rows["c12"].weight, rows["c12"].adjudicated, rows["c12"].first) == (4, False, {})
    assert rows["c1"].caption == "caption 1"
    assert rows["c1"].context == {"surface": "feed", "language": "en"}
    kept = [path.read_bytes() for row in rows.values() for path in row.media]
    assert kept == [picture(0), picture(1), picture(6)]
    assert len(list((root / "out" / "media").iterdir())) == len(kept)
    assert json.loads(done.stdout) == {
        "uploads": 4,
        "answers": {"arms": {"violates": 1, "allowed": 3}},
        "left_out": {
            "uploads_not_archived": 1,
            "uploads_without_media": 2,
            "answers_to_another_version": 1,
        },
    }
    assert "c4: left out: " in done.stderr
    assert "c11: left out: " in done.stderr
    everything = done.output + (root / "out" / "labels.jsonl").read_text()
    assert not [
        name for name in ('"c2"', '"c3"', "c2:", "c3:", "jane", "minor") if name in everything
    ]


def test_the_export_is_its_owners_alone_and_nothing_is_written_over(root: Path, weir: Weir) -> None:
    """Folders are 0700 and files 0600, also where the folder stood there; a second export, or other things, stay."""
    (root / "out").mkdir(mode=0o755)
    (root / "other").mkdir()
    (root / "other" / "mine.txt").write_text("mine")
    (root / "dead" / "media").mkdir(parents=True)
    (root / "dead" / ".labels.jsonl.x").touch()

    done = weir("archive", "labels", root / "out")
    again = weir("archive", "labels", root / "out")
    other = weir("archive", "labels", root / "other")
    dead = weir("archive", "labels", root / "dead")

    assert done.exit_code == 0, done.output
    assert "arms: 1 violate, 3 are allowed" in done.stdout
    assert done.stdout.splitlines()[-1].endswith(f"next: weir model tune {root / 'out'} OUT")
    paths = [root / "out", *(root / "out").rglob("*")]
    modes = {path.is_dir(): set[int]() for path in paths}
    for path in paths:
        modes[path.is_dir()].add(stat.S_IMODE(path.stat().st_mode))
    assert modes == {True: {0o700}, False: {0o600}}
    assert (again.exit_code, other.exit_code, dead.exit_code) == (1, 1, 1)
    assert "holds an export already" in again.stderr
    assert "is not empty" in other.stderr
    assert "that broke off" in dead.stderr
    assert [path.name for path in (root / "other").iterdir()] == ["mine.txt"]


def test_the_export_is_what_a_model_is_measured_on(root: Path, weir: Weir) -> None:
    """`weir model eval` reads it, and has a figure on every answer."""
    weir("archive", "labels", root / "out")

    done = weir("model", "eval", root / "out", "--json")

    assert done.exit_code == 0, done.output
    [told] = json.loads(done.stdout)
    assert (told["question"], told["violates"], told["allowed"]) == ("arms", 1, 3)


def test_a_filter_that_finds_nothing_leaves_no_folder(root: Path, weir: Weir) -> None:
    """A question or policy that there is not is wrong use; a time in which nobody answered is said."""
    question = weir("archive", "labels", root / "out", "--question", "arm")
    policy = weir("archive", "labels", root / "out", "--policy", "army")
    none = weir("archive", "labels", root / "out", "--since", "1h")

    assert (question.exit_code, policy.exit_code, none.exit_code) == (2, 2, 1)
    assert "there are arms" in question.stderr
    assert "there is no army" in policy.stderr
    assert "look further back with --since" in none.stderr
    assert not (root / "out").exists()

    done = weir("archive", "labels", root / "out", "--question", "arms", "--policy", "arms")

    assert done.exit_code == 0, done.output


class Sealing:
    """A store during whose fetches somebody seals c1 and erases c12."""

    def __init__(self, root: Path, *, seals: bool = True) -> None:
        self._folder = FolderStore(root / "media")
        self._archive = Archive(str(root / "archive"), Store())
        self._seals = seals

    def fetch(self, uri: str, *, max_bytes: int, timeout_s: float) -> bytes:
        """Return the bytes at the reference."""
        if not self._seals:
            raise KeyboardInterrupt
        media = decision(1).content.media
        moved = sealed.move(sealed.OPEN).model_copy(update={"media": media})
        write_batch(self._archive, sealed.records(REVIEWS, ("c1", moved)), sealed=sealed.SEALED)
        apply(self._archive, Erasures(contents={"c12": NOW}))
        return self._folder.fetch(uri, max_bytes=max_bytes, timeout_s=timeout_s)

    def put(self, uri: str, data: bytes, *, content_type: str | None = None) -> None:
        """Refuse: nobody writes here."""
        raise NotImplementedError

    def check(self) -> None:
        """Find nothing wrong."""


def judged(root: Path) -> Mapping[str, list[Answered]]:
    """Return the answers that count, by decision."""
    archive = Archive(str(root / "archive"), Store())
    policies = read_policies(root / "policies")
    pairs = [(policy, question) for policy in policies for question in policy.questions]
    chosen = choose(answers_in(archive, since=NOW - timedelta(days=1)), pairs)
    return {name: list(some) for name, some in chosen.answers.items()}


def test_what_is_sealed_or_erased_meanwhile_is_taken_out_again(root: Path) -> None:
    """Its row and its picture go, however late the word came."""
    archive = Archive(str(root / "archive"), Store())

    Export(archive=archive, store=Sealing(root), bounds=Bounds()).write(judged(root), root / "out")

    rows = by_id(root / "out")
    assert set(rows) == {"c0", "c6"}
    kept = {path.read_bytes() for path in (root / "out" / "media").iterdir()}
    assert kept == {picture(0), picture(6)}


def test_an_export_that_breaks_off_leaves_nothing(root: Path) -> None:
    """Neither the folder that it made, nor, in one that was there, a picture."""
    archive = Archive(str(root / "archive"), Store())
    export = Export(archive=archive, store=Sealing(root, seals=False), bounds=Bounds())
    (root / "there").mkdir()

    for name in ("out", "there"):
        with pytest.raises(KeyboardInterrupt):
            export.write(judged(root), root / name)

    assert not (root / "out").exists()
    assert list((root / "there").iterdir()) == []
    gone = {name: some for name, some in judged(root).items() if name in {"d-c4", "d-c7"}}
    with pytest.raises(RefusedError, match="of 2 judged uploads none can be exported"):
        Export(archive=archive, store=FolderStore(root / "media"), bounds=Bounds()).write(
            gone, root / "out"
        )
    assert not (root / "out").exists()


def test_answers_with_other_chances_stand_in_rows_of_their_own() -> None:
    """A weight is of a whole row; so is whether others looked again."""
    first = answered(1, violates=True)
    more = {name: getattr(first, name) for name in Answered.__slots__}
    seldom = Answered(**{**more, "question": "fakes", "chance": 0.1, "first": False})
    alone = Answered(**{**more, "question": "drugs", "final": None})
    upload = Upload(key=0, media=(Location(uri="a.png"),), caption="x")

    rows = rows_of(upload, [Path("media/a.png")], [first, seldom, alone])

    assert [(row.answers, row.weight, row.adjudicated) for row in rows] == [
        ({"weapons": True}, 1, True),
        ({"fakes": True}, 10, True),
        ({"drugs": True}, 1, False),
    ]
    assert rows[1].first == {"fakes": False}
    assert {(row.id, row.cluster) for row in rows} == {("c1", "1")}
