"""`weir bench`: measure the parts that promise something; each subcommand loads only what it needs."""

import importlib
from typing import Final

import click

_BENCHES: Final = {
    "stream": (
        "pipeline.commands.bench_stream",
        "From an upload's record to its committed decision.",
    ),
    "scoring": ("pipeline.commands.bench_scoring", "Many questions over one shared image."),
    "cascade": (
        "pipeline.commands.bench_cascade",
        "What a cheap first classifier saves and costs.",
    ),
    "overhead": (
        "pipeline.commands.bench_overhead",
        "The whole pipeline beside a bare loop over the same model.",
    ),
    "queue": ("pipeline.commands.bench_queue", "The review queue under load."),
    "backtest": (
        "pipeline.commands.bench_backtest",
        "A large archive decided again under other policies.",
    ),
    "text-risk": (
        "pipeline.commands.bench_text_risk",
        "What calibration buys on real labels of texts.",
    ),
    "guarantee": (
        "pipeline.commands.bench_guarantee",
        "Promises, calibration and audits where the truth is known.",
    ),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_BENCHES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _BENCHES:
            return None
        command = importlib.import_module(_BENCHES[cmd_name][0]).command
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _BENCHES.items()])


@click.group(cls=_Lazy)
def command() -> None:
    """Measure the stream, the scoring, the queue, and whether promises are kept."""
