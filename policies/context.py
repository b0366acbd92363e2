"""What may stand in an upload's context, so that overrides can speak of it: `context.yaml`."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from pydantic import Field, StrictBool
from pydantic_core import PydanticCustomError

from policies.errors import Fault, FieldPath
from policies.notation import Slug, Strict, check_region, nearest

Scalar = StrictBool | int | float | str


class ContextKey(Strict):
    """One key of the context."""

    says: str = ""
    """What the key says, for people."""
    type: Literal["text", "number", "flag"] = "text"
    """What its values are: text, a number, or a flag (true or false)."""
    values: tuple[Scalar, ...] = ()
    """The values that occur; empty: any of its type."""


class ContextFile(Strict):
    """Every key beyond Weir's own, and values of Weir's own that this platform uses."""

    keys: Mapping[Slug, ContextKey] = Field(default_factory=dict)
    """Each key by its name."""


#: Keys that every upload event may carry; context.yaml may narrow their values.
OWN: Final[Mapping[str, ContextKey]] = {
    "surface": ContextKey(says="Where on the platform it is shown."),
    "region": ContextKey(says="The region for which the decision is made, one of `regions`."),
    "regions": ContextKey(says="Where it will be shown."),
    "locale": ContextKey(says="Language and region of the author's interface."),
    "audience": ContextKey(says="Whom it is shown to."),
    "reach": ContextKey(says="How many people are expected to see it.", type="number"),
    "author_age": ContextKey(says="Age group of the author."),
}

_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "text": (str,),
    "number": (int, float),
    "flag": (bool,),
}


def condition_faults(
    when: Mapping[str, Any], declared: ContextFile, path: FieldPath
) -> Iterator[Fault]:
    """Yield what is wrong with the condition of an override: unknown keys, values that never occur."""
    known = {**OWN, **declared.keys}
    for key, wanted in when.items():
        here = (*path, key)
        if key == "regions":
            yield Fault(
                path=here,
                what="an override binds in one region",
                remedy="write region",
                at_key=True,
            )
            continue
        if key not in known:
            meant = nearest(key, known)
            hint = f"did you mean {meant}?" if meant else f"declare {key} in context.yaml"
            yield Fault(path=here, what=f"no context has a key {key}", remedy=hint, at_key=True)
            continue
        many = isinstance(wanted, (list, tuple))
        for index, value in enumerate(wanted if many else [wanted]):
            fault = _value_fault(key, value, known[key], (*here, index) if many else here)
            if fault:
                yield fault


def _value_fault(key: str, value: Any, declared: ContextKey, path: FieldPath) -> Fault | None:
    fits = isinstance(value, _TYPES[declared.type]) and (
        declared.type == "flag" or not isinstance(value, bool)
    )
    if not fits:
        example = {"text": "text", "number": "a number", "flag": "true or false"}[declared.type]
        return Fault(
            path=path,
            what=f"{key} is never {value!r}, so this never matches",
            remedy=f"write {example}",
        )
    if key == "region":
        try:
            check_region(value)
        except PydanticCustomError as error:
            said = error.context or {}
            return Fault(path=path, what=str(said["what"]), remedy=str(said["remedy"]))
    if declared.values and value not in declared.values:
        meant = nearest(str(value), declared.values)
        known = ", ".join(str(v) for v in declared.values)
        return Fault(
            path=path,
            what=f"{key} is never {value}, so this never matches",
            remedy=f"did you mean {meant}?" if meant else f"write one of {known}",
        )
    return None
