"""Golden cases put to a classifier, and replayed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from pipeline.calibration import Calibrations
from pipeline.cli import main
from pipeline.golden import Outcome, beside
from pipeline.junit import junit
from pipeline.recordings import load, save
from pipeline.rehearsal import Rehearsal
from policies.cases import CaseFile, read_cases
from policies.folder import read_policies
from policies.question import Part, Question
from policies.schema import Policy
from workers.classifier import Classification, Item, Rationale

NOW = datetime(2026, 11, 28, tzinfo=UTC)

POLICY = """\
policy: knives
title: Knives
version: 1
status: live
question: Does this upload show a knife?
clauses:
  K1: {text: Shows a knife.}
  K2: {text: Offers a knife for sale., severity: critical, bands: {act: never}}
severity: high
action: remove
bands: {review: 0.3, act: 0.9, uncalibrated: act}
review: {queue: knives, meanwhile: hold}
overrides:
  - when: {surface: news}
    action: label
"""

CASES = """\
policy: knives
cases:
  knife: {text: a knife, expect: violates, action: remove}
  spoon: {text: a spoon, expect: allowed, unlike: knife, action: allow}
  offer: {text: a knife for sale, expect: violates, clause: K2}
  news: {text: a knife, context: {surface: news}, expect: violates, action: label}
  picture: {media: [red.png], expect: violates}
"""


@dataclass
class Reader:
    """A classifier that knows a knife by its name or its redness, and a sale by its name.

    With `sure` its answer depends on the question alone.
    """

    bias: float = 4.0
    name: str = "reader"
    digest: str = "sha256:reader"
    reads: frozenset[Part] = frozenset({"image", "caption"})
    sure: tuple[str, ...] = ()

    def covers(self, question: Question) -> bool:
        """Every question is covered."""
        return bool(question.id)

    def classify(
        self, items: Sequence[Item], questions: Sequence[Question]
    ) -> list[list[Classification]]:
        """Say Yes where the words, or the colour, are there."""
        return [[self._answer(item, question) for question in questions] for item in items]

    def _answer(self, item: Item, question: Question) -> Classification:
        seen = "knife" in item.caption or any(
            picture.pixels[..., 0].mean() > 200 > picture.pixels[..., 1].mean()
            for picture in item.pictures
        )
        if question.clause == "K2":
            seen = seen and "sale" in item.caption
        if self.sure:
            seen = question.id not in self.sure
        return Classification(question=question.id, score=self.bias if seen else -self.bias)

    def explain(
        self, item: Item, findings: Sequence[tuple[Question, Classification]]
    ) -> list[Rationale]:
        """Give no reasons."""
        del item, findings
        return []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of one policy with its cases and a red picture."""
    (tmp_path / "cases").mkdir()
    (tmp_path / "knives.yaml").write_text(POLICY)
    (tmp_path / "cases" / "knives.yaml").write_text(CASES)
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 255
    Image.fromarray(red).save(tmp_path / "cases" / "red.png")
    return tmp_path


def parts(folder: Path) -> tuple[Policy, CaseFile]:
    """Return the policy of a folder and its cases."""
    policies = read_policies(folder)
    return policies.by_name["knives"], read_cases(policies, folder)["knives"]


def run(folder: Path, classifier: Reader, *, record: bool = False) -> dict[str, Outcome]:
    """Put the cases to a classifier."""
    outcomes: list[Outcome] = []
    rehearsal = Rehearsal(folder, [classifier], Calibrations(), NOW)
    recording = rehearsal.run(*parts(folder), outcomes.append)
    if record:
        save(folder, recording)
    return {outcome.case: outcome for outcome in outcomes}


def replay(folder: Path) -> dict[str, Outcome]:
    """Replay the recording of the cases."""
    policy, cases = parts(folder)
    rehearsal = Rehearsal(folder, [], Calibrations(), NOW)
    return {o.case: o for o in rehearsal.replay(policy, cases, load(folder, "knives"))}


def test_pass(folder: Path) -> None:
    """Cases whose answer and action come out as they must pass: by words, picture and context."""
    assert {name: o.status for name, o in run(folder, Reader()).items()} == dict.fromkeys(
        ["knife", "spoon", "offer", "news", "picture"], "passed"
    )


def test_fail(folder: Path) -> None:
    """A classifier that says the opposite fails the cases, and each says what came out."""
    outcomes = run(folder, Reader(bias=-4.0))

    assert outcomes["offer"].why == (
        "must come out as violates, came out as allowed: knives/K2 0.02 (Yes from 0.5)",
    )
    assert outcomes["spoon"].why == (
        "must come out as allowed, came out as violates: knives 0.98, knives/K2 0.98 (Yes from 0.5)",
        "the action must be allow, is remove",
    )
    # The clause alone says Yes, which is right for the policy as a whole, but then a person decides.
    assert outcomes["knife"].why == ("the action must be remove, is hold",)


def test_action_alone(folder: Path) -> None:
    """An answer that is right but unsure fails a case that names the action."""
    outcomes = run(folder, Reader(bias=1.0))

    assert outcomes["knife"].why == ("the action must be remove, is hold",)
    assert outcomes["offer"].status == "passed"


def test_regional_clause(folder: Path) -> None:
    """A clause of one region counts against a case that is shown there, and against no other."""
    path = folder / "knives.yaml"
    path.write_text(path.read_text().replace("K2: {", "K2: {regions: [GB], "))
    cases = (
        "policy: knives\n"
        "cases:\n"
        "  here: {text: a fork, expect: allowed}\n"
        "  there: {text: a fork, context: {regions: [GB, FR]}, expect: violates}\n"
    )
    (folder / "cases" / "knives.yaml").write_text(cases)

    outcomes = run(folder, Reader(bias=-4.0, sure=("knives/K2",)))

    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        "here": "passed",
        "there": "passed",
    }


def test_counterpart(folder: Path) -> None:
    """A failed case shows its answers beside those of its counterfactual."""
    outcomes = run(folder, Reader(bias=0.0))

    assert outcomes["spoon"].status == "failed"
    (line,) = beside(outcomes["spoon"], parts(folder)[1], outcomes)
    assert line.startswith("beside its counterpart knife: knives 0.50 here, 0.50 there")


def test_replay(folder: Path) -> None:
    """A recording replays to the same outcomes, with no classifier at hand."""
    live = run(folder, Reader(), record=True)

    again = replay(folder)

    assert {name: (o.status, o.answers) for name, o in again.items()} == {
        name: (o.status, {k: v for k, v in o.answers.items() if k in again[name].answers})
        for name, o in live.items()
    }


def test_older_than_the_wording(folder: Path) -> None:
    """After an edit of a policy's words, recordings of the questions that changed are stale, and only those."""
    run(folder, Reader(), record=True)
    path = folder / "knives.yaml"
    path.write_text(path.read_text().replace("text: Shows a knife.", "text: Displays a knife."))

    outcomes = replay(folder)

    assert outcomes["picture"].status == "stale"
    assert "older than what knives asks;" in outcomes["picture"].why[0]
    assert outcomes["offer"].status == "passed"


def test_bands_are_no_wording(folder: Path) -> None:
    """After an edit of bands alone the recording is good, and what follows from it is new."""
    run(folder, Reader(), record=True)
    path = folder / "knives.yaml"
    path.write_text(path.read_text().replace("act: 0.9,", "act: never,"))

    assert replay(folder)["knife"].why == ("the action must be remove, is hold",)


@pytest.mark.parametrize(
    ("file", "old", "new", "case"),
    [("knives.yaml", "a spoon", "a fork", "spoon"), ("red.png", "", "", "picture")],
)
def test_changed_case(folder: Path, file: str, old: str, new: str, case: str) -> None:
    """A case whose text or picture changed after it was recorded is stale."""
    run(folder, Reader(), record=True)
    path = folder / "cases" / file
    if old:
        path.write_text(path.read_text().replace(old, new))
    else:
        path.write_bytes(path.read_bytes() + b"\0")

    stale = [name for name, outcome in replay(folder).items() if outcome.status == "stale"]

    assert stale == [case]


def test_refused_media(folder: Path) -> None:
    """A picture that cannot be looked at leaves its case without an answer, with the reason."""
    (folder / "cases" / "red.png").write_bytes(b"no picture")

    outcome = run(folder, Reader())["picture"]

    assert outcome.status == "silent"
    assert "unsupported_type" in outcome.why[0]


def test_drawings(folder: Path) -> None:
    """A picture composed of shipped drawings is looked at like any other, and an unknown one is named."""
    (folder / "cases" / "knives.yaml").write_text(
        "policy: knives\n"
        "cases:\n"
        "  dark: {drawings: [kitchen-knife, cheese], expect: allowed}\n"
        "  none: {drawings: [kitchen-knive], expect: allowed}\n"
    )

    outcomes = run(folder, Reader())

    assert outcomes["dark"].status == "passed"
    assert outcomes["none"].status == "silent"
    assert "did you mean kitchen-knife?" in outcomes["none"].why[0]


def test_junit(folder: Path) -> None:
    """The XML has one test a case, failures with their words, and what has no answer as an error."""
    (folder / "cases" / "red.png").write_bytes(b"no picture")
    outcomes = run(folder, Reader(bias=-4.0))

    suite = ET.fromstring(junit(list(outcomes.values()))).find("testsuite")  # noqa: S314 - our own

    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("5", "4", "1")
    assert any("must come out as" in (f.text or "") for f in suite.iter("failure"))


def weir(folder: Path, *arguments: str, bias: float = 100.0) -> Result:
    """Run `weir policy test` with a stub that says Yes, or No, to everything."""
    stub = [{"model": "stub", "kind": "stub", "options": {"bias": bias}}]
    return CliRunner().invoke(
        main,
        ["policy", "test", "--folder", str(folder), *arguments],
        env={"WEIR_CLASSIFIERS": json.dumps(stub)},
    )


def test_command(folder: Path) -> None:
    """The command says which cases failed and why, writes XML, and exits 1."""
    result = weir(folder, "--junit", str(folder / "out.xml"))

    assert result.exit_code == 1
    assert "knives/spoon: failed" in result.output
    assert "5 cases: 3 passed, 2 failed" in result.output
    assert ET.parse(folder / "out.xml").getroot().tag == "testsuites"  # noqa: S314 - our own


def test_command_offline(folder: Path) -> None:
    """Recorded once, the same outcome comes without a classifier; unrecorded, every case is stale."""
    before = weir(folder, "--offline")
    weir(folder, "--record")
    after = weir(folder, "--offline", bias=-100.0)

    assert "5 cases: 5 stale" in before.output
    assert "5 cases: 3 passed, 2 failed" in after.output
    assert json.loads(weir(folder, "--offline", "--json").output)[0]["case"] == "knife"


def test_command_past(folder: Path) -> None:
    """A failure says what the score was when it was recorded."""
    weir(folder, "--record")

    result = weir(folder, bias=-100.0)

    assert "when recorded" in result.output


def test_command_broken_recording(folder: Path) -> None:
    """A recording that is none is named with what to do."""
    (folder / "cases" / "knives.scores.json").write_text("{}")

    result = weir(folder, "--offline")

    assert result.exit_code == 1
    assert "run weir policy test --record knives" in result.output


def test_command_drafts(folder: Path) -> None:
    """Drafts are left out unless they are named."""
    path = folder / "knives.yaml"
    path.write_text(path.read_text().replace("status: live", "status: draft"))

    assert "left out, because drafts are not asked: knives" in weir(folder).output
    assert "5 cases" in weir(folder, "knives").output


def test_command_wrong_use(folder: Path) -> None:
    """An unknown policy and options against each other are wrong use."""
    assert weir(folder, "knifes").exit_code == 2
    assert weir(folder, "--offline", "--record").exit_code == 2
