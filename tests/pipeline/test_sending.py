"""What a folder of media and captions becomes when it is sent."""

import json
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.sending import Parcel, parcels


def write(folder: Path, **files: str) -> Path:
    """Write files whose names are given with `__` for a dot."""
    for name, text in files.items():
        path = folder / name.replace("__", ".").replace("_in_", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def named(found: list[Parcel]) -> dict[str, Parcel]:
    """Return the parcels by name."""
    return {parcel.name: parcel for parcel in found}


def test_a_text_file_is_the_caption_of_the_medium_of_its_name(tmp_path: Path) -> None:
    """`cat.txt` beside `cat.jpg` is its caption and no upload of its own."""
    write(tmp_path, cat__jpg="…", cat__txt=" my cat \n")

    (parcel,) = parcels([tmp_path])

    assert parcel.name == "cat"
    assert parcel.media == (tmp_path / "cat.jpg",)
    assert parcel.beside.text == "my cat"


def test_a_json_file_says_more(tmp_path: Path) -> None:
    """`cat.json` carries context and reports, and the caption of `cat.txt` still counts."""
    beside = {"context": {"surface": "feed"}, "reports": [{"category": "violence"}]}
    write(tmp_path, cat__jpg="…", cat__txt="my cat", cat__json=json.dumps(beside))

    (parcel,) = parcels([tmp_path])

    assert parcel.beside.context == {"surface": "feed"}
    assert parcel.beside.reports[0].category == "violence"
    assert parcel.beside.text == "my cat"


def test_text_without_a_medium_is_an_upload(tmp_path: Path) -> None:
    """A caption may be all that there is."""
    write(tmp_path, hello__txt="hello")

    (parcel,) = parcels([tmp_path])

    assert parcel.media == ()
    assert parcel.beside.text == "hello"


def test_a_json_file_may_name_several_media(tmp_path: Path) -> None:
    """Media that an upload names are not sent a second time as uploads of their own."""
    write(tmp_path, a__jpg="…", b__jpg="…", both__json=json.dumps({"media": ["a.jpg", "b.jpg"]}))

    (parcel,) = parcels([tmp_path])

    assert [path.name for path in parcel.media] == ["a.jpg", "b.jpg"]


def test_media_of_one_stem_are_two_uploads(tmp_path: Path) -> None:
    """`a.jpg` and `a.png` are told apart and share the caption that lies beside both."""
    write(tmp_path, a__jpg="…", a__png="…", a__txt="both")

    found = named(parcels([tmp_path]))

    assert set(found) == {"a.jpg", "a.png"}
    assert {parcel.beside.text for parcel in found.values()} == {"both"}


def test_folders_are_read_to_the_bottom_and_readmes_left_out(tmp_path: Path) -> None:
    """Names say in which folder a medium lies; hidden files and READMEs are nobody's upload."""
    write(tmp_path, README__md="…", __hidden="…", deep_in_a__jpg="…", deep_in_b_in_c__jpg="…")

    assert set(named(parcels([tmp_path]))) == {"deep/a", "deep/b/c"}


def test_a_single_file_takes_what_lies_beside_it(tmp_path: Path) -> None:
    """Sending one medium sends its caption, and nothing of its neighbours."""
    write(tmp_path, a__jpg="…", a__txt="mine", b__jpg="…")

    (parcel,) = parcels([tmp_path / "a.jpg"])

    assert parcel.beside.text == "mine"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a__json": "{"}, "a.json"),
        ({"a__json": '{"contxt": {}}'}, "contxt"),
        ({"a__json": '{"media": ["gone.jpg"]}'}, "gone.jpg"),
        ({}, "nothing to send"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, files: dict[str, str], says: str) -> None:
    """What cannot be sent is refused before anything is sent, with the name of what is wrong."""
    write(tmp_path, **files)

    with pytest.raises(PipelineError, match=says):
        parcels([tmp_path])
