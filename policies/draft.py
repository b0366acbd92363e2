"""The file with which a new policy begins."""

from pydantic import TypeAdapter, ValidationError

from policies.notation import Slug

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
