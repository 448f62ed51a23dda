"""Speaking texts one after the other into one reply: pauses, speech, audio parts, word times."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool

from echo.api.inworld.audio import FileEncoder, PartEncoder
from echo.api.inworld.body import Delivery
from echo.api.inworld.timestamps import (
    SpeechFinder,
    TimedWord,
    WordClock,
    character_info,
    word_info,
    words_of,
)
from echo.api.reply import arriving, encoded, speaking
from echo.audio.resample import Samples
from echo.engine import Engine, SpeechRequest, SpeechStream
from echo.engine.stats import BlockStats
from echo.text.markup import Pause, parse_markup

# Clients limit what they read at once: aiohttp lines to 128 KiB, websockets frames to 1 MiB.
PART_SECONDS = 0.5


@dataclass(frozen=True)
class Part:
    """What one line or frame tells. ``timestamps``: a ``timestampInfo``."""

    audio: bytes
    timestamps: dict[str, Any] | None = None

    def __bool__(self) -> bool:
        return bool(self.audio) or self.timestamps is not None


class Narrator:
    """One reply's voice and encoder. Not for several tasks at once."""

    def __init__(
        self, engine: Engine, finder: SpeechFinder, delivery: Delivery, *, whole: bool = False
    ) -> None:
        """``whole``: one file at the end instead of parts."""
        self._engine = engine
        self._finder = finder
        self._delivery = delivery
        self._whole = whole
        self._rate = engine.sample_rate
        encoder = FileEncoder if whole else PartEncoder
        self._encoder: FileEncoder | PartEncoder = encoder(delivery.audio, self._rate)
        self._samples = 0  # given to the encoder so far
        self._origin = 0  # of the word times, in samples
        self._told = False  # words of this reply

    async def say(self, text: str) -> AsyncGenerator[Part, None]:
        """The parts of ``text``, which may hold markup, as they are made; none is empty.

        Closing the generator stops the generation. Raises what the engine raises.
        """
        for piece in parse_markup(text):
            if isinstance(piece, Pause):
                # The encoder's tempo changes silence, too.
                samples = round(piece.seconds * self._delivery.audio.speed * self._rate)
                for silence in self._pieces(np.zeros(samples, np.float32)):
                    if part := await self._encode(silence):
                        yield Part(part)
                continue
            request = SpeechRequest(piece, voice=self._delivery.voice)
            async with speaking(self._engine, request, live=not self._whole) as stream:
                async for each in self._speech(stream, piece):
                    yield each

    async def drain(self) -> Part:
        """What the encoder held back, as far as the encoding allows.

        Ends a generation: word times count from here on, as clients add what was before.
        """
        part = Part(await run_in_threadpool(self._encoder.drain))
        self._origin = self._samples
        return part

    async def finish(self) -> Part:
        """The rest; says nothing afterwards."""
        return Part(await run_in_threadpool(self._encoder.finish))

    async def _speech(self, stream: SpeechStream, text: str) -> AsyncGenerator[Part, None]:
        sync, times = self._delivery.sync, None
        if self._delivery.timestamps is not None:
            times = _Times(self._finder, stream, text, sync=sync)
        async for samples in arriving(stream):
            words = await times.of_part(samples, self._samples) if times else []
            for piece in self._pieces(samples):
                part = await self._encode(piece, stream)
                end = self._samples / self._rate
                own = [word for word in words if sync and word.start < end]
                words = words[len(own) :]
                if part or own:
                    yield Part(part, self._info(own))
            if words:
                yield Part(b"", self._info(words))
        if times and (words := await times.rest()):
            yield Part(b"", self._info(words))

    def _pieces(self, samples: Samples) -> list[Samples]:
        """``samples``, [T] float32, in pieces of at most ``PART_SECONDS`` as heard."""
        size = round(PART_SECONDS * self._delivery.audio.speed * self._rate)
        return [samples[start : start + size] for start in range(0, len(samples), size)]

    async def _encode(self, samples: Samples, stream: SpeechStream | None = None) -> bytes:
        self._samples += len(samples)
        stats = None if stream is None else stream.stats
        return await encoded(stats, self._encoder.push, samples)

    def _info(self, words: list[TimedWord]) -> dict[str, Any] | None:
        if not words:
            return None
        zero, speed = self._origin / self._rate, self._delivery.audio.speed
        words = [
            replace(w, start=(w.start - zero) / speed, end=(w.end - zero) / speed) for w in words
        ]
        first, self._told = not self._told, True
        if self._delivery.timestamps == "CHARACTER":
            return character_info(words, first=first)
        return word_info(words)


class _Times:
    """The word times of one stream."""

    def __init__(
        self, finder: SpeechFinder, stream: SpeechStream, text: str, *, sync: bool
    ) -> None:
        self._finder = finder
        self._stream = stream
        self._sync = sync
        self._clocks = [WordClock(words) for words in words_of(text, stream.info.text.chunks)]
        self._parts = 0
        self._kept: list[Samples] = []  # of the chunk so far; with sync, its last part
        self._begin = 0  # of what is kept, in samples of the reply
        self._chunk: int | None = None  # the one that has not ended
        self._told = 0.0  # seconds of the reply; where the last word ended

    async def of_part(self, samples: Samples, at: int) -> list[TimedWord]:
        """The words to tell with a part that begins at sample ``at`` of the reply.

        With ``sync`` its own, else those of its chunk where it is the last part of one.
        """
        block = self._next_block()
        words = await self.rest() if self._chunk not in (None, block.chunk) else []
        if self._sync or self._chunk is None:
            self._kept, self._begin = [], at
        self._chunk = block.chunk
        self._kept.append(samples)
        if self._sync or block.ends:
            words += await self._take(block.chunk, last=block.ends)
        if block.ends:
            self._chunk = None
        return words

    async def rest(self) -> list[TimedWord]:
        """What is left of a chunk whose last block had no sound to send."""
        chunk, self._chunk = self._chunk, None
        return [] if chunk is None else await self._take(chunk, last=True)

    async def _take(self, chunk: int, *, last: bool) -> list[TimedWord]:
        rate = self._stream.sample_rate
        samples = np.concatenate(self._kept)
        begin = self._begin / rate
        found = await self._finder.spans(samples, rate)
        spans = [(max(start + begin, self._told), end + begin) for start, end in found]
        spans = [(start, end) for start, end in spans if end > start]
        end = begin + len(samples) / rate
        words = self._clocks[chunk].take(spans or [(min(self._told, end), end)], last=last)
        self._told = words[-1].end if words else self._told
        return words

    def _next_block(self) -> BlockStats:
        """The one that the next part came of; blocks without sound sent nothing."""
        sounding = [block for block in self._stream.stats.blocks if block.samples]
        self._parts += 1
        return sounding[self._parts - 1]
