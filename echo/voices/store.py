"""The voices at hand: audio files and folders of clips under the configured roots.

A name is only ever looked up among what a scan of the roots has found, never made into a path, so
no name leads outside; symlinks that do are left out of the scan.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from echo.config.schema import VoicesConfig
from echo.errors import AudioDecodeError, LimitExceededError, VoiceNotFoundError

logger = logging.getLogger(__name__)

EXTENSIONS = (".wav", ".mp3", ".flac", ".m4a", ".ogg", ".opus")  # of equal names, the first wins
MAX_NAME_CHARS = 200
CLONE_MARK = "__"  # in the ids of voices that users made: workspace__name
MAX_SUGGESTIONS = 10
MAX_DIGESTS = 4096  # remembered hashes of files
# A file written again within the clock tick of its first version keeps its time stamps; its hash
# is remembered only once it is older than this.
SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class VoiceInfo:
    """One voice. ``id`` names it in requests: a file's name without extension, or a folder's."""

    id: str
    name: str
    source: str  # name of its root folder
    type: Literal["file", "folder"]
    path: Path


@dataclass(frozen=True)
class Clip:
    """One audio file of a voice, links resolved, with the sha256 of its content."""

    path: Path
    sha256: str


class VoiceStore:
    """Voices under ``cfg.roots`` and ``cfg.clone_root``. Thread-safe.

    Scans at each call, so changes are seen at once; 1,000 voices take a few milliseconds.
    Earlier roots win over later ones; the clone root is the last.

    ``catch_up``: called for a name that is not there; says whether it brought voices up to date.
    """

    def __init__(self, cfg: VoicesConfig, catch_up: Callable[[], bool] | None = None) -> None:
        self._cfg = cfg
        self._catch_up = catch_up
        self._roots = tuple(dict.fromkeys((*cfg.roots, cfg.clone_root)))
        self._digests = FileDigests(cfg.max_file_bytes)

    def list(self) -> tuple[VoiceInfo, ...]:
        """All voices, each id once, sorted by name without regard to case."""
        by_id: dict[str, VoiceInfo] = {}
        for voice in self._scan():
            by_id.setdefault(voice.id, voice)
        return tuple(sorted(by_id.values(), key=lambda voice: (voice.id.casefold(), voice.id)))

    def get(self, name: str) -> VoiceInfo | None:
        """The voice of that name, with or without extension, or None.

        Exactly as written first, then without regard to case and spaces, then as an alias.
        """
        if not name or len(name) > MAX_NAME_CHARS:
            return None
        found = self._look_up(name)
        if found is None and self._catch_up is not None and self._catch_up():
            found = self._look_up(name)
        return found

    def find(self, name: str) -> VoiceInfo:
        """Like :meth:`get`, but raises VoiceNotFoundError, which lists some voices that exist."""
        voice = self.get(name)
        if voice is None:
            raise self.not_found(name)
        return voice

    def not_found(self, name: str) -> VoiceNotFoundError:
        """The error for a name that is no voice."""
        known = [voice.id for voice in self.list()]
        shown = repr(name) if len(name) <= 60 else repr(name[:60]) + "…"
        if not known:
            message = f"no voice {shown}: there are none; put audio files into a voices folder"
        else:
            some = ", ".join(known[:MAX_SUGGESTIONS])
            more = len(known) - MAX_SUGGESTIONS
            message = f"no voice {shown}; there are {some}" + (
                f" and {more} more" if more > 0 else ""
            )
        return VoiceNotFoundError(message, param="voice")

    def clips(self, voice: VoiceInfo) -> tuple[Clip, ...]:
        """The voice's audio files in name order, hashed where new or changed.

        Raises VoiceNotFoundError if it is gone, LimitExceededError for files over
        ``max_file_bytes``, AudioDecodeError for one that can't be read.
        """
        roots = self._real_roots()
        if voice.type == "folder":
            entries = [entry for entry in _entries(voice.path) if _is_clip(entry, roots)]
            paths = [Path(entry.path) for entry in sorted(entries, key=lambda entry: entry.name)]
        else:
            paths = [voice.path]
        try:
            real = [path.resolve(strict=True) for path in paths]
        except (OSError, RuntimeError):  # gone, or a link to itself by now
            raise self.not_found(voice.id) from None
        if not real or not all(_inside(path, roots) for path in real):
            raise self.not_found(voice.id)
        return tuple(Clip(path, self._digests.of(path)) for path in real)

    def _look_up(self, name: str) -> VoiceInfo | None:
        voices = tuple(self._scan())
        return _named(name, voices) or self._aliased(name, voices)

    def _aliased(self, name: str, voices: Sequence[VoiceInfo]) -> VoiceInfo | None:
        """The voice that ``cfg.aliases`` maps ``name`` to; without a target, its turn among all."""
        targets = {_loose(alias): target for alias, target in self._cfg.aliases.items()}
        alias = _loose(name)
        if alias not in targets or not voices:
            return None
        target = targets[alias]
        if target is not None:
            return _named(target, voices)
        # With cloned voices, each new one would shift the others.
        own = [voice for voice in voices if CLONE_MARK not in voice.id]
        dealt = sorted({_exact(voice.id) for voice in own or voices}, key=_loose)
        turn = [each for each, fixed in targets.items() if fixed is None].index(alias)
        return _named(dealt[turn % len(dealt)], voices)

    def _scan(self) -> Iterator[VoiceInfo]:
        """Root by root; in a root, files before folders, then by name and extension."""
        roots = self._real_roots()
        for root in self._roots:
            found = []
            for entry in _entries(Path(root)):
                if _is_clip(entry, roots):
                    stem, extension = os.path.splitext(entry.name)  # noqa: PTH122 - speed
                    rank = EXTENSIONS.index(extension.lower())
                    found.append(((0, stem, rank, entry.name), stem, entry))
                elif self._cfg.folder_support and _is_clip_folder(entry, roots):
                    found.append(((1, entry.name, 0, entry.name), entry.name, entry))
            source = Path(root).name
            for key, voice_id, entry in sorted(found, key=lambda item: item[0]):
                kind: Literal["file", "folder"] = "folder" if key[0] else "file"
                yield VoiceInfo(voice_id, voice_id, source, kind, Path(entry.path))

    def _real_roots(self) -> tuple[Path, ...]:
        return tuple(Path(root).resolve() for root in self._roots)


class FileDigests:
    """sha256 of files, remembered until their size or a time stamp changes. Thread-safe."""

    def __init__(
        self,
        max_file_bytes: int,
        *,
        digest: Callable[[Path], str] | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._max_file_bytes = max_file_bytes
        self._digest = digest or sha256_of
        self._now_ns = now_ns
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, int, int, int], str] = OrderedDict()

    def of(self, path: Path) -> str:
        """In hex. Raises LimitExceededError or, if it can't be read, AudioDecodeError."""
        try:
            status = path.stat()
            if status.st_size > self._max_file_bytes:
                raise LimitExceededError(
                    f"voice file {path.name} has {status.st_size} bytes; at most "
                    f"{self._max_file_bytes} are read",
                    param="voice",
                )
            key = (str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            with self._lock:
                if key in self._known:
                    self._known.move_to_end(key)
                    return self._known[key]
            digest = self._digest(path)
        except OSError as error:
            message = f"voice file {path.name} can't be read: {error.strerror}"
            raise AudioDecodeError(message, param="voice") from error
        if self._now_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED_NS:
            with self._lock:
                self._known[key] = digest
                if len(self._known) > MAX_DIGESTS:
                    self._known.popitem(last=False)
        return digest


def sha256_of(path: Path) -> str:
    """Hash of a file's content, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _named(name: str, voices: Sequence[VoiceInfo]) -> VoiceInfo | None:
    for spelling in (_exact, _loose):
        wanted = spelling(name)
        for key in (_file_name, _id):
            for voice in voices:
                if spelling(key(voice)) == wanted:
                    return voice
    return None


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What is in a folder, hidden things left out; nothing if it isn't there."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        logger.warning("voice folder %s can't be read: %s", folder, error.strerror)


def _is_clip(entry: os.DirEntry[str], roots: tuple[Path, ...]) -> bool:
    """Whether it is an audio file by its name, of a length we allow, inside the roots."""
    if len(entry.name) > MAX_NAME_CHARS or not entry.name.lower().endswith(EXTENSIONS):
        return False
    try:
        if not entry.is_file():
            return False
        return not entry.is_symlink() or _inside(Path(entry.path).resolve(strict=True), roots)
    except OSError as error:  # a link to itself, a vanished file
        logger.warning("voice file %s can't be read: %s", entry.path, error.strerror)
        return False


def _is_clip_folder(entry: os.DirEntry[str], roots: tuple[Path, ...]) -> bool:
    if len(entry.name) > MAX_NAME_CHARS:
        return False
    try:
        if not entry.is_dir():
            return False
        path = Path(entry.path)
        if entry.is_symlink() and not _inside(path.resolve(strict=True), roots):
            return False
    except OSError as error:
        logger.warning("voice folder %s can't be read: %s", entry.path, error.strerror)
        return False
    return any(_is_clip(clip, roots) for clip in _entries(path))


def _inside(path: Path, roots: tuple[Path, ...]) -> bool:
    return any(path.is_relative_to(root) for root in roots)


def _id(voice: VoiceInfo) -> str:
    return voice.id


def _file_name(voice: VoiceInfo) -> str:
    return voice.path.name


def _exact(name: str) -> str:
    return unicodedata.normalize("NFC", name)  # some file systems store accents apart


def _loose(name: str) -> str:
    return "".join(_exact(name).casefold().split())
