"""Uploads that wait because their media or a classifier are away, and how long is too long. Pure."""

import math
from collections.abc import Callable
from typing import NamedTuple


class _Wait(NamedTuple):
    """Whom an upload waits for, its record's broker timestamp, and since when it waits itself (epoch)."""

    whom: str
    since_s: float
    own_s: float


class Away:
    """What waits to be submitted again; true while a classifier does not answer."""

    def __init__(self) -> None:
        self._retry_at: dict[int, float] = {}
        self._waits: dict[int, _Wait] = {}

    def __bool__(self) -> bool:
        return bool(self._waits)

    def wait(self, key: int, whom: str, *, since_s: float, now_s: float, retry_s: float) -> None:
        """Let an upload wait for a classifier, from now on or still.

        `since_s` is its record's broker timestamp and `now_s` the time (epoch); `retry_s` is on the caller's own clock.
        """
        before = self._waits.get(key)
        self._waits[key] = _Wait(whom, since_s, now_s if before is None else before.own_s)
        self._retry_at[key] = retry_s

    def retry(self, key: int, *, at_s: float) -> None:
        """Let an upload wait for its media."""
        self._waits.pop(key, None)
        self._retry_at[key] = at_s

    def due(self, now_s: float) -> list[int]:
        """Return what is to be submitted again now; it waits no more until it comes back."""
        keys = [key for key, at in self._retry_at.items() if at <= now_s]
        for key in keys:
            del self._retry_at[key]
        return keys

    def forget(self, key: int) -> None:
        """Forget an upload: it was decided or taken away."""
        self._retry_at.pop(key, None)
        self._waits.pop(key, None)

    def over(
        self,
        now_s: float,
        *,
        last_answer_s: Callable[[str], float | None],
        after_s: Callable[[int], float],
    ) -> list[int]:
        """Return the uploads that have waited long enough for their classifier.

        The wait counts from the later of that classifier's last answer and the broker's timestamp of the oldest record
        that waits for it: so it survives restarts, and an old backlog is scored, not waved through, once the classifier
        is back. Another's answers do not count: in a cascade the first may be well while the second is away. And an
        upload that alone finds no answer, while others do, waits no longer than if there were none at all.
        """
        oldest_s: dict[str, float] = {}
        for whom, since_s, _ in self._waits.values():
            oldest_s[whom] = min(since_s, oldest_s.get(whom, math.inf))
        away_s: dict[str, float] = {}
        for whom, since_s in oldest_s.items():
            answered_s = last_answer_s(whom)
            away_s[whom] = now_s - (since_s if answered_s is None else max(since_s, answered_s))
        return [
            key
            for key, wait in self._waits.items()
            if max(away_s[wait.whom], now_s - wait.own_s) >= after_s(key)
        ]
