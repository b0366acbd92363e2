"""The workers of one kind as one pipeline process sees them: hired, listened to, replaced.

Nothing here knows Ray: what it takes is behind `Hands`, so that every fault can be played through in a test.
"""

import itertools
import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Protocol

_log = logging.getLogger(__name__)

#: How long to wait before a worker is hired again that died; doubled with each death before an answer.
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 30.0
#: After so many deaths without an answer in between a crew counts as away, though it has members.
_SICK_AFTER: Final = 4
#: Instead of a call's number: the one that a worker who does one after another was at.
_OLDEST: Final = -1


class Failure(Enum):
    """Why a call came to nothing."""

    #: The worker died of this call, as far as can be told.
    DIED = "died"
    #: The worker died before it came to this call, or the machines failed: nobody is to blame.
    SPARED = "spared"


@dataclass(frozen=True, slots=True)
class Failed:
    """What comes back from a call instead of a value."""

    failure: Failure
    detail: str = ""
    #: Whether the worker may still be there, though it failed.
    alive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """A sign of life: the call that a worker is at, for how long, and when it last answered one (by the clock)."""

    running: int | None
    running_s: float
    last_answer_at: float | None


class Hands(Protocol):
    """What the book-keeping needs done in the world; every call returns at once."""

    def hire(self, role: str, slot: int) -> Any:
        """Return a handle to the worker in this place, started if it is not there."""
        ...

    def call(self, handle: Any, number: int, method: str, arguments: tuple[Any, ...]) -> None:
        """Start a call; its value or `Failed` comes back later under its number."""
        ...

    def end(self, handle: Any, described: Any) -> None:
        """End a worker for good, also one that is stopped or hangs; `described` is what it said of itself."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long workers may take.

    Args:
        call_s: For one call, from when the worker came to it.
        load_s: From being hired to the first sign of life.
        silence_s: To answer a pulse.
        pulse_s: Between two pulses.
        unavailable_s: How long uploads wait while no worker answers.
    """

    call_s: float = 60.0
    load_s: float = 600.0
    silence_s: float = 15.0
    pulse_s: float = 2.0
    unavailable_s: float = 30.0


@dataclass(slots=True, eq=False, kw_only=True)
class Call:
    """One call under way."""

    number: int
    member: "Member"
    done: Callable[[Any, float], None]
    failed: Callable[[Failed, float], None]
    #: Uploads in it; 0 for the crew's own calls.
    uploads: int
    exclusive: bool


@dataclass(slots=True, eq=False, kw_only=True)
class Member:
    """One worker."""

    crew: "Crew"
    slot: int
    handle: Any
    hired_s: float
    #: What it said of itself; None until it is ready.
    described: Any = None
    calls: dict[int, Call] = field(default_factory=dict)
    learned: set[str] = field(default_factory=set)
    pulse_sent_s: float | None = None
    heard_s: float = 0.0

    @property
    def load(self) -> int:
        """Return how many calls it has that uploads wait for."""
        return sum(1 for call in self.calls.values() if call.uploads)

    @property
    def exclusive(self) -> bool:
        """Return whether it works on something that must be alone with it."""
        return any(call.exclusive for call in self.calls.values())


class Calls:
    """All calls under way, by number."""

    def __init__(self) -> None:
        # Workers are shared, so no two pipeline processes may use the same numbers.
        self._numbers: Iterator[int] = itertools.count(secrets.randbits(40) << 20)
        self._open: dict[int, Call] = {}

    def start(self, member: Member, **of: Any) -> Call:
        """Book a new call."""
        call = Call(number=next(self._numbers), member=member, **of)
        self._open[call.number] = member.calls[call.number] = call
        return call

    def close(self, number: int) -> Call | None:
        """Return the call and strike it out; None if it is no longer waited for."""
        if call := self._open.pop(number, None):
            call.member.calls.pop(number, None)
        return call


class Crew:
    """Keeps as many workers of one kind as are wanted, and notices when one has died, hangs or was stopped."""

    def __init__(
        self, role: str, hands: Hands, calls: Calls, patience: Patience, *, serial: bool
    ) -> None:
        """Make a crew without members; a `serial` worker does one call after another."""
        self.role = role
        self.wanted = 0
        self.restarts = 0
        self.last_answer_at: float | None = None
        self.answered_s: float | None = None
        self.fault = ""
        self.members: dict[int, Member] = {}
        #: Since when it has had no ready member; monotonic.
        self.away_since_s: float | None = 0.0
        self._hands = hands
        self._calls = calls
        self._patience = patience
        self._serial = serial
        self._deaths = 0
        self._hire_at_s: dict[int, float] = {}
        self.on_ready: Callable[[Member], None] = nothing

    @property
    def ready(self) -> list[Member]:
        """Return the members that can be given work, those in low places first."""
        return [m for _, m in sorted(self.members.items()) if m.described is not None]

    def tick(self, now_s: float) -> None:
        """Hire who is missing, listen to who is there, and end who is silent."""
        for slot in range(self.wanted):
            if slot not in self.members and now_s >= self._hire_at_s.get(slot, 0.0):
                self._hire(slot, now_s)
        for member in list(self.members.values()):
            self._listen(member, now_s)
        self._look(now_s)

    def away_for(self, before_s: float) -> bool:
        """Return whether nobody could be counted on since before this moment."""
        return self.away_since_s is not None and self.away_since_s <= before_s

    def dismiss(self) -> None:
        """Let all members go that have no work; what is not shared ends with its handle."""
        for slot in [slot for slot, member in self.members.items() if not member.load]:
            for number in self.members.pop(slot).calls.copy():
                self._calls.close(number)

    def cut_off(self, now_s: float) -> None:
        """Strike out all members, because the machines cannot be reached; nobody is to blame."""
        for member in list(self.members.values()):
            self.bury(member, Failed(Failure.SPARED, "Ray cannot be reached"), now_s)
        self.wanted = 0
        self._look(now_s)

    def give(
        self,
        member: Member,
        method: str,
        arguments: tuple[Any, ...],
        *,
        done: Callable[[Any, float], None],
        failed: Callable[[Failed, float], None],
        uploads: int = 0,
        exclusive: bool = False,
    ) -> int:
        """Start a call of a member and return its number, which is its first argument as well.

        Nothing else may be given to a member while it has an `exclusive` call.
        """
        call = self._calls.start(
            member, done=done, failed=failed, uploads=uploads, exclusive=exclusive
        )
        self._hands.call(member.handle, call.number, method, arguments)
        return call.number

    def ended(self, call: Call, outcome: Any, now_s: float) -> None:
        """Take the outcome of a call that `Calls.close` returned."""
        member = call.member
        if not isinstance(outcome, Failed):
            member.heard_s = now_s
            call.done(outcome, now_s)
            return
        # The failed call goes back to its place, so that the first of all that are open is the one to blame.
        member.calls = dict(sorted({**member.calls, call.number: call}.items()))
        if outcome.alive:
            self._hands.end(member.handle, member.described)
        self.bury(member, outcome, now_s)

    def answered(self, now_s: float, at: float | None) -> None:
        """Note that a member did what it was asked."""
        self._deaths = 0
        self.away_since_s = None
        self.answered_s = now_s
        if at is not None:
            self.last_answer_at = max(self.last_answer_at or 0.0, at)

    def bury(
        self, member: Member, failed: Failed, now_s: float, *, running: int | None = _OLDEST
    ) -> None:
        """Strike out a member that died; `running` names the call it died of, None if none of ours.

        Without that it is the oldest of a worker that does one after another, else all of them.
        """
        if self.members.get(member.slot) is member:
            del self.members[member.slot]
            self.restarts += 1
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**self._deaths)
            self._deaths = min(self._deaths + 1, 30)
            self._hire_at_s[member.slot] = now_s + pause_s
            self.fault = failed.detail
            _log.warning(
                "a worker ended",
                extra={
                    "worker": f"{self.role}:{member.slot}",
                    "reason": failed.detail,
                    "hired_again_in_s": pause_s,
                },
            )
        calls = list(member.calls.values())
        member.calls = {}
        if running == _OLDEST and self._serial:
            running = next((call.number for call in calls if call.uploads), None)
        for call in calls:
            self._calls.close(call.number)
            blamed = failed.failure is Failure.DIED and running in {_OLDEST, call.number}
            call.failed(Failed(Failure.DIED if blamed else Failure.SPARED, failed.detail), now_s)

    def end(self, member: Member, why: str, now_s: float, *, running: int | None = _OLDEST) -> None:
        """End a member and strike it out."""
        self._hands.end(member.handle, member.described)
        self.bury(member, Failed(Failure.DIED, why), now_s, running=running)

    def _look(self, now_s: float) -> None:
        # Workers that die one after another and never answer are as good as none.
        if self.ready and self._deaths < _SICK_AFTER:
            self.away_since_s = None
        elif self.away_since_s is None:
            self.away_since_s = now_s

    def _hire(self, slot: int, now_s: float) -> None:
        handle = self._hands.hire(self.role, slot)
        member = Member(crew=self, slot=slot, handle=handle, hired_s=now_s)
        self.members[slot] = member

        def ready(described: Any, now_s: float) -> None:
            member.described = described
            self._look(now_s)
            self.on_ready(member)

        self.give(member, "describe", (), done=ready, failed=nothing)

    def _listen(self, member: Member, now_s: float) -> None:
        if member.described is None:
            if now_s - member.hired_s > self._patience.load_s:
                self.end(member, f"not ready after {self._patience.load_s:g} s", now_s)
            return
        if member.pulse_sent_s is not None:
            if now_s - member.pulse_sent_s > self._patience.silence_s:
                self.end(member, f"silent for {self._patience.silence_s:g} s", now_s)
            return
        if now_s - member.heard_s < self._patience.pulse_s:
            return
        member.pulse_sent_s = now_s

        def beat(pulse: Pulse, now_s: float) -> None:
            member.pulse_sent_s = None
            if pulse.last_answer_at is not None:
                self.last_answer_at = max(self.last_answer_at or 0.0, pulse.last_answer_at)
            if pulse.running_s > self._patience.call_s:
                why = f"one call took longer than {self._patience.call_s:g} s"
                self.end(member, why, now_s, running=pulse.running)

        self.give(member, "pulse", (), done=beat, failed=nothing)


def nothing(*_: object) -> None:
    """What becomes of a failed call that nobody waits for: its member is struck out anyway."""
