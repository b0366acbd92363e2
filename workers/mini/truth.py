"""What the shipped policies mean for composed scenes, so that scenes can be labelled for them.

The model never sees this table: it reads the policies' own words. Calibration and evaluation need the truth.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from policies.question import Question
from workers.mini.captions import HARMLESS
from workers.mini.concepts import CONCEPTS, GROUPS, INDEX
from workers.mini.lessons import Said, Teacher
from workers.mini.material import Split
from workers.mini.scenes import CROWD, Composer, Pixels, Shown
from workers.mini.wordings import Upload

Holds = Callable[[Upload], bool]


def _shows(*names: str) -> Holds:
    wanted = _concepts(*names)
    return lambda upload: bool(wanted & upload.shown)


def _concepts(*names: str) -> frozenset[int]:
    groups = {group.name: group.members for group in GROUPS}
    return frozenset(INDEX[member] for name in names for member in groups.get(name, (name,)))


def _says(*topics: str) -> Holds:
    return lambda upload: bool(set(topics) & upload.topics)


def _does(topic: str, *names: str) -> Holds:
    wanted = _concepts(*names)
    return lambda upload: topic in upload.topics and bool(wanted & (upload.names or upload.shown))


def _both(first: Holds, second: Holds) -> Holds:
    return lambda upload: first(upload) and second(upload)


def _either(*parts: Holds) -> Holds:
    return lambda upload: any(part(upload) for part in parts)


#: Policy -> clause or carve-out -> when it holds.
TRUTHS: Mapping[str, Mapping[str, Holds]] = {
    "weapons": {
        "W1": _shows("weapon"),
        "W2": _does("sell", "weapon"),
        "W3": _does("threat", "weapon"),
        "A1": _shows("toy"),
        "A2": _shows("kitchen knife", "kitchen thing"),
        "A3": _says("news", "museum"),
    },
    "alcohol_tobacco": {
        "T1": _shows("alcohol"),
        "T2": _shows("tobacco"),
        "T3": _does("sell", "alcohol", "tobacco"),
        "A1": _shows("coffee", "milk bottle"),
        "A2": _says("lesson", "recovery"),
    },
    "drugs": {
        "D1": _shows("drug"),
        "D2": _does("sell", "drug"),
        "A1": _either(_says("cooking"), _shows("food", "kitchen thing")),
        "A2": _says("lesson", "recovery"),
    },
    "gambling": {
        "G1": _both(_shows("gambling"), _shows("money")),
        "G2": _shows("slot machine"),
        "G3": _shows("playing card", "die"),
        "A1": _either(_shows("toy"), _says("prop")),
    },
    "graphic_violence": {
        "V1": _shows("blood"),
        "V2": _shows("skull", "coffin"),
        "V3": _says("glorify"),
        "A1": _says("news"),
        "A2": _says("lesson", "museum", "prop"),
    },
    "harassment": {
        "H1": _says("insult"),
        "H2": _shows("middle finger"),
        "H3": _says("threat"),
        "A1": _says("recovery", "lesson"),
        "A2": _says("prop"),
    },
    "scams": {
        "S1": _says("scam_prize"),
        "S2": _says("scam_money", "scam_code"),
        "A1": _says("sell"),
        "A2": _says("news", "lesson"),
    },
}

#: What the scenes for a policy are mostly about: things that are shown, topics of captions.
ABOUT: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "weapons": (
        ("weapon", "toy", "kitchen knife", "kitchen thing"),
        ("sell", "threat", "news", "museum", HARMLESS),
    ),
    "alcohol_tobacco": (
        ("alcohol", "tobacco", "coffee", "milk bottle"),
        ("sell", "lesson", "recovery", HARMLESS),
    ),
    "drugs": (("drug", "food"), ("sell", "lesson", "recovery", "cooking", HARMLESS)),
    "gambling": (("gambling", "money", "toy"), ("bet", "prop", HARMLESS)),
    "graphic_violence": (("gore", "fire"), ("glorify", "news", "museum", "prop", HARMLESS)),
    "harassment": (("middle finger", "baby"), ("insult", "threat", "recovery", "prop", HARMLESS)),
    "scams": (
        ("money", "phone"),
        ("scam_prize", "scam_money", "scam_code", "sell", "news", HARMLESS),
    ),
}


#: How many uploads are made up at most until one breaks the wanted question.
_TRIES = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """One composed upload with the answer to each question whose truth is known."""

    pixels: Pixels
    caption: str
    text_in_image: str
    shown: tuple[Shown, ...]
    said: Said
    answers: Mapping[str, bool]
    #: The policy that it was made for.
    about: str


def answer(question: Question, upload: Upload) -> bool | None:
    """Return whether an upload breaks what a question asks, or None where the truth is not known."""
    table = TRUTHS.get(question.policy, {})
    rules = [rule.id for rule in question.forbidden] + [rule.id for rule in question.allowed]
    if any(rule not in table for rule in rules):
        return None
    held = {clause.id for clause in question.forbidden if table[clause.id](upload)}
    for exempt in question.allowed:
        if table[exempt.id](upload) and not set(exempt.unless) & held:
            return False
    return bool(held)


def labelled(
    questions: Iterable[Question],
    *,
    split: Split,
    seed: int,
    count: int,
    steer: float = 0.06,
    broken: float = 0.4,
) -> Iterator[Labelled]:
    """Yield composed uploads, `count` for each policy, with the answers to all questions that have a known truth.

    About `broken` of a policy's own uploads break one of its questions, each question in turn:
    left to chance, threats with a weapon would be one in a hundred.
    """
    asked = tuple(question for question in questions if question.policy in TRUTHS)
    composer = Composer(split, seed)
    rng = np.random.default_rng(seed + 1)
    teacher = Teacher(rng, known=split)
    for policy in dict.fromkeys(question.policy for question in asked):
        mine = [question for question in asked if question.policy == policy]
        for number in range(count):
            wanted = mine[number % len(mine)] if rng.random() < broken else None
            concepts, said = _drawn(policy, wanted, mine, composer.known, teacher, steer)
            scene = composer.compose(concepts)
            said = replace(said, upload=replace(said.upload, shown=scene.concepts))
            truths = {question.id: answer(question, said.upload) for question in asked}
            yield Labelled(
                pixels=scene.pixels,
                caption=said.caption,
                text_in_image=said.text_in_image,
                shown=scene.shown,
                said=said,
                answers={name: truth for name, truth in truths.items() if truth is not None},
                about=policy,
            )


def _drawn(
    policy: str,
    wanted: Question | None,
    mine: Sequence[Question],
    known: Sequence[int],
    teacher: Teacher,
    steer: float,
) -> tuple[list[int], Said]:
    """Return things and words that break the wanted question, or none of a policy's; after many tries whatever came."""
    rng = teacher.rng
    things, topics = ABOUT[policy]
    near = sorted(_concepts(*things))
    concepts: list[int] = []
    said = teacher.words(frozenset())
    for _ in range(_TRIES):
        total = 1 + int(rng.choice(len(CROWD), p=np.array(CROWD)))
        first = [int(rng.choice(np.array(near)))] if rng.random() < 0.72 else []
        rest = [each for each in rng.permutation(len(CONCEPTS)).tolist() if each not in first]
        concepts = [each for each in [*first, *rest[: total - len(first)]] if each in known]
        topic = str(rng.choice(np.array(topics))) if rng.random() < 0.7 else None
        said = teacher.words(frozenset(concepts), topic=topic, steer=steer)
        if wanted is None:
            if not any(answer(question, said.upload) for question in mine):
                break
        elif answer(wanted, said.upload):
            break
    return concepts, said
