"""A flat folder of small files that several machines share: a directory, or any fsspec URL.

Readers see whole files only and a created one is never overwritten, wherever the place can do that:

- directories on file systems with hard links (local disks, NFS): both;
- directories without: whole files; of two writers of one name in the same instant the last wins;
- S3, Google Cloud Storage, Azure and whatever else writes whole objects and has a conditional
  write that its fsspec driver uses for ``mode="create"``: both;
- other drivers look before they write: of two writers in the same instant the last wins.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from echo.errors import ConfigError, StorageError
from echo.voices.files import NO_LINKS, hidden_part

_CHANGES = ("ETag", "etag", "md5Hash", "generation", "mtime", "last_modified", "LastModified")


@dataclass(frozen=True)
class Listed:
    """A file as a listing tells of it. ``version`` differs when the content does."""

    size: int
    version: str


class Shelf(Protocol):
    """The shared folder. Thread-safe. What fails raises StorageError, unless said otherwise."""

    def list(self) -> dict[str, Listed]:
        """Its files by name, hidden ones left out; a folder that was never there has none."""

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""

    def create(self, name: str, data: bytes) -> None:
        """Raises FileExistsError."""

    def put(self, name: str, data: bytes) -> None:
        """Create or replace."""

    def remove(self, name: str) -> None:
        """Nothing happens if it is gone."""


def open_shelf(url: str) -> Shelf:
    """The shelf at ``url``: a folder's path, ``file://…``, or what fsspec has a driver for.

    Raises ConfigError where the driver is not installed or the URL is none.
    """
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    try:
        system, root = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"voices.shared: {error}", param="voices.shared") from error
    if isinstance(system, LocalFileSystem):
        return FolderShelf(Path(root))
    return ObjectShelf(system, root)


class FolderShelf:
    """A directory that all machines have mounted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = False

    def list(self) -> dict[str, Listed]:
        try:
            with self._told(), os.scandir(self._folder) as entries:
                files = {e.name: _still_there(e) for e in entries if not e.name.startswith(".")}
        except FileNotFoundError:
            if self._seen:  # a mount that went away is no empty shelf
                message = f"the shared voices in {self._folder} are gone; is it mounted?"
                raise StorageError(message) from None
            return {}
        self._seen = True
        return {name: listed for name, listed in files.items() if listed is not None}

    def read(self, name: str) -> bytes:
        with self._told():
            return (self._folder / name).read_bytes()

    def create(self, name: str, data: bytes) -> None:
        path = self._folder / name
        with self._told(), self._part(data) as part:
            try:
                os.link(part, path)
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                if path.exists():
                    raise FileExistsError(name) from None
                part.rename(path)

    def put(self, name: str, data: bytes) -> None:
        with self._told(), self._part(data) as part:
            part.replace(self._folder / name)

    def remove(self, name: str) -> None:
        with self._told():
            (self._folder / name).unlink(missing_ok=True)

    @contextmanager
    def _part(self, data: bytes) -> Iterator[Path]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(error.errno, "it is no folder") from error
        with hidden_part(self._folder, data) as part:
            yield part

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (FileExistsError, FileNotFoundError):
            raise
        except OSError as error:
            message = f"the shared voices in {self._folder} can't be reached: {error.strerror}"
            raise StorageError(message) from error


class ObjectShelf:
    """Objects under ``root`` of an fsspec file system."""

    def __init__(self, system: Any, root: str) -> None:
        self._system = system
        self._root = root.rstrip("/")

    def list(self) -> dict[str, Listed]:
        try:
            with self._told():
                self._system.invalidate_cache(self._root)
                found = self._system.ls(self._root, detail=True)
        except FileNotFoundError:  # object stores have no empty folders
            return {}
        files = {entry["name"].rpartition("/")[2]: entry for entry in found if _is_file(entry)}
        return {
            name: Listed(int(entry.get("size") or 0), _version(entry))
            for name, entry in files.items()
            if name and not name.startswith(".")
        }

    def read(self, name: str) -> bytes:
        with self._told():
            return bytes(self._system.cat_file(self._at(name)))

    def create(self, name: str, data: bytes) -> None:
        with self._told():
            self._system.pipe_file(self._at(name), data, mode="create")

    def put(self, name: str, data: bytes) -> None:
        with self._told():
            self._system.pipe_file(self._at(name), data)

    def remove(self, name: str) -> None:
        try:
            with self._told():
                self._system.rm_file(self._at(name))
        except FileNotFoundError:
            return

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (FileExistsError, FileNotFoundError):
            raise
        except Exception as error:  # each driver has errors of its own
            message = f"the shared voices in {self._root} can't be reached: {error}"
            raise StorageError(message) from error


def private_folder(name: str) -> Path:
    """A folder of this user alone in the temporary folder of the system.

    Raises StorageError where somebody else made it first.
    """
    user = os.getuid() if hasattr(os, "getuid") else None
    folder = Path(tempfile.gettempdir()) / (name if user is None else f"{name}-{user}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder.lstat().st_uid
    except OSError as error:
        raise StorageError(f"{folder} can't be made: {error.strerror}") from error
    if folder.is_symlink() or (user is not None and owner != user):
        raise StorageError(f"{folder} belongs to somebody else; set voices.shared_cache")
    return folder


def _still_there(entry: os.DirEntry[str]) -> Listed | None:
    """None for what is no file, or was removed since the folder was read."""
    try:
        status = entry.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return Listed(status.st_size, f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}")


def _is_file(entry: dict[str, Any]) -> bool:
    return bool(entry.get("type") == "file")


def _version(entry: dict[str, Any]) -> str:
    """Of the fields that some driver or other has for it; all have the size."""
    told = [f"{key}={entry[key]}" for key in (*_CHANGES, "created") if entry.get(key) is not None]
    return " ".join([f"size={entry.get('size')}", *told])
