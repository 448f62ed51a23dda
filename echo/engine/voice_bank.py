"""Reference voices as the model's keys and values, encoded once and kept."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakSet, WeakValueDictionary

import torch
from torch import Tensor

from echo.audio.resample import Samples
from echo.config.schema import VoicesConfig
from echo.engine.components import Components
from echo.engine.ops import Call, Op
from echo.models.dit import EchoDiT
from echo.models.layer_kv import LayerKV
from echo.spec import SPEAKER_PIECE_LATENTS
from echo.voices.cache import ByteBoundedCache, CacheStats
from echo.voices.encode import encode_pieces, real_latents
from echo.voices.source import VoiceSource


@dataclass(frozen=True)
class EncodedVoice:
    """Keys and values, S / patch of them, for each model of the engine."""

    by_model: dict[EchoDiT, LayerKV]

    def nbytes(self) -> int:
        """What it takes in memory."""
        return sum(kv.nbytes for kv in self.by_model.values())

    def to(self, device: torch.device) -> EncodedVoice:
        return EncodedVoice({model: kv.to(device) for model, kv in self.by_model.items()})


@dataclass(eq=False)
class PendingVoice:
    """A voice on its way to the worker: its samples, unless it is encoded already, and its
    latents [1, S, 80] where these are made without the worker.

    ``forgotten``: it was deleted meanwhile: the request that brought it still gets it.
    """

    source: VoiceSource
    samples: Samples | None = None
    latent: Tensor | None = None
    forgotten: bool = False


class _Encoding:
    """A voice being encoded, shared by all requests that wait for it."""

    def __init__(self, steps: Generator[None, None, EncodedVoice]) -> None:
        self._steps = steps
        self.result: EncodedVoice | None = None
        self.error: Exception | None = None

    def advance(self) -> None:
        """One piece more, whoever's turn it is."""
        if self.error is not None:
            raise self.error
        if self.result is not None:
            return
        try:
            next(self._steps)
        except StopIteration as end:
            self.result = end.value
        except Exception as error:
            self.error = error
            raise


class VoiceBank:
    """The cache of encoded voices, keyed by content."""

    def __init__(self, config: VoicesConfig) -> None:
        self._config = config
        self._cache: ByteBoundedCache[str, EncodedVoice] = ByteBoundedCache(config.cache_bytes)
        self._running: WeakValueDictionary[str, _Encoding] = WeakValueDictionary()
        self._in_use: WeakValueDictionary[str, EncodedVoice] = WeakValueDictionary()
        self._latents: WeakValueDictionary[str, Tensor] = WeakValueDictionary()
        self._pending: WeakSet[PendingVoice] = WeakSet()
        self._keeping = threading.Lock()  # of what is kept and what is forgotten
        self._on_cpu = threading.Lock()  # one at a time: each uses all cores, and memory

    def prepare(self, source: VoiceSource, c: Components) -> PendingVoice:
        """Decode the voice's audio unless it is cached; for the caller's thread.

        With ``voices.encode_device`` its latents are made here, too: that takes seconds, in which
        the worker goes on with others.

        Raises:
            AudioDecodeError: it is not audio, or too short.
        """
        pending, key = PendingVoice(source), source.content_key
        with self._keeping:
            self._pending.add(pending)
        if key in self._cache:
            return pending
        samples = pending.samples = source.load()
        if self._config.encode_device is None:
            return pending
        with self._on_cpu, torch.inference_mode():
            if key in self._cache:  # while we waited
                return pending
            pending.latent = self._latents.get(key)
            if pending.latent is None:
                pieces = list(self._pieces(samples, c))
                pending.latent = self._latents[key] = self._join(pieces, samples, c)
        return pending

    def encode(
        self, pending: PendingVoice, components: Components
    ) -> Generator[Op, Any, tuple[EncodedVoice, bool]]:
        """The encoded voice on the model's device, and whether it was cached.

        For the worker's thread. Requests that want the same voice at the same time share one
        encoding: each advances it in its turn.
        """
        key = pending.source.content_key
        cached = self._cache.get(key)
        if cached is not None:
            device = components.model.device
            return (yield Call("voice", lambda: self._on_device(key, cached, device))), True
        encoding = self._running.get(key)
        if encoding is None or encoding.error is not None:
            encoding = self._running[key] = _Encoding(self._encode(pending, components))
        while encoding.result is None:
            yield Call("voice", partial(self._advance, encoding, pending))
        return encoding.result, False

    def _advance(self, encoding: _Encoding, pending: PendingVoice) -> None:
        """One piece more; keep what is done, once."""
        encoding.advance()
        key, encoded = pending.source.content_key, encoding.result
        if encoded is None or self._running.get(key) is not encoding:
            return
        kept = encoded if self._config.cache_on_device else encoded.to(torch.device("cpu"))
        with self._keeping:
            self._running.pop(key, None)
            if not pending.forgotten:
                self._in_use[key] = encoded
                self._cache.put(key, kept, kept.nbytes())

    def _encode(self, pending: PendingVoice, c: Components) -> Generator[None, None, EncodedVoice]:
        """Piece by piece."""
        latent = pending.latent
        if latent is None:
            samples = pending.samples if pending.samples is not None else pending.source.load()
            pieces: list[Tensor] = []
            for piece in self._pieces(samples, c):
                pieces.append(piece)
                yield
            latent = self._join(pieces, samples, c)
        return EncodedVoice({m: m.encode_speaker(latent.to(m.device)) for m in c.tables})

    def _pieces(self, samples: Samples, c: Components) -> Iterator[Tensor]:
        """Latents of ``samples`` [T], piece by piece."""
        return encode_pieces(
            c.codec,
            c.pca,
            torch.from_numpy(samples)[None],
            max_latents=self._config.max_latents,
            piece_latents=SPEAKER_PIECE_LATENTS,
            padded=False,
        )

    def _join(self, pieces: list[Tensor], samples: Samples, c: Components) -> Tensor:
        """The latents of real audio, [1, S, 80]."""
        real = real_latents(c.codec, len(samples), self._config.max_latents)
        return torch.cat(pieces, dim=1)[:, :real]

    def _on_device(self, key: str, cached: EncodedVoice, device: torch.device) -> EncodedVoice:
        """``cached`` where the model is; requests under way share one copy."""
        voice = self._in_use.get(key)
        if voice is None:
            voice = self._in_use[key] = cached.to(device)
        return voice

    def clear(self) -> None:
        """Drop all encodings: they belong to networks that are gone. The counts stay."""
        self._cache.clear()
        self._running.clear()
        self._in_use.clear()
        self._latents.clear()

    def forget(self, content_key: str) -> None:
        """Drop the encoding of a voice, if it is kept; one that is being made is not kept."""
        with self._keeping:
            for pending in self._pending:
                if pending.source.content_key == content_key:
                    pending.forgotten = True
            self._cache.remove(content_key)
            for kept in (self._in_use, self._latents):
                kept.pop(content_key, None)

    def stats(self) -> CacheStats:
        return self._cache.stats()
