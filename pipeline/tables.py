"""Tables that commands print: decisions in rows, for people."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from pipeline.messages import Decision, Finding

_STYLES = {"allow": "green", "restrict": "yellow", "hold": "magenta", "remove": "red"}


def decisions(found: Sequence[Decision]) -> Table:
    """Return one row for each decision: what, why, how sure, in whose words, and where it waits."""
    table = Table(title="Decisions", show_lines=True)
    for name in ("content", "action", "policy", "probability", "rationale", "review queue"):
        table.add_column(name, overflow="fold", ratio=4 if name == "rationale" else None)
    for decision in found:
        leading = finding(decision)
        action = decision.action.value
        table.add_row(
            Text(decision.content_id),
            Text(_action(decision), style=_STYLES.get(action, "")),
            Text(_policy(decision, leading)),
            Text(_probability(leading)),
            # The model's words are untrusted: as text they can hold no markup.
            Text(reason(decision, leading)),
            Text(_review(decision)),
        )
    return table


def finding(decision: Decision) -> Finding | None:
    """Return the finding that a decision rests on, or the most probable one where it rests on none."""
    rank = {"acted": 2, "review": 1, "none": 0}
    return max(
        decision.findings,
        key=lambda f: (rank[f.outcome], f.severity.weight if rank[f.outcome] else 0, f.probability),
        default=None,
    )


def reason(decision: Decision, leading: Finding | None) -> str:
    """Return why a decision is as it is, in a line."""
    if decision.fault is not None:
        return f"{decision.fault.reason}: {decision.fault.detail}".removesuffix(": ")
    if leading is None or leading.rationale is None:
        return ""
    said = leading.rationale
    doubt = "" if said.supported else " (not supported by a second look)"
    if said.supported and said.denied:
        doubt = " (corrected after a second look)"
    return f"{said.clause}: {said.text}{doubt}" if said.clause else f"{said.text}{doubt}"


def _action(decision: Decision) -> str:
    extra = [*decision.labels] if decision.action.value == "allow" else []
    there = [f"{region}: {action.value}" for region, action in decision.regional.items()]
    return "\n".join([decision.action.value, *extra, *there])


def _policy(decision: Decision, leading: Finding | None) -> str:
    if decision.fault is not None:
        return ""
    if leading is None or leading.outcome == "none":
        return f"({leading.policy})" if leading else ""
    return f"{leading.policy} {leading.clause}" if leading.clause else leading.policy


def _probability(leading: Finding | None) -> str:
    if leading is None:
        return ""
    # What is not calibrated must not look as if it were.
    mark = {"fresh": "", "stale": " stale", "none": " uncalibrated"}[leading.calibration]
    return f"{leading.probability:.2f}{mark}"


def _review(decision: Decision) -> str:
    if decision.review is None:
        return ""
    return f"{decision.review.queue} ({decision.review.reason})"
