"""One request from text to audio: chunks, blocks, rerolls, early stop, tail.

``Generation.run`` is a generator that yields what it needs of the device next; the worker does
that and sends the result back.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from echo.audio.tail import fade_out
from echo.audio.vad import SpeechDetector, longest_silence_ms
from echo.config.schema import SamplerConfig
from echo.engine.components import Components
from echo.engine.ops import Call, Op, Ops, Sound
from echo.engine.plan import Plan
from echo.engine.policy import Outlook
from echo.engine.request import MAX_SEED, GenerationSettings
from echo.engine.stats import BlockStats
from echo.engine.stream import Audio, Feed, Progress, StreamInfo
from echo.engine.voice_bank import EncodedVoice, PendingVoice, VoiceBank
from echo.models.codec import DecoderState
from echo.models.dit import EchoDiT, PrefixState
from echo.models.layer_kv import LayerKV
from echo.sampling.block import BlockShape, Conditions, draw_noise, sample_block
from echo.sampling.end_of_speech import ends_in_zeros, find_end_point
from echo.sampling.packing import StepRequest
from echo.spec import SAMPLE_RATE
from echo.text import tokenize

FIRST_BLOCK_STEPS = 5  # of a LoRA that serves the first block only: it is made for few steps


@dataclass(frozen=True)
class _Attempt:
    """One try at a block: what would be sent and what it would leave behind."""

    latent: Tensor  # [1, n, 80], the whole block
    ends: bool  # nothing comes after it in this chunk
    audio: Tensor  # [T] of what is kept, on the codec's device
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
    new: Tensor | None = None  # [1, n, 80], of the block before
    prefix: PrefixState | None = None  # of what came before this block
    context: LayerKV | None = None


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
        self._vad = info.settings.vad
        self._detector = detector  # None: no block is judged
        passes = 2 if voice is None else 3
        shapes = range(len(self._blocks))
        self._plan = Plan(len(self._texts), [self._in_block(i) for i in shapes], passes)
        self._begun = False

    def outlook(self) -> Outlook:
        """What is still to be done."""
        first = self._plan.block == 0 and self._first_block is not None
        group = self._first_block if first else self._components.model
        return self._plan.outlook(group)

    def run(self) -> Ops:
        """Yields what is needed next: model steps, other work, sound for the listener."""
        begun = time.monotonic()
        voice: EncodedVoice | None = None
        if self._voice is not None:
            encoded = self._bank.encode(self._voice, self._components)
            voice, self._feed.stats.voice_cached = yield from encoded
        self._feed.stats.voice_s = time.monotonic() - begun
        for index in range(len(self._texts)):
            yield from self._run_chunk(index, voice)

    def _run_chunk(self, index: int, voice: EncodedVoice | None) -> Ops:
        chunk = yield from self._open_chunk(index, voice)
        for number, shape in enumerate(self._blocks):
            self._plan.enter(index, number)
            if chunk.new is not None:
                extend = partial(self._components.model.extend_prefix, chunk.prefix, chunk.new)
                chunk.prefix, chunk.context = yield Call("prefix", extend)
            attempts: list[_Attempt] = []
            while self._wants_another(attempts):
                attempts.append((yield from self._attempt(chunk, number, len(attempts))))
            kept = min(attempts, key=lambda a: a.silence_ms or 0.0)
            chunk.state, chunk.new = kept.state, kept.latent
            self._feed.stats.blocks.append(_block_stats(index, number, shape, attempts, kept))
            if kept.ends and number < len(self._blocks) - 1:
                self._feed.stats.early_stops += 1
                self._plan.skip_rest_of_chunk()
                self._show(index, number, shape.num_steps)
            if len(kept.audio):
                yield Sound(kept.audio, self._components.lane, _faded if kept.ends else None)
            if kept.ends:
                return

    def _open_chunk(self, index: int, voice: EncodedVoice | None) -> Generator[Op, Any, _Chunk]:
        c = self._components
        tokens = tokenize(self._texts[index], self._settings.text.max_text_length)
        self._feed.stats.text_tokens += len(tokens)

        def encode() -> dict[EchoDiT, LayerKV]:
            ids = torch.tensor([tokens], device=c.model.device)
            return {model: model.encode_text(ids) for model in c.tables}

        texts = yield Call("text", encode)
        conditions = {
            model: Conditions(text, voice.by_model[model] if voice else None)
            for model, text in texts.items()
        }
        seed = (self._seed + index) % (MAX_SEED + 1)
        generator = torch.Generator(c.model.device).manual_seed(seed)
        return _Chunk(index, seed, conditions, generator, c.lane.run(c.codec.init_state))

    def _wants_another(self, attempts: list[_Attempt]) -> bool:
        """Reroll while the last attempt is too silent and tries are left (service.md §1)."""
        if not attempts:
            return True
        silence = attempts[-1].silence_ms
        too_silent = silence is not None and silence >= self._vad.silence_threshold_ms
        return too_silent and len(attempts) <= self._vad.max_rerolls

    def _attempt(self, chunk: _Chunk, number: int, attempt: int) -> Generator[Op, Any, _Attempt]:
        """Sample and decode a block; prefix, decoder state and random stream stay as they were
        before it, but for the first attempt's draw."""
        model, shape, sampler = self._in_block(number)
        generator = chunk.generator
        if attempt:
            seed = (chunk.seed + attempt) % (MAX_SEED + 1)
            generator = torch.Generator(generator.device).manual_seed(seed)
        noise = draw_noise(generator, shape.size, model.config.latent_size, shape.truncation_factor)
        begun = time.monotonic()
        conditions = chunk.conditions[model]
        if chunk.prefix is not None:
            start = chunk.prefix.latents
            conditions = replace(conditions, prefix=chunk.context, start=start)
        tables = self._components.tables[model]
        steps = sample_block(model, tables, conditions, noise, shape, sampler)
        latent = yield from self._count_steps(steps, chunk.index, number)
        ends = number == len(self._blocks) - 1 or (
            sampler.early_stop_on_zero and ends_in_zeros(latent[0], sampler)
        )
        # Where the block ends is asked of the device: the one wait per block, with the line above.
        keep = find_end_point(latent[0]) if ends else shape.size
        sampled = time.monotonic()
        audio, state = yield from self._decode(latent[:, :keep], chunk.state)
        decoded = time.monotonic()
        silence = yield from self._silence_ms(audio)
        return _Attempt(latent, ends, audio, state, silence, sampled - begun, decoded - sampled)

    def _in_block(self, number: int) -> tuple[EchoDiT, BlockShape, SamplerConfig]:
        c, sampler = self._components, self._settings.sampler
        if number > 0 or self._first_block is None:
            return c.model, self._blocks[number], sampler
        unguided = replace(sampler, cfg_min_t=1.0, cfg_max_t=0.0)
        return self._first_block, self._blocks[number], unguided

    def _count_steps(
        self, steps: Generator[StepRequest, Tensor, Tensor], chunk: int, block: int
    ) -> Generator[Op, Any, Tensor]:
        rows: Any = None
        for step in range(self._blocks[block].num_steps + 1):
            if step:
                self._plan.step_done(step)
                self._show(chunk, block, step)
            try:
                request = steps.send(rows)
            except StopIteration as end:
                return end.value
            rows = yield request
        raise AssertionError("a block has more steps than its schedule")

    def _show(self, chunk: int, block: int, step: int) -> None:
        self._feed.show(
            Progress(
                chunk=chunk,
                chunks=len(self._texts),
                block=block,
                blocks=len(self._blocks),
                step=step,
                steps=self._blocks[block].num_steps,
                steps_done=self._plan.steps_done,
                steps_planned=self._plan.steps_planned,
            )
        )

    def _decode(
        self, latent: Tensor, before: DecoderState
    ) -> Generator[Op, Any, tuple[Tensor, DecoderState]]:
        """Audio [T] of a block's latents [1, n, 80] after ``before``, and the state after it.

        The last block is cut at the end of speech. What was sent before cannot be cut any more,
        so the end is looked for in this block only: an earlier pause, which the whole-generation
        rule of model.md §7 would take for the end, does not swallow what follows.
        """
        c = self._components
        state = before if self._detector is None else c.lane.run(lambda: before.clone())
        if latent.shape[1] == 0:
            return torch.zeros(0), state
        pieces: list[Tensor] = []
        # Now that it is final: at each piece the lane would wait for the steps of others, too.
        for piece in c.lane.take(latent).split(c.codec.piece_latents, dim=1):

            def decode(piece: Tensor = piece) -> Tensor:
                z_q = c.pca.from_latent(piece)
                return c.codec.decode(z_q.transpose(1, 2), state)[0, 0]

            in_lane = partial(c.lane.run, decode)
            pieces.append((yield Call("codec", in_lane, latents=piece.shape[1])))
            self._plan.decoded(piece.shape[1])
        return c.lane.run(partial(torch.cat, pieces)), state

    def _silence_ms(self, audio: Tensor) -> Generator[Op, Any, float | None]:
        """Longest silence of a block that is long enough to be judged, else None."""
        total_ms = len(audio) * 1000 / SAMPLE_RATE
        detector = self._detector
        if detector is None or total_ms < self._vad.silence_threshold_ms:
            return None

        def look() -> float:
            samples: Audio = audio.float().cpu().numpy()
            return longest_silence_ms(detector.speech_spans(samples, SAMPLE_RATE), total_ms)

        return (yield Call("vad", partial(self._components.lane.run, look)))


def _faded(audio: Audio) -> Audio:
    return fade_out(audio, SAMPLE_RATE)


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
