"""How far back a command looks: `12h`, `7d`, `4w`."""

import re
from datetime import timedelta

import click

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def ago(context: click.Context, option: click.Parameter, text: str) -> timedelta:
    """Return a span of time as an option of click reads it."""
    del context, option
    match = re.fullmatch(r"(\d{1,5})([hdw])", text)
    if match is None:
        raise click.BadParameter("write a number and h, d or w, like 7d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
