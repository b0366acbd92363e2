"""`weir up`: the embedded stack, the pipeline and the console in one process tree."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from pipeline import config, processes
from pipeline.commands.send import send
from pipeline.errors import PipelineError
from pipeline.processes import Part
from workers.errors import WorkerError

#: The stack stops its parts one after the other and gives each some time.
_GRACE_S = 60.0

_EPILOG = (
    "Exit codes: 0 ended as asked, 1 a part failed or an upload stayed undecided, 2 wrong use."
)


@click.command(epilog=_EPILOG)
@click.option(
    "--data",
    default=Path(".weir"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The stack's folder.",
)
@click.option(
    "--send",
    "paths",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="A file or folder to send once everything runs; may be given more than once.",
)
@click.option(
    "--samples/--no-samples",
    default=None,
    help="Draw sample pictures with captions, and send those, too; as a rule, where the stack begins empty and "
    "nothing else is to be sent.",
)
@click.option("--exit", "leave", is_flag=True, help="Stop when what was sent is decided.")
@click.option(
    "--timeout",
    "timeout_s",
    default=120.0,
    show_default=True,
    help="Longest wait for decisions, in seconds.",
)
def command(
    data: Path, *, paths: tuple[Path, ...], samples: bool | None, leave: bool, timeout_s: float
) -> None:
    """Start broker, Redis, media folder, Ray, pipeline and console; stay up until Ctrl-C.

    With KAFKA_HOME (an unpacked Apache Kafka release) and Java, that Kafka is started on the stack's
    folder and keeps its data. Without, it is a small broker in memory that forgets everything.

    So that the console has something to show, sample pictures with captions are drawn and sent, unless told otherwise.
    """
    console = Console(stderr=True)
    decided = True
    if samples is None:
        samples = not paths and _begins_empty(data)
    if samples:
        paths = (*paths, _samples(data / "samples"))
    try:
        with _stack(data) as stack:
            ready = _await_ready(stack, console)
            if paths:
                config.adopt(ready["environment"])
                decided = send(
                    paths,
                    config.Settings(),
                    wait=True,
                    timeout_s=timeout_s,
                    going=lambda: stack.running,
                )
                _still(stack)
            _say_where(ready, console)
            while not leave:
                _still(stack)
                time.sleep(0.5)
    except (PipelineError, WorkerError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        console.print("stopped")
    if not decided:
        raise SystemExit(1)


def _begins_empty(data: Path) -> bool:
    """Return whether nothing was sent to this stack before: the small broker forgets, a real one keeps its folder."""
    return not config.environment().get("KAFKA_HOME") or not (data / "kafka").exists()


def _samples(folder: Path) -> Path:
    """Draw the samples, as the demo does."""
    command = [sys.executable, "-m", "infra.samples", str(folder)]
    if subprocess.run(command, env=config.environment(), check=False).returncode:
        raise click.ClickException(f"the samples could not be drawn into {folder}")
    return folder


@contextmanager
def _stack(data: Path) -> Iterator[Part]:
    """Run the stack in a session of its own, so that it alone says in which order parts stop."""
    processes.adopt_orphans()
    # A terminal that closes and a polite kill end everything the same way as Ctrl-C.
    # Whoever starts us in the background may have Ctrl-C ignored, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    stack = processes.start(
        "stack",
        [sys.executable, "-m", "infra.stack", str(data)],
        logs=data / "logs",
        env=config.environment(),
        stdout=PIPE,
        orphaned=signal.SIGTERM,
    )
    try:
        yield stack
    finally:
        # The way out is not to be cut short by impatience: that would leave processes behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        stack.stop(grace_s=_GRACE_S)
        processes.end_descendants()


def _await_ready(stack: Part, console: Console) -> dict[str, Any]:
    with Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        tasks: dict[str, TaskID] = {}
        for line in stack.process.stdout or ():
            said = json.loads(line)
            if "ready" in said:
                return dict(said)
            if "failed" in said:
                raise click.ClickException(said["failed"])
            part = said["part"]
            if part not in tasks:
                tasks[part] = progress.add_task(part, total=1)
            if said["state"] == "ready":
                done = f"{part}  [dim]{said['detail']}"
                progress.update(tasks[part], completed=1, description=done)
    raise processes.failed(stack.name, "it ended before it was up", stack.tail())


def _still(stack: Part) -> None:
    if stack.running:
        return
    lines = [json.loads(line) for line in stack.process.stdout or ()]
    failed = next((said["failed"] for said in lines if "failed" in said), stack.tail())
    raise processes.failed(stack.name, "a part ended", failed)


def _say_where(ready: dict[str, Any], console: Console) -> None:
    # Paths and commands are to be copied, so no line is broken.
    console.print(f"\nThe review queue: [bold]{ready['console']}[/bold]", soft_wrap=True)
    console.print(
        f"Other terminals find this stack after: [bold]. {ready['file']}[/bold]", soft_wrap=True
    )
    console.print(f"Logs: {ready['logs']}    Stop: Ctrl-C", highlight=False, soft_wrap=True)
