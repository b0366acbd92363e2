"""Captions of composed uploads, and what each of them says: its topics and the things it names."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from workers.mini.concepts import CONCEPTS
from workers.mini.phrases import Known, by_topic, phrases

#: A caption of this topic says nothing that any question is about.
HARMLESS = "harmless"

#: What a caption can be about, each with lines that say it; `{x}` stands for something named, `{m}` for a sum.
LINES = by_topic(
    yaml.safe_load((Path(__file__).parent / "captions.yaml").read_text(encoding="utf-8"))
)

#: Lines that try to steer the verdict. They say nothing about the upload, so they may move nothing.
STEERING = phrases(
    yaml.safe_load((Path(__file__).parent / "steering.yaml").read_text(encoding="utf-8"))
)

TOPICS: tuple[str, ...] = tuple(topic for topic in LINES if topic != HARMLESS)

#: Topics that carry a harm, and those that excuse one.
HARMS = TOPICS[: TOPICS.index("news")]
CONTEXTS = TOPICS[TOPICS.index("news") :]


#: Words after which a named thing takes no article.
BARE = (
    *("My", "my", "No", "no", "The", "the", "Your", "your", "Our", "our", "his", "her", "their"),
    *("this", "that", "This", "That", "any", "some", "plastic", "fake", "Toy", "toy", "century"),
    *("old", "spare", "wooden"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A line of text, the topics that it has, and the concepts that it names."""

    text: str
    topics: frozenset[str] = frozenset()
    names: frozenset[int] = frozenset()


def write(
    rng: np.random.Generator, topic: str, about: int | None, *, known: Known = "train"
) -> Caption:
    """Return a caption on a topic that may name one concept."""
    lines = LINES[topic].of(known)
    line = str(lines[int(rng.integers(len(lines)))])
    names: frozenset[int] = frozenset()
    if "{x}" in line:
        concept = int(rng.integers(len(CONCEPTS))) if about is None else about
        words = CONCEPTS[concept].words
        pair = words[0] if rng.random() < 0.6 else words[int(rng.integers(len(words)))]
        word = pair[int(rng.random() < 0.3)]
        bare = any(line.find(f"{before} {{x}}") >= 0 for before in BARE)
        if not bare and word == pair[0] and pair[0] != pair[1] and rng.random() < 0.7:
            word = ("an " if word[0] in "aeiou" else "a ") + word
        line = line.replace("{x}", word)
        names = frozenset({concept})
    while "{m}" in line:
        line = line.replace("{m}", _sum(rng), 1)
    roll = rng.random()
    if roll < 0.25:
        line = line.lower()
    elif roll < 0.32:
        line = line.upper()
    else:
        line = line[0].upper() + line[1:]
    line += str(rng.choice(["", "", "", "!", "!!", " :)", " #life", " #today", "...", " 🙂"]))
    return Caption(text=line, topics=frozenset({topic} - {HARMLESS}), names=names)


def _sum(rng: np.random.Generator) -> str:
    number = int(rng.choice([5, 10, 20, 25, 50, 80, 100, 150, 200, 300, 500, 1000]))
    return str(
        rng.choice(
            [f"{number} euros", f"${number}", f"{number} EUR", f"{number} dollars", f"£{number}"]
        )
    )
