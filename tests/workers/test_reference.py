import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.errors import MediaRefusedError
from workers.reference import bucket_and_key, path_parts, quoted, scheme_of

ROOTS = [("srv", "media")]


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("ab/cd.jpg", ["ab", "cd.jpg"]),
        ("./ab//cd.jpg", ["ab", "cd.jpg"]),
        ("file:ab/cd.jpg", ["ab", "cd.jpg"]),
        ("FILE:ab/cd.jpg", ["ab", "cd.jpg"]),
        ("/srv/media/ab/cd.jpg", ["ab", "cd.jpg"]),
        ("file:///srv/media/cd.jpg", ["cd.jpg"]),
        ("file://localhost/srv/media/cd.jpg", ["cd.jpg"]),
        ("a%20b%3F.jpg", ["a b?.jpg"]),
        ("...jpg", ["...jpg"]),
    ],
)
def test_paths_in_the_folder(uri: str, parts: list[str]) -> None:
    """Relative, absolute and `file:` references name the same files."""
    assert path_parts(uri, ROOTS) == parts


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("..", "outside_store"),
        ("ab/../../cd", "outside_store"),
        ("%2e%2e/cd", "outside_store"),
        ("file:%2E./cd", "outside_store"),
        ("/srv/mediator/cd", "outside_store"),
        ("/srv/media/../cd", "outside_store"),
        ("//host/srv/media/cd", "outside_store"),
        ("file://host/srv/media/cd", "outside_store"),
        ("/srv/media", "not_a_file"),
        ("file:", "not_a_file"),
        ("a?b", "bad_uri"),
        ("a#b", "bad_uri"),
        ("a%00b", "bad_uri"),
    ],
)
def test_paths_that_are_refused(uri: str, reason: str) -> None:
    """What leaves the folder, or names no file, is refused by name."""
    with pytest.raises(MediaRefusedError) as refused:
        path_parts(uri, ROOTS)
    assert refused.value.reason == reason


@given(st.text(st.sampled_from("ab./%2eE:\\?#\0srvmedia\n…\ud800")) | st.text())
def test_no_path_climbs(uri: str) -> None:
    """Whatever is written, the parts are plain names or the reference is refused."""
    try:
        parts = path_parts(uri, ROOTS)
    except MediaRefusedError:
        return
    assert parts
    assert all(
        part not in {"", ".", ".."} and "/" not in part and "\0" not in part for part in parts
    )


@pytest.mark.parametrize(
    ("uri", "bucket", "key"),
    [
        ("s3://uploads/ab/cd.jpg", "uploads", "ab/cd.jpg"),
        ("S3://up-loads.2/ü b%20?.jpg", "up-loads.2", "ü b%20?.jpg"),
        ("s3:uploads/a", "uploads", "a"),
    ],
)
def test_objects(uri: str, bucket: str, key: str) -> None:
    """A key is taken as it is written."""
    assert bucket_and_key(uri) == (bucket, key)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://",
        "s3://uploads",
        "s3://uploads/",
        "s3://u@evil.example/a",
        "s3://evil.example:80/a",
        "s3://arn:aws:s3:eu-west-1:1:accesspoint/evil/a",
        "s3://uploads/a/../../other/b",
        "s3://uploads/a\r\nHost: evil",
        "s3://uploads/" + "k" * 1025,
    ],
)
def test_objects_that_are_refused(uri: str) -> None:
    """What is no plain bucket and key is refused."""
    with pytest.raises(MediaRefusedError, match="bad_uri"):
        bucket_and_key(uri)


@given(st.text())
def test_errors_repeat_little(uri: str) -> None:
    """An error repeats a reference cut and escaped."""
    assert quoted(uri * 50).isascii()
    assert len(quoted(uri * 50)) < 2000
    assert scheme_of(uri) == scheme_of(uri).lower()
