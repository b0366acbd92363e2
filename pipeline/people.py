"""Who may sign in to the console, as what, and what they set for themselves.

Accounts and roles stand in one YAML file that `weir people add` writes; passwords as argon2id hashes. What people set
for themselves (opt-outs, how media are veiled) is on the log, so that a lost Redis loses none of it.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import yaml
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import RefusedError
from pipeline.messages import PEOPLE, Id, Time, headers
from pipeline.records import Outgoing
from pipeline.review import Person

Role = Literal["reviewer", "lead", "wellbeing", "author", "operator", "integrator"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
#: The shortest password that is taken.
SHORTEST: Final = 12

PersonId = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9@._-]{0,63}$")]


class Account(BaseModel):
    """One person in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    password: str = Field(default="", repr=False)  # argon2id; empty: nobody can sign in with it
    roles: tuple[Role, ...] = ("reviewer",)
    languages: tuple[str, ...] = ("en",)
    skills: tuple[str, ...] = ()
    queues: tuple[str, ...] | None = None
    policies: tuple[str, ...] | None = None
    sealed: tuple[str, ...] = ()

    def person(self, identity: str, opt_outs: Sequence[str] = ()) -> Person:
        """Return who claims."""
        return Person(
            id=identity,
            languages=self.languages,
            skills=self.skills,
            roles=frozenset(self.roles),
            queues=self.queues,
            policies=self.policies,
            sealed=self.sealed,
            opt_outs=tuple(opt_outs),
        )


class _PeopleFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    people: Mapping[PersonId, Account] = Field(default_factory=dict)


class Preferences(BaseModel):
    """What one person set for themselves."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    person: Id
    opt_outs: tuple[str, ...] = ()
    reveal: Literal["hold", "toggle"] = "hold"
    grey: bool = True
    blur: Literal["always", "severe"] = "always"  # severe: mild media are shown clearly at once
    at: Time | None = None


def preferences_record(preferences: Preferences) -> Outgoing:
    """Return the record of what a person set."""
    return Outgoing(
        topic=PEOPLE,
        key=preferences.person.encode(),
        value=preferences.model_dump_json().encode(),
        headers=tuple(headers("preferences", preferences.person)),
    )


@cache
def _hasher() -> PasswordHasher:
    return PasswordHasher()


@cache
def _nobodys() -> str:
    return _hasher().hash("nobody's password")


def hashed(password: str) -> str:
    """Return the hash of a password.

    Raises:
        RefusedError: it is too short.
    """
    if len(password) < SHORTEST:
        raise RefusedError(f"a password has {SHORTEST} characters or more: choose a longer one")
    return _hasher().hash(password)


class Accounts:
    """The accounts of a file, read again when it changed, and those that this process adds itself."""

    def __init__(self, path: Path, own: Mapping[str, Account] | None = None) -> None:
        self.path = path
        self._own = dict(own or {})
        self._seen: tuple[int, int] | None = None
        self._people: Mapping[str, Account] = {}

    def all(self) -> Mapping[str, Account]:
        """Return every account by its id.

        Raises:
            RefusedError: the file is wrong.
        """
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return self._own
        seen = (stat.st_mtime_ns, stat.st_ino)
        if seen != self._seen:
            self._people, self._seen = read(self.path), seen
        return {**self._people, **self._own}

    def find(self, identity: str) -> Account | None:
        """Return the account of this id."""
        return self.all().get(identity)

    def knows(self, identity: str, password: str) -> bool:
        """Return whether this is the person's password; it takes as long for people that there are not."""
        account = self.find(identity)
        known = account.password if account is not None and account.password else ""
        try:
            return _hasher().verify(known or _nobodys(), password) and bool(known)
        except (Argon2Error, InvalidHashError):
            return False


def read(path: Path) -> Mapping[str, Account]:
    """Return the accounts of a file.

    Raises:
        RefusedError: the file is wrong.
    """
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return _PeopleFile.model_validate(said).people
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, ValidationError) as error:
        raise RefusedError(f"{path} is no file of people: {error}") from error


def add(path: Path, identity: str, account: Account) -> None:
    """Write an account into the file, in place of an older one of the same id.

    Raises:
        RefusedError: the file or the id is wrong.
    """
    try:
        file = _PeopleFile(people={**read(path), identity: account})
    except ValidationError as error:
        raise RefusedError(f"{identity!r} cannot be an id: letters, digits and @._- do") from error
    said = file.model_dump(mode="json", exclude_defaults=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: the console reads it meanwhile. It is nobody else's to read.
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        yaml.safe_dump(said, out, sort_keys=True, allow_unicode=True)
    Path(draft).replace(path)


def newest(values: Sequence[bytes]) -> dict[str, Preferences]:
    """Return what people set last, given the log's values in their order; unreadable ones are passed over."""
    found: dict[str, Preferences] = {}
    for value in values:
        try:
            preferences = Preferences.model_validate_json(value)
        except ValidationError:
            continue
        found[preferences.person] = preferences
    return found
