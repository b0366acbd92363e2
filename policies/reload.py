"""A policy folder under watch: its newest good set, read again when a file changed."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from policies.errors import PolicyError
from policies.folder import read_policies
from policies.schema import PolicySet

#: What tells that a folder changed: each file's name, change times, size and inode.
_Fingerprint = tuple[tuple[str, int, int, int, int], ...]

#: How often the folder is looked at.
EVERY_S: Final = 1.0


class PolicyFolder:
    """Gives the policy set in force; a wrong file leaves the last good set in force.

    A change is read once the folder looks the same twice, so that files which change together are read together.
    Each wrong state of the folder is reported once, through `on_error`. Made for one thread.
    """

    def __init__(
        self,
        folder: Path,
        on_error: Callable[[PolicyError], None],
        *,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the folder.

        Raises:
            PolicyError: it is wrong from the start, so that no set is in force.
        """
        self.folder = folder
        self._on_error = on_error
        self._every_s = every_s
        self._clock = clock
        self._looked = clock()
        # Taken before the reading: a file that changes meanwhile is read again at the next look.
        self._read = self._seen = _fingerprint(folder)
        self._set = read_policies(folder)

    def current(self) -> PolicySet:
        """Return the set in force; at most once in `every_s` this looks at the folder."""
        now = self._clock()
        if now - self._looked < self._every_s:
            return self._set
        self._looked = now
        before, self._seen = self._seen, _fingerprint(self.folder)
        if self._seen != self._read and self._seen == before:
            self._read = self._seen
            try:
                found = read_policies(self.folder)
            except PolicyError as error:
                self._on_error(error)
            else:
                # The same words in another layout are the same set.
                if found.digest != self._set.digest:
                    self._set = found
        return self._set


def _fingerprint(folder: Path) -> _Fingerprint:
    try:
        entries = sorted(entry for entry in folder.iterdir() if entry.suffix.startswith(".y"))
        stats = [(entry.name, entry.stat()) for entry in entries]
    except OSError:
        # A file that vanished between the two, or the folder itself: the reading says what is wrong.
        return (("", 0, 0, 0, 0),) if folder.is_dir() else ()
    return tuple(
        (name, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)
        for name, stat in stats
    )
