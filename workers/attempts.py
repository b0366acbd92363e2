"""Who is to blame when a worker dies: halves, until one upload is alone with the fault."""

from collections.abc import Sequence
from typing import Final

from workers.passage import Passage

#: An upload that killed a worker so often while alone in its call is a poison.
POISON_AFTER: Final = 2


def halves(group: Sequence[Passage]) -> list[list[Passage]]:
    """Return the group in two halves; one upload alone stays alone."""
    middle = (len(group) + 1) // 2
    return [half for half in (list(group[:middle]), list(group[middle:])) if half]


def blame(
    group: Sequence[Passage], *, certain: bool, now_s: float
) -> tuple[list[list[Passage]], list[Passage]]:
    """Return the groups to try again, and those that are a poison, after a worker died of this group.

    An upload is only blamed for a death that it was alone with for certain: workers are shared, so it may have been
    the call of another process.
    """
    group = [passage for passage in group if not passage.gone]
    if len(group) != 1 or not certain:
        return halves(group), []
    (suspect,) = group
    suspect.deaths += 1
    if suspect.first_death_s is None:
        suspect.first_death_s = now_s
    return ([], [suspect]) if suspect.deaths >= POISON_AFTER else ([[suspect]], [])
