"""What bytes are, told from the bytes alone: names and claimed types are the sender's and count for nothing."""

import re
from dataclasses import dataclass
from typing import Final, Literal

#: How far a reader looks for the start of a document that may begin with anything.
_HEAD_BYTES: Final = 4096

Handling = Literal["image", "active", "unsupported", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What the bytes are and what is done with such: decoded, refused as active content, or not handled."""

    mime: str
    handling: Handling


_JPEG: Final = Kind(mime="image/jpeg", handling="image")
_PNG: Final = Kind(mime="image/png", handling="image")
_GIF: Final = Kind(mime="image/gif", handling="image")
_WEBP: Final = Kind(mime="image/webp", handling="image")
_AVIF: Final = Kind(mime="image/avif", handling="image")
_BMP: Final = Kind(mime="image/bmp", handling="image")
_SVG: Final = Kind(mime="image/svg+xml", handling="active")
_HTML: Final = Kind(mime="text/html", handling="active")
_XML: Final = Kind(mime="application/xml", handling="active")
_PDF: Final = Kind(mime="application/pdf", handling="active")
_TEXT: Final = Kind(mime="text/plain", handling="unsupported")
_UNKNOWN: Final = Kind(mime="application/octet-stream", handling="unknown")

_MAGIC: Final = (
    (b"\xff\xd8\xff", _JPEG),
    (b"\x89PNG\r\n\x1a\n", _PNG),
    (b"GIF87a", _GIF),
    (b"GIF89a", _GIF),
    (b"%!PS", Kind(mime="application/postscript", handling="active")),
    (b"\xc5\xd0\xd3\xc6", Kind(mime="application/postscript", handling="active")),
    (b"FWS", Kind(mime="application/x-shockwave-flash", handling="active")),
    (b"CWS", Kind(mime="application/x-shockwave-flash", handling="active")),
    (b"ZWS", Kind(mime="application/x-shockwave-flash", handling="active")),
    *(
        (magic, Kind(mime=mime, handling="unsupported"))
        for magic, mime in (
            (b"II*\0", "image/tiff"),
            (b"MM\0*", "image/tiff"),
            (b"\xff\x0a", "image/jxl"),
            (b"\0\0\0\x0cJXL ", "image/jxl"),
            (b"\0\0\0\x0cjP  ", "image/jp2"),
            (b"\xff\x4f\xff\x51", "image/jp2"),
            (b"\0\0\x01\0", "image/x-icon"),
            (b"8BPS", "image/vnd.adobe.photoshop"),
            (b"\x1a\x45\xdf\xa3", "video/webm"),
            (b"FLV\x01", "video/x-flv"),
            (b"\0\0\x01\xba", "video/mpeg"),
            (b"\0\0\x01\xb3", "video/mpeg"),
            (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video/x-ms-asf"),
            (b"OggS", "audio/ogg"),
            (b"fLaC", "audio/flac"),
            (b"ID3", "audio/mpeg"),
            (b"\xff\xfb", "audio/mpeg"),
            (b"\xff\xf3", "audio/mpeg"),
            (b"\xff\xf1", "audio/aac"),
            (b"#!AMR", "audio/amr"),
            (b"MThd", "audio/midi"),
            (b"PK\x03\x04", "application/zip"),
            (b"\x1f\x8b", "application/gzip"),
            (b"Rar!", "application/vnd.rar"),
            (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
            (b"\x7fELF", "application/x-executable"),
            (b"MZ", "application/x-executable"),
        )
    ),
)
_RIFF: Final[dict[bytes, Kind | str]] = {
    b"WEBP": _WEBP,
    b"AVI ": "video/x-msvideo",
    b"WAVE": "audio/wav",
}
#: Brands of ISO base media files; whatever is not named here is a video.
_BRANDS: Final[dict[bytes, Kind | str]] = {
    b"avif": _AVIF,
    b"avis": _AVIF,
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis"), "image/heic"),
    b"M4A ": "audio/mp4",
    b"qt  ": "video/quicktime",
}
_BMP_HEADERS: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_CONTROL: Final = re.compile(rb"[^\t\n\f\r\x20-\xff]")
_TAGS: Final = (
    (re.compile(rb"<svg[\s>:/]|<\w+:svg[\s>]", re.IGNORECASE), _SVG),
    (
        re.compile(
            rb"<!doctype\s+html|<(html|head|body|script|iframe|title|meta|img|style|table|a|div|p)[\s>/]",
            re.IGNORECASE,
        ),
        _HTML,
    ),
    (re.compile(rb"^\s*<(\?xml|!--|!doctype)", re.IGNORECASE), _XML),
)


def sniff(data: bytes) -> Kind:
    """Return what the bytes are."""
    head = data[:_HEAD_BYTES]
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith(b"RIFF"):
        return _kind(_RIFF.get(head[8:12]), "application/x-riff")
    if head[4:8] == b"ftyp":
        return _iso(head)
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return _BMP
    return _document(head)


def _iso(head: bytes) -> Kind:
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))]
    # The first that is known: a picture's own brand may stand behind the general `mif1` or `msf1`.
    return _kind(next((found for b in brands if (found := _BRANDS.get(b))), None), "video/mp4")


def _document(head: bytes) -> Kind:
    if b"%PDF-" in head[:1024]:
        return _PDF
    text = _narrow(head)
    for pattern, kind in _TAGS:
        if pattern.search(text):
            return kind
    return _UNKNOWN if not text or _CONTROL.search(text) else _TEXT


def _narrow(head: bytes) -> bytes:
    """Return text in two-byte encodings as one byte a character, so that tags are found in it too."""
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if head.startswith(mark):
            return head[2:].decode(encoding, "replace").encode("ascii", "replace")
    return head.removeprefix(b"\xef\xbb\xbf")


def _kind(found: Kind | str | None, otherwise: str) -> Kind:
    if isinstance(found, Kind):
        return found
    return Kind(mime=found or otherwise, handling="unsupported")
