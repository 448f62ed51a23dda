"""A local copy of the clones on a shared shelf, and the way back for clones that are made here.

On the shelf a voice is what it is in a clone folder: ``workspace__name.wav`` and, made before and
removed after it, ``workspace__name.clone.json``. That file is the claim to the name: whoever
creates it may go on to the audio, whatever its extension. A claim that stays without audio was
left by a machine that died; after ``CLAIM_S`` it counts no more.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from echo.config.schema import VoicesConfig
from echo.errors import EchoError, StorageError, VoiceExistsError, VoiceNotFoundError
from echo.voices.clone_names import split_id
from echo.voices.clones import DETAILS
from echo.voices.files import FolderTurns, hidden_part
from echo.voices.shelf import Listed, Shelf, open_shelf, private_folder
from echo.voices.store import EXTENSIONS, sha256_of

log = logging.getLogger(__name__)

CLAIM_S = 600.0  # longer than any upload takes
CATCH_UP_GAP_S = 0.5  # between looks on account of names nobody knows: strangers send them, too

_STATE = ".mirror.json"  # the versions that the folder has, for all processes that share it


class VoiceMirror:
    """Keeps ``folder`` as the shelf is. Thread-safe; several processes may share a folder."""

    def __init__(
        self,
        shelf: Shelf,
        folder: Path,
        forget: Callable[[str], None],
        *,
        max_file_bytes: int,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``forget``: as in :class:`~echo.voices.clones.CloneStore`, for voices that change."""
        self._shelf = shelf
        self._folder = folder
        self._forget = forget
        self._max_file_bytes = max_file_bytes
        self._now = now
        self._turns = FolderTurns(folder)
        self._catching_up = threading.Lock()
        self._looked_at = self._tried_at = float("-inf")
        self._claims: dict[tuple[str, str], float] = {}  # (name, version) without audio: since when
        self._too_large: set[str] = set()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, every_s: float) -> None:
        """Copy what there is, then go on doing so. Raises StorageError."""
        self.refresh()
        self._thread = threading.Thread(
            target=self._follow, args=(every_s,), name="echo-voices", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop following. Safe to repeat."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def refresh(self) -> None:
        """Make the folder what the shelf is now. Raises StorageError."""
        begun = self._now()
        with self._turns.taken():
            # Listed in our turn: a voice made here is on the shelf before it is in the folder.
            found = self._shelf.list()
            there = {unicodedata.normalize("NFC", name): name for name in found}
            listed = {name: found[original] for name, original in there.items()}
            self._note_claims(listed, begun)
            wanted = {name: each for name, each in listed.items() if self._takes(name, each)}
            kept = self._drop_others(wanted)
        for name in sorted(wanted, key=lambda name: not name.endswith(DETAILS)):
            if kept.get(name) != wanted[name].version:
                self._fetch(name, there[name], wanted[name].version)
        self._looked_at = begun

    def catch_up(self) -> bool:
        """Refresh, unless that was done a moment ago; whether it happened since the call."""
        asked = self._now()
        with self._catching_up:
            if asked - max(self._looked_at, self._tried_at) >= CATCH_UP_GAP_S:
                self._tried_at = asked
                self._try_refresh()
        return self._looked_at >= asked

    def add(self, voice_id: str, audio_name: str, audio: bytes, details: bytes) -> None:
        """Put a new voice on the shelf. Raises VoiceExistsError, StorageError."""
        listed = self._shelf.list()
        claim = voice_id + DETAILS
        if any(voice_id + extension in listed for extension in EXTENSIONS):
            raise _taken(voice_id)
        if claim in listed and self._is_stale(claim, listed[claim].version):
            self._shelf.remove(claim)
        try:
            self._shelf.create(claim, details)
        except FileExistsError:
            raise _taken(voice_id) from None
        try:
            self._shelf.create(audio_name, audio)
        except FileExistsError:  # put there by hand meanwhile; the claim becomes its details
            raise _taken(voice_id) from None
        except StorageError:
            self._shelf.remove(claim)
            raise

    def change(self, voice_id: str, details: bytes) -> None:
        """Replace what is told about a voice; of two at once the last wins.

        Raises VoiceNotFoundError where it has been deleted elsewhere, StorageError.
        """
        if not any(voice_id + extension in self._shelf.list() for extension in EXTENSIONS):
            raise VoiceNotFoundError(f"the voice {voice_id!r} is gone")
        self._shelf.put(voice_id + DETAILS, details)

    def remove(self, voice_id: str, audio_name: str) -> None:
        """Take a voice off the shelf: the audio first, so that its claim holds until it is gone."""
        self._shelf.remove(audio_name)
        self._shelf.remove(voice_id + DETAILS)

    def _follow(self, every_s: float) -> None:
        while not self._closing.wait(every_s):
            self._try_refresh()

    def _try_refresh(self) -> None:
        try:
            self.refresh()
        except EchoError as error:  # the voices that are here still serve
            log.warning("%s", error.message)

    def _takes(self, name: str, listed: Listed) -> bool:
        """Whether it belongs to a voice, and is not too large."""
        if _voice_of(name) is None:
            return False
        if listed.size > self._max_file_bytes:
            if name not in self._too_large:
                log.warning("shared voice file %s is over voices.max_file_bytes", name)
            self._too_large.add(name)
            return False
        return True

    def _note_claims(self, listed: Mapping[str, Listed], now: float) -> None:
        voices = {_voice_of(name) for name in listed if not name.endswith(DETAILS)}
        claims = {name for name in listed if name.endswith(DETAILS)}
        lonely = {name for name in claims if name.removesuffix(DETAILS) not in voices}
        self._claims = {
            claim: self._claims.get(claim, now)
            for claim in ((name, listed[name].version) for name in lonely)
        }

    def _is_stale(self, claim: str, version: str) -> bool:
        return self._now() - self._claims.get((claim, version), float("inf")) > CLAIM_S

    def _drop_others(self, wanted: Mapping[str, Listed]) -> dict[str, str]:
        """Remove from the folder what is no longer wanted; the versions of what stays."""
        state = self._state()
        for path in self._folder.iterdir():
            name = path.name
            if name in wanted or _voice_of(name) is None:
                continue
            self._forget_file(path)
            path.unlink(missing_ok=True)
            log.info("shared voice file %s is gone", name)
        kept = {
            name: version
            for name, version in state.items()
            if name in wanted and (self._folder / name).is_file()
        }
        if kept != state:
            self._save_state(kept)
        return kept

    def _fetch(self, name: str, original: str, version: str) -> None:
        """Copy a file of the shelf; one that is gone or can't be read is for the next look."""
        try:
            data = self._shelf.read(original)
        except FileNotFoundError:
            return
        except StorageError as error:  # the other voices still come
            log.warning("shared voice file %s: %s", name, error.message)
            return
        with self._turns.taken():
            path = self._folder / name
            if not path.is_file() or sha256_of(path) != hashlib.sha256(data).hexdigest():
                self._forget_file(path)
                with hidden_part(self._folder, data) as part:
                    part.replace(path)
            self._save_state({**self._state(), name: version})

    def _forget_file(self, path: Path) -> None:
        if path.is_file() and not path.name.endswith(DETAILS):
            self._forget(sha256_of(path))

    def _state(self) -> dict[str, str]:
        try:
            state = json.loads((self._folder / _STATE).read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def _save_state(self, state: Mapping[str, str]) -> None:
        with hidden_part(self._folder, json.dumps(state).encode()) as part:
            part.replace(self._folder / _STATE)


def mirrored(
    cfg: VoicesConfig, forget: Callable[[str], None]
) -> tuple[VoicesConfig, VoiceMirror | None]:
    """The settings under which the clones are the shared ones, and what keeps them so; ``cfg``
    and None where nothing is shared.

    Raises ConfigError for a URL that is none, StorageError where it can't be reached.
    """
    if cfg.shared is None:
        return cfg, None
    caches = Path(cfg.shared_cache) if cfg.shared_cache else private_folder("echo-voices")
    folder = caches / hashlib.sha256(cfg.shared.encode()).hexdigest()[:16]
    mirror = VoiceMirror(open_shelf(cfg.shared), folder, forget, max_file_bytes=cfg.max_file_bytes)
    mirror.start(cfg.shared_poll_seconds)
    return replace(cfg, clone_root=str(folder)), mirror


def _taken(voice_id: str) -> VoiceExistsError:
    message = f"there is a voice {voice_id!r} already; choose another name"
    return VoiceExistsError(message, param="displayName")


def _voice_of(name: str) -> str | None:
    """The id of the voice that a file belongs to by its name, or None."""
    for extension in (DETAILS, *EXTENSIONS):
        if name.endswith(extension):
            voice_id = name.removesuffix(extension)
            return voice_id if split_id(voice_id) is not None else None
    return None
