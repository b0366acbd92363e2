"""How many workers of a kind there should be, by what waits for them."""

from dataclasses import dataclass
from typing import Final

#: A crew grows when more than this many full batches wait for each of its members.
_BATCHES_EACH: Final = 2.0


@dataclass(slots=True, kw_only=True)
class Scale:
    """Follows the backlog between a minimum and a maximum: up soon, down late, so that it does not swing.

    Args:
        least: How many workers there always are.
        most: How many there may be.
        up_after_s: For how long the backlog must be too large for a step up.
        down_after_s: For how long it must fit fewer workers for a step down.
    """

    least: int
    most: int
    up_after_s: float = 1.0
    down_after_s: float = 30.0
    _wanted: int = 0
    _above_since_s: float | None = None
    _below_since_s: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ValueError(
                f"between {self.least} and {self.most} workers: need 1 <= least <= most"
            )
        self._wanted = self.least

    def wanted(self, *, waiting: int, working: int, batch: int, now_s: float) -> int:
        """Return how many workers there should be now; at most one more or less than a moment ago.

        `waiting` uploads are in no call yet, `working` ones are.
        """
        room = _BATCHES_EACH * batch
        if waiting > room * self._wanted and self._wanted < self.most:
            self._below_since_s = None
            self._above_since_s = now_s if self._above_since_s is None else self._above_since_s
            if now_s - self._above_since_s >= self.up_after_s:
                self._wanted += 1
                self._above_since_s = None
        elif waiting + working <= batch * (self._wanted - 1) / 2 and self._wanted > self.least:
            self._above_since_s = None
            self._below_since_s = now_s if self._below_since_s is None else self._below_since_s
            if now_s - self._below_since_s >= self.down_after_s:
                self._wanted -= 1
                self._below_since_s = None
        else:
            self._above_since_s = self._below_since_s = None
        return self._wanted
