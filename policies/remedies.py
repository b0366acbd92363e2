"""From pydantic's errors to words for a policy author: what is wrong with which field, and what to do."""

import re
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from policies.errors import Fault, FieldPath
from policies.notation import nearest
from policies.yaml_file import Document

_SPOKEN_FLAGS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false"}
_QUOTED = re.compile(r"'([^']*)'")


def faults(error: ValidationError, model: type[BaseModel], document: Document) -> Iterator[Fault]:
    """Yield a fault for everything that the model refused in the document."""
    every = error.errors(include_url=False)
    # A typo in the name of a field that must stand there is one mistake, not two.
    meant = {
        (*path[:-1], nearest(str(path[-1]), fields_at(model, path[:-1])))
        for details in every
        if details["type"] == "extra_forbidden" and (path := _path(details, document))
    }
    for details in every:
        path = _path(details, document)
        if details["type"] == "missing" and path in meant:
            continue
        named = details.get("ctx", {}).get("faults")
        if named:
            yield from named
            continue
        what, remedy = _words(details, model, path)
        at_key = details["type"] == "extra_forbidden" or details["loc"][-1:] == ("[key]",)
        yield Fault(path=path, what=what, remedy=remedy, at_key=at_key)


def empty_fields(value: Any, path: FieldPath = ()) -> Iterator[FieldPath]:
    """Yield the path of every field that has no value."""
    if value is None:
        yield path
    children: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    for step, child in children:
        yield from empty_fields(child, (*path, step))


def fields_at(model: type[BaseModel], path: FieldPath) -> dict[str, Any]:
    """Return the fields that the format has at a path, with their annotations."""
    annotations: list[Any] = [model]
    for step in path:
        annotations = [inner for outer in annotations for inner in _below(outer, step)]
    return {
        name: field.annotation
        for annotation in annotations
        for part in _flat(annotation)
        if _is_model(part)
        for name, field in part.model_fields.items()
    }


def _flat(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _flat(get_args(annotation)[0])
    elif origin in {Union, types.UnionType}:
        for member in get_args(annotation):
            yield from _flat(member)
    else:
        yield annotation


def _below(annotation: Any, step: str | int) -> Iterator[Any]:
    for part in _flat(annotation):
        arguments = get_args(part)
        if _is_model(part):
            if step in part.model_fields:
                yield part.model_fields[step].annotation
        elif arguments and isinstance(step, int):
            yield arguments[0]
        elif len(arguments) > 1:
            yield arguments[1]


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield every model that stands somewhere in an annotation."""
    for part in _flat(annotation):
        if _is_model(part):
            yield part
        for argument in get_args(part):
            yield from models_in(argument)


def _is_model(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)


def _path(details: ErrorDetails, document: Document) -> FieldPath:
    # pydantic's own steps (which member of a union, "[key]") stand in no file.
    path: FieldPath = ()
    for step in details["loc"]:
        if (*path, step) in document.places:
            path = (*path, step)
    if details["type"] == "missing":
        path = (*path, details["loc"][-1])
    return path


def _words(details: ErrorDetails, model: type[BaseModel], path: FieldPath) -> tuple[str, str]:
    kind, given, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "notation":
        what, _, remedy = details["msg"].partition("; ")
        return context.get("what", what), context.get("remedy", remedy)
    if kind == "missing":
        return f"{path[-1]} is missing", f"add {path[-1]}: …"
    if kind == "extra_forbidden":
        return f"there is no field {path[-1]}", _place_for(str(path[-1]), model, path[:-1])
    if kind in {"enum", "literal_error"}:
        known = _QUOTED.findall(str(context.get("expected", "")))
        meant = nearest(str(given), known)
        what = f"{given!r} is none of its values"
        return what, f"did you mean {meant}?" if meant else f"write {' or '.join(known)}"
    return _misfit(kind, given, context) or (
        f"it is refused: {details['msg'][:1].lower()}{details['msg'][1:]}",
        "see policies/README.md for what may stand here",
    )


def _misfit(kind: str, given: Any, context: Mapping[str, Any]) -> tuple[str, str] | None:
    shown = str(given)[:40]
    bounds = {
        "greater_than_equal": ("ge", "at least"),
        "greater_than": ("gt", "more than"),
        "less_than_equal": ("le", "at most"),
        "less_than": ("lt", "less than"),
    }
    if kind in bounds:
        name, words = bounds[kind]
        return f"{shown} is out of range", f"write {words} {context[name]:g}"
    if kind == "string_type":
        plain = not isinstance(given, (dict, list))
        remedy = f'put it into quotes: "{_as_written(given)}"' if plain else "write plain text here"
        return "this is not text", remedy
    if kind == "bool_type":
        spoken = _SPOKEN_FLAGS.get(shown.lower())
        return f"{shown!r} is neither true nor false", f"write {spoken or 'true or false'}"
    if kind in {"int_type", "int_from_float"}:
        return f"{shown!r} is no whole number", "write a whole number without quotes"
    if kind == "float_type":
        return f"{shown!r} is no number", "write a number without quotes"
    if kind == "tuple_type":
        plain = not isinstance(given, (dict, list))
        return "this is no list", f"write [{shown}]" if plain else "write a list like [a, b]"
    if kind in {"model_type", "model_attributes_type", "dict_type", "mapping_type"}:
        return "this should have fields of its own", "write them as name: value, indented below it"
    if kind == "too_short":
        return "it is empty", "name at least one"
    return None


def _as_written(given: Any) -> str:
    return str(given).lower() if isinstance(given, bool) else str(given)[:40]


def _place_for(name: str, model: type[BaseModel], parent: FieldPath) -> str:
    known = fields_at(model, parent)
    top = model.model_fields
    if parent and name in top:
        return f"{name} stands at the top of the file: take it out of {parent[-1]}"
    if meant := nearest(name, known):
        return f"did you mean {meant}?"
    for home, field in top.items():
        for part in _flat(field.annotation):
            if _is_model(part) and name in part.model_fields and parent != (home,):
                return f"{name} belongs below {home}"
    return f"delete it, or write one of {', '.join(known)}" if known else "delete it"
