"""One sentence spoken by an engine, and everything that can be measured of it without listening."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import acoustics
from benchmarks.recognition import Listener
from echo.audio.resample import Samples
from echo.audio.vad import SpeechDetector
from echo.config.schema import SamplerConfig, per_block
from echo.engine import Engine, SpeechRequest
from echo.engine.request import GenerationSettings
from echo.engine.stats import RequestStats
from echo.errors import ConfigError
from echo.inference import (
    ae_decode,
    crop_audio_to_flattening_point,
    get_speaker_latent_and_mask,
    get_text_input_ids_and_mask,
    sample_blockwise_euler_cfg_independent_guidances,
)
from echo.spec import HOP, INIT_SCALE, LATENTS_PER_SECOND, MAX_LATENTS, SAMPLE_RATE
from echo.text import estimate_seconds
from echo.training.recognise import word_errors
from echo.voices.source import resolve

_FADE = round(SAMPLE_RATE * acoustics.FADE_MS / 1000)


@dataclass(frozen=True)
class Line:
    """What is to be said. ``kind``: slots (sentences of the slot grammar) or long."""

    text: str
    voice: str | None
    seed: int
    kind: str = "slots"


@dataclass(frozen=True)
class Take:
    """A line as it came from the engine. ``audio`` [T] float32 at 44.1 kHz."""

    line: Line
    audio: Samples
    chunks: tuple[str, ...]
    settings: GenerationSettings
    stats: RequestStats
    ttfb_s: float  # from the call to the first samples in the caller's hands

    def seams(self) -> Iterator[tuple[str, int]]:
        """Where parts were joined, in samples: (``block`` or ``chunk``, place)."""
        blocks = [block for block in self.stats.blocks if block.samples]
        ends = accumulate(block.samples for block in blocks)
        for block, after, end in zip(blocks, blocks[1:], ends, strict=False):
            yield "block" if block.chunk == after.chunk else "chunk", end


def speak(engine: Engine, line: Line, overrides: Mapping[str, Any] | None = None) -> Take:
    """Have ``line`` spoken, streamed, with request settings ``overrides``."""
    request = SpeechRequest(line.text, line.voice, line.seed, overrides=overrides or {})
    begun = time.perf_counter()
    with engine.stream(request) as stream:
        parts = [next(stream)]
        ttfb = time.perf_counter() - begun
        parts += list(stream)
    info = stream.info
    return Take(line, np.concatenate(parts), info.text.chunks, info.settings, stream.stats, ttfb)


@dataclass
class Judge:
    """Measures takes. ``best``: what was said with many steps, by line; may be shared."""

    engine: Engine
    listeners: Sequence[Listener]
    best_steps: int
    best: dict[Line, Samples] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._detector = SpeechDetector()
        self._latents: dict[str | None, Tensor] = {}

    def of_sound(self, take: Take) -> dict[str, float]:
        """Pauses, tail, loudness and length; what needs nothing but the sound."""
        audio = take.audio
        spans = self._detector.speech_spans(audio, SAMPLE_RATE)
        pauses = acoustics.pauses_s(spans)
        span = spans[-1][1] - spans[0][0] if spans else 0.0
        return {
            "vad_longest_pause_s": max(pauses, default=0.0),
            "vad_pause_share": sum(pauses) / span if span else 0.0,
            "vad_speech_s": span - sum(pauses),
            "tail_noise_dbfs": acoustics.tail_noise_dbfs(audio, SAMPLE_RATE),
            "loudness_lufs": acoustics.loudness_lufs(audio, SAMPLE_RATE),
            "peak_dbfs": acoustics.peak_dbfs(audio),
            "audio_s": audio.size / SAMPLE_RATE,
        }

    def of_words(self, take: Take, other: str) -> dict[str, float]:
        """Word errors by each recogniser that can judge this text, per word of it.

        ``word_error_chance_NAME`` is what was heard held against ``other``, a text that was not
        said: as well as a guess does.
        """
        found = {}
        for listener in self.listeners:
            if take.line.kind == "slots" or listener.name == "whisper":
                heard = listener.hear(take.audio, SAMPLE_RATE, take.line.text.count("."))
                found[f"word_error_{listener.name}"] = word_errors(take.line.text, heard).rate
                found[f"word_error_chance_{listener.name}"] = word_errors(other, heard).rate
        return found

    @torch.inference_mode()
    def speaker_similarity(self, take: Take, voices: Sequence[str | None]) -> dict[str, float]:
        """Whose voice it is, by the model's own speaker latents.

        Cosine of the mean output of the model's speaker encoder for the sound and for the
        reference; ``speaker_margin`` is how much nearer that is than the nearest other of
        ``voices``. Empty for a sound too short to be encoded.
        """
        model, patch = self.engine.components.model, self.engine.components.model.patch
        if take.audio.size < patch * HOP:
            return {}

        def embed(latent: Tensor) -> Tensor:
            latent = latent.to(model.device, model.dtype)
            return model.speaker_norm(model.speaker_encoder(latent))[0].float().mean(dim=0)

        own = embed(self._encode(take.audio))
        near = {
            voice: float(torch.cosine_similarity(own, embed(self._reference(voice)), dim=0))
            for voice in {take.line.voice, *voices}
        }
        same = near.pop(take.line.voice)
        margin = {"speaker_margin": same - max(near.values())} if near else {}
        return {"speaker_similarity": same, **margin}

    def mcd_plain_db(self, take: Take) -> float:
        """Mel-cepstral distance to the plain path (``echo.inference``), same blocks, steps, seed.

        Of the first chunk, frame by frame. What the engine's shortcuts and number formats cost:
        near 0 in float32.
        """
        blocks = [block for block in take.stats.blocks if block.chunk == 0]
        shapes = take.settings.blocks[: len(blocks)]
        sizes, steps = [s.size for s in shapes], [s.num_steps for s in shapes]
        sampler = take.settings.sampler
        plain, _ = self._sampled(take.chunks[0], take.line, sizes, steps, sampler)
        length = sum(block.samples for block in blocks) - _FADE
        return acoustics.mel_cepstral_db(
            take.audio[: max(0, length)],
            plain[0, 0, : max(0, length)].numpy(),
            SAMPLE_RATE,
            aligned=True,
        )

    def mcd_best_db(self, take: Take) -> float:
        """Mel-cepstral distance to the plain path in one block of many steps, same seed.

        Of a text of one chunk, after dynamic time warping. What the preset costs, roughly: even
        two good readings of one text differ by some dB.
        """
        if take.line not in self.best:
            seconds = estimate_seconds(take.chunks[0], self.engine.config.chunking)
            size = 4 * math.ceil((2 * seconds + 1) * LATENTS_PER_SECOND / 4)
            sizes, steps = [min(size, MAX_LATENTS)], [self.best_steps]
            sampler = self.engine.config.sampler
            audio, latent = self._sampled(take.chunks[0], take.line, sizes, steps, sampler)
            self.best[take.line] = crop_audio_to_flattening_point(audio, latent[0])[0, 0].numpy()
        best = self.best[take.line]
        return acoustics.mel_cepstral_db(take.audio, best, SAMPLE_RATE, aligned=False)

    @torch.inference_mode()
    def _sampled(
        self, text: str, line: Line, sizes: list[int], steps: list[int], s: SamplerConfig
    ) -> tuple[Tensor, Tensor]:
        """Audio [1, 1, T] on the CPU and latents [1, n, 80] of the plain path."""
        c = self.engine.components
        speaker = self._reference(line.voice)
        mask = torch.ones(speaker.shape[:2], dtype=torch.bool)
        ids, text_mask = get_text_input_ids_and_mask([text], None, normalize=False)  # type: ignore[misc]
        latent = sample_blockwise_euler_cfg_independent_guidances(
            c.model,
            speaker,
            mask,
            ids,
            text_mask,
            rng_seed=line.seed,
            block_sizes=sizes,
            num_steps=steps,
            cfg_scale_text=s.cfg_scale_text,
            cfg_scale_speaker=s.cfg_scale_speaker,
            cfg_min_t=s.cfg_min_t,
            cfg_max_t=s.cfg_max_t,
            truncation_factor=_single("truncation_factor", s.truncation_factor),
            rescale_k=s.rescale_k,
            rescale_sigma=s.rescale_sigma,
            speaker_kv_scale=s.speaker_kv_scale,
            speaker_kv_max_layers=s.speaker_kv_max_layers,
            speaker_kv_min_t=s.speaker_kv_min_t,
            init_scale=_single("init_scale", s.init_scale) or INIT_SCALE,
        )
        return ae_decode(c.codec, c.pca, latent.to(c.codec.device)).cpu(), latent

    def _encode(self, audio: Samples) -> Tensor:
        c = self.engine.components
        latent, _ = get_speaker_latent_and_mask(
            c.codec, c.pca, torch.from_numpy(audio)[None], divis_by_patch_size=c.model.patch
        )
        return latent

    def _reference(self, voice: str | None) -> Tensor:
        """Latents [1, S, 80] of a voice by name; None: the default voice."""
        if voice not in self._latents:
            source = resolve(voice, self.engine.voices, self.engine.config.voices)
            assert source is not None, "quality is measured with a voice"
            self._latents[voice] = self._encode(source.load())
        return self._latents[voice]


def _single(name: str, value: float | tuple[float, ...] | None) -> float | None:
    """A value that the plain path takes: one for all blocks. Raises ConfigError for several."""
    values = set(per_block(value))
    if len(values) > 1:
        raise ConfigError(
            f"sampler.{name} differs from block to block, which the plain path does not know; "
            "set benchmark.plain_sentences=0",
            param=f"sampler.{name}",
        )
    return next(iter(values), None)


def seam_values(take: Take) -> Iterator[tuple[str, str, float]]:
    """(metric, join, value) of every join: ``seam_click`` and ``seam_spectrum``."""
    for join, at in take.seams():
        yield "seam_click", join, acoustics.seam_click(take.audio, SAMPLE_RATE, at)
        change = acoustics.seam_spectrum(take.audio, SAMPLE_RATE, at)
        if not math.isnan(change):
            yield "seam_spectrum", join, change
