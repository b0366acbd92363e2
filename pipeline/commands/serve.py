"""`weir serve`: the console in which people review."""

import signal
import subprocess
import sys

import click

from pipeline.config import environment


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", default=8080, show_default=True, help="On which port.")
def command(*, host: str, port: int) -> None:
    """Serve the console in which people review, until a signal stops it.

    Put a proxy that speaks TLS before it wherever it is reached over a network. `weir people add` says who may sign
    in.
    """
    arguments = ["-m", "dashboards.console", "--host", host, "--port", str(port)]
    with subprocess.Popen([sys.executable, *arguments], env=environment()) as process:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: process.terminate())
        status = process.wait()
    if status not in {0, -signal.SIGTERM}:
        raise SystemExit(1)
