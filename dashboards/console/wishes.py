"""What people set for themselves: on the log first, in Redis to look up."""

import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from pipeline.desk import Log
from pipeline.people import Preferences, newest, preferences_record
from pipeline.redis import Shelf

_LOADED = "wishes-loaded"


class Wishes:
    """Preferences by person; a Redis that was emptied is filled again from the log."""

    def __init__(self, shelf: Shelf, log: Log, told: Callable[[], list[bytes]]) -> None:
        self._shelf = shelf
        self._log = log
        self._told = told
        self._lock = threading.Lock()

    def of(self, person: str) -> Preferences:
        """Return what this person set, or the defaults."""
        found = self._shelf.get(f"wishes:{person}")
        if found is None and self._shelf.get(_LOADED) is None:
            self._load()
            found = self._shelf.get(f"wishes:{person}")
        return (
            Preferences(person=person) if found is None else Preferences.model_validate_json(found)
        )

    def keep(self, preferences: Preferences) -> None:
        """Keep what a person set."""
        dated = preferences.model_copy(update={"at": datetime.now(UTC)})
        self._log.place([preferences_record(dated)])
        self._shelf.put(f"wishes:{dated.person}", dated.model_dump_json())

    def those_of(self, people: Iterable[str]) -> dict[str, Preferences]:
        """Return what these people set, as far as they set anything."""
        if self._shelf.get(_LOADED) is None:
            self._load()
        found = self._shelf.several("wishes:", people)
        return {name: Preferences.model_validate_json(text) for name, text in found.items()}

    def _load(self) -> None:
        with self._lock:
            for preferences in newest(self._told()).values():
                self._shelf.put_first(f"wishes:{preferences.person}", preferences.model_dump_json())
            self._shelf.put(_LOADED, "1")
