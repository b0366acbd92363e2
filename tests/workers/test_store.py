import socket
from pathlib import Path

import pytest

from workers.errors import MediaRefusedError, MediaUnavailableError
from workers.folder import FolderStore
from workers.store import Access, S3Store, Store, open_stores


@pytest.fixture(scope="module")
def s3_store(s3_access: Access) -> S3Store:
    """Return one store for all tests here: making its client takes a while."""
    return S3Store(s3_access)


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path, s3_store: S3Store) -> tuple[Store, str]:
    """Return each kind of store and what its references start with."""
    if request.param == "folder":
        return FolderStore(tmp_path), "file:"
    return s3_store, "s3://uploads/"


def test_what_is_put_is_fetched(root: tuple[Store, str]) -> None:
    """Bytes come back as they were put, and a second put replaces them."""
    store, start = root
    store.put(f"{start}ab/cd.jpg", b"one", content_type="image/jpeg")
    store.put(f"{start}ab/cd.jpg", b"two" * 200_000)

    assert store.fetch(f"{start}ab/cd.jpg", max_bytes=600_000, timeout_s=10) == b"two" * 200_000


def test_nothing_is_zero_bytes(root: tuple[Store, str]) -> None:
    """An empty object is fetched as no bytes; judging that is not the store's."""
    store, start = root
    store.put(f"{start}empty", b"")

    assert store.fetch(f"{start}empty", max_bytes=10, timeout_s=10) == b""


def test_bytes_are_bounded(root: tuple[Store, str]) -> None:
    """One byte more than the bound is refused."""
    store, start = root
    store.put(f"{start}eleven", b"elevenbytes")

    assert store.fetch(f"{start}eleven", max_bytes=11, timeout_s=10) == b"elevenbytes"
    with pytest.raises(MediaRefusedError, match="too_large"):
        store.fetch(f"{start}eleven", max_bytes=10, timeout_s=10)


def test_missing(root: tuple[Store, str]) -> None:
    """What is not there is refused as missing."""
    store, start = root
    with pytest.raises(MediaRefusedError, match="missing"):
        store.fetch(f"{start}no/such.jpg", max_bytes=10, timeout_s=10)


def test_missing_bucket(s3_store: S3Store) -> None:
    """A bucket that is not there counts as missing."""
    with pytest.raises(MediaRefusedError, match="missing: NoSuchBucket"):
        s3_store.fetch("s3://elsewhere/a", max_bytes=10, timeout_s=10)


def test_a_usable_store_passes_its_check(root: tuple[Store, str]) -> None:
    """The check of a store that works says nothing."""
    root[0].check()


def test_stores_by_scheme(tmp_path: Path, s3_access: Access) -> None:
    """Each reference goes to the store of its scheme."""
    (tmp_path / "a").write_bytes(b"folder")
    stores = open_stores(
        Access(
            folder=tmp_path,
            endpoint=s3_access.endpoint,
            access_key="key",
            secret_key="secret",
        )
    )
    stores.put("s3://uploads/a", b"bucket")

    found = [
        stores.fetch(uri, max_bytes=10, timeout_s=10)
        for uri in ("a", "file:a", f"{tmp_path}/a", "s3://uploads/a")
    ]

    assert found == [b"folder", b"folder", b"folder", b"bucket"]
    stores.check()


@pytest.mark.parametrize("uri", ["http://a/b", "https://a/b", "ftp://a/b", "data:,a", "gopher://a"])
def test_other_schemes(uri: str) -> None:
    """No other scheme is ever fetched."""
    with pytest.raises(MediaRefusedError, match="scheme_refused"):
        open_stores(Access()).fetch(uri, max_bytes=10, timeout_s=10)


def test_no_folder_is_set() -> None:
    """A path without a media folder is refused as such."""
    with pytest.raises(MediaRefusedError, match="no_store"):
        open_stores(Access()).fetch("ab/cd.jpg", max_bytes=10, timeout_s=10)


def test_secrets_are_not_shown() -> None:
    """An access that is printed shows no key."""
    assert "hush" not in repr(Access(access_key="hush", secret_key="hush"))


def test_links_are_not_followed(tmp_path: Path) -> None:
    """No link below the folder is followed, not even one that stays inside."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a").write_bytes(b"a")
    (tmp_path / "inside").symlink_to("real")
    (tmp_path / "file").symlink_to("real/a")
    store = FolderStore(tmp_path)

    assert store.fetch("real/a", max_bytes=10, timeout_s=1) == b"a"
    for uri in ("inside/a", "file"):
        with pytest.raises(MediaRefusedError, match="outside_store"):
            store.fetch(uri, max_bytes=10, timeout_s=1)
    with pytest.raises(MediaRefusedError, match="outside_store"):
        store.put("inside/b", b"b")


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    """An operator may link the media folder; both of its names are inside."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a").write_bytes(b"a")
    (tmp_path / "linked").symlink_to("real")
    store = FolderStore(tmp_path / "linked")

    for uri in ("a", f"{tmp_path}/linked/a", f"file://{tmp_path}/real/a"):
        assert store.fetch(uri, max_bytes=10, timeout_s=1) == b"a"


def test_sockets_and_devices(tmp_path: Path) -> None:
    """A socket is no file, and neither is a device."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        with pytest.raises(MediaRefusedError, match="not_a_file"):
            FolderStore(tmp_path).fetch("s", max_bytes=10, timeout_s=1)
    with pytest.raises(MediaRefusedError, match="not_a_file"):
        FolderStore(Path("/dev")).fetch("zero", max_bytes=10, timeout_s=1)


def test_a_file_that_lies_about_its_size() -> None:
    """A file that says it has no bytes and has many is bounded all the same."""
    store = FolderStore(Path("/proc/self"))
    assert b"python" in store.fetch("maps", max_bytes=1 << 24, timeout_s=5)
    with pytest.raises(MediaRefusedError, match="too_large"):
        store.fetch("maps", max_bytes=100, timeout_s=5)


def test_no_folder(tmp_path: Path) -> None:
    """A folder that is gone is an outage, not a missing file."""
    store = FolderStore(tmp_path / "unmounted")
    with pytest.raises(MediaUnavailableError, match=r"store_unreachable.*volume"):
        store.fetch("a", max_bytes=10, timeout_s=1)
    with pytest.raises(MediaUnavailableError, match="store_unreachable"):
        store.check()


def test_a_failed_put_leaves_nothing(tmp_path: Path) -> None:
    """A put that fails leaves no half file behind."""
    (tmp_path / "taken/x").mkdir(parents=True)
    with pytest.raises(MediaUnavailableError):
        FolderStore(tmp_path).put("taken", b"bytes")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
