import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from workers.errors import MediaRefusedError, MediaUnavailableError, WorkerError
from workers.store import Access, S3Store

ENOUGH = 100_000


class Misbehaving(ThreadingHTTPServer):
    """An S3 that does wrong, in a way that the key names."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.asked: Counter[str] = Counter()
        self.other: str = ""

    def address(self) -> str:
        """Return where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Misbehaving
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Do wrong."""
        name = self.path.partition("?")[0].rpartition("/")[2]
        self.server.asked[name] += 1
        if action := getattr(self, f"answer_{name}", None):
            try:
                action()
            except OSError:
                return  # the client left, as it should
        else:
            self._says(int(name))

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _says(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer_silence(self) -> None:
        """Never answer."""
        time.sleep(20)

    def answer_slow_headers(self) -> None:
        """Send the headers one byte at a time."""
        for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 200:
            self.wfile.write(bytes([byte]))
            time.sleep(0.1)

    def answer_drip(self) -> None:
        """Send the body one byte at a time."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        for _ in range(200):
            self.wfile.write(b"x")
            time.sleep(0.1)

    def answer_cut(self) -> None:
        """Hang up half way."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 500)
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def answer_endless(self) -> None:
        """Send chunks for ever."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while True:
            self.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

    def answer_claims(self) -> None:
        """Claim a terabyte."""
        self.send_response(200)
        self.send_header("Content-Length", str(1 << 40))
        self.end_headers()
        self.wfile.write(b"x" * 1000)

    def answer_redirect(self) -> None:
        """Send the client elsewhere."""
        self._says(307, Location=f"{self.server.other}/uploads/secret")

    def answer_moved(self) -> None:
        """Say that the bucket lies in another region, as S3 does."""
        self._says(
            301,
            b"<Error><Code>PermanentRedirect</Code><Endpoint>"
            + self.server.other.removeprefix("http://").encode()
            + b"</Endpoint></Error>",
            x_amz_bucket_region="eu-west-1",
            Location=f"{self.server.other}/uploads/secret",
        )

    def answer_recovers(self) -> None:
        """Fail once."""
        if self.server.asked["recovers"] == 1:
            self._says(503)
        else:
            self._says(200, b"fine")

    def answer_nonsense(self) -> None:
        """Speak no HTTP."""
        self.wfile.write(b"\x00\xff SSH-2.0\r\n\r\n")
        self.close_connection = True

    def answer_secret(self) -> None:
        """Give what must not be asked for."""
        self._says(200, b"secret")


@pytest.fixture(scope="module")
def misbehaving() -> Iterator[Misbehaving]:
    """Return an S3 that does wrong, beside one that must not be asked."""
    servers = [Misbehaving(), Misbehaving()]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    servers[0].other = servers[1].address()
    yield servers[0]
    asked_elsewhere = servers[1].asked.total()
    for server in servers:
        server.shutdown()
        server.server_close()
    assert asked_elsewhere == 0


@pytest.fixture(scope="module")
def fetch(misbehaving: Misbehaving) -> Callable[..., bytes]:
    """Return how to fetch from it by the name of the wrong."""
    store = S3Store(Access(endpoint=misbehaving.address(), access_key="k", secret_key="s"))

    def fetch(name: str, timeout_s: float = 10.0) -> bytes:
        return store.fetch(f"s3://uploads/{name}", max_bytes=ENOUGH, timeout_s=timeout_s)

    return fetch


@pytest.mark.parametrize("name", ["silence", "slow_headers", "drip"])
def test_slow_answers(fetch: Callable[..., bytes], name: str) -> None:
    """However slowly the bytes come, the fetch ends on time."""
    started_s = time.monotonic()
    with pytest.raises(MediaUnavailableError, match="store_timeout"):
        fetch(name, timeout_s=1.0)
    assert time.monotonic() - started_s < 15


@pytest.mark.parametrize(
    ("name", "kind", "reason", "tries"),
    [
        ("cut", MediaUnavailableError, "store_error", 3),
        ("500", MediaUnavailableError, "store_error", 3),
        ("503", MediaUnavailableError, "store_error", 3),
        ("429", MediaUnavailableError, "store_error", 3),
        ("nonsense", MediaUnavailableError, "store_", 3),
        ("redirect", MediaUnavailableError, "store_error", 3),
        ("401", MediaUnavailableError, "store_denied", 1),
        ("403", MediaUnavailableError, "store_denied", 1),
        ("404", MediaRefusedError, "missing", 1),
        ("410", MediaRefusedError, "missing", 1),
        ("endless", MediaRefusedError, "too_large", 1),
        ("claims", MediaRefusedError, "too_large", 1),
    ],
)
def test_wrong_answers(
    misbehaving: Misbehaving,
    fetch: Callable[..., bytes],
    name: str,
    kind: type[WorkerError],
    reason: str,
    tries: int,
) -> None:
    """Each wrong answer has its reason; only failures of the store are tried again, and not for ever."""
    with pytest.raises(kind, match=reason):
        fetch(name)
    assert misbehaving.asked[name] == tries


def test_another_region(fetch: Callable[..., bytes]) -> None:
    """An answer that sends us to another region's host is an outage; that host is not asked."""
    with pytest.raises(MediaUnavailableError, match="store_error"):
        fetch("moved")


def test_a_store_that_recovers(misbehaving: Misbehaving, fetch: Callable[..., bytes]) -> None:
    """A failure that passes is not seen."""
    assert fetch("recovers") == b"fine"
    assert misbehaving.asked["recovers"] == 2


def test_waiting_fetches_do_not_block_others(misbehaving: Misbehaving) -> None:
    """Fetches that nobody waits for any more leave room for others, up to a bound that is an outage too."""
    store = S3Store(Access(endpoint=misbehaving.address(), access_key="k", secret_key="s"))
    for _ in range(3):
        with pytest.raises(MediaUnavailableError, match="store_timeout"):
            store.fetch("s3://uploads/silence", max_bytes=ENOUGH, timeout_s=0.1)
    assert store.fetch("s3://uploads/secret", max_bytes=ENOUGH, timeout_s=10) == b"secret"
    before = threading.active_count()
    for _ in range(40):
        with pytest.raises(MediaUnavailableError, match="store_timeout"):
            store.fetch("s3://uploads/silence", max_bytes=ENOUGH, timeout_s=0.02)
    assert threading.active_count() < before + 2 * 16  # ours, and the server's


def test_nobody_listens() -> None:
    """A store that nobody runs is unreachable, for a fetch and for its check."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    store = S3Store(Access(endpoint=f"http://127.0.0.1:{port}", access_key="k", secret_key="s"))
    with pytest.raises(MediaUnavailableError, match="store_unreachable"):
        store.fetch("s3://uploads/a", max_bytes=10, timeout_s=5)
    with pytest.raises(MediaUnavailableError, match="store_unreachable"):
        store.check()


def test_no_credentials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object, misbehaving: Misbehaving
) -> None:
    """Without credentials the error says which settings to set."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{tmp_path}/none")
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{tmp_path}/none")
    store = S3Store(Access(endpoint=misbehaving.address()))
    with pytest.raises(MediaUnavailableError, match=r"store_denied.*access_key"):
        store.fetch("s3://uploads/secret", max_bytes=10, timeout_s=5)
