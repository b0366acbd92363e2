"""From a folder of media and captions to upload events, and from decisions back to whoever waits for them.

A medium lies beside what belongs to it: `cat.jpg` with a caption in `cat.txt`, or with more in `cat.json`. A text or
JSON file without a medium is an upload of its own.
"""

import hashlib
import json
import mimetypes
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline import kafka, messages
from pipeline.config import Kafka, Settings
from pipeline.errors import KafkaError, PipelineError
from pipeline.messages import Context, Decision, MediaRef, Report, UploadEvent
from pipeline.records import Outgoing, Partition
from pipeline.specs import access_of
from workers.store import Store, open_stores

#: How often somebody who waits looks whether there is still something to wait for.
_LOOK_UP_S: Final = 0.5


class Beside(BaseModel):
    """What `NAME.json` says about the medium beside it, or about an upload of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = ""
    #: Files of this upload, relative to this one; absent means the medium of the same name.
    media: tuple[str, ...] | None = None
    content_id: str | None = None
    author_id: str | None = None
    published: bool = False
    context: dict[str, Any] = Field(default_factory=dict)
    reports: tuple[Report, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One upload that is to be sent: its files and everything that is said about them."""

    name: str
    media: tuple[Path, ...]
    beside: Beside


def parcels(paths: Sequence[Path]) -> list[Parcel]:
    """Return the uploads that these files and folders hold, sorted by name.

    Raises:
        PipelineError: a path does not exist, or a JSON file beside a medium says what it cannot say.
    """
    found: list[Parcel] = []
    for path in paths:
        if not path.exists():
            raise PipelineError(f"{path} does not exist")
        root = path if path.is_dir() else path.parent
        files = _files(path) if path.is_dir() else [path, *_sidecars(path)]
        found += _grouped(root, files)
    if not found:
        raise PipelineError(f"nothing to send in {', '.join(str(path) for path in paths)}")
    return found


def deliver(
    waiting: Sequence[Parcel],
    settings: Settings,
    *,
    prefix: str,
    stored: Callable[[], None] = lambda: None,
) -> list[UploadEvent]:
    """Put the media into the store, send the events, and return them; `stored` is told of each upload.

    Raises:
        PipelineError: the store or Kafka did not take them.
    """
    store = open_stores(access_of(settings))
    events = []
    for parcel in waiting:
        events.append(_event(parcel, store, prefix))
        stored()
    producer = kafka.Producer(settings.kafka)
    try:
        producer.send([_record(event) for event in events])
    finally:
        producer.close()
    return events


class Decisions:
    """Decisions as they are committed from the moment on at which this was made."""

    def __init__(self, settings: Kafka) -> None:
        self._settings = settings
        self._start: Mapping[Partition, int] = kafka.ends(settings, [messages.DECISIONS])
        self._found: SimpleQueue[Decision | Exception] = SimpleQueue()
        self._done = threading.Event()
        threading.Thread(target=self._read, name="decisions", daemon=True).start()

    def of(
        self,
        events: Sequence[UploadEvent],
        *,
        timeout_s: float,
        going: Callable[[], bool] = lambda: True,
    ) -> Iterator[Decision]:
        """Yield the first decision on each event, until all are there, the time is over or nothing goes on."""
        wanted = {event.event_id for event in events}
        deadline = time.monotonic() + timeout_s
        while wanted and going() and (left_s := deadline - time.monotonic()) > 0:
            try:
                found = self._found.get(timeout=min(left_s, _LOOK_UP_S))
            except Empty:
                continue
            if isinstance(found, Exception):
                raise found
            if found.event_id in wanted:
                wanted.remove(found.event_id)
                yield found

    def close(self) -> None:
        """Stop reading."""
        self._done.set()

    def _read(self) -> None:
        try:
            for record in kafka.read(
                self._settings,
                [messages.DECISIONS],
                follow=True,
                start=self._start,
                stop=self._done.is_set,
            ):
                if record.value is not None:
                    self._found.put(Decision.model_validate_json(record.value))
        except (KafkaError, ValidationError) as error:
            self._found.put(error)


def _files(folder: Path) -> list[Path]:
    return sorted(
        p for p in folder.rglob("*") if p.is_file() and not p.name.startswith((".", "README"))
    )


def _sidecars(path: Path) -> list[Path]:
    beside = (path.with_suffix(suffix) for suffix in (".txt", ".json"))
    return [p for p in beside if p.exists() and p != path]


def _grouped(root: Path, files: Sequence[Path]) -> Iterator[Parcel]:
    said = {p: _beside(p) for p in files if p.suffix == ".json"}
    texts = [p for p in files if p.suffix == ".txt"]
    # A medium that a JSON file names belongs to that upload and is none of its own.
    named = {
        (p.parent / name).resolve() for p, beside in said.items() for name in beside.media or ()
    }
    media = [p for p in files if p.suffix not in {".json", ".txt"} and p.resolve() not in named]
    stems = [p.with_suffix("") for p in media]
    for path in media:
        stem = path.with_suffix("")
        # Two media of one stem share what lies beside them and keep their endings in their names.
        name = path if stems.count(stem) > 1 else stem
        yield _parcel(root, name, (path,), _about(stem, said))
    for stem in sorted({p.with_suffix("") for p in (*said, *texts)} - set(stems)):
        beside = _about(stem, said)
        yield _parcel(root, stem, tuple(stem.parent / name for name in beside.media or ()), beside)


def _parcel(root: Path, name: Path, media: tuple[Path, ...], beside: Beside) -> Parcel:
    for path in media:
        if not path.is_file():
            raise PipelineError(f"{name}.json names {path.name}, which does not lie beside it")
    return Parcel(name=name.relative_to(root).as_posix(), media=media, beside=beside)


def _about(stem: Path, said: Mapping[Path, Beside]) -> Beside:
    beside = said.get(stem.with_name(stem.name + ".json"), Beside())
    caption = stem.with_name(stem.name + ".txt")
    if beside.text or not caption.exists():
        return beside
    return beside.model_copy(update={"text": _text(caption).strip()})


def _beside(path: Path) -> Beside:
    try:
        return Beside.model_validate(json.loads(_text(path)))
    except ValueError as error:
        raise PipelineError(f"{path}: {error}") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path} is not UTF-8: {error}") from error


def _event(parcel: Parcel, store: Store, prefix: str) -> UploadEvent:
    beside = parcel.beside
    return UploadEvent(
        event_id=uuid4().hex,
        content_id=beside.content_id or parcel.name,
        author_id=beside.author_id,
        published=beside.published,
        media=tuple(_stored(path, store, prefix) for path in parcel.media),
        text=beside.text,
        context=Context.model_validate(beside.context),
        reports=beside.reports,
        occurred_at=datetime.now(UTC),
    )


def _stored(path: Path, store: Store, prefix: str) -> MediaRef:
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    claimed = mimetypes.guess_type(path.name)[0]
    # Named by content, so that sending a file twice stores it once.
    uri = f"{prefix.rstrip('/')}/{digest[:2]}/{digest}".lstrip("/")
    store.put(uri, data, content_type=claimed)
    return MediaRef(uri=uri, sha256=digest, content_type=claimed)


def _record(event: UploadEvent) -> Outgoing:
    return Outgoing(
        topic=messages.UPLOADS,
        key=event.content_id.encode(),
        value=event.model_dump_json(exclude_none=True).encode(),
        headers=tuple(messages.headers("upload", event.event_id)),
    )
