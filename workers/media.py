"""From references to pictures: fetch, check the digest, tell the type by content, decode within bounds.

Uploads are hostile. Whatever they hold, `prepare` returns pictures or raises one of two errors with a stable reason.
Images only so far: what is recognised as video or audio is refused as `unsupported_type`.
"""

import hashlib
import time
from dataclasses import dataclass
from typing import Final

from workers.bounds import Bounds, Effort
from workers.classifier import Picture
from workers.decode import decode
from workers.errors import MediaRefusedError, MediaUnavailableError
from workers.refusal import Outage, Refusal
from workers.sniff import Kind, sniff
from workers.store import Store
from workers.upload import Location, Upload

_REFUSED: Final = {
    "active": (Refusal.ACTIVE_CONTENT, "documents that may carry scripts are not rendered"),
    "unsupported": (Refusal.UNSUPPORTED_TYPE, "this type cannot be looked at (yet)"),
    "unknown": (Refusal.UNKNOWN_TYPE, "the bytes are of no known type"),
}
_MS: Final = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The pictures of one upload, what their media are and look like, and how long each stage took."""

    pictures: tuple[Picture, ...] = ()
    media_digests: tuple[str, ...] = ()
    perceptual_hashes: tuple[str, ...] = ()
    stages_ms: tuple[tuple[str, float], ...] = ()


def prepare(upload: Upload, store: Store, bounds: Bounds) -> Prepared:
    """Return the pictures of all media of the upload.

    Raises:
        MediaRefusedError: A medium is broken, refused or out of bounds; `media` says which.
        MediaUnavailableError: The store could not deliver a medium in time.
    """
    if len(upload.media) > bounds.max_media:
        raise MediaRefusedError(
            Refusal.TOO_MANY_MEDIA, f"{len(upload.media)} media, at most {bounds.max_media}"
        )
    if not upload.media:
        return Prepared()
    share_pixels = bounds.share_pixels(len(upload.media))
    effort = Effort(bounds)
    pictures: list[Picture] = []
    digests: list[str] = []
    hashes: list[str] = []
    fetch_s = decode_s = 0.0
    for index, location in enumerate(upload.media):
        try:
            started_s = time.perf_counter()
            data, digest = _fetched(location, store, bounds, bounds.fetch_timeout_s - fetch_s)
            fetched_s = time.perf_counter()
            kind = _image_kind(data)
            found = decode(
                data,
                kind.mime,
                media=index,
                bounds=bounds,
                share_pixels=share_pixels,
                effort=effort,
            )
        except (MediaRefusedError, MediaUnavailableError) as error:
            error.media = index
            raise
        pictures += found.pictures
        hashes.append(found.perceptual_hash)
        digests.append(digest)
        fetch_s += fetched_s - started_s
        decode_s += time.perf_counter() - fetched_s
    return Prepared(
        pictures=tuple(pictures),
        media_digests=tuple(digests),
        perceptual_hashes=tuple(hashes),
        stages_ms=(
            ("fetch", round(fetch_s * _MS, 3)),
            ("decode", round(decode_s * _MS, 3)),
        ),
    )


def originals(upload: Upload, store: Store, bounds: Bounds) -> list[tuple[str, bytes]]:
    """Return each medium of the upload as it is stored, its digest (`sha256:…`) before its bytes.

    Raises:
        MediaRefusedError: A medium is gone, is another one by now, or is out of bounds; `media` says which.
        MediaUnavailableError: The store could not deliver a medium in time.
    """
    found: list[tuple[str, bytes]] = []
    until_s = time.perf_counter() + bounds.fetch_timeout_s
    for index, location in enumerate(upload.media):
        try:
            data, digest = _fetched(location, store, bounds, until_s - time.perf_counter())
        except (MediaRefusedError, MediaUnavailableError) as error:
            error.media = index
            raise
        found.append((digest, data))
    return found


def _fetched(
    location: Location, store: Store, bounds: Bounds, timeout_s: float
) -> tuple[bytes, str]:
    if timeout_s <= 0:
        raise MediaUnavailableError(
            Outage.TIMEOUT, f"the media before it took all of {bounds.fetch_timeout_s:g} s"
        )
    data = store.fetch(location.uri, max_bytes=bounds.max_bytes, timeout_s=timeout_s)
    found = hashlib.sha256(data).hexdigest()
    if location.sha256 and found != location.sha256.lower():
        raise MediaRefusedError(
            Refusal.WRONG_DIGEST, f"sha256 {found} is stored, {location.sha256.lower()} expected"
        )
    return data, f"sha256:{found}"


def _image_kind(data: bytes) -> Kind:
    if not data:
        raise MediaRefusedError(Refusal.EMPTY, "zero bytes")
    kind = sniff(data)
    if kind.handling != "image":
        reason, why = _REFUSED[kind.handling]
        raise MediaRefusedError(reason, f"{kind.mime}: {why}")
    return kind
