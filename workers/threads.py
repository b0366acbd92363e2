"""How torch's threads wait for each other, which must be said before torch is imported."""

import os
from typing import Final

#: Threads that go on spinning take the core from those that they wait for: beside two busy processes a small model was
#: four times slower so. Threads that sleep at once wake up late: alone, a larger one was a quarter slower. So they
#: spin for some microseconds and then sleep.
WAITING: Final = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "10000"}


def wait_briefly() -> None:
    """Let threads spin briefly and then sleep, unless the environment says otherwise."""
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)  # noqa: TID251 -- written for torch, not read
