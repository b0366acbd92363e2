import csv
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data.hostile import HOSTILE, Hostile, animated, gif, photo, saved
from workers.bounds import Bounds
from workers.errors import MediaRefusedError, MediaUnavailableError, WorkerError
from workers.media import Prepared, prepare
from workers.refusal import Outage, Refusal
from workers.store import Access, S3Store, Store, Stores, open_stores
from workers.upload import Location, Upload

#: Pillow warns of what is broken and goes on, as it shall.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

HOUSE = Path(__file__).resolve().parents[2]
SHARED = HOUSE.parent / "shared" / "data"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the media folder."""
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def stores(folder: Path) -> Stores:
    """Return a media folder, and an S3 on which nobody listens."""
    return open_stores(
        Access(folder=folder, endpoint="http://127.0.0.1:9", access_key="k", secret_key="s")
    )


def _upload(*media: Location) -> Upload:
    return Upload(key=1, media=media)


def _tried(
    location: Location, store: Store, bounds: Bounds | None = None
) -> Prepared | WorkerError:
    try:
        return prepare(_upload(location), store, bounds or Bounds())
    except (MediaRefusedError, MediaUnavailableError) as error:
        return error


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name)
def test_hostile_media(hostile: Hostile, folder: Path, stores: Stores) -> None:
    """Each hostile medium is refused with its reason, or judged where it is only odd."""
    prepared = _tried(hostile.lay(folder), stores)
    if hostile.expected is None:
        assert isinstance(prepared, Prepared)
        assert 1 <= len(prepared.pictures) <= Bounds().max_frames
    else:
        assert isinstance(prepared, WorkerError)
        assert prepared.reason == hostile.expected
        assert prepared.media == 0
        assert len(prepared.detail) <= 400
        words = Outage if isinstance(prepared, MediaUnavailableError) else Refusal
        assert prepared.reason in set(words)


def test_the_table_is_large() -> None:
    """There are more than forty hostile media, and nearly every refusal is among their reasons."""
    reasons = {hostile.expected for hostile in HOSTILE}
    assert len({hostile.name for hostile in HOSTILE}) == len(HOSTILE) >= 40
    # The rest has tests of its own.
    assert set(Refusal) - reasons == {"no_store", "too_many_media", "animation_too_long"}


def test_a_whole_upload(folder: Path, stores: Stores) -> None:
    """Pictures say which medium they are of; digests and stages are told."""
    still, moving = saved(photo(), "JPEG"), animated("GIF", frames=2)
    (folder / "still").write_bytes(still)
    (folder / "moving").write_bytes(moving)

    prepared = prepare(
        _upload(
            Location(uri="still", sha256=sha256(still).hexdigest().upper()), Location(uri="moving")
        ),
        stores,
        Bounds(),
    )

    assert [(p.media, p.time_s) for p in prepared.pictures] == [(0, None), (1, 0.0), (1, 0.1)]
    assert prepared.media_digests == tuple(
        f"sha256:{sha256(data).hexdigest()}" for data in (still, moving)
    )
    assert [name for name, _ in prepared.stages_ms] == ["fetch", "decode"]
    assert len(prepared.perceptual_hashes) == 2
    assert all(ms > 0 for _, ms in prepared.stages_ms)


def test_no_media(stores: Stores) -> None:
    """An upload with a caption only has no pictures."""
    assert prepare(_upload(), stores, Bounds()) == Prepared()


def test_the_medium_at_fault_is_named(folder: Path, stores: Stores) -> None:
    """The error says which of several media it is about."""
    (folder / "good").write_bytes(saved(photo(), "PNG"))
    with pytest.raises(MediaRefusedError) as refused:
        prepare(_upload(Location(uri="good"), Location(uri="none")), stores, Bounds())
    assert (refused.value.reason, refused.value.media) == ("missing", 1)


def test_too_many_media(stores: Stores) -> None:
    """Too many media are refused before any is fetched."""
    with pytest.raises(MediaRefusedError, match="too_many_media"):
        prepare(_upload(*[Location(uri="none")] * 11), stores, Bounds())


def test_media_of_an_upload_share_the_time(folder: Path, stores: Stores) -> None:
    """No time is left for the second medium where the first took it all."""
    (folder / "good").write_bytes(saved(photo(), "PNG"))
    with pytest.raises(MediaUnavailableError, match="store_timeout") as unavailable:
        prepare(_upload(*[Location(uri="good")] * 2), stores, Bounds(fetch_timeout_s=1e-9))
    assert unavailable.value.media == 1


def test_pictures_of_many_media_are_bounded_together(folder: Path, stores: Stores) -> None:
    """However many media an upload has, its pictures together are bounded."""
    (folder / "large").write_bytes(saved(photo(600, 600), "PNG"))
    bounds = Bounds(max_side=300)
    for media in (1, 4, 10):
        prepared = prepare(_upload(*[Location(uri="large")] * media), stores, bounds)
        assert sum(p.pixels.size // 3 for p in prepared.pictures) <= 4 * 300**2


def test_from_s3(s3_access: Access) -> None:
    """Media come from S3 the same way."""
    store = S3Store(s3_access)
    data = saved(photo(), "WEBP")
    store.put("s3://uploads/a.webp", data)
    location = Location(uri="s3://uploads/a.webp", sha256=sha256(data).hexdigest())
    assert len(prepare(_upload(location), store, Bounds()).pictures) == 1
    with pytest.raises(MediaRefusedError, match="wrong_digest"):
        prepare(_upload(Location(uri="s3://uploads/a.webp", sha256="0" * 64)), store, Bounds())


VALID = {
    "jpeg": saved(photo(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"),
    "progressive": saved(photo(), "JPEG", progressive=True),
    "png": saved(photo().quantize(16), "PNG"),
    "apng": animated("PNG"),
    "gif": animated("GIF"),
    "webp": saved(photo(), "WEBP", lossless=True),
    "animated-webp": animated("WEBP"),
    "avif": saved(photo(), "AVIF"),
    "bmp": saved(photo().quantize(16), "BMP"),
}


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    """Return a valid file with some bytes changed, repeated, moved or cut."""
    data = bytearray(VALID[draw(st.sampled_from(sorted(VALID)))])
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, min(len(data) - 1, 400)) | st.integers(0, len(data) - 1))
        length = draw(st.integers(1, 12))
        match draw(st.sampled_from(["set", "drop", "repeat", "extreme", "cut"])):
            case "set":
                data[at : at + length] = draw(st.binary(min_size=length, max_size=length))
            case "drop":
                del data[at : at + length]
            case "repeat":
                data[at:at] = data[at : at + length] * draw(st.integers(1, 20))
            case "extreme":
                data[at : at + length] = draw(st.sampled_from([b"\0", b"\xff", b"\x7f"])) * length
            case _:
                del data[max(at, 20) :]
        if not data:
            data = bytearray(b"\0")
    return bytes(data)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=_mutated())
def test_mutations(folder: Path, stores: Stores, data: bytes) -> None:
    """Whatever is done to a valid file, it is decoded or refused, and within its bounds."""
    (folder / "mutated").write_bytes(data)
    bounds = Bounds(max_pixels=1_000_000, max_side=64)
    prepared = _tried(Location(uri="mutated"), stores, bounds)
    if isinstance(prepared, Prepared):
        assert prepared.pictures
        for picture in prepared.pictures:
            assert 0 < max(picture.pixels.shape[:2]) <= 64
    else:
        assert type(prepared) is MediaRefusedError
        assert prepared.reason in set(Refusal)


def _baselines() -> Iterator[tuple[str, str, str]]:
    for name in ("malformed-pillow", "media-torchcodec"):
        if (SHARED / name / "baseline.tsv").exists():
            with (SHARED / name / "baseline.tsv").open(newline="") as file:
                for row in csv.DictReader(file, delimiter="\t"):
                    yield name, row["file"], row["sha256"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_malformed_files_of_others() -> None:
    """Other projects' odd and broken files are decoded or refused; two out of three images are decoded."""
    outcomes: list[str] = []
    for name, file, digest in _baselines():
        stores = open_stores(Access(folder=SHARED / name))
        prepared = _tried(Location(uri=quote(file), sha256=digest), stores)
        outcomes.append(prepared.reason if isinstance(prepared, WorkerError) else "decoded")
    assert len(outcomes) >= 180
    assert outcomes.count("decoded") >= 120
    assert "wrong_digest" not in outcomes
    assert "missing" not in outcomes


#: Prepares all files of a folder at once, in a process of its own, and tells by how much its memory peaked.
_PEAK = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from workers.bounds import Bounds
from workers.errors import WorkerError
from workers.media import prepare
from workers.store import Access, open_stores
from workers.upload import Location, Upload

def peak_bytes():
    # Not `ru_maxrss`, which begins at the size of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

def tried(name):
    try:
        prepare(Upload(key=1, media=(Location(uri=name),)), stores, Bounds())
        return "decoded"
    except WorkerError as error:
        return error.reason

folder = Path(sys.argv[1])
stores = open_stores(Access(folder=folder))
assert tried("idle.png") == "decoded"
idle = peak_bytes()
with ThreadPoolExecutor(8) as threads:
    names = sorted(path.name for path in folder.iterdir())
    for name, outcome in zip(names, threads.map(tried, names), strict=True):
        print(name, outcome)
print("peak", peak_bytes() - idle)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's account of memory")
def test_memory_is_bounded(tmp_path: Path) -> None:
    """Bombs and the largest pictures that are allowed, eight at once, keep a worker under 1 GB above idle."""
    (tmp_path / "idle.png").write_bytes(saved(photo(), "PNG"))
    for hostile in HOSTILE:
        if hostile.expected in {"too_many_pixels", "too_complex", "too_large"}:
            hostile.lay(tmp_path)
    size = (7000, 7000)
    large = Image.new("RGB", size, "red")
    (tmp_path / "large.jpg").write_bytes(saved(large, "JPEG", progressive=True))
    (tmp_path / "large.webp").write_bytes(saved(large.crop((0, 0, 5000, 5000)), "WEBP", method=0))
    large.putalpha(200)
    (tmp_path / "large.png").write_bytes(saved(large, "PNG", compress_level=1))
    (tmp_path / "large2.png").write_bytes((tmp_path / "large.png").read_bytes())
    (tmp_path / "animated.gif").write_bytes(gif(3500, 3500, 3))
    del large

    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PEAK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=HOUSE,
        timeout=200,
    ).stdout.splitlines()

    outcomes = dict(line.split() for line in told)
    peak_bytes = int(outcomes.pop("peak"))
    assert [name for name, outcome in outcomes.items() if outcome == "decoded"] == [
        *("animated.gif", "idle.png", "large.jpg", "large.png", "large.webp"),
        "large2.png",
    ]
    assert 300_000_000 < peak_bytes < 1_000_000_000


def test_many_frames_take_seconds_at_most(folder: Path, stores: Stores) -> None:
    """A thousand frames are looked at in CPU seconds, not minutes."""
    (folder / "frames.gif").write_bytes(gif(64, 64, 1000))
    started_s = time.thread_time()
    prepare(_upload(Location(uri="frames.gif")), stores, Bounds())
    assert time.thread_time() - started_s < 8
