"""Hostile media: what attackers, broken phones and bad luck upload, built here, and what has to come of each.

`HOSTILE` is one table for the unit tests of media and for the whole pipeline. The store has a folder, in which `lay`
puts what it needs, and an S3 endpoint on which nobody listens. `RECORDS` are events that are hostile themselves.
"""

import io
import json
import os
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from workers.upload import Location

Build = Callable[[], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """One hostile medium; `expected` is the stable reason, None where it is judged like any other."""

    name: str
    expected: str | None
    #: Puts into the folder what it needs, and tells the reference.
    lay: Callable[[Path], Location]


def photo(width: int = 96, height: int = 64, seed: int = 0) -> Image.Image:
    """Return a small colourful picture that compresses like a photo."""
    colours = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    """Return the picture as a file of that format."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def animated(form: str, frames: int = 4, size: tuple[int, int] = (48, 32)) -> bytes:
    """Return an animation of differing frames, a tenth of a second each."""
    pictures = [photo(*size, seed=number) for number in range(frames)]
    return saved(pictures[0], form, save_all=True, append_images=pictures[1:], duration=100)


def png(width: int, height: int, *extra: tuple[bytes, bytes], rows: bytes | None = None) -> bytes:
    """Return a PNG of one bit a pixel with extra chunks in front of its pixels."""
    if rows is None:
        rows = zlib.compress(bytes((width + 7) // 8 + 1) * height, 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def gif(width: int, height: int, frames: int) -> bytes:
    """Return a GIF whose frames are one pixel each, in alternating colours and places."""
    out = [b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"]
    for number in range(frames):
        place = struct.pack("<HHHHB", number % width, number // width % height, 1, 1, 0)
        pixel = b"\x02\x02" + (b"\x44" if number % 2 else b"\x4c") + b"\x01\0"
        out.append(b"\x21\xf9\x04\0\x02\0\0\0" + b"\x2c" + place + pixel)
    return b"".join(out) + b"\x3b"


def scan_bomb(side: int = 4000, scans: int = 5000) -> bytes:
    """Return a progressive JPEG that says its last scan over and over: each passes over all pixels."""
    data = saved(Image.new("RGB", (side, side)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def jpeg_claiming(width: int, height: int) -> bytes:
    """Return a small JPEG whose header claims another size."""
    data = saved(photo(), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def bmp(width: int, height: int, *, compression: int = 0, bits: int = 24) -> bytes:
    """Return a BMP header that claims what it likes, and a few pixels."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 1054, 0, 0, 54) + info + bytes(1000)


def exif_loop() -> bytes:
    """Return a JPEG whose EXIF folders point at themselves."""
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", 2) + entry + entry + struct.pack("<I", 8)
    return saved(photo(), "JPEG", exif=b"Exif\0\0" + tiff)


def _cut(build: Build, share: float) -> Build:
    def cut() -> bytes:
        data = build()
        return data[: int(len(data) * share)]

    return cut


def _garbled(build: Build, seed: int = 1) -> Build:
    def garbled() -> bytes:
        data = bytearray(build())
        noise = random.Random(seed)
        for at in noise.sample(range(len(data) // 3, len(data)), 200):
            data[at] = noise.randrange(256)
        return bytes(data)

    return garbled


def _stored(name: str, expected: str | None, build: Build, *, sha: str | None = None) -> Hostile:
    def lay(folder: Path) -> Location:
        data = build()
        (folder / name).write_bytes(data)
        return Location(uri=name, sha256=sha or sha256(data).hexdigest())

    return Hostile(name=name, expected=expected, lay=lay)


def _referred(name: str, expected: str, uri: str) -> Hostile:
    return Hostile(name=name, expected=expected, lay=lambda _: Location(uri=uri))


def _link(folder: Path) -> Location:
    (folder / "link.jpg").symlink_to("/etc/passwd")
    return Location(uri="link.jpg")


def _link_on_the_way(folder: Path) -> Location:
    (folder / "way").symlink_to("/etc")
    return Location(uri="way/passwd")


def _pipe(folder: Path) -> Location:
    os.mkfifo(folder / "pipe.jpg")
    return Location(uri="pipe.jpg")


def _directory(folder: Path) -> Location:
    (folder / "directory.jpg").mkdir()
    return Location(uri="directory.jpg")


def _huge(folder: Path) -> Location:
    with (folder / "huge.jpg").open("wb") as file:
        file.write(b"\xff\xd8\xff")
        file.truncate(1 << 40)  # takes no space
    return Location(uri="huge.jpg")


def _jpeg() -> bytes:
    return saved(photo(), "JPEG")


def _png() -> bytes:
    return saved(photo(), "PNG")


_SVG = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
_BOMB = zlib.compress(bytes(20_000_000), 9)
_FTYP = b"\0\0\0\x18ftyp%s\0\0\0\0%s\0\0\0\0\0\0\0\x08mdat"

HOSTILE: tuple[Hostile, ...] = (
    # broken
    _stored("zero.jpg", "empty", bytes),
    _stored("truncated.jpg", "truncated", _cut(_jpeg, 0.6)),
    _stored("truncated.png", "truncated", _cut(_png, 0.6)),
    _stored("truncated.gif", "truncated", _cut(lambda: saved(photo(), "GIF"), 0.6)),
    _stored("truncated.webp", "broken", _cut(lambda: saved(photo(), "WEBP"), 0.6)),
    _stored("truncated.avif", "broken", _cut(lambda: saved(photo(), "AVIF"), 0.6)),
    _stored("truncated-animation.png", "truncated", _cut(lambda: animated("PNG"), 0.8)),
    _stored("truncated-animation.webp", "broken", _cut(lambda: animated("WEBP"), 0.8)),
    _stored("only-a-start.jpg", "broken", lambda: b"\xff\xd8\xff\xd9"),
    _stored("only-a-start.png", "broken", lambda: b"\x89PNG\r\n\x1a\n"),
    _stored("garbled.png", "broken", _garbled(_png)),
    _stored("bad-header.png", "broken", lambda: _png().replace(b"IHDR", b"IHDX")),
    _stored("random.jpg", "unknown_type", lambda: random.Random(5).randbytes(5000)),
    # odd, and judged all the same
    _stored("mislabelled-png.jpg", None, _png),
    _stored("one-pixel.png", None, lambda: saved(photo(1, 1), "PNG")),
    _stored("one-pixel.jpg", None, lambda: saved(photo(1, 1), "JPEG")),
    _stored("line.png", None, lambda: saved(photo(20_000, 1), "PNG")),
    _stored("strip.jpg", None, lambda: saved(photo(120, 12_000), "JPEG")),
    _stored("cmyk.jpg", None, lambda: saved(photo().convert("CMYK"), "JPEG")),
    _stored("exif-loop.jpg", None, exif_loop),
    _stored("gif-that-is-script.gif", None, lambda: gif(8, 8, 2) + b"*/=1;alert(1)//"),
    _stored("5000-frames.gif", None, lambda: gif(64, 64, 5000)),
    # bombs
    _stored("40000x40000.png", "too_many_pixels", lambda: png(40_000, 40_000, rows=_BOMB[:4000])),
    _stored("65000x65000.jpg", "too_many_pixels", lambda: jpeg_claiming(65_000, 65_000)),
    _stored("65535x65535.gif", "too_many_pixels", lambda: gif(65_535, 65_535, 1)),
    _stored(
        "16777216x16777216.webp",
        "too_many_pixels",
        lambda: b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff" * 6,
    ),
    _stored("2e9x1.bmp", "too_many_pixels", lambda: bmp(2_000_000_000, 1)),
    _stored("zero-wide.bmp", "broken", lambda: bmp(0, 100)),
    _stored("run-lengths.bmp", "unsupported_type", lambda: bmp(5000, 5000, compression=1, bits=8)),
    _stored("text-bomb.png", "too_complex", lambda: png(8, 8, (b"zTXt", b"a\0\0" + _BOMB))),
    _stored("profile-bomb.png", "too_complex", lambda: png(8, 8, (b"iCCP", b"a\0\0" + _BOMB))),
    _stored("5000-scans.jpg", "too_complex", scan_bomb),
    Hostile(name="huge.jpg", expected="too_large", lay=_huge),
    # not pictures
    _stored("script.svg", "active_content", _SVG.encode),
    _stored("script-utf16.svg", "active_content", lambda: _SVG.encode("utf-16")),
    _stored("html.jpg", "active_content", lambda: b"\n<!DOCTYPE html><script>alert(1)</script>"),
    _stored("pdf.png", "active_content", lambda: b"%PDF-1.7\n1 0 obj <</OpenAction 2 0 R>>"),
    _stored("ghost.eps", "active_content", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n(%pipe%id) run"),
    _stored("flash.gif", "active_content", lambda: b"FWS\x09" + bytes(60)),
    _stored("words.jpg", "unsupported_type", lambda: b"just some words\n" * 20),
    _stored("archive.jpg", "unsupported_type", lambda: b"PK\x03\x04" + bytes(60)),
    _stored("film.mp4", "unsupported_type", lambda: _FTYP % (b"isom", b"mp42") + bytes(60)),
    _stored("photo.heic", "unsupported_type", lambda: _FTYP % (b"mif1", b"heic") + bytes(60)),
    _stored("sound.wav", "unsupported_type", lambda: b"RIFF\x24\0\0\0WAVEfmt " + bytes(60)),
    _stored("scan.tif", "unsupported_type", lambda: saved(photo(), "TIFF")),
    # references
    _stored("wrong-digest.jpg", "wrong_digest", _jpeg, sha="0" * 64),
    _referred("missing", "missing", "not/there.jpg"),
    _referred("web", "scheme_refused", "http://169.254.169.254/latest/meta-data/"),
    _referred("inline", "scheme_refused", "data:image/png;base64,iVBORw0KGgo="),
    _referred("dots", "outside_store", "../../etc/passwd"),
    _referred("encoded-dots", "outside_store", "ab/%2e%2e/%2E%2E/etc/passwd"),
    _referred("absolute", "outside_store", "/etc/passwd"),
    _referred("file-absolute", "outside_store", "file:///etc/passwd"),
    _referred("file-host", "outside_store", "file://evil.example/share/a.jpg"),
    _referred("nul", "bad_uri", "a.jpg%00.png"),
    _referred("long-name", "bad_uri", "a" * 300),
    _referred("access-point", "bad_uri", "s3://arn:aws:s3:eu-west-1:1:accesspoint/evil/a.jpg"),
    _referred("climbing-key", "bad_uri", "s3://uploads/../secrets/a.jpg"),
    _referred("unreachable", "store_unreachable", "s3://uploads/a.jpg"),
    Hostile(name="link", expected="outside_store", lay=_link),
    Hostile(name="link-on-the-way", expected="outside_store", lay=_link_on_the_way),
    Hostile(name="pipe", expected="not_a_file", lay=_pipe),
    Hostile(name="directory", expected="not_a_file", lay=_directory),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostileRecord:
    """One hostile record of the uploads topic, by the content id that it is about, and its outcome."""

    name: str
    outcome: Literal["decision", "dead letter"]
    build: Callable[[str], bytes]
    #: The reason in the decision; None where there is none, or where it is not for the media.
    expected: str | None = None


def _event(content_id: str, **fields: object) -> bytes:
    return json.dumps({"event_id": f"e-{content_id}", "content_id": content_id, **fields}).encode()


def _deep(content_id: str) -> bytes:
    return _event(content_id, odd="HERE").replace(b'"HERE"', b"[" * 20_000 + b"]" * 20_000)


def _many_media(content_id: str) -> bytes:
    return _event(content_id, media=[{"uri": f"none/{number}.jpg"} for number in range(5000)])


def _wide_context(content_id: str) -> bytes:
    return _event(content_id, context={f"key{number}": "v" * 900 for number in range(900)})


RECORDS: tuple[HostileRecord, ...] = (
    HostileRecord(name="no-json", outcome="dead letter", build=lambda _: b"\x00\xff\xfe{"),
    HostileRecord(name="no-bytes", outcome="dead letter", build=lambda _: b""),
    HostileRecord(name="a-list", outcome="dead letter", build=lambda _: b"[1, 2, 3]"),
    HostileRecord(
        name="no-content-id",
        outcome="dead letter",
        build=lambda name: b'{"event_id": "%s"}' % name.encode(),
    ),
    HostileRecord(
        name="invalid-utf8",
        outcome="dead letter",
        build=lambda name: _event(name, text="HERE").replace(b"HERE", b"\xff\xfe\xc0"),
    ),
    HostileRecord(
        name="half-a-character",
        outcome="dead letter",
        build=lambda name: _event(name, text="HERE").replace(b"HERE", b"\\ud800"),
    ),
    HostileRecord(name="deep-json", outcome="dead letter", build=_deep),
    HostileRecord(
        name="caption-of-a-megabyte",
        outcome="decision",
        build=lambda name: _event(name, text="a caption " * 100_000),
    ),
    HostileRecord(
        name="caption-of-nothing-visible",
        outcome="decision",
        build=lambda name: _event(name, text="\u200b\u202e\u0000" * 1000),
    ),
    HostileRecord(
        name="many-media", outcome="decision", build=_many_media, expected="too_many_media"
    ),
    # Its context travels to the decision, with the findings and the words on each.
    HostileRecord(name="wide-context", outcome="decision", build=_wide_context),
)
