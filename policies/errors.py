"""What is wrong with policy files: where, what, and what to do about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

#: The way to a field: names of fields and keys, and positions in lists.
FieldPath = tuple[str | int, ...]

#: An error keeps the folder from being used; a warning says that something will not do what it seems to.
Level = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong, by the path of its field: the file's reader knows the line."""

    path: FieldPath
    what: str
    remedy: str
    level: Level = "error"
    #: Whether the field's name is what is wrong, and not its value.
    at_key: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong in a file, with its place (lines and columns count from 1)."""

    file: str
    line: int
    column: int
    field: str
    what: str
    remedy: str
    level: Level = "error"

    def __str__(self) -> str:
        field = f"{self.field}: " if self.field else ""
        return f"{self.file}:{self.line}:{self.column}: {field}{self.what}; {self.remedy}"


class PolicyError(Exception):
    """Raised when policy files are wrong: their author has to mend them; `problems` lists all that is wrong."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.problems,))


def field_name(path: FieldPath) -> str:
    """Return a path as people write it, like `overrides[0].bands.act`."""
    name = ""
    for step in path:
        if isinstance(step, int):
            name += f"[{step}]"
        else:
            name += f".{step}" if name else step
    return name
