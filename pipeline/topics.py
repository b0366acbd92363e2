"""The topics that Weir reads and writes, and what each must be like. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pipeline.config import Kafka
from pipeline.messages import (
    APPEALS,
    AUDIT,
    DEAD_LETTERS,
    DECISIONS,
    LEGAL,
    PEOPLE,
    POLICIES,
    RESCORE,
    REVIEWS,
    SHADOWS,
    TICKETS,
    UPLOADS,
    VERDICTS,
)

#: What a record of an upload may take, and of everything else, with room for framing.
UPLOAD_BYTES: Final = 1_048_576 + 65_536
RECORD_BYTES: Final = 2_097_152
_DAY_MS: Final = 86_400_000
#: Uploads and what is to be scored again are read at once; this long a stop loses nothing.
_INTAKE_DAYS: Final = 14

_COMPACTED: Final = frozenset({POLICIES, PEOPLE})
_INTAKE: Final = frozenset({UPLOADS, RESCORE})
#: A legal hold must outlive every retention, and an erasure all that it erased.
_FOR_EVER: Final = frozenset({LEGAL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic as it should be."""

    name: str
    partitions: int
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong with one topic, and what to do."""

    topic: str
    wrong: str
    remedy: str


def plan(settings: Kafka) -> tuple[Topic, ...]:
    """Return every topic as it should be under these settings."""
    names = (
        UPLOADS,
        RESCORE,
        DECISIONS,
        TICKETS,
        VERDICTS,
        DEAD_LETTERS,
        REVIEWS,
        APPEALS,
        PEOPLE,
        AUDIT,
        LEGAL,
        POLICIES,
        SHADOWS,
    )
    return tuple(_topic(name, settings) for name in names)


def _topic(name: str, settings: Kafka) -> Topic:
    options = {
        "max.message.bytes": str(UPLOAD_BYTES if name == UPLOADS else RECORD_BYTES),
        # Due times count from the broker's clock; the sender's cannot be trusted.
        "message.timestamp.type": "LogAppendTime",
    }
    if name in _COMPACTED:
        options["cleanup.policy"] = "compact"
    elif name in _FOR_EVER:
        options["retention.ms"] = "-1"
    else:
        days = _INTAKE_DAYS if name in _INTAKE else settings.retention_days
        options["retention.ms"] = str(days * _DAY_MS)
    return Topic(
        name=name, partitions=1 if name in _COMPACTED else settings.partitions, options=options
    )


def problems(
    wanted: tuple[Topic, ...],
    *,
    partitions: Mapping[str, int],
    options: Mapping[str, Mapping[str, str]],
) -> list[Problem]:
    """Return what is wrong with the topics that exist; `options` are those that differ from the broker's defaults."""
    found = []
    for topic in wanted:
        if topic.name not in partitions:
            found.append(
                Problem(topic=topic.name, wrong="does not exist", remedy="run `weir topics create`")
            )
            continue
        have = options.get(topic.name, {})
        for key, value in topic.options.items():
            if not _meets(key, have.get(key), value):
                found.append(
                    Problem(
                        topic=topic.name,
                        wrong=f"{key} is {have.get(key, 'the default')}, not {value}",
                        remedy=f"set it with kafka-configs.sh --alter --topic {topic.name} --add-config {key}={value}",
                    )
                )
    return found + _unequal(partitions)


def _unequal(partitions: Mapping[str, int]) -> list[Problem]:
    """A ticket lies in the partition of its content id: order per content needs as many partitions there."""
    decisions, tickets = partitions.get(DECISIONS), partitions.get(TICKETS)
    if decisions is None or tickets is None or decisions == tickets:
        return []
    return [
        Problem(
            topic=TICKETS,
            wrong=f"has {tickets} partitions, {DECISIONS} has {decisions}",
            remedy="give both the same number, so that one content's records stay in step",
        )
    ]


def _meets(key: str, have: str | None, wanted: str) -> bool:
    if key in {"max.message.bytes", "retention.ms"}:
        # Larger is fine, and -1 keeps for ever.
        return have is not None and (int(have) >= int(wanted) > -1 or int(have) == -1)
    return have == wanted
