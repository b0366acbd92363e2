"""Pictures that look alike have hashes that differ in few bits."""

from io import BytesIO
from itertools import combinations

import pytest
from PIL import Image, ImageEnhance

from workers.mini import samples
from workers.signals.likeness import perceptual_hash

#: Within how many bits two pictures count as alike.
NEAR = 5


def differ(one: str, other: str) -> int:
    """Return in how many bits two hashes differ."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Image.Image]:
    """Return some of the bundled model's samples."""
    folder = tmp_path_factory.mktemp("samples")
    drawn = samples.write(folder)
    for _ in range(6):
        next(drawn)
    return [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.png"))]


def recoded(picture: Image.Image, quality: int) -> Image.Image:
    """Return the picture as a JPEG of this quality has it."""
    out = BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return Image.open(out)


def test_a_copy_that_was_recoded_scaled_or_brightened_is_near(pictures: list[Image.Image]) -> None:
    """What platforms do to a picture changes few bits; other pictures differ in many."""
    for picture in pictures:
        own = perceptual_hash(picture)
        for copy in (
            recoded(picture, 40),
            picture.resize((picture.width // 2, picture.height // 3)),
            ImageEnhance.Brightness(picture).enhance(1.15),
        ):
            assert differ(own, perceptual_hash(copy)) <= NEAR
    apart = [
        differ(perceptual_hash(one), perceptual_hash(other))
        for one, other in combinations(pictures, 2)
    ]
    assert min(apart) > 2 * NEAR


def test_a_picture_without_contrast_has_none() -> None:
    """Plain areas would all be alike, whatever else they are."""
    assert perceptual_hash(Image.new("RGB", (64, 48), "navy")) == ""
