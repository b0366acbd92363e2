"""Overturned appeals as golden cases: what the pipeline or a person got wrong is offered to the policy's author."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from pipeline.config import Kafka
from pipeline.errors import RefusedError
from pipeline.kafka import read
from pipeline.messages import REVIEWS, TICKETS, VERDICTS, ReviewEvent, Ticket, Verdict
from policies.cases import FOLDER
from policies.queues import Queue
from workers.store import Store

#: Kinds of review events that may put a job into a sealed queue.
_MOVES: Final = {"moved", "escalated"}
#: The largest medium that is put beside cases.
_MAX_BYTES: Final = 25_000_000
_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One answer of an overturned appeal that may become a golden case."""

    appeal: str
    policy: str
    clause: str | None
    text: str
    said: str  # by the author, in the appeal
    media: tuple[str, ...] = ()
    context: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the case's name."""
        return "appeal-" + re.sub(r"[^a-z0-9]+", "-", self.appeal.lower()).strip("-")


def offers(settings: Kafka, queues: Mapping[str, Queue]) -> list[Offer]:
    """Return what may be taken, in the order of the log; nothing of what ever lay in a sealed queue, nor its media.

    Raises:
        KafkaError: Kafka is out of reach or a topic does not exist.
    """
    sealed = {name for name, queue in queues.items() if queue.sealed}
    hidden: set[str] = set()  # content ids
    media: set[str] = set()  # digests
    ended: list[Ticket] = []
    for record in read(settings, [TICKETS]):
        ticket = Ticket.model_validate_json(record.value or b"")
        decision = ticket.decision
        if decision.review is not None and decision.review.queue in sealed:
            hidden.add(decision.content_id)
            media.update(decision.content.media)
        outcome = decision.appeal
        if outcome is not None and outcome.outcome == "overturned":
            ended.append(ticket)
    for record in read(settings, [REVIEWS]):
        event = ReviewEvent.model_validate_json(record.value or b"")
        if event.kind in _MOVES and event.queue in sealed:
            hidden.add((record.key or b"").decode(errors="replace"))
            media.update(event.media)
    wanted = {t.decision.verdict_id for t in ended}
    verdicts = {
        verdict.verdict_id: verdict
        for record in read(settings, [VERDICTS])
        if (verdict := Verdict.model_validate_json(record.value or b"")).verdict_id in wanted
    }
    return [
        offer
        for ticket in ended
        if ticket.decision.content_id not in hidden
        and media.isdisjoint(ticket.decision.content.media)
        and ticket.decision.verdict_id in verdicts
        for offer in _offered(ticket, verdicts[ticket.decision.verdict_id])
    ]


def _offered(ticket: Ticket, verdict: Verdict) -> Iterator[Offer]:
    event, decision = ticket.event, ticket.decision
    asked = {finding.question for finding in decision.findings}
    context = event.context.model_dump(mode="json", exclude_defaults=True)
    for answer in verdict.answers:
        if answer.answer != "allowed" or not (event.text or event.media):
            continue
        own = f"{answer.policy}/{answer.clause}"
        yield Offer(
            appeal=ticket.appeal.appeal_id if ticket.appeal is not None else decision.decision_id,
            policy=answer.policy,
            clause=answer.clause if own in asked else None,
            text=event.text,
            said=ticket.appeal.text if ticket.appeal is not None else "",
            media=tuple(medium.uri for medium in event.media),
            context=context,
        )


def take(offer: Offer, folder: Path, store: Store) -> Path:
    """Write an offer into the cases of its policy, its media beside them; return the file.

    Raises:
        RefusedError: the policy already has such a case, or its file does not end with its cases.
        WorkerError: a medium could not be had.
    """
    file = folder / FOLDER / f"{offer.policy}.yaml"
    text = (
        file.read_text(encoding="utf-8") if file.exists() else f"policy: {offer.policy}\ncases:\n"
    )
    document = yaml.safe_load(text)
    if list(document) != ["policy", "cases"]:
        raise RefusedError(f"{file}: let `cases` be its last field, so that one can be added")
    if offer.name in (document["cases"] or {}):
        raise RefusedError(f"{file} has a case {offer.name} already")
    case: dict[str, Any] = {"says": "An overturned appeal"}
    if offer.media:
        case["media"] = [_beside(file.parent, offer, n, store) for n in range(len(offer.media))]
    case |= {"text": offer.text} if offer.text else {}
    case |= {"context": dict(offer.context)} if offer.context else {}
    case |= {"clause": offer.clause} if offer.clause else {}
    case["expect"] = "allowed"
    file.parent.mkdir(parents=True, exist_ok=True)
    # JSON is YAML, and quotes whatever an uploader wrote.
    lines = [f"    {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in case.items()]
    added = "\n".join([f"  {offer.name}:", *lines])
    file.write_text(f"{text.rstrip()}\n{added}\n", encoding="utf-8")
    return file


def _beside(folder: Path, offer: Offer, number: int, store: Store) -> str:
    uri = offer.media[number]
    data = store.fetch(uri, max_bytes=_MAX_BYTES, timeout_s=_TIMEOUT_S)
    suffix = Path(uri.partition("?")[0]).suffix.lower()
    if not re.fullmatch(r"\.[a-z0-9]{1,5}", suffix):
        suffix = ".bin"
    path = folder / "media" / f"{offer.name}-{number}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return f"media/{path.name}"
