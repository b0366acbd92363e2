"""Uploads that wait because their media or the classifier are away, and how long is too long. Pure."""

import math
from collections.abc import Callable
from typing import Final

#: Longest pause between two tries.
_MAX_PAUSE_S: Final = 10.0


class Away:
    """What waits to be submitted again; true while the classifier does not answer."""

    def __init__(self) -> None:
        self._retry_at: dict[int, float] = {}
        self._since: dict[int, float] = {}

    def __bool__(self) -> bool:
        return bool(self._since)

    def wait(self, key: int, *, since_s: float, retry_s: float) -> None:
        """Let an upload wait for the classifier; `since_s` is its record's broker timestamp (epoch)."""
        self._since[key] = since_s
        self._retry_at[key] = retry_s

    def retry(self, key: int, *, at_s: float) -> None:
        """Let an upload wait for its media."""
        self._since.pop(key, None)
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
        self._since.pop(key, None)

    def over(
        self, now_s: float, *, last_answer_s: float | None, after_s: Callable[[int], float]
    ) -> list[int]:
        """Return the uploads that have waited long enough for the classifier.

        The wait counts from the later of the classifier's last answer and the broker's timestamp of the oldest
        waiting record: so it survives restarts, and an old backlog is scored, not waved through, once the classifier
        is back.
        """
        if not self._since:
            return []
        oldest_s = min(self._since.values())
        away_s = now_s - max(oldest_s, -math.inf if last_answer_s is None else last_answer_s)
        return [key for key in self._since if away_s >= after_s(key)]
