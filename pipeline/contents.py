"""Archived uploads on their way back to the workers: what was judged, by reference, if it is still there unchanged."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import pyarrow as pa

from pipeline.archive import Archive
from pipeline.archive_query import ask, connect
from pipeline.archived_rows import ERASED
from pipeline.messages import text_digest
from workers.upload import Location, Upload

_FOUND: Final = """SELECT d.decision_id, d.media, d.text, u.uris, u.content_types, u.caption
 FROM decisions d JOIN wanted w ON d.decision_id = w.decision_id
 JOIN uploads u ON u.event_id = d.event_id AND u.content_id = d.content_id
 WHERE u.caption IS NOT NULL ORDER BY u.received_at"""


def uploads_of(archive: Archive, decision_ids: Iterable[str]) -> dict[str, Upload]:
    """Return the upload that each of these decisions was about, as far as the archive has it.

    An upload whose caption is not what was judged is none; whether its media are, the workers find out by the digests.

    Raises:
        RefusedError: the archive cannot be read.
    """
    connection = connect(archive)
    wanted = pa.table({"decision_id": pa.array(decision_ids, pa.string())})
    connection.register("wanted", wanted)
    found: dict[str, Upload] = {}
    for batch in ask(connection, _FOUND):
        for row in batch.to_pylist():
            if _judged(row):
                found[row["decision_id"]] = _upload(len(found), row)
    return found


def _judged(row: Mapping[str, Any]) -> bool:
    media = row["media"] or ()
    return (
        text_digest(row["caption"]) == row["text"]
        and len(row["uris"] or ()) == len(media)
        and ERASED not in media
    )


def _upload(key: int, row: Mapping[str, Any]) -> Upload:
    return Upload(
        key=key,
        media=tuple(
            Location(uri=uri, sha256=digest.removeprefix("sha256:"), content_type=kind)
            for uri, digest, kind in zip(
                row["uris"] or (), row["media"] or (), row["content_types"] or (), strict=True
            )
        ),
        caption=row["caption"],
    )
