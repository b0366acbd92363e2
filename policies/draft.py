"""The file with which a new policy begins, and what lies beside it in a folder of one's own."""

from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from policies.notation import Slug

#: Where those that ship lie.
_HOUSE: Final = Path(__file__).parent
#: What every folder of policies has; its owner's from then on.
_OWN: Final = ("queues.yaml", "context.yaml")

_TEXT = """\
# yaml-language-server: $schema=weir-policy.schema.json
policy: {name}
title: {title}
version: 1                          # raise it when the meaning changes, not for typos
status: draft                       # draft: not asked | shadow: recorded, never acts | live
reads: [image, caption]
languages: [en]

definitions: {{}}                     # words that need a meaning, like  weapon: a firearm or a blade
question: Does this upload show {plain}?

clauses:                            # what is forbidden, each with an id
  C1:
    text: Shows {plain}.
    examples: []

allowed:                            # what is allowed all the same; `unless: [C1]` lets a clause win
  A1:
    text: News reporting and education.

severity: medium                    # low | medium | high | critical
action: restrict                    # label | restrict | hold | remove
bands:
  review: 0.3                       # from this probability on a person looks at it
  act: never                        # begin with people; a number later
review: {{queue: intake, meanwhile: allow, due: 8h}}
when_unavailable: {{after: 15m, action: hold, then: rescore}}
"""


def draft(name: str) -> str:
    """Return the text of a new policy file, a draft that is right as it stands.

    Raises:
        ValueError: the name is none.
    """
    try:
        TypeAdapter(Slug).validate_python(name)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from None
    plain = name.replace("_", " ").replace("-", " ")
    return _TEXT.format(name=name, title=plain.capitalize(), plain=plain)


def furnish(folder: Path) -> list[str]:
    """Put what is missing beside the policies of a folder, and return the names of what was written.

    The schemas that the first lines of policies name are this version's; queues and context are never written over.
    """
    written = []
    for source in (*sorted(_HOUSE.glob("weir-*.schema.json")), *(_HOUSE / name for name in _OWN)):
        path = folder / source.name
        text = source.read_text(encoding="utf-8")
        kept = path.is_file() and (source.name in _OWN or path.read_text(encoding="utf-8") == text)
        if not kept:
            path.write_text(text, encoding="utf-8")
            written.append(source.name)
    return written
