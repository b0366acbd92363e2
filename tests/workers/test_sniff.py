import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.hostile import photo, saved
from workers.sniff import sniff


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP"])
def test_images(form: str) -> None:
    """Six kinds of images are decoded."""
    kind = sniff(saved(photo(), form))
    assert (kind.mime, kind.handling) == (f"image/{form.lower()}", "image")


@pytest.mark.parametrize(
    ("data", "mime", "handling"),
    [
        (b"<svg>", "image/svg+xml", "active"),
        (b"<?xml version='1.0'?>\n<!-- a --><svg xmlns='b'>", "image/svg+xml", "active"),
        (b"<x:svg xmlns:x='http://www.w3.org/2000/svg'>", "image/svg+xml", "active"),
        ("<svg >".encode("utf-16"), "image/svg+xml", "active"),
        ("\ufeff<svg >".encode("utf-16-be"), "image/svg+xml", "active"),
        (b"\xef\xbb\xbf  <!DocType HTML>", "text/html", "active"),
        (b"words <ScRiPt>alert(1)</ScRiPt>", "text/html", "active"),
        (b"<?xml version='1.0'?><note/>", "application/xml", "active"),
        (b"\n\n%PDF-1.4", "application/pdf", "active"),
        (b"CWS\x0a", "application/x-shockwave-flash", "active"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic", "image/heic", "unsupported"),
        (b"\0\0\0\x20ftypM4A \0\0\0\0", "audio/mp4", "unsupported"),
        (b"\0\0\0\x20ftypqt  \0\0\0\0", "video/quicktime", "unsupported"),
        (b"\xff\xff\xff\xffftypxxxx", "video/mp4", "unsupported"),
        (b"\x1a\x45\xdf\xa3", "video/webm", "unsupported"),
        (b"RIFF\0\0\0\0AVI LIST", "video/x-msvideo", "unsupported"),
        (b"RIFF", "application/x-riff", "unsupported"),
        (b"ID3\x04", "audio/mpeg", "unsupported"),
        (b"BMW drives\n", "text/plain", "unsupported"),
        (b"BM\0\0", "application/octet-stream", "unknown"),
        (b"\0", "application/octet-stream", "unknown"),
        (b"", "application/octet-stream", "unknown"),
    ],
)
def test_others(data: bytes, mime: str, handling: str) -> None:
    """Everything else is told apart by what is done with it."""
    kind = sniff(data)
    assert (kind.mime, kind.handling) == (mime, handling)


@given(st.binary(max_size=200))
def test_anything(data: bytes) -> None:
    """Any bytes are something."""
    assert "/" in sniff(data).mime
