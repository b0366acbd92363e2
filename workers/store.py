"""Where media lie: one small protocol over S3 (through boto3, imported here only) and a folder.

Which references there are says `reference.py`. Which buckets may be read is up to the credentials.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from workers.errors import MediaRefusedError, MediaUnavailableError, WorkerError
from workers.folder import FolderStore, too_large
from workers.reference import bucket_and_key, quoted, scheme_of
from workers.refusal import Outage, Refusal

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CHUNK_BYTES: Final = 1 << 18
_CONNECT_TIMEOUT_S: Final = 2.0
#: The longest silence inside one answer; whoever waits for it may have given up before.
_READ_TIMEOUT_S: Final = 10.0
#: How often one fetch is tried, within its time, while the store fails.
_TRIES: Final = 3
_FIRST_PAUSE_S: Final = 0.05
#: How many fetches run at once in one process, those included that nobody waits for any more.
_AT_ONCE: Final = 16
#: Codes that say the same at every try, beside the refusals of a key.
_MISSING: Final = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "404", "410"})
_BAD_KEY: Final = frozenset({"KeyTooLongError", "InvalidBucketName", "InvalidURI"})


class Store(Protocol):
    """Reads and writes media by reference; may be shared between threads."""

    def fetch(self, uri: str, *, max_bytes: int, timeout_s: float) -> bytes:
        """Return the bytes at the reference.

        Raises:
            MediaRefusedError: The reference, or what lies there, is not for us; its reason is a `Refusal`.
            MediaUnavailableError: The store could not deliver in time; its reason is an `Outage`.
        """
        ...

    def put(self, uri: str, data: bytes, *, content_type: str | None = None) -> None:
        """Write the bytes to the reference; readers see all of them or what was there before."""
        ...

    def check(self) -> None:
        """Raise `MediaUnavailableError`, which says what to mend, if the store cannot be used."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What it takes to reach the media; plain values, so that it can be sent to actors.

    With no `access_key` boto3 looks for credentials where it always does: an instance role, its own files.
    """

    folder: Path | None = None
    endpoint: str | None = None
    region: str = "us-east-1"
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)


class Stores:
    """Takes each reference to the store of its scheme; itself a store."""

    def __init__(self, by_scheme: Mapping[str, Store]) -> None:
        self._by_scheme = dict(by_scheme)

    def store_for(self, uri: str) -> Store:
        """Return the store that the reference belongs to."""
        scheme = scheme_of(uri)
        if store := self._by_scheme.get(scheme):
            return store
        if scheme in {"", "file", "s3"}:
            raise MediaRefusedError(Refusal.NO_STORE, f"no store is set for {quoted(uri)}")
        raise MediaRefusedError(
            Refusal.SCHEME_REFUSED, f"only s3: and file: are fetched, not {quoted(uri)}"
        )

    def fetch(self, uri: str, *, max_bytes: int, timeout_s: float) -> bytes:
        """Return the bytes at the reference, from the store of its scheme."""
        return self.store_for(uri).fetch(uri, max_bytes=max_bytes, timeout_s=timeout_s)

    def put(self, uri: str, data: bytes, *, content_type: str | None = None) -> None:
        """Write the bytes to the reference, in the store of its scheme."""
        self.store_for(uri).put(uri, data, content_type=content_type)

    def check(self) -> None:
        """Raise for the first store that cannot be used."""
        for store in dict.fromkeys(self._by_scheme.values()):
            store.check()


def open_stores(access: Access) -> Stores:
    """Return the stores that the access reaches; none is connected to before its first use."""
    stores: dict[str, Store] = {"s3": S3Store(access)}
    if access.folder is not None:
        stores[""] = stores["file"] = FolderStore(access.folder)
    return Stores(stores)


class S3Store:
    """Media in the buckets of one S3 endpoint; asks that endpoint only and follows no redirect."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._made: S3Client | None = None
        self._making = threading.Lock()
        self._slots = threading.BoundedSemaphore(_AT_ONCE)

    def fetch(self, uri: str, *, max_bytes: int, timeout_s: float) -> bytes:
        """Return the bytes of the object at the reference."""
        bucket, key = bucket_and_key(uri)
        deadline = time.monotonic() + timeout_s
        late = MediaUnavailableError(
            Outage.TIMEOUT, f"{quoted(uri)} did not arrive within {timeout_s:g} s"
        )

        def read() -> bytes:
            return self._read(bucket, key, uri, max_bytes=max_bytes, deadline=deadline)

        # Socket timeouts restart with every byte; a wall-clock bound that also holds for a store that drips its
        # headers needs somebody outside who waits.
        if not self._slots.acquire(timeout=timeout_s):
            raise late
        results: SimpleQueue[bytes | BaseException] = SimpleQueue()
        threading.Thread(target=self._run, args=(read, results), daemon=True).start()
        try:
            result = results.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            raise late from None
        if isinstance(result, BaseException):
            raise result
        return result

    def put(self, uri: str, data: bytes, *, content_type: str | None = None) -> None:
        """Write the bytes to the object at the reference; its bucket must exist."""
        bucket, key = bucket_and_key(uri)
        kind: Any = {"ContentType": content_type} if content_type else {}
        with _errors(uri):
            self._client().put_object(Bucket=bucket, Key=key, Body=data, **kind)

    def check(self) -> None:
        """Raise `MediaUnavailableError` if the endpoint does not answer or rejects the credentials."""
        try:
            with _errors(self._access.endpoint or "S3"):
                self._client().list_buckets()
        except MediaUnavailableError as error:
            # Credentials that may read objects only need not be allowed to list buckets.
            if not error.detail.startswith("AccessDenied"):
                raise

    def _run(self, read: Callable[[], bytes], results: SimpleQueue[bytes | BaseException]) -> None:
        try:
            results.put(read())
        except BaseException as error:  # noqa: BLE001 -- raised again by the thread that waits
            results.put(error)
        finally:
            self._slots.release()

    def _read(self, bucket: str, key: str, uri: str, *, max_bytes: int, deadline: float) -> bytes:
        for number in range(_TRIES):
            try:
                with _errors(uri):
                    return self._read_once(bucket, key, uri, max_bytes, deadline)
            except MediaUnavailableError as error:
                pause_s = _FIRST_PAUSE_S * 2**number * random.uniform(1.0, 2.0)  # noqa: S311 -- only spreads the tries
                final = error.reason in {Outage.DENIED, Outage.TIMEOUT} or number == _TRIES - 1
                if final or time.monotonic() + pause_s > deadline:
                    raise
                time.sleep(pause_s)
        raise AssertionError

    def _read_once(self, bucket: str, key: str, uri: str, max_bytes: int, deadline: float) -> bytes:
        answer = self._client().get_object(Bucket=bucket, Key=key)
        length = answer.get("ContentLength")
        # The raw answer, because `StreamingBody.read(n)` waits until it has n bytes, however slowly they come.
        raw = cast("Any", answer["Body"])._raw_stream  # noqa: SLF001
        with _closing_unread(raw):
            if length is not None and length > max_bytes:
                raise too_large(uri, max_bytes)
            chunks, size = [], 0
            while chunk := raw.read1(_CHUNK_BYTES):
                chunks.append(chunk)
                size += len(chunk)
                if size > max_bytes:
                    raise too_large(uri, max_bytes)
                if time.monotonic() > deadline:
                    raise MediaUnavailableError(Outage.TIMEOUT, f"{quoted(uri)} drips")
        if length is not None and size != length:
            raise MediaUnavailableError(
                Outage.ERROR, f"{size:,} of {length:,} bytes of {quoted(uri)} arrived"
            )
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _client(self) -> "S3Client":
        with self._making:
            if self._made is None:
                self._made = _new_client(self._access)
            return self._made


def _new_client(access: Access) -> "S3Client":
    import boto3
    from botocore.config import Config

    # boto3's default session must not be shared between threads while a client is made.
    return boto3.session.Session().client(
        "s3",
        endpoint_url=access.endpoint,
        region_name=access.region,
        aws_access_key_id=access.access_key,
        aws_secret_access_key=access.secret_key,
        config=Config(
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=_READ_TIMEOUT_S,
            retries={"total_max_attempts": 1},  # tried again here, within the fetch's own time
            max_pool_connections=_AT_ONCE,
            # Endpoints of other makers know neither virtual hosts nor the newer checksums.
            s3={"addressing_style": "path" if access.endpoint else "auto"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@contextmanager
def _closing_unread(raw: Any) -> Iterator[None]:
    """Give the connection back after a whole answer, and close it after anything less."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            raw.close()
        raise
    raw.release_conn()


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    """Turn what boto3 and its HTTP client raise into the two errors that callers know."""
    import urllib3.exceptions as http
    from botocore import exceptions as boto

    try:
        yield
    except WorkerError:
        raise
    except boto.ClientError as error:
        raise _of_answer(error.response, uri) from None
    except (boto.ParamValidationError, boto.UnsupportedS3ArnError) as error:
        raise MediaRefusedError(Refusal.BAD_URI, f"{quoted(uri)}: {error}"[:300]) from None
    except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError):
        raise MediaUnavailableError(
            Outage.DENIED, "no S3 credentials; set the store's access_key and secret_key"
        ) from None
    except (boto.ReadTimeoutError, http.ReadTimeoutError) as error:
        raise MediaUnavailableError(Outage.TIMEOUT, f"the store fell silent: {error}") from None
    except (boto.ConnectionError, boto.EndpointConnectionError) as error:
        raise MediaUnavailableError(Outage.UNREACHABLE, f"{error}"[:300]) from None
    except (boto.BotoCoreError, http.HTTPError, OSError, ValueError) as error:
        raise MediaUnavailableError(Outage.ERROR, f"{error}"[:300]) from error


def _of_answer(answer: Mapping[str, Any], uri: str) -> WorkerError:
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(answer.get("Error", {}).get("Code", status))
    detail = f"{code} ({status}) at {quoted(uri)}"
    if code in _MISSING or status in {404, 410}:
        return MediaRefusedError(Refusal.MISSING, detail)
    if code in _BAD_KEY:
        return MediaRefusedError(Refusal.BAD_URI, detail)
    if status in {401, 403}:
        return MediaUnavailableError(Outage.DENIED, detail)
    return MediaUnavailableError(Outage.ERROR, detail)
