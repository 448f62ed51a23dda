"""Reference voices as the model's keys and values, encoded once and kept."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch

from echo.audio.resample import Samples
from echo.config.schema import VoicesConfig
from echo.engine.components import Components
from echo.models.dit import EchoDiT, LayerKV
from echo.spec import SPEAKER_PIECE_LATENTS
from echo.voices.cache import ByteBoundedCache, CacheStats
from echo.voices.encode import encode_pieces, real_latents
from echo.voices.source import VoiceSource


@dataclass(frozen=True)
class EncodedVoice:
    """Keys and values per layer, [1, S / patch, H, d], for each model of the engine."""

    by_model: dict[EchoDiT, LayerKV]

    def nbytes(self) -> int:
        """What it takes in memory."""
        tensors = (t for kv in self.by_model.values() for layer in kv for t in layer)
        return sum(t.numel() * t.element_size() for t in tensors)

    def to(self, device: torch.device) -> EncodedVoice:
        return EncodedVoice(
            {
                model: tuple((k.to(device), v.to(device)) for k, v in kv)
                for model, kv in self.by_model.items()
            }
        )


@dataclass(frozen=True)
class PendingVoice:
    """A voice on its way to the worker: its samples, unless it is encoded already."""

    source: VoiceSource
    samples: Samples | None


class VoiceBank:
    """The cache of encoded voices, keyed by content."""

    def __init__(self, components: Components, config: VoicesConfig) -> None:
        self._components = components
        self._config = config
        self._cache: ByteBoundedCache[str, EncodedVoice] = ByteBoundedCache(config.cache_bytes)

    def prepare(self, source: VoiceSource) -> PendingVoice:
        """Decode the voice's audio unless it is cached; for the caller's thread.

        Raises:
            AudioDecodeError: it is not audio, or too short.
        """
        cached = source.content_key in self._cache
        return PendingVoice(source, None if cached else source.load())

    def encode(self, pending: PendingVoice) -> Generator[None, None, tuple[EncodedVoice, bool]]:
        """The encoded voice on the model's device, and whether it was cached.

        For the worker's thread; yields between pieces, so that others go on meanwhile.
        """
        device = self._components.model.device
        key = pending.source.content_key
        encoded = self._cache.get(key)
        if encoded is not None:
            return encoded.to(device), True
        samples = pending.samples if pending.samples is not None else pending.source.load()
        c = self._components
        audio = torch.from_numpy(samples)[None]
        pieces = []
        for piece in encode_pieces(
            c.codec,
            c.pca,
            audio,
            max_latents=self._config.max_latents,
            piece_latents=SPEAKER_PIECE_LATENTS,
        ):
            pieces.append(piece)
            yield
        latent = torch.cat(pieces, dim=1)
        latent = latent[:, : real_latents(c.codec, audio.shape[1], self._config.max_latents)]
        encoded = EncodedVoice({m: m.encode_speaker(latent.to(m.device)) for m in c.tables})
        kept = encoded if self._config.cache_on_device else encoded.to(torch.device("cpu"))
        self._cache.put(key, kept, kept.nbytes())
        return encoded, False

    def forget(self, content_key: str) -> None:
        """Drop the encoding of a voice, if it is kept."""
        self._cache.remove(content_key)

    def stats(self) -> CacheStats:
        return self._cache.stats()
