"""`weir archive`: every upload, decision and verdict in Parquet files; written, asked, exported, made anew."""

import getpass
import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.ago import ago
from pipeline.config import Settings
from pipeline.errors import PipelineError
from policies.errors import PolicyError

if TYPE_CHECKING:
    from pipeline.archive import Archive
    from pipeline.labelling import Chosen, Written
    from policies.question import Question
    from policies.schema import Policy

#: Rows that a table for people shows.
_SHOWN = 200


@click.group()
def command() -> None:
    """Keep every upload, decision and verdict in Parquet files, and ask them questions."""


@contextmanager
def _opened() -> "Iterator[tuple[Settings, Archive]]":
    from pipeline.archive import Archive

    settings = Settings()
    try:
        yield settings, Archive(settings.archive, settings.store)
    except (PipelineError, PolicyError) as error:
        raise click.ClickException(str(error)) from error


@command.command()
def run() -> None:
    """Archive uploads, decisions and verdicts as they come, until a signal stops it."""
    from pipeline.archiving import run_archive

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        run_archive(Settings(), stop)
    except (PipelineError, PolicyError) as error:
        raise click.ClickException(str(error)) from error


@command.command()
@click.argument("sql")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a row.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def query(sql: str, *, as_json: bool, as_csv: bool) -> None:
    """Ask the views `decisions`, `verdicts` and `uploads` in SQL, as DuckDB speaks it.

    The table shows the first 200 rows; --json and --csv print all.
    """
    from pipeline.archive_query import ask, connect

    if as_json and as_csv:
        raise click.UsageError("choose one of --json and --csv")
    with _opened() as (_, archive):
        reader = ask(connect(archive), sql)
        if as_csv:
            _write_csv(reader, sys.stdout.buffer)
        elif as_json:
            for batch in reader:
                for row in batch.to_pylist():
                    click.echo(json.dumps(row, default=str, ensure_ascii=False))
        else:
            _print_table(reader)


@command.command()
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--sql", default="SELECT * FROM decisions", show_default=True, help="What to export.")
def export(target: Path, sql: str) -> None:
    """Write every row to TARGET: a `.parquet` or a `.csv` file, however many there are."""
    from pipeline.archive_query import ask, connect

    if target.suffix not in {".parquet", ".csv"}:
        raise click.BadParameter("end it with .parquet or .csv", param_hint="TARGET")
    with _opened() as (_, archive):
        reader = ask(connect(archive), sql)
        try:
            with target.open("wb") as file:
                write = _write_csv if target.suffix == ".csv" else _write_parquet
                rows = write(reader, file)
        except OSError as error:
            raise click.ClickException(f"{target} cannot be written: {error.strerror}") from error
    click.echo(f"{target}: {rows} rows")


@command.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--since", default="90d", show_default=True, callback=ago, help="How far back decisions count."
)
@click.option("--policy", "policies", multiple=True, help="Only this policy; may be given again.")
@click.option(
    "--question", "questions", multiple=True, help="Only this question; may be given again."
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def labels(
    folder: Path,
    *,
    since: timedelta,
    policies: tuple[str, ...],
    questions: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write the uploads that people judged into FOLDER: labels.jsonl and media, for `weir model tune` and `eval`.

    Answers count as they do for `weir policy backtest`: those that stand, each by its chance of having been asked, on
    the same version of the policy, in whatever words. What is sealed, what has the same media, and what was erased is
    not in it.

    It is users' content, and its owner's alone to read: what is sealed or erased later stays in FOLDER until you
    delete it.
    """
    from pipeline.answered import answers_in
    from pipeline.labelling import Export, choose, vacant
    from pipeline.progress import bar
    from pipeline.specs import access_of, bounds_of
    from workers.store import open_stores

    with _opened() as (settings, archive):
        vacant(folder)
        asked = _asked(settings, policies, questions)
        found = answers_in(archive, since=datetime.now(UTC) - since)
        chosen = choose(found, asked)
        if not chosen.answers:
            raise click.ClickException(
                f"of {len(found):,} answers in the archive none is about these questions in their versions; look "
                "further back with --since, or let people answer first"
            )
        export = Export(
            archive=archive, store=open_stores(access_of(settings)), bounds=bounds_of(settings)
        )
        with bar("Fetching", len(chosen.answers), quiet=as_json) as advance:
            written = export.write(
                chosen.answers,
                folder,
                advance=advance,
                left_out=lambda content, why: click.echo(f"{content}: left out: {why}", err=True),
            )
    if as_json:
        click.echo(json.dumps(_counts(written, chosen), indent=1))
    else:
        _tell(folder, _counts(written, chosen))


@command.command()
def rebuild() -> None:
    """Write the archive anew from what Kafka still has; files from before that stay, and so do erasures."""
    from pipeline import archiving, legal
    from pipeline.kafka import read

    with _opened() as (settings, archive):
        count = archiving.rebuild(
            archive,
            read(settings.kafka, archiving.topics_of(settings)),
            erasures=lambda: legal.known(settings.kafka).erasures(),
            sealed=archiving.sealed_queues(settings),
        )
    click.echo(f"{count} records archived in {settings.archive}")


@command.command()
@click.option("--content", help="Id of the content.")
@click.option("--author", help="Id of the author: everything of theirs.")
@click.option("--reason", required=True, help="Why, like the number of the request.")
@click.option("--by", default=getpass.getuser, show_default="who runs this", help="Who says so.")
def erase(*, content: str | None, author: str | None, reason: str, by: str) -> None:
    """Erase the personal fields of a content, or of all contents of an author; the chain of decisions stays readable.

    The erasure is an event on Kafka, so that a rebuild erases again. What is under a legal hold is not erased: then
    nothing is, and the exit code is 1. Kafka itself forgets by its topics' retention.
    """
    from pipeline import erasing, legal

    if (content is None) == (author is None):
        raise click.UsageError("name one of --content and --author")
    with _opened() as (settings, archive):
        now = datetime.now(UTC)
        state = legal.known(settings.kafka)
        contents = [content] if content else erasing.contents_of(archive, author or "")
        held = state.held(now)
        if under := [name for name in contents if name in held]:
            raise click.ClickException(
                f"nothing was erased: {', '.join(under)} is under a legal hold "
                f"({held[under[0]].reason}); `weir legal-hold release` ends it"
            )
        events = list(legal.erasing(contents, author=author, reason=reason, by=by, now=now))
        legal.write(settings.kafka, events)
        count = erasing.apply(archive, legal.Legal(events=(*state.events, *events)).erasures())
    click.echo(f"{len(contents)} contents; {count} records in {settings.archive} erased now")


def _asked(
    settings: Settings, policies: tuple[str, ...], questions: tuple[str, ...]
) -> "list[tuple[Policy, Question]]":
    from policies.folder import read_policies

    pairs = [(p, q) for p in read_policies(settings.policies) for q in p.questions]
    if unknown := {*policies} - {p.policy for p, _ in pairs}:
        raise click.BadParameter(f"there is no {', '.join(sorted(unknown))}", param_hint="--policy")
    if unknown := {*questions} - {q.id for _, q in pairs}:
        raise click.BadParameter(
            f"there is no {', '.join(sorted(unknown))}; there are {', '.join(q.id for _, q in pairs)}",
            param_hint="--question",
        )
    return [
        (policy, question)
        for policy, question in pairs
        if (not policies or policy.policy in policies)
        and (not questions or question.id in questions)
    ]


def _counts(written: "Written", chosen: "Chosen") -> dict[str, Any]:
    return {
        "uploads": written.uploads,
        "answers": {
            question: {"violates": said[True], "allowed": said[False]}
            for question, said in sorted(written.answers.items())
        },
        "left_out": {
            "uploads_not_archived": written.not_archived,
            "uploads_without_media": written.without_media,
            "answers_to_another_version": chosen.other_version,
        },
    }


def _tell(folder: Path, counts: dict[str, Any]) -> None:
    for question, said in counts["answers"].items():
        click.echo(f"{question}: {said['violates']} violate, {said['allowed']} are allowed")
    left_out = counts["left_out"]
    click.echo(
        f"left out: {left_out['uploads_without_media']} uploads whose media cannot be had, "
        f"{left_out['uploads_not_archived']} that are erased or not in the archive as they were judged, "
        f"{left_out['answers_to_another_version']} answers to another version of a policy"
    )
    click.echo(f"{folder}: {counts['uploads']} uploads; next: weir model tune {folder} OUT")


def _print_table(reader: Any) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*reader.schema.names)
    rows = 0
    for batch in reader:
        for row in batch.to_pylist():
            rows += 1
            if rows <= _SHOWN:
                table.add_row(*(Text("" if v is None else str(v)) for v in row.values()))
    Console().print(table)
    if rows > _SHOWN:
        click.echo(f"{_SHOWN} of {rows} rows; --json, --csv or `weir archive export` give all")


def _write_parquet(reader: Any, file: Any) -> int:
    import pyarrow.parquet as pq

    rows = 0
    with pq.ParquetWriter(file, reader.schema, compression="zstd") as writer:
        for batch in reader:
            rows += batch.num_rows
            writer.write_batch(batch)
    return rows


def _write_csv(reader: Any, file: Any) -> int:
    import csv
    import io

    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow(reader.schema.names)
    rows = 0
    for batch in reader:
        for row in batch.to_pylist():
            rows += 1
            # Lists and structures have no form in CSV, so they stand there as JSON.
            writer.writerow(
                json.dumps(v, default=str, ensure_ascii=False) if isinstance(v, (list, dict)) else v
                for v in row.values()
            )
    text.detach()
    return rows
