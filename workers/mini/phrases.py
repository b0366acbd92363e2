"""The phrases that composed policies are made of, from ``phrases.yaml``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

#: Which phrases to take: those of training, or one half or the other of those held back.
Known = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Phrases:
    """Several ways to say one thing: those to train on, and those held back, half for choices and half for figures."""

    trained: tuple[str, ...]
    held: tuple[str, ...]

    def of(self, known: Known) -> tuple[str, ...]:
        """Return the phrases of one split; a single one held back is for the figures."""
        match known:
            case "train":
                return self.trained
            case "validation":
                return self.held[1::2] or self.trained
            case "test":
                return self.held[::2]


def phrases(found: dict[str, Any]) -> Phrases:
    """Return what a file says in `trained` and `held`."""
    return Phrases(trained=tuple(found["trained"]), held=tuple(found["held"]))


def by_topic(found: dict[str, Any]) -> dict[str, Phrases]:
    """Return what a file says of each topic."""
    return {topic: phrases(lines) for topic, lines in found.items()}


_READ = yaml.safe_load((Path(__file__).parent / "phrases.yaml").read_text(encoding="utf-8"))

SHOWS = phrases(_READ["shows"])
SHOWS_ASK = phrases(_READ["shows_ask"])
RULE_ASK = phrases(_READ["rule_ask"])
LACKS = phrases(_READ["lacks"])
LACKS_ASK = phrases(_READ["lacks_ask"])
ALL = phrases(_READ["all"])
EXEMPT = phrases(_READ["exempt"])
MENTIONS = phrases(_READ["mentions"])
TOGETHER = phrases(_READ["together"])

#: Something done with a thing.
ABOUT = by_topic(_READ["about"])

#: Topics of captions that one clause speaks of together.
TOPIC_GROUPS = {
    "scam": ("scam_prize", "scam_code", "scam_money"),
    "harm_self": ("selfharm", "selfharm_urge"),
    "violence": ("threat", "glorify"),
    "abuse": ("insult", "threat"),
    "junk": ("spam", "scam_prize"),
}
TOPIC_CLAUSES = by_topic(_READ["topic_clauses"])
TOPIC_ASK = by_topic(_READ["topic_ask"])

#: What carve-outs call the contexts that excuse.
CONTEXT_NAMES: dict[str, tuple[str, ...]] = {
    context: tuple(names) for context, names in _READ["context_names"].items()
}
