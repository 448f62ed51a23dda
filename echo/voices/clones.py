"""Voices that users made: ``workspace__name`` audio files, each with a small JSON file beside it.

An audio file appears whole and last, by a hard link that never overwrites; the details are there
before it. A process killed at any moment thus leaves a whole voice or none, and at most hidden
files that :meth:`CloneStore.recover` removes. All writers of a folder take turns by a file lock.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from echo.audio.decode import Waveform, sniff_container
from echo.audio.encode import encode_file
from echo.audio.load import as_reference, join_clips
from echo.audio.sandbox import decode_untrusted
from echo.config.schema import VoicesConfig
from echo.errors import (
    AudioDecodeError,
    InvalidRequestError,
    StorageError,
    VoiceExistsError,
    VoiceNotFoundError,
)
from echo.spec import MAX_REFERENCE_SECONDS, SAMPLE_RATE
from echo.voices.clone_names import (
    VoiceDetails,
    as_json,
    check_details,
    clone_id,
    details_from,
    split_id,
)
from echo.voices.files import NO_LINKS, PART, FolderTurns, hidden_part, sync_folder
from echo.voices.source import MIN_SAMPLES
from echo.voices.store import EXTENSIONS, VoiceInfo, sha256_of

logger = logging.getLogger(__name__)

DETAILS = ".clone.json"  # extension of the file beside the audio


@dataclass(frozen=True)
class ClonedVoice:
    """A voice in the clone folder. ``id``: ``workspace__name``, its name in speech requests."""

    id: str
    workspace: str
    name: str
    details: VoiceDetails
    path: Path


class Decode(Protocol):
    """As :func:`~echo.audio.sandbox.decode_untrusted`."""

    def __call__(
        self, data: bytes, *, max_bytes: int, max_seconds: float, name: str, param: str | None
    ) -> Waveform: ...


class Shared(Protocol):
    """Where clones live for all machines, of which the folder here is then a copy."""

    def add(self, voice_id: str, audio_name: str, audio: bytes, details: bytes) -> None:
        """Raises VoiceExistsError."""

    def change(self, voice_id: str, details: bytes) -> None: ...

    def remove(self, voice_id: str, audio_name: str) -> None: ...

    def catch_up(self) -> bool:
        """Look for what others did; whether that was done just now."""


class CloneStore:
    """The folder ``voices.clone_root``. Thread-safe, and safe against other processes' stores.

    ``forget``: called with the sha256 of a deleted voice's file, to free what is cached of it.
    ``shared``: is told of every change before the folder has it.
    """

    def __init__(
        self,
        cfg: VoicesConfig,
        forget: Callable[[str], None],
        *,
        decode: Decode = decode_untrusted,
        shared: Shared | None = None,
    ) -> None:
        self._cfg = cfg
        self._decode = decode
        self._folder = Path(cfg.clone_root)
        self._forget = forget
        self._shared = shared
        self._turns = FolderTurns(self._folder)

    def recover(self) -> None:
        """Remove what interrupted writers left: for the start of a server."""
        if not self._folder.is_dir():
            return
        try:
            with self._turns.taken():
                for path in self._folder.iterdir():
                    orphan = path.name.endswith(DETAILS) and self._audio_of(_stem(path)) is None
                    if path.name.startswith(PART) or orphan:
                        path.unlink()
                        logger.info("removed %s, left by an interrupted upload", path)
        except StorageError as error:  # a read-only folder still serves its voices
            logger.warning("%s", error.message)

    def get(self, workspace: str, name: str) -> ClonedVoice | None:
        """The voice of exactly that name in that workspace, or None."""
        try:
            voice_id = clone_id(workspace, name)
        except InvalidRequestError:
            return None
        return self.by_id(voice_id)

    def by_id(self, voice_id: str) -> ClonedVoice | None:
        """The voice ``workspace__name``, or None; never one that is not in the folder."""
        voice_id = unicodedata.normalize("NFC", voice_id)
        parts = split_id(voice_id)
        if parts is None:
            return None
        path = self._audio_of(voice_id)
        if path is None and self._shared is not None and self._shared.catch_up():
            path = self._audio_of(voice_id)
        if path is None:
            return None
        return ClonedVoice(voice_id, *parts, self._read_details(voice_id), path)

    def of(self, info: VoiceInfo) -> ClonedVoice | None:
        """The clone that a voice of the voice store is, or None."""
        clone = self.by_id(info.id)
        if clone is None or clone.path.resolve() != info.path.resolve():
            return None
        return clone

    def create(
        self,
        workspace: str,
        name: str,
        samples: Sequence[bytes],
        details: VoiceDetails,
        *,
        max_bytes: int,
        param: str,
    ) -> ClonedVoice:
        """Save a new voice. Decodes ``samples`` first: not for an event loop.

        ``samples``: audio files of at most ``max_bytes`` bytes each. One WAV or MP3 is kept as it
        is; another kind, or several, joined, becomes a WAV. ``param``: the request's field.

        Raises InvalidRequestError (the name), VoiceExistsError, AudioDecodeError,
        LimitExceededError, or StorageError where the folder can't be written.
        """
        voice_id = clone_id(workspace, name)
        check_details(details)
        self._refuse_existing(voice_id)
        audio, extension = self._checked_audio(samples, max_bytes, param)
        with self._turns.taken():
            self._refuse_existing(voice_id)
            path = self._folder / f"{voice_id}{extension}"
            written = _written(details)
            if self._shared is not None:
                self._shared.add(voice_id, path.name, audio, written)
            self._put_details(voice_id, written)
            with hidden_part(self._folder, audio) as part:
                _link(part, path)
            sync_folder(self._folder)
        logger.info("voice %s was made", voice_id)
        return ClonedVoice(voice_id, workspace, name, details, path)

    def update(self, voice: ClonedVoice, details: VoiceDetails) -> ClonedVoice:
        """Replace the details of ``voice``. Raises VoiceNotFoundError if it is gone."""
        check_details(details)
        with self._turns.taken():
            if self._audio_of(voice.id) is None:
                raise _not_found(voice.id)
            written = _written(details)
            if self._shared is not None:
                self._shared.change(voice.id, written)
            self._put_details(voice.id, written)
            sync_folder(self._folder)
        return replace(voice, details=details)

    def delete(self, voice: ClonedVoice) -> None:
        """Remove ``voice`` and what is cached of it. Raises VoiceNotFoundError if it is gone."""
        with self._turns.taken():
            path = self._audio_of(voice.id)
            if path is None:
                raise _not_found(voice.id)
            digest = sha256_of(path)
            if self._shared is not None:
                self._shared.remove(voice.id, path.name)
            path.unlink()
            self._details_path(voice.id).unlink(missing_ok=True)
            sync_folder(self._folder)
        self._forget(digest)
        logger.info("voice %s was deleted", voice.id)

    def _checked_audio(
        self, samples: Sequence[bytes], max_bytes: int, param: str
    ) -> tuple[bytes, str]:
        if not samples:
            raise InvalidRequestError(f"{param} is empty; send a sample of the voice", param=param)
        max_bytes = min(max_bytes, self._cfg.max_file_bytes)  # else it could not be read back
        clips = []
        for audio in samples:
            waveform = self._decode(
                audio,
                max_bytes=max_bytes,
                max_seconds=MAX_REFERENCE_SECONDS,
                name="the audio sample",
                param=param,
            )
            clips.append(as_reference(waveform))
        joined = join_clips(clips, self._cfg.folder_gap_seconds)
        if joined.size < MIN_SAMPLES:
            message = "the audio sample is shorter than 0.2 s; give some seconds of speech"
            raise AudioDecodeError(message, param=param)
        kind = sniff_container(samples[0])
        if len(samples) == 1 and kind in ("wav", "mp3"):
            return samples[0], f".{kind}"
        return encode_file(joined, SAMPLE_RATE, "wav"), ".wav"

    def _refuse_existing(self, voice_id: str) -> None:
        if any(os.path.lexists(path) for path in self._audio_paths(voice_id)):
            raise VoiceExistsError(
                f"there is a voice {voice_id!r} already; choose another name or delete it first",
                param="displayName",
            )

    def _audio_paths(self, voice_id: str) -> list[Path]:
        return [self._folder / f"{voice_id}{extension}" for extension in EXTENSIONS]

    def _audio_of(self, voice_id: str) -> Path | None:
        """Its file in the folder itself; what a link points to is somebody else's."""
        if split_id(voice_id) is None:
            return None
        for path in self._audio_paths(voice_id):
            try:
                if stat.S_ISREG(path.lstat().st_mode):
                    return path
            except OSError:  # not there
                continue
        return None

    def _details_path(self, voice_id: str) -> Path:
        return self._folder / f"{voice_id}{DETAILS}"

    def _read_details(self, voice_id: str) -> VoiceDetails:
        path = self._details_path(voice_id)
        try:
            raw = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:  # put there by hand, or by another program
            return VoiceDetails()
        except (OSError, ValueError) as error:
            logger.warning("%s can't be read: %s", path, error)
            return VoiceDetails()
        return details_from(raw if isinstance(raw, dict) else {})

    def _put_details(self, voice_id: str, written: bytes) -> None:
        with hidden_part(self._folder, written) as part:
            part.replace(self._details_path(voice_id))


def _stem(path: Path) -> str:
    return path.name.removesuffix(DETAILS)


def _written(details: VoiceDetails) -> bytes:
    return json.dumps(as_json(details), indent=2).encode()


def _not_found(voice_id: str) -> VoiceNotFoundError:
    return VoiceNotFoundError(f"there is no cloned voice {voice_id[:100]!r}", param="voice")


def _link(part: Path, path: Path) -> None:
    try:
        os.link(part, path)
    except FileExistsError:
        message = f"there is a voice {path.stem!r} already; choose another name"
        raise VoiceExistsError(message, param="displayName") from None
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        part.rename(path)  # looked up under the lock: there was none
