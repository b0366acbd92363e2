"""Reads one YAML 1.2 file into plain values, and remembers the place of every field.

The core schema of YAML 1.2 (`NO` is Norway, not False) in the shape that policy files need: one
document, keys are text, no duplicate keys, and no anchors, aliases or tags, so that a line means
what stands in it. Bounded, because a file may come from anybody: size, depth, number of values.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import yaml

from policies.errors import FieldPath, PolicyError, Problem, field_name

#: Largest file, in bytes.
MAX_BYTES: Final = 256_000
#: Deepest nesting; the format itself needs six.
MAX_DEPTH: Final = 16
#: Most values in a file.
MAX_VALUES: Final = 20_000
#: Largest number.
MAX_NUMBER: Final = 1e18
#: Problems in the layout of one file that are reported at once.
MAX_PROBLEMS: Final = 40

_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULL: Final = re.compile(r"(null|Null|NULL|~|)\Z")
_TRUE: Final = re.compile(r"(true|True|TRUE)\Z")
_FALSE: Final = re.compile(r"(false|False|FALSE)\Z")
_INT: Final = re.compile(r"[-+]?[0-9]{1,18}\Z")
_OTHER_INT: Final = re.compile(r"(0o[0-7]{1,18}|0x[0-9a-fA-F]{1,15})\Z")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_NOT_FINITE: Final = re.compile(r"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z")

#: Part of libyaml's words -> what to do.
_REMEDIES: Final = (
    ("mapping values are not allowed", "put a text that has a colon in it into quotes"),
    ("found unexpected end of stream", "close the quotes that are open"),
    ("could not find expected ':'", "write `name: value`, or put a long text into quotes"),
    ("did not find expected ',' or ']'", "close the list with ]"),
    ("did not find expected ',' or '}'", "close it with }"),
    (
        "did not find expected key",
        "indent it like its neighbours, and quote text with : or # in it",
    ),
    ("did not find expected '-'", "indent all items of a list alike"),
    ("found unknown escape", "use single quotes, or write the backslash twice"),
    ("did not find expected node content", "write a value, or put the text into quotes"),
    ("block sequence entries are not allowed", "put the list on lines of its own"),
    ("cannot start any token", "put the text into quotes"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """A line and a column, from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The values of one file and where each of them stands."""

    file: str
    text: str
    value: Any
    keys: dict[FieldPath, Place]
    places: dict[FieldPath, Place]

    def place(self, path: FieldPath, *, key: bool = False) -> Place:
        """Return where a field stands, or the nearest field around it that the file has."""
        first, second = (self.keys, self.places) if key else (self.places, self.keys)
        for end in range(len(path), -1, -1):
            found = first.get(path[:end]) or second.get(path[:end])
            if found:
                return found
        return Place(1, 1)


def read_yaml(data: bytes, file: str) -> Document:
    """Return the document in these bytes.

    Raises:
        PolicyError: it is no YAML, or uses what policy files may not use.
    """
    return _Reading(file, _text(data, file)).document()


def _text(data: bytes, file: str) -> str:
    def stop(offset: int, what: str, remedy: str) -> PolicyError:
        before = data[:offset].decode(errors="replace")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return PolicyError(
            [Problem(file=file, line=line, column=column, field="", what=what, remedy=remedy)]
        )

    if len(data) > MAX_BYTES:
        raise stop(
            0, f"the file has {len(data)} bytes", f"keep it under {MAX_BYTES}, or split the policy"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise stop(error.start, "the file is not UTF-8", "save it as UTF-8") from None
    return text


def _unprintable(text: str) -> int | None:
    """Return where the first character stands that YAML does not allow."""
    # Compiled only where libyaml has refused a file: a set this wide takes 20 ms.
    odd = re.search(
        "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]", text
    )
    return odd.start() if odd else None


@dataclass
class _Reading:
    file: str
    text: str
    keys: dict[FieldPath, Place] = field(default_factory=dict)
    places: dict[FieldPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    path: FieldPath = ()
    values: int = 0

    def document(self) -> Document:
        value = None
        try:
            events = iter(yaml.parse(self.text, Loader=_Loader))
            for event in events:
                if isinstance(event, yaml.DocumentStartEvent):
                    if self.places:
                        self.note(event, "a second document begins", "keep one policy a file")
                        break
                    value = self.node(next(events), events, ())
        except yaml.YAMLError as error:
            self.problems.append(self.syntax(error))
        if not self.places and not self.problems:
            self.problems.append(
                self.problem(Place(1, 1), "the file is empty", "write a policy, or delete the file")
            )
        if self.problems:
            raise PolicyError(self.problems)
        return Document(
            file=self.file, text=self.text, value=value, keys=self.keys, places=self.places
        )

    def node(self, event: yaml.Event, events: Iterator[yaml.Event], path: FieldPath) -> Any:
        self.path = path
        self.places[path] = _place(event)
        self.values += 1
        if len(path) > MAX_DEPTH:
            self.stop(event, f"it is nested more than {MAX_DEPTH} deep", "write it flatter")
        if self.values > MAX_VALUES:
            self.stop(event, f"the file has more than {MAX_VALUES} values", "split the policy")
        if isinstance(event, yaml.AliasEvent):
            self.note(
                event, f"*{event.anchor} is an alias", "write the value out where it is meant"
            )
            return None
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if anchor is not None:
            self.note(event, f"&{anchor} is an anchor", "delete it; aliases are not read")
        if tag is not None and tag != "!":
            self.note(event, f"{tag} is a tag", "delete it; put text into quotes")
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(events, path)
        return self.mapping(events, path)

    def scalar(self, event: yaml.ScalarEvent) -> Any:
        text: str = event.value
        if not event.implicit[0] or event.style:
            return text
        if _NULL.match(text):
            return None
        if _TRUE.match(text):
            return True
        if _FALSE.match(text):
            return False
        if _INT.match(text):
            return int(text)
        if _OTHER_INT.match(text):
            return int(text, 0)
        if _NOT_FINITE.match(text) or (_FLOAT.match(text) and abs(float(text)) > MAX_NUMBER):
            self.note(
                event, f"{text[:40]} is no number that counts here", "write a finite one below 1e18"
            )
            return 0
        return float(text) if _FLOAT.match(text) else text

    def sequence(self, events: Iterator[yaml.Event], path: FieldPath) -> list[Any]:
        items: list[Any] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self.node(event, events, (*path, len(items))))
        return items

    def mapping(self, events: Iterator[yaml.Event], path: FieldPath) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            self.path = path
            name = str(event.value) if isinstance(event, yaml.ScalarEvent) else ""
            if not name:
                self.stop(event, "a field has no plain name", "write `name: value`")
            here = (*path, name)
            if name in content:
                first = self.keys[here]
                self.note(
                    event,
                    f"{name} stands here a second time, first in line {first.line}",
                    "keep one of the two",
                    at=here,
                )
                # The second one is read and dropped: what else is said about the file counts the first.
                kept = dict(self.places), dict(self.keys)
                self.node(next(events), events, here)
                self.places, self.keys = kept
                continue
            self.keys[here] = _place(event)
            content[name] = self.node(next(events), events, here)
        return content

    def problem(self, place: Place, what: str, remedy: str, at: FieldPath | None = None) -> Problem:
        return Problem(
            file=self.file,
            line=place.line,
            column=place.column,
            field=field_name(self.path if at is None else at),
            what=what,
            remedy=remedy,
        )

    def note(
        self, event: yaml.Event, what: str, remedy: str, *, at: FieldPath | None = None
    ) -> None:
        self.problems.append(self.problem(_place(event), what, remedy, at))
        if len(self.problems) >= MAX_PROBLEMS:
            raise PolicyError(self.problems)

    def stop(self, event: yaml.Event, what: str, remedy: str) -> NoReturn:
        raise PolicyError([*self.problems, self.problem(_place(event), what, remedy)])

    def syntax(self, error: yaml.YAMLError) -> Problem:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
        if (
            isinstance(error, yaml.reader.ReaderError)
            and (odd := _unprintable(self.text)) is not None
        ):
            before = self.text[:odd]
            place = Place(before.count("\n") + 1, len(before) - before.rfind("\n"))
            what = f"the character U+{ord(self.text[odd]):04X} is not printable"
            return self.problem(place, what, "delete it")
        line = (self.text.splitlines() or [""])[min(place.line, self.text.count("\n") + 1) - 1 :][
            :1
        ]
        indent = re.match(r"\s*", line[0] if line else "")
        if indent and "\t" in indent[0]:
            place = Place(place.line, indent[0].index("\t") + 1)
            return self.problem(place, "a tab indents this line", "indent with spaces")
        remedy = next(
            (r for words, r in _REMEDIES if words in what), "mend the layout of this line"
        )
        return self.problem(place, f"this is not YAML: {what}", remedy)


def _place(event: yaml.Event) -> Place:
    mark = event.start_mark
    return Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
