"""`weir queue`: look at the review queue, work in it, and make it again from the log."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import click

from pipeline.config import Settings
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.agreement import Agreement
    from pipeline.desk import Desk
    from pipeline.redis import Entry
    from pipeline.review import Person

#: Answers as they are typed: `weapons=violates:W1`, `weapons=allowed`, `weapons/W3=cannot_tell`.
_ANSWERS: Final = ("violates", "allowed", "cannot_tell")

P = ParamSpec("P")
R = TypeVar("R")


@click.group()
def command() -> None:
    """Look at, claim from and rebuild the review queue."""


def _as_json(function: Callable[P, R]) -> Callable[P, R]:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def _somebody(function: Callable[P, R]) -> Callable[..., R]:
    """Add the options that say who acts, and hand over the `Person`."""

    @click.option("--as", "who", required=True, help="Who acts: a reviewer's id.")
    @click.option("--languages", default="en", show_default=True, help="What they read: en,de.")
    @click.option("--skills", default="", help="What they may see: graphic,legal.")
    @click.option("--queues", default="", help="Only from these queues.")
    @click.option("--sealed", default="", help="Sealed queues that are open to them.")
    @click.option("--lead", is_flag=True, help="They are a lead.")
    @wraps(function)
    def with_person(*args: Any, **options: Any) -> R:
        from pipeline.review import Person

        roles = {"reviewer", "lead"} if options.pop("lead") else {"reviewer"}
        queues = _list(options.pop("queues"))
        options["person"] = Person(
            id=options.pop("who"),
            languages=_list(options.pop("languages")),
            skills=_list(options.pop("skills")),
            queues=queues or None,
            sealed=_list(options.pop("sealed")),
            roles=frozenset(roles),
        )
        return function(*args, **options)

    return with_person


@command.command()
@_as_json
def stats(*, as_json: bool) -> None:
    """Show every queue in numbers."""
    with _desk() as desk:
        depths = desk.stats()
    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps([asdict(depth) for depth in depths]))
        return
    table = _table("queue", "open", "held", "answered", "overdue", "oldest", "in", "out")
    for d in depths:
        numbers = (d.open, d.leased, d.waiting, d.late)
        age = _age(timedelta(seconds=d.oldest_s)) if d.oldest_s else ""
        table.add_row(d.queue, *map(str, numbers), age, str(d.arrived), str(d.closed))
    _print(table)


@command.command()
@click.argument("queue", required=False)
@click.option("--count", default=20, show_default=True, help="How many.")
@_as_json
def peek(queue: str | None, *, count: int, as_json: bool) -> None:
    """Show the jobs that stand first in QUEUE, or in all queues, without taking them, and why they stand there."""
    with _desk() as desk:
        found = desk.peek(queue=queue, count=count)
        _show(desk, found, as_json=as_json)


@command.command()
@click.argument("job", required=False)
@click.option("--count", default=1, show_default=True, help="How many.")
@_somebody
@_as_json
def claim(job: str | None, *, count: int, person: "Person", as_json: bool) -> None:
    """Take the jobs that stand first, or JOB, on a lease.

    Exit codes: 0 got some, 1 got none, 2 wrong use.
    """
    from pipeline.audit import audit_record

    with _desk() as desk:
        handed = desk.claim(person, count=count, only=job)
        for entry in handed.entries:
            if desk.hides(entry):
                told = f"queue {entry.queue}, on the command line"
                desk.log.place(
                    [audit_record(person.id, "viewed_sealed", job_id=entry.job_id, detail=told)]
                )
        _show(desk, handed.entries, as_json=as_json)
    if not handed.entries:
        said = {
            "empty": "no job is open that this person may take",
            "budget": "this person's exposure for today is used up",
            "break": "this person is on a break",
            "rebuild": "the queue is being made again from the log: try again in a moment",
            "holds": "this person holds as many jobs as anybody may",
        }
        click.echo(said.get(handed.reason, handed.reason), err=True)
        raise SystemExit(1)


@command.command()
@click.argument("job")
@click.argument("answers", nargs=-1)
@click.option("--lease", type=int, required=True, help="The lease number that `claim` showed.")
@click.option("--note", default="", help="A note.")
@click.option("--escalate", "reason", help="The answers count, and a second job opens: legal, …")
@click.option("--action", help="Another action than follows from the answers (leads only).")
@click.option("--unclear", is_flag=True, help="The policy is unclear.")
@_somebody
def resolve(
    job: str,
    answers: tuple[str, ...],
    *,
    lease: int,
    note: str,
    reason: str | None,
    action: str | None,
    unclear: bool,
    person: "Person",
) -> None:
    """Answer JOB: each answer reads QUESTION=ANSWER, like weapons=violates:W1 or weapons=allowed:A2.

    The verdict goes out at once; `escalate` (a part of `weir run`) makes the decision and closes the job.
    """
    from pipeline.desk import Answers
    from policies.schema import Action

    if action is not None and action not in list(Action):
        raise click.UsageError(f"no action is called {action}: choose of {', '.join(Action)}")
    said = Answers(
        answers=tuple(_answer(text) for text in answers),
        note=note,
        escalate=reason,
        action=None if action is None else Action(action),
        policy_unclear=unclear,
    )
    with _desk() as desk:
        verdict = desk.resolve(person, job, lease, said, at_once=True)
    click.echo(f"verdict {verdict.verdict_id}")


@command.command()
@click.argument("job")
@click.argument("answers", nargs=-1)
@click.option("--note", default="", help="A note.")
@_somebody
def withdraw(job: str, answers: tuple[str, ...], *, note: str, person: "Person") -> None:
    """Put ANSWERS in the place of those that closed JOB: one's own, or, for a lead, anybody's."""
    from pipeline.desk import Answers

    with _desk() as desk:
        said = Answers(answers=tuple(_answer(text) for text in answers), note=note)
        verdict = desk.withdraw(person, job, said)
    click.echo(f"verdict {verdict.verdict_id} takes the place of {verdict.withdraws}")


@command.command()
@click.argument("decision")
@click.argument("answers", nargs=-1)
@_somebody
def golden(decision: str, answers: tuple[str, ...], *, person: "Person") -> None:
    """Say which ANSWERS to a reviewed DECISION are right; its like is mixed in among others (WEIR_CONSOLE_GOLDEN)."""
    with _desk() as desk:
        desk.golden(person, decision, decision, [_answer(text) for text in answers])


@command.command()
@click.argument("job")
@click.option("--lease", type=int, required=True, help="The lease number that `claim` showed.")
@_somebody
def release(job: str, *, lease: int, person: "Person") -> None:
    """Give JOB back, untouched."""
    with _desk() as desk:
        desk.release(person, job, lease)


@command.command()
@click.argument("job")
@click.argument("reason")
@click.option("--lease", type=int, required=True, help="The lease number that `claim` showed.")
@_somebody
def skip(job: str, reason: str, *, lease: int, person: "Person") -> None:
    """Give JOB back for REASON; this person gets it again only when half of its time is over."""
    with _desk() as desk:
        desk.skip(person, job, lease, reason)


@command.command()
@click.argument("job")
@click.argument("queue")
@click.option("--lease", type=int, help="The lease number; a lead needs none.")
@click.option("--reason", default="", help="Why.")
@_somebody
def move(job: str, queue: str, *, lease: int | None, reason: str, person: "Person") -> None:
    """Move JOB to QUEUE."""
    with _desk() as desk:
        desk.move(person, job, queue, reason, lease=lease)


@command.command()
@click.argument("job")
@click.argument("reason")
@click.option("--lease", type=int, required=True, help="The lease number that `claim` showed.")
@click.option("--note", default="", help="A note.")
@_somebody
def escalate(job: str, reason: str, *, lease: int, note: str, person: "Person") -> None:
    """Move JOB, without an answer, to the queue of REASON: minor_safety, threat_to_life, terrorism, legal, other."""
    with _desk() as desk:
        desk.escalate(person, job, lease, reason, note)


@command.command()
@click.argument("job")
@click.argument("text")
@click.option("--lease", type=int, help="The lease number; a lead needs none.")
@_somebody
def note(job: str, text: str, *, lease: int | None, person: "Person") -> None:
    """Leave TEXT for whoever looks at JOB next."""
    with _desk() as desk:
        desk.note(person, job, text, lease=lease)


@command.command()
@_as_json
def figures(*, as_json: bool) -> None:
    """Show what verdicts add up to: agreement, reliability, overturned decisions, unclear and disputed clauses."""
    with _desk() as desk:
        found = desk.figures()
    if as_json:
        from dataclasses import asdict

        said = asdict(found)
        said["reliability"] = [
            {"reviewer": who, "policy": policy, **asdict(agreement)}
            for (who, policy), agreement in found.reliability.items()
        ]
        click.echo(json.dumps(said))
        return
    table = _table("policy", "reviewer", "pairs", "agree", "kappa")
    for policy, a in found.agreement.items():
        table.add_row(policy or "all", "two who looked", *_agreed(a))
    for (who, policy), a in found.reliability.items():
        table.add_row(policy, who, *_agreed(a))
    table.add_row("all", "model shown", *_agreed(found.anchoring.shown))
    table.add_row("all", "model hidden", *_agreed(found.anchoring.hidden))
    _print(table)
    table = _table("policy", "clause", "what", "times", "of")
    for policy, o in found.overturned.items():
        table.add_row(policy, "", "overturned", str(o.overturned), str(o.looked_at))
    for what, ranked in (("unclear", found.unclear), ("disputed", found.disputed)):
        for r in ranked:
            table.add_row(r.policy, r.clause, what, str(r.count), str(r.of))
    _print(table)


def _agreed(found: "Agreement") -> tuple[str, str, str]:
    percent = "" if found.percent is None else f"{found.percent:.0f} %"
    return str(found.pairs), percent, "" if found.kappa is None else f"{found.kappa:.2f}"


@command.command()
@click.confirmation_option(prompt="Leases and verdicts that wait to be sent are lost. Rebuild?")
@_as_json
def rebuild(*, as_json: bool) -> None:
    """Delete the queue in Redis and make it again from Kafka.

    A running `weir run` does the same by itself as soon as it finds Redis emptied. First verdicts of two are counted
    again by `weir run`; until then no job is handed out.
    """
    from pipeline.projection import Projection, read_queues
    from pipeline.redis import ReviewQueue
    from policies.folder import read_policies

    settings = Settings()
    with _said():
        policies = read_policies(settings.policies)
        queue = ReviewQueue(settings.redis.url.get_secret_value())
        queue.forget()
        queues = read_queues(settings.policies)
        projection = Projection(settings.kafka, queue, lambda: policies, queues)
        read = _read_all(projection)
        depths = queue.depths(queues)
        projection.close()
        queue.close()
    jobs = sum(d.open + d.leased + d.waiting for d in depths)
    if as_json:
        click.echo(json.dumps({"records": read, "jobs": jobs}))
    else:
        click.echo(f"read {read} records; {jobs} jobs are open")


def _read_all(projection: Any) -> int:
    from rich.console import Console
    from rich.progress import Progress

    read, quiet = 0, 0
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("tickets", total=max(1, projection.left()))
        # Two turns without a record after all tickets: reviews are read to their end, too.
        while not projection.caught_up() or quiet <= 1:
            found = projection.turn(timeout_s=0.2)
            read += found
            quiet = 0 if found else quiet + 1
            progress.update(bar, completed=progress.tasks[0].total - projection.left())
    return read


@contextmanager
def _said() -> Iterator[None]:
    """Turn what went wrong into a line for people."""
    from pipeline.redis import Unavailable
    from policies.errors import PolicyError

    try:
        yield
    except (PipelineError, PolicyError) as error:
        raise click.ClickException(str(error)) from error
    except Unavailable as error:
        raise click.ClickException(
            f"Redis did not answer: {error}; is it running, and is WEIR_REDIS_URL right?"
        ) from error


@contextmanager
def _desk() -> "Iterator[Desk]":
    from pipeline.desk import open_desk

    with _said():
        desk = open_desk(Settings())
        try:
            yield desk
        finally:
            desk.close()


def _show(desk: "Desk", entries: "list[Entry] | tuple[Entry, ...]", *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([_row(desk, entry) for entry in entries]))
        return
    if not entries:
        return
    table = _table("job", "lease", "queue", "part", "asked", "due", "standing", "because")
    for entry in entries:
        row = _row(desk, entry)
        due = entry.due - datetime.now(UTC)
        left = f"in {_age(due)}" if due > timedelta(0) else f"[red]{_age(-due)} ago[/red]"
        because = (
            f"{row['probability']:.2f} × {row['weight']} × reach {row['reach']:g}"
            f" + {row['ageing']:.1f} for waiting"
        )
        table.add_row(
            entry.job_id,
            str(entry.lease or ""),
            entry.queue + (" (any language)" if entry.widened else ""),
            entry.part,
            " ".join(row["asked"]),
            left,
            f"{row['standing']:.1f}",
            because,
        )
    _print(table)


def _row(desk: "Desk", entry: "Entry") -> dict[str, Any]:
    from dataclasses import asdict

    terms = desk.terms(entry)
    decision = entry.ticket.decision if entry.ticket else None
    review = decision.review if decision else None
    return {
        "job": entry.job_id,
        "decision": entry.decision_id,
        "content": decision.content_id if decision else None,
        "queue": entry.queue,
        "lane": entry.lane,
        "part": entry.part,
        "state": entry.state,
        "lease": entry.lease,
        "holder": entry.holder,
        "until": entry.until.isoformat() if entry.until else None,
        "born": entry.born.isoformat(),
        "due": entry.due.isoformat(),
        "asked": list(review.questions) if review else [],
        "widened": entry.widened,
        "late": entry.late,
        "standing": terms.standing,
        **asdict(terms),
    }


def _answer(text: str) -> Any:
    from pipeline.messages import VerdictAnswer

    question, sign, said = text.partition("=")
    answer, _, named = said.partition(":")
    policy, _, clause = question.partition("/")
    if not sign or answer not in _ANSWERS:
        raise click.UsageError(
            f"{text!r} is no answer: write QUESTION=violates:CLAUSE, =allowed[:CARVE-OUT] or "
            "=cannot_tell"
        )
    violates = answer == "violates"
    return VerdictAnswer.model_validate(
        {
            "policy": policy,
            "clause": clause or (named if violates and named else None),
            "answer": answer,
            "carve_out": named if named and not violates else None,
        }
    )


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _age(span: timedelta) -> str:
    minutes = int(span.total_seconds() // 60)
    if minutes < 1:
        return f"{int(span.total_seconds())}s"
    if minutes < 2 * 60:
        return f"{minutes}m"
    hours = minutes // 60
    return f"{hours}h" if hours < 2 * 24 else f"{hours // 24}d"


def _table(*columns: str) -> "Table":
    from rich.table import Table

    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print(table: "Table") -> None:
    from rich.console import Console

    Console().print(table)
