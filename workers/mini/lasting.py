"""How long a stage of training lasts, and what it keeps so that it goes on where it was cut off."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch


class OtherOptionsError(Exception):
    """Raised when a stage is to go on with other options than it was begun with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasting:
    """How long a stage of training lasts: so many steps, or so many minutes, however many steps those are.

    `begun_from` says which weights it starts from.
    """

    steps: int
    minutes: float | None = None
    begun_from: str = ""

    def share(self, step: int, seconds: float) -> float:
        """Return how much of the training is done."""
        done = step / self.steps if self.minutes is None else seconds / (60 * self.minutes)
        return min(1.0, done)

    @property
    def options(self) -> dict[str, str]:
        """Return what decides about the outcome; fields that only say who does the work are not compared."""
        told = {each.name: getattr(self, each.name) for each in fields(self) if each.compare}
        # A folder may be moved, or named from elsewhere.
        return {
            name: value.name if isinstance(value, Path) else str(value)
            for name, value in told.items()
        }


def keep(state: Path, plan: Lasting, parts: Mapping[str, Any]) -> None:
    """Write what a stage needs to go on, so that the file is there whole or as it was."""
    part = state.with_suffix(".part")
    torch.save({**parts, "options": plan.options}, part)
    part.replace(state)


def kept(state: Path, plan: Lasting, device: str | torch.device = "cpu") -> dict[str, Any] | None:
    """Return what a stage kept when it was cut off; None if it was not begun.

    Raises:
        OtherOptionsError: if it was begun with other options; the message names them.

    """
    if not state.exists():
        return None
    saved: dict[str, Any] = torch.load(state, weights_only=True, map_location=device)
    before, now = saved["options"], plan.options
    differ = [
        f"{name} {before.get(name)} (now {now.get(name)})"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if differ:
        message = (
            f"{state} was begun with {', '.join(differ)}: "
            "give the same options to go on, or another --run to begin anew"
        )
        raise OtherOptionsError(message)
    return saved
