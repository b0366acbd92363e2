"""What a reference to media may look like; pure, so that it can be tried on anything.

A reference is `s3://bucket/key` (the key as it is, not percent-encoded), or a path in the media folder: `ab/cd.jpg`,
`file:ab/cd.jpg` or `file:///…/ab/cd.jpg` (percent-encoded, as URIs are). Whoever writes events chooses references, so
nothing else is ever fetched: no other scheme, no other host, no path out of the folder.
"""

import os
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

from workers.errors import MediaRefusedError
from workers.refusal import Refusal

#: How much of a reference is repeated in an error.
_QUOTED_CHARS: Final = 160
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
#: Bucket names, also such as only old regions and other makers allow. No ARNs: they would choose another host.
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{1,253}[A-Za-z0-9]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
#: S3's own limit.
_MAX_KEY_BYTES: Final = 1024


def scheme_of(uri: str) -> str:
    """Return the scheme of a reference in lower case, empty for a relative one."""
    found = _SCHEME.match(uri)
    return found[1].lower() if found else ""


def quoted(uri: str) -> str:
    """Return the reference, cut and escaped, as an error repeats it."""
    return ascii(uri if len(uri) <= _QUOTED_CHARS else uri[:_QUOTED_CHARS] + "…")


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Return bucket and key of an `s3:` reference."""
    bucket, _, key = uri.partition(":")[2].removeprefix("//").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise MediaRefusedError(Refusal.BAD_URI, f"no bucket name in {quoted(uri)}")
    encoded = key.encode("utf-8", "replace")
    if not encoded or len(encoded) > _MAX_KEY_BYTES or _CONTROL.search(key):
        raise MediaRefusedError(
            Refusal.BAD_URI, f"the key must be 1 to 1024 bytes of plain text in {quoted(uri)}"
        )
    if not {".", ".."}.isdisjoint(key.split("/")):
        # HTTP clients resolve these before they ask, so the key could climb into another bucket.
        raise MediaRefusedError(Refusal.BAD_URI, f"`.` or `..` in the key of {quoted(uri)}")
    return bucket, key


def path_parts(uri: str, roots: Iterable[tuple[str, ...]]) -> list[str]:
    """Return the parts of a path below the media folder; at least one, none of them `..`.

    `roots` are the parts of the names that the folder itself has, for absolute references.
    """
    path = uri[len("file:") :] if scheme_of(uri) == "file" else uri
    if path.startswith("//"):
        host, slash, path = path[2:].partition("/")
        if host not in {"", "localhost"}:
            raise MediaRefusedError(Refusal.OUTSIDE_STORE, f"{quoted(uri)} names a host")
        path = slash + path
    if "?" in path or "#" in path:
        raise MediaRefusedError(
            Refusal.BAD_URI, f"a query or fragment in {quoted(uri)}; write %3F and %23 in names"
        )
    path = os.fsdecode(unquote_to_bytes(path.encode("utf-8", "replace")))
    if "\0" in path:
        raise MediaRefusedError(Refusal.BAD_URI, f"a NUL in {quoted(uri)}")
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise MediaRefusedError(Refusal.OUTSIDE_STORE, f"`..` in {quoted(uri)}")
    if path.startswith("/"):
        inside = [root for root in roots if tuple(parts[: len(root)]) == root]
        if not inside:
            raise MediaRefusedError(
                Refusal.OUTSIDE_STORE, f"{quoted(uri)} is outside the media folder"
            )
        parts = parts[len(inside[0]) :]
    if not parts:
        raise MediaRefusedError(Refusal.NOT_A_FILE, f"{quoted(uri)} names no file")
    return parts
