"""YAML 1.2 as policy files use it."""

from typing import Any

import pytest

from policies.errors import PolicyError
from policies.yaml_file import Place, read_yaml


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("NO", "NO"),
        ("yes", "yes"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("0o17", 15),
        ("017", 17),
        ("0x1F", 31),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2026-11-28", "2026-11-28"),
        ("=", "="),
        ('"12"', "12"),
        ("'true'", "true"),
        ("5%", "5%"),
    ],
)
def test_core_schema(written: str, value: Any) -> None:
    """Plain values mean what YAML 1.2 says, not what YAML 1.1 said."""
    got = read_yaml(f"a: {written}\n".encode(), "a.yaml").value["a"]

    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("written", [".inf", "-.INF", ".nan", "1e999", "9" * 20, "9" * 5000])
def test_numbers_are_bounded(written: str) -> None:
    """A number that nobody can mean is refused where it stands."""
    with pytest.raises(PolicyError, match=r"a.yaml:1:4: a: .* is no number that counts here"):
        read_yaml(f"a: {written}\n".encode(), "a.yaml")


def test_places() -> None:
    """Every field has the place of its name and of its value."""
    document = read_yaml(b"\xef\xbb\xbfa:\n  - b: 1\n    c: [x, y]\n", "a.yaml")

    assert document.value == {"a": [{"b": 1, "c": ["x", "y"]}]}
    assert document.keys[("a", 0, "c")] == Place(3, 5)
    assert document.places[("a", 0, "c", 1)] == Place(3, 12)
    assert document.place(("a", 0, "d", "e")) == Place(2, 5)


def test_keys_are_text() -> None:
    """A key is text, whatever it looks like."""
    assert read_yaml(b"1: a\nNO: b\ntrue: c\n", "a.yaml").value == {
        "1": "a",
        "NO": "b",
        "true": "c",
    }
