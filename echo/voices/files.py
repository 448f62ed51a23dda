"""Writing voice files so that nobody ever sees half of one."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from echo.errors import StorageError

PART = ".clone-part-"  # first letters of files not yet complete
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)

_LOCK = ".clones.lock"


class FolderTurns:
    """Turns among all writers of a folder, threads and processes alike."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """The turn of this thread; makes the folder. OSErrors of the body become StorageErrors."""
        try:
            with self._lock:
                self._folder.mkdir(parents=True, exist_ok=True)
                with (self._folder / _LOCK).open("ab") as file:
                    _wait_for_lock(file)
                    yield
        except OSError as error:
            message = f"the voices folder {self._folder.name} can't be written: {error.strerror}"
            raise StorageError(message) from error


@contextmanager
def hidden_part(folder: Path, data: bytes) -> Iterator[Path]:
    """A hidden file with ``data``, safely on the disk, gone afterwards."""
    handle, name = tempfile.mkstemp(prefix=PART, dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644) if hasattr(os, "fchmod") else None
            os.fsync(file.fileno())
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make names as durable as contents, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _wait_for_lock(file: IO[bytes]) -> None:
    """Held until ``file`` is closed, also by the death of the process."""
    try:
        import fcntl
    except ImportError:  # Windows: links alone then keep two processes apart
        return
    fcntl.flock(file, fcntl.LOCK_EX)
