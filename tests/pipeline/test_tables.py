"""The table of decisions that people read."""

from datetime import UTC, datetime
from io import StringIO

from rich.console import Console

from pipeline import tables
from pipeline.messages import Decision, Finding, Rationale, Source
from policies.schema import Action, Severity, Status


def a_finding(policy: str, probability: float, **fields: object) -> Finding:
    """Return a finding with the fields that matter here."""
    plain = Finding(
        policy=policy,
        policy_version=1,
        status=Status.LIVE,
        severity=Severity.HIGH,
        question=policy,
        question_digest="q",
        score=0.0,
        probability=probability,
        calibration="fresh",
        answered_by="m",
    )
    return plain.model_copy(update=fields)


def a_decision(*findings: Finding) -> Decision:
    """Return a decision with these findings."""
    return Decision(
        decision_id="d",
        source=Source(topic="media.uploads", partition=0, offset=7),
        event_id="e",
        content_id="c",
        action=Action.REMOVE,
        policy_set="sha256:0",
        decided_at=datetime(2026, 1, 1, tzinfo=UTC),
        findings=findings,
    )


def drawn(decision: Decision) -> str:
    """Return the table as a terminal shows it."""
    console = Console(width=160, record=True, file=StringIO())
    console.print(tables.decisions([decision]))
    return console.export_text()


def test_the_row_names_the_finding_that_acted() -> None:
    """What led to the action stands in the row, though another policy was more probable."""
    text = drawn(a_decision(a_finding("drugs", 0.99), a_finding("weapons", 0.95, outcome="acted")))

    assert "weapons" in text
    assert "0.95" in text
    assert "drugs" not in text


def test_an_uncalibrated_probability_is_marked() -> None:
    """A number that nobody calibrated does not look like one that somebody did."""
    text = drawn(a_decision(a_finding("weapons", 0.95, outcome="acted", calibration="none")))

    assert "uncalibrated" in text


def test_the_models_words_are_text_and_never_markup() -> None:
    """A rationale that holds terminal markup is shown as it was written."""
    said = Rationale(clause="W1", text="[red]sold[/red]", supported=False)
    text = drawn(a_decision(a_finding("weapons", 0.95, outcome="acted", rationale=said)))

    assert "W1: [red]sold[/red]" in text
    assert "not supported" in text


def test_a_corrected_reason_says_so() -> None:
    """What the model denied of its own words is not passed off as its word."""
    said = Rationale(clause="W1", text="A pistol.", supported=True, denied=("text",))
    text = drawn(a_decision(a_finding("weapons", 0.95, outcome="acted", rationale=said)))

    assert "corrected after a second look" in " ".join(text.split())


def test_a_decision_without_findings_has_a_row_too() -> None:
    """An upload that no question was asked of is in the table."""
    assert "remove" in drawn(a_decision())
