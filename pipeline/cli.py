"""The command `weir`."""

import importlib
from typing import Final

import click

from workers.threads import wait_briefly

#: Command -> the module that holds it as `command`, and its line in `weir --help`.
COMMANDS: Final = {
    "policy": ("pipeline.commands.policy", "Check, show, test and compare policies."),
    "run": ("pipeline.commands.run", "Run the pipeline against configured services."),
    "topics": ("pipeline.commands.topics", "Create and check the Kafka topics."),
    "deadletters": ("pipeline.commands.deadletters", "List and replay dead letters."),
    "queue": ("pipeline.commands.queue", "Look at, claim from and rebuild the review queue."),
    "serve": ("pipeline.commands.serve", "Serve the console in which people review."),
    "people": ("pipeline.commands.people", "Say who may sign in to the console, and as what."),
    "pool": ("pipeline.commands.pool", "Look at and stop the pool of workers."),
    "model": ("pipeline.commands.model", "Look at, evaluate and probe classifiers."),
    "calibrate": ("pipeline.commands.calibrate", "Fit what scores mean, from labelled uploads."),
    "report": (
        "pipeline.commands.report",
        "Measure what was decided, from samples that people saw.",
    ),
    "thresholds": ("pipeline.commands.thresholds", "Lay out what bands cost and what they miss."),
    "monitor": ("pipeline.commands.monitor", "Turn promises off that no longer hold."),
    "bench": ("pipeline.commands.bench", "Measure the stream, the scoring and the queue."),
    "doctor": ("pipeline.commands.doctor", "Check every connection and print the configuration."),
    "up": ("pipeline.commands.up", "Start the embedded stack and the pipeline."),
    "send": ("pipeline.commands.send", "Send files and captions as uploads."),
    "reconcile": ("pipeline.commands.reconcile", "Count uploads against outcomes."),
    "archive": ("pipeline.commands.archive", "Keep decisions in Parquet files, and query them."),
    "legal-hold": ("pipeline.commands.legal_hold", "Keep a content from being erased."),
}


class Lazy(click.Group):
    """Loads only the command that is asked for, so that `weir policy lint` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name, or None."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands' lines without loading any of them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=Lazy)
@click.version_option(package_name="weir-moderation")
def main() -> None:
    """Content moderation: uploads in, calibrated decisions out, people where they are needed."""
    wait_briefly()
