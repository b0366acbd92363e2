"""Media in a folder; the embedded default, also for mounted network storage."""

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final
from uuid import uuid4

from workers.errors import MediaRefusedError, MediaUnavailableError
from workers.reference import path_parts, quoted
from workers.refusal import Outage, Refusal

_CHUNK_BYTES: Final = 1 << 20
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: A pipe put in a file's place between look and open must not make us wait.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class FolderStore:
    """Reads and writes files of one folder; no symbolic link below it is followed, wherever it points."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._roots = {self._folder.parts[1:], folder.resolve().parts[1:]}

    def fetch(self, uri: str, *, max_bytes: int, timeout_s: float) -> bytes:
        """Return the bytes of the file at the reference."""
        deadline = time.monotonic() + timeout_s
        *folders, name = path_parts(uri, self._roots)
        with (
            self._errors(uri),
            self._opened(folders, uri) as folder_fd,
            _plain_file(name, folder_fd, uri) as file,
        ):
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise too_large(uri, max_bytes)
            data = file.read(size + 1)
            # Usually that was all; else the file grows while we read, or the file system lies about its size.
            while len(data) <= max_bytes and (more := file.read(_CHUNK_BYTES)):
                data += more
                if time.monotonic() > deadline:
                    raise MediaUnavailableError(Outage.TIMEOUT, f"{quoted(uri)} reads too slowly")
            if len(data) > max_bytes:
                raise too_large(uri, max_bytes)
        return data

    def put(self, uri: str, data: bytes, *, content_type: str | None = None) -> None:
        """Write the bytes to the file at the reference, and make its folders."""
        del content_type  # a folder keeps none
        *folders, name = path_parts(uri, self._roots)
        draft = f".{uuid4().hex}"
        with self._errors(uri), self._opened(folders, uri, make=True) as fd:
            with os.fdopen(os.open(draft, _NEW_FILE, 0o644, dir_fd=fd), "wb") as file:
                file.write(data)
            try:
                os.replace(draft, name, src_dir_fd=fd, dst_dir_fd=fd)
            except OSError:
                os.unlink(draft, dir_fd=fd)
                raise

    def check(self) -> None:
        """Raise `MediaUnavailableError` if the folder is not there or cannot be read."""
        if not self._folder.is_dir() or not os.access(self._folder, os.R_OK | os.X_OK):
            raise self._gone()

    @contextmanager
    def _opened(self, folders: list[str], uri: str, *, make: bool = False) -> Iterator[int]:
        """Open one folder after the other from the top, so that no link can be slipped in between."""
        try:
            fd = os.open(self._folder, _FOLDER)
        except OSError:
            raise self._gone() from None
        try:
            for name in folders:
                if make:
                    _make_folder(name, fd)
                if stat.S_ISLNK(os.lstat(name, dir_fd=fd).st_mode):
                    raise MediaRefusedError(
                        Refusal.OUTSIDE_STORE, f"a link on the way to {quoted(uri)}"
                    )
                below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=fd)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _errors(self, uri: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            raise MediaRefusedError(Refusal.MISSING, f"no file {quoted(uri)}") from None
        except PermissionError:
            raise MediaUnavailableError(
                Outage.DENIED, f"no permission for {quoted(uri)} in the media folder"
            ) from None
        except OSError as error:
            if error.errno in {errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}:
                raise MediaRefusedError(Refusal.BAD_URI, f"{error.strerror}") from None
            raise MediaUnavailableError(Outage.ERROR, f"{error.strerror}") from error

    def _gone(self) -> MediaUnavailableError:
        return MediaUnavailableError(
            Outage.UNREACHABLE, f"no readable media folder {self._folder}; is its volume mounted?"
        )


def too_large(uri: str, max_bytes: int) -> MediaRefusedError:
    """Return the error for a reference that holds more bytes than it may."""
    return MediaRefusedError(Refusal.TOO_LARGE, f"more than {max_bytes:,} bytes at {quoted(uri)}")


@contextmanager
def _plain_file(name: str, folder_fd: int, uri: str) -> Iterator[BinaryIO]:
    # Looked at before it is opened: opening a device may already do something.
    mode = os.lstat(name, dir_fd=folder_fd).st_mode
    if stat.S_ISLNK(mode):
        raise MediaRefusedError(Refusal.OUTSIDE_STORE, f"{quoted(uri)} is a link")
    if not stat.S_ISREG(mode):
        raise MediaRefusedError(Refusal.NOT_A_FILE, f"{quoted(uri)} is no plain file")
    with os.fdopen(os.open(name, _FILE, dir_fd=folder_fd), "rb", buffering=0) as file:
        # And after: something else may have taken its place.
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise MediaRefusedError(Refusal.NOT_A_FILE, f"{quoted(uri)} is no plain file")
        yield file


def _make_folder(name: str, fd: int) -> None:
    try:
        os.mkdir(name, dir_fd=fd)
    except FileExistsError:
        return
