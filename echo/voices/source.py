"""From what a request says about its voice to samples: a name, or audio in base64."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from echo.audio.load import as_reference, join_clips, load_reference
from echo.audio.resample import Samples
from echo.audio.sandbox import decode_untrusted
from echo.config.schema import VoicesConfig
from echo.errors import (
    AudioDecodeError,
    InvalidRequestError,
    LimitExceededError,
)
from echo.spec import HOP, MAX_REFERENCE_SECONDS
from echo.voices.store import MAX_NAME_CHARS, Clip, VoiceInfo, VoiceStore

MIN_SAMPLES = 4 * HOP  # the speaker encoder takes patches of four latents; less leaves none


@dataclass(frozen=True, eq=False)
class VoiceSource:
    """A reference voice, not yet decoded.

    ``content_key`` (hex) is the same exactly while the content is: it keys the cache of encoded
    voices. ``name``: the voice's id, None for audio that came in the request.
    """

    name: str | None
    content_key: str
    _audio: bytes | tuple[Clip, ...] = field(repr=False)
    _cfg: VoicesConfig = field(repr=False)

    def load(self) -> Samples:
        """[T] float32, 44.1 kHz mono, -1..1, 0.19 to 300 s; a folder's clips joined.

        Raises AudioDecodeError (param ``voice``) for what is not audio or too short.
        """
        if isinstance(self._audio, bytes):
            waveform = decode_untrusted(
                self._audio,
                max_bytes=self._cfg.max_inline_bytes,
                max_seconds=MAX_REFERENCE_SECONDS,
                name="the audio in voice",
                param="voice",
            )
            samples = as_reference(waveform)
        else:
            samples = join_clips(self._load_clips(self._audio), self._cfg.folder_gap_seconds)
        if samples.size < MIN_SAMPLES:
            raise AudioDecodeError(
                f"{self._label()} is shorter than 0.2 s; give some seconds of speech",
                param="voice",
            )
        return samples

    def _load_clips(self, clips: tuple[Clip, ...]) -> Iterator[Samples]:
        for clip in clips:
            yield load_reference(
                self._read(clip),
                max_bytes=self._cfg.max_file_bytes,
                name=f"voice file {clip.path.name}",
                param="voice",
            )

    def _read(self, clip: Clip) -> bytes:
        """The very bytes ``content_key`` stands for, else the cache would mix two voices up."""
        try:
            data = clip.path.read_bytes()
        except OSError as error:
            message = f"voice file {clip.path.name} can't be read: {error.strerror}"
            raise AudioDecodeError(message, param="voice") from error
        if hashlib.sha256(data).hexdigest() != clip.sha256:
            message = f"{self._label()} changed while it was read; send the request again"
            raise InvalidRequestError(message, param="voice")
        return data

    def _label(self) -> str:
        return "the audio in voice" if self.name is None else f"voice {self.name!r}"


def resolve(voice: str | None, store: VoiceStore, cfg: VoicesConfig) -> VoiceSource | None:
    """The source of a request's voice; nothing is decoded yet.

    ``voice``: a name; or base64 audio, plain (then over 200 characters, which no name has) or as a
    data URL. None: ``cfg.default`` if it is there, else the first by name, else no voice: None.

    Raises VoiceNotFoundError, InvalidRequestError for broken base64, LimitExceededError for more
    than ``cfg.max_inline_bytes``; ``param`` is ``voice``.
    """
    if voice is None:
        return _default(store, cfg)
    if not voice.strip():
        raise InvalidRequestError("voice is empty; name one or leave it out", param="voice")
    found = store.get(voice)
    if found is not None:
        return _stored(found, store, cfg)
    if voice[:5].lower() == "data:" or len(voice) > MAX_NAME_CHARS:
        data = decode_base64_audio(voice, max_bytes=cfg.max_inline_bytes)
        return VoiceSource(None, hashlib.sha256(data).hexdigest(), data, cfg)
    raise store.not_found(voice)


def decode_base64_audio(text: str, *, max_bytes: int, param: str = "voice") -> bytes:
    """Bytes of plain base64 or of a ``data:…;base64,`` URL.

    Both alphabets (``+/`` and ``-_``), with or without padding, line breaks allowed. The size is
    checked before decoding. Raises InvalidRequestError or LimitExceededError.
    """
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            message = f"{param} is not a base64 data URL (data:audio/wav;base64,…)"
            raise InvalidRequestError(message, param=param)
    compact = "".join(text.split()).rstrip("=")
    size = len(compact) * 3 // 4
    if size > max_bytes:
        message = f"{param} holds {size} bytes of audio; at most {max_bytes} are taken"
        raise LimitExceededError(message, param=param)
    try:
        standard = compact.encode("ascii").translate(_STANDARD_ALPHABET)
        data = base64.b64decode(standard + b"=" * (-len(standard) % 4), validate=True)
    except ValueError:  # not ASCII, or what base64 calls an error
        message = f"{param} is neither a voice's name nor valid base64 audio"
        raise InvalidRequestError(message, param=param) from None
    if not data:
        raise InvalidRequestError(f"{param} holds no audio", param=param)
    return data


_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")


def _default(store: VoiceStore, cfg: VoicesConfig) -> VoiceSource | None:
    found = store.get(cfg.default) if cfg.default is not None else None
    if found is not None:
        return _stored(found, store, cfg)
    voices = store.list()
    return _stored(voices[0], store, cfg) if voices else None


def _stored(voice: VoiceInfo, store: VoiceStore, cfg: VoicesConfig) -> VoiceSource:
    clips = store.clips(voice)
    if voice.type == "file":
        return VoiceSource(voice.id, clips[0].sha256, clips, cfg)
    content = hashlib.sha256(f"{cfg.folder_gap_seconds}".encode())
    for clip in clips:
        content.update(f"\0{clip.path.name}\0{clip.sha256}".encode())
    return VoiceSource(voice.id, content.hexdigest(), clips, cfg)
