"""The stable words for why media could not be had; they stand in decisions, metrics and the intake queue.

A `Refusal` lies in the media: trying again gives the same, so a person looks. An `Outage` lies in the store: the
upload is scored again later, and is a person's job after the last try. A word is never renamed or given another sense.
"""

from enum import StrEnum


class Refusal(StrEnum):
    """Why media are refused."""

    #: The reference is not a URI that any store could read: no key, control characters, dot segments, a query.
    BAD_URI = "bad_uri"
    #: The reference has a scheme that is not fetched on purpose (`http:`, `https:`, `ftp:`, `data:`, …).
    SCHEME_REFUSED = "scheme_refused"
    #: No store is configured for references of this kind.
    NO_STORE = "no_store"
    #: The reference leaves the media folder: by `..`, an absolute path, a host or a symbolic link.
    OUTSIDE_STORE = "outside_store"
    #: The reference names a folder, device, pipe or socket.
    NOT_A_FILE = "not_a_file"
    #: Nothing lies there.
    MISSING = "missing"
    #: More bytes than `max_bytes`.
    TOO_LARGE = "too_large"
    #: No bytes at all.
    EMPTY = "empty"
    #: The bytes are not those whose sha256 the event names.
    WRONG_DIGEST = "wrong_digest"
    #: More media than `max_media` in one upload.
    TOO_MANY_MEDIA = "too_many_media"
    #: SVG, HTML, PDF, PostScript, Flash: documents that may carry scripts are never rendered.
    ACTIVE_CONTENT = "active_content"
    #: A known type that no configured reader handles yet, such as video or audio; the detail names it.
    UNSUPPORTED_TYPE = "unsupported_type"
    #: The bytes look like no type that is known.
    UNKNOWN_TYPE = "unknown_type"
    #: More pixels than `max_pixels` in one picture.
    TOO_MANY_PIXELS = "too_many_pixels"
    #: An animation whose frames together hold several times `max_pixels`.
    ANIMATION_TOO_LONG = "animation_too_long"
    #: Built so that reading it costs far more than a picture of its size: endless scans, chunks or metadata.
    TOO_COMPLEX = "too_complex"
    #: The bytes end before the picture does.
    TRUNCATED = "truncated"
    #: The bytes start like their type but cannot be decoded.
    BROKEN = "broken"


class Outage(StrEnum):
    """Why the store could not deliver."""

    #: No connection, no such host, or the media folder is not there.
    UNREACHABLE = "store_unreachable"
    #: The bytes did not arrive within `fetch_timeout_s`.
    TIMEOUT = "store_timeout"
    #: The store refuses our credentials, or there are none. S3 says the same of a missing object to those who may
    #: not list its bucket; as that cannot be told apart, it counts as an outage, which an operator can end.
    DENIED = "store_denied"
    #: The store failed: an error of its own, a redirect, or an answer cut off half way.
    ERROR = "store_error"
