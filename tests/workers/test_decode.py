import io
import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.data.hostile import animated, gif, photo, png, saved
from workers.bounds import Bounds, Effort
from workers.classifier import Picture
from workers.decode import decode
from workers.errors import MediaRefusedError
from workers.sniff import sniff

#: Pillow warns of what is broken and goes on, as it shall.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def pictures_of(
    data: bytes, bounds: Bounds | None = None, *, share_pixels: int = 2048**2
) -> list[Picture]:
    """Return what is decoded from the bytes."""
    bounds = bounds or Bounds()
    return decode(
        data,
        sniff(data).mime,
        media=3,
        bounds=bounds,
        share_pixels=share_pixels,
        effort=Effort(bounds),
    ).pictures


def only(data: bytes, bounds: Bounds | None = None) -> NDArray[np.uint8]:
    """Return the one picture that is decoded from the bytes."""
    (picture,) = pictures_of(data, bounds)
    assert picture.media == 3
    assert picture.time_s is None
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.shape[2:] == (3,)
    assert picture.pixels.flags.c_contiguous
    return picture.pixels


def _away(one: NDArray[np.uint8], other: Image.Image) -> float:
    return float(np.abs(one.astype(int) - np.asarray(other.convert("RGB")).astype(int)).mean())


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 95}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
        ("AVIF", {"quality": 95}),
    ],
)
def test_formats(form: str, options: dict[str, object]) -> None:
    """A photo comes out as it went in, by each format."""
    assert _away(only(saved(photo(), form, **options)), photo()) < 4


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_modes(mode: str) -> None:
    """Grey, palette, alpha, CMYK and 16-bit pictures are RGB in the end."""
    picture = photo()
    if mode == "I;16":
        grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        stored, wanted = Image.fromarray(grey), picture.convert("L")
    else:
        stored = picture.convert(mode)
        wanted = stored
    form = "JPEG" if mode in {"CMYK", "YCbCr"} else "PNG"

    assert _away(only(saved(stored, form)), wanted) < 4


def test_palette_with_transparency() -> None:
    """A palette's transparent entry is over white."""
    picture = photo().quantize(8)
    picture.info["transparency"] = picture.getpixel((0, 0))
    assert tuple(only(saved(picture, "PNG"))[0, 0]) == (255, 255, 255)


def test_dark_ink_on_transparency() -> None:
    """Dark ink on transparency is over white, once."""
    ink = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    ink.paste((10, 20, 30, 255), (20, 20, 40, 40))
    pixels = only(saved(ink, "PNG"))
    assert tuple(pixels[0, 0]) == (255, 255, 255)
    assert tuple(pixels[30, 30]) == (10, 20, 30)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "AVIF"])
def test_light_ink_on_transparency(form: str) -> None:
    """White ink on transparency, which white swallows, is also looked at over black."""
    ink = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    ink.paste((255, 255, 255, 255), (20, 20, 40, 40))
    over_white, over_black = pictures_of(saved(ink, form))
    assert over_white.pixels.min() > 250
    assert over_black.pixels[5, 5].max() < 5
    assert over_black.pixels[30, 30].min() > 250


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(form: str, orientation: int) -> None:
    """A picture is turned as its EXIF says."""
    upright = Image.new("RGB", (40, 24), (250, 250, 250))
    upright.paste((250, 0, 0), (0, 0, 16, 8))
    back = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright if back is None else upright.transpose(back)

    assert _away(only(saved(stored, form, exif=exif.tobytes(), quality=95)), upright) < 8


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"x" * 500])
def test_broken_exif(exif: bytes) -> None:
    """A picture with broken EXIF is shown as it lies."""
    assert only(saved(photo(), "JPEG", exif=exif)).shape == (64, 96, 3)


def test_an_orientation_that_is_none() -> None:
    """An orientation that does not exist turns nothing."""
    tiff = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 77, 0, 0)
    assert only(saved(photo(), "JPEG", exif=b"Exif\0\0" + tiff)).shape == (64, 96, 3)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1500, 1000), (100, 66)),
        ((100, 80), (100, 80)),
        ((101, 80), (100, 79)),
        ((80, 161), (49, 100)),
    ],
)
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_large_pictures_are_reduced(
    form: str, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    """No side is longer than the bound; a JPEG may come out somewhat smaller, as it is decoded so."""
    height, width, _ = only(saved(photo(*size), form), Bounds(max_side=100)).shape
    assert width <= expected[0]
    assert height <= expected[1]
    assert width >= expected[0] * (1 if form == "PNG" else 0.7)
    assert width / height == pytest.approx(size[0] / size[1], rel=0.05)


def test_the_share_bounds_the_pixels() -> None:
    """Pictures of an upload with many media are smaller."""
    (picture,) = pictures_of(saved(photo(400, 300), "PNG"), share_pixels=10_000)
    assert 9_000 < picture.pixels.size / 3 <= 10_000
    assert Bounds(max_side=100).share_pixels(1) == 10_000
    assert Bounds(max_side=100).share_pixels(4) == 10_000
    assert Bounds(max_side=100).share_pixels(10) == 4_000


def test_pixels_are_bounded_before_decoding() -> None:
    """A picture with one pixel too many is refused, whatever its pixels are."""
    with pytest.raises(MediaRefusedError, match="too_many_pixels"):
        only(png(101, 100, rows=b"no pixels at all"), Bounds(max_pixels=10_099))
    with pytest.raises(MediaRefusedError, match="broken"):
        only(png(101, 100, rows=b"no pixels at all"), Bounds(max_pixels=10_100))


def test_long_strips_are_cut() -> None:
    """A long strip is looked at as a whole and in pieces that cover it."""
    strip = photo(50, 2000)
    whole, *pieces = pictures_of(saved(strip, "PNG"))
    assert whole.pixels.shape[0] == 2000
    assert _away(np.concatenate([piece.pixels for piece in pieces]), strip) < 1


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "AVIF"])
def test_animations(form: str) -> None:
    """Each frame of a short animation is looked at, and its time is told."""
    pictures = pictures_of(animated(form))
    assert [picture.time_s for picture in pictures] == [0.0, 0.1, 0.2, 0.3]
    for number, picture in enumerate(pictures):
        assert _away(picture.pixels, photo(48, 32, seed=number)) < 25


def test_a_flash_in_a_gif() -> None:
    """The one red frame among two hundred grey ones is looked at."""
    frames = [Image.new("RGB", (32, 32), (100 + n % 40,) * 3) for n in range(200)]
    frames[77] = Image.new("RGB", (32, 32), (255, 0, 0))
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=20)
    pictures = pictures_of(data, Bounds(max_frames=3))
    assert len(pictures) <= 3
    assert any(picture.pixels[5, 5].tolist() == [255, 0, 0] for picture in pictures)


def test_frames_share_the_pixels() -> None:
    """The frames of an animation together have no more pixels than a picture."""
    pictures = pictures_of(animated("WEBP", size=(300, 200)), Bounds(max_frames=4, max_side=150))
    assert len(pictures) == 4
    assert (
        sum(
            picture.pixels.size // 3
            for picture in pictures_of(
                animated("PNG", size=(300, 200)), Bounds(max_frames=4), share_pixels=20_000
            )
        )
        <= 20_000
    )


def test_animations_are_bounded() -> None:
    """An animation with too many frames for its size is refused by name."""
    with pytest.raises(MediaRefusedError, match="animation_too_long"):
        pictures_of(gif(100, 100, 40), Bounds(max_pixels=100_000))


@pytest.mark.parametrize("form", ["WEBP", "AVIF"])
def test_readers_that_copy_get_less(form: str) -> None:
    """A WebP or AVIF may have half of the pixels that others may have."""
    assert only(saved(photo(100, 100), form), Bounds(max_pixels=20_000)).shape == (100, 100, 3)
    with pytest.raises(MediaRefusedError, match="too_many_pixels"):
        pictures_of(saved(photo(100, 100), form), Bounds(max_pixels=19_998))


def test_moving_canvases_are_smaller() -> None:
    """A canvas that moves may have a quarter of the pixels that a still one may."""
    assert only(gif(100, 100, 1), Bounds(max_pixels=10_000)).shape == (100, 100, 3)
    with pytest.raises(MediaRefusedError, match="too_many_pixels"):
        pictures_of(gif(100, 100, 2), Bounds(max_pixels=39_999))


def test_a_gif_that_grows() -> None:
    """A later frame that enlarges the picture is bounded too."""
    data = gif(8, 8, 2)
    at = data.rindex(b"\x2c")
    grown = data[: at + 1] + struct.pack("<HHHH", 0, 0, 9000, 9000) + data[at + 9 :]
    with pytest.raises(MediaRefusedError, match="too_many_pixels"):
        pictures_of(grown, Bounds(max_pixels=100_000))


def test_decoding_time_is_bounded() -> None:
    """A file that is all overhead is refused once it took too long."""
    data = saved(photo(), "JPEG")
    data = data[:2] + b"\xff\xe5\0\2" * 500_000 + data[2:]
    with pytest.raises(MediaRefusedError, match="too_complex"):
        pictures_of(data, Bounds(max_decode_s=0.2))


def test_metadata_that_is_large_but_honest() -> None:
    """A picture with ordinary metadata is decoded."""
    note = zlib.compress(b"note " * 1000)
    assert only(png(8, 8, (b"zTXt", b"a\0\0" + note))).shape == (8, 8, 3)


def test_the_second_picture_of_a_camera_file() -> None:
    """Of a multi-picture JPEG the first is looked at, as viewers do."""
    data = saved(photo(), "MPO", save_all=True, append_images=[photo(seed=1)])
    assert _away(only(data), photo()) < 12


def test_pictures_outlive_their_bytes() -> None:
    """Arrays hold their own memory."""
    buffer = io.BytesIO(saved(photo(), "BMP"))
    pixels = only(buffer.getvalue())
    del buffer
    assert _away(pixels, photo()) == 0
