"""One request from text to audio: chunks, blocks, rerolls, early stop, tail.

``Generation.run`` is a generator that does one sampling step per ``next``; the worker drives it.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from echo.audio.tail import fade_out
from echo.audio.vad import SpeechDetector, longest_silence_ms
from echo.config.schema import SamplerConfig, VadConfig
from echo.engine.components import Components
from echo.engine.request import MAX_SEED, GenerationSettings
from echo.engine.stats import BlockStats
from echo.engine.stream import Audio, Feed, Progress, StreamInfo
from echo.engine.voice_bank import EncodedVoice, PendingVoice, VoiceBank
from echo.models.codec import DecoderState
from echo.models.dit import EchoDiT
from echo.sampling.block import BlockShape, Conditions, draw_noise, sample_block
from echo.sampling.end_of_speech import ends_in_zeros, find_end_point
from echo.spec import SAMPLE_RATE
from echo.text import tokenize

DECODE_PIECE_LATENTS = 32  # bounds the codec's memory, and how long others wait for one turn
FIRST_BLOCK_STEPS = 5  # of a LoRA that serves the first block only: it is made for few steps


@dataclass(frozen=True)
class _Attempt:
    """One try at a block: what would be sent and what it would leave behind."""

    latent: Tensor  # [1, n, 80], the whole block
    ends: bool  # nothing comes after it in this chunk
    audio: Audio  # of what is kept
    state: DecoderState
    silence_ms: float | None
    sample_s: float
    decode_s: float


@dataclass
class _Chunk:
    """What a chunk carries from block to block."""

    index: int
    seed: int
    conditions: dict[EchoDiT, Conditions]
    generator: torch.Generator
    state: DecoderState
    prefix: Tensor | None = None  # [1, n, 80]


class Generation:
    """A request on its way through the model. Used once, by the worker's thread."""

    def __init__(
        self,
        components: Components,
        bank: VoiceBank,
        voice: PendingVoice | None,
        info: StreamInfo,
        feed: Feed,
        *,
        vad: VadConfig,
        detector: SpeechDetector | None,
    ) -> None:
        self._components = components
        self._bank = bank
        self._voice = voice
        self._feed = feed
        self._texts = info.text.chunks
        self._seed = info.seed
        self._settings: GenerationSettings = info.settings
        self._blocks = info.settings.blocks
        self._first_block = components.first_block if len(self._blocks) > 1 else None
        if self._first_block is not None:
            first = replace(self._blocks[0], num_steps=FIRST_BLOCK_STEPS)
            self._blocks = (first, *self._blocks[1:])
        self._vad = vad
        self._detector = detector
        self._steps_done = 0
        self._steps_skipped = 0

    def run(self) -> Generator[Audio | None, None, None]:
        """Audio float32 [T] where some became ready, None after any other step."""
        begun = time.monotonic()
        voice: EncodedVoice | None = None
        if self._voice is not None:
            voice, self._feed.stats.voice_cached = yield from self._bank.encode(self._voice)
        self._feed.stats.voice_s = time.monotonic() - begun
        for index in range(len(self._texts)):
            yield from self._run_chunk(index, voice)

    def _run_chunk(
        self, index: int, voice: EncodedVoice | None
    ) -> Generator[Audio | None, None, None]:
        chunk = self._open_chunk(index, voice)
        for number, shape in enumerate(self._blocks):
            attempts: list[_Attempt] = []
            while self._wants_another(attempts):
                attempts.append((yield from self._attempt(chunk, number, len(attempts))))
            kept = min(attempts, key=lambda a: a.silence_ms or 0.0)
            chunk.state = kept.state
            chunk.prefix = _appended(chunk.prefix, kept.latent)
            self._feed.stats.blocks.append(_block_stats(index, number, shape, attempts, kept))
            early = kept.ends and number < len(self._blocks) - 1
            if early:
                self._feed.stats.early_stops += 1
                self._steps_skipped += sum(s.num_steps for s in self._blocks[number + 1 :])
                self._show(index, number, shape.num_steps)
            if len(kept.audio):
                yield kept.audio
            if kept.ends:
                return

    def _open_chunk(self, index: int, voice: EncodedVoice | None) -> _Chunk:
        c = self._components
        tokens = tokenize(self._texts[index], self._settings.text.max_text_length)
        ids = torch.tensor([tokens], device=c.model.device)
        self._feed.stats.text_tokens += len(tokens)
        conditions = {
            model: Conditions(model.encode_text(ids), voice.by_model[model] if voice else None)
            for model in c.tables
        }
        seed = (self._seed + index) % (MAX_SEED + 1)
        generator = torch.Generator(c.model.device).manual_seed(seed)
        return _Chunk(index, seed, conditions, generator, c.codec.init_state())

    def _wants_another(self, attempts: list[_Attempt]) -> bool:
        """Reroll while the last attempt is too silent and tries are left (service.md §1)."""
        if not attempts:
            return True
        silence = attempts[-1].silence_ms
        too_silent = silence is not None and silence >= self._vad.silence_threshold_ms
        return too_silent and len(attempts) <= self._vad.max_rerolls

    def _attempt(self, chunk: _Chunk, number: int, attempt: int) -> Generator[None, None, _Attempt]:
        """Sample and decode a block; prefix, decoder state and random stream stay as they were
        before it, but for the first attempt's draw."""
        model, shape, sampler = self._plan(number)
        generator = chunk.generator
        if attempt:
            seed = (chunk.seed + attempt) % (MAX_SEED + 1)
            generator = torch.Generator(generator.device).manual_seed(seed)
        noise = draw_noise(generator, shape.size, model.config.latent_size, shape.truncation_factor)
        begun = time.monotonic()
        steps = sample_block(
            model,
            self._components.tables[model],
            chunk.conditions[model],
            chunk.prefix,
            noise,
            shape,
            sampler,
        )
        latent = yield from self._count_steps(steps, chunk.index, number)
        sampled = time.monotonic()
        ends = number == len(self._blocks) - 1 or (
            sampler.early_stop_on_zero and ends_in_zeros(latent[0], sampler)
        )
        audio, state = yield from self._decode(latent, chunk.state, ends=ends)
        decoded = time.monotonic()
        silence = self._silence_ms(audio)
        return _Attempt(latent, ends, audio, state, silence, sampled - begun, decoded - sampled)

    def _plan(self, number: int) -> tuple[EchoDiT, BlockShape, SamplerConfig]:
        c, sampler = self._components, self._settings.sampler
        if number > 0 or self._first_block is None:
            return c.model, self._blocks[number], sampler
        unguided = replace(sampler, cfg_min_t=1.0, cfg_max_t=0.0)
        return self._first_block, self._blocks[number], unguided

    def _count_steps(
        self, steps: Generator[None, None, Tensor], chunk: int, block: int
    ) -> Generator[None, None, Tensor]:
        step = 0
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value
            step += 1
            self._steps_done += 1
            self._show(chunk, block, step)
            yield

    def _show(self, chunk: int, block: int, step: int) -> None:
        blocks = self._blocks
        planned = sum(b.num_steps for b in blocks) * len(self._texts) - self._steps_skipped
        self._feed.show(
            Progress(
                chunk=chunk,
                chunks=len(self._texts),
                block=block,
                blocks=len(blocks),
                step=step,
                steps=blocks[block].num_steps,
                steps_done=min(self._steps_done, planned),  # rerolls do not count
                steps_planned=planned,
            )
        )

    def _decode(
        self, latent: Tensor, state: DecoderState, *, ends: bool
    ) -> Generator[None, None, tuple[Audio, DecoderState]]:
        """Audio of a block after ``state``, and the state after it; yields between its pieces.

        The last block is cut at the end of speech. What was sent before cannot be cut any more,
        so the end is looked for in this block only: an earlier pause, which the whole-generation
        rule of model.md §7 would take for the end, does not swallow what follows.
        """
        c = self._components
        keep = find_end_point(latent[0]) if ends else latent.shape[1]
        state = state.clone() if self._detector is not None else state
        if keep == 0:
            return torch.zeros(0).numpy(), state
        z_q = c.pca.from_latent(latent[:, :keep].to(c.codec.device))
        pieces: list[Tensor] = []
        for piece in z_q.transpose(1, 2).split(DECODE_PIECE_LATENTS, dim=-1):
            if pieces:
                yield
            pieces.append(c.codec.decode(piece, state)[0, 0])
        # The one copy to the host, once per block.
        audio: Audio = torch.cat(pieces).float().cpu().numpy()
        return (fade_out(audio, SAMPLE_RATE) if ends else audio), state

    def _silence_ms(self, audio: Audio) -> float | None:
        """Longest silence of a block that is long enough to be judged, else None."""
        total_ms = len(audio) * 1000 / SAMPLE_RATE
        if self._detector is None or total_ms < self._vad.silence_threshold_ms:
            return None
        return longest_silence_ms(self._detector.speech_spans(audio, SAMPLE_RATE), total_ms)


def _appended(prefix: Tensor | None, latent: Tensor) -> Tensor:
    return latent if prefix is None else torch.cat((prefix, latent), dim=1)


def _block_stats(
    chunk: int, number: int, shape: BlockShape, attempts: list[_Attempt], kept: _Attempt
) -> BlockStats:
    return BlockStats(
        chunk=chunk,
        block=number,
        latents=shape.size,
        steps=shape.num_steps,
        sample_s=sum(a.sample_s for a in attempts),
        decode_s=sum(a.decode_s for a in attempts),
        samples=len(kept.audio),
        ends=kept.ends,
        attempts=len(attempts),
        longest_silence_ms=kept.silence_ms,
    )
