"""Long answers: every chunk comes block by block, ahead of a listener, and no further than told."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace

import httpx
import pytest
import torch
from torch import nn

from echo.engine import SpeechRequest
from echo.models.codec import S1DAC, DecoderState
from echo.spec import HOP, SAMPLE_RATE

from .conftest import wait_until
from .test_stream_formats import GatedCodec, codec_of, gated

TEXT = "Here is one more sentence. " * 24
# The presets and the chunking of service.md, at an eighth of the length.
CHUNKS = [
    f"chunking.{key}_seconds={30 / 8 * part}" for key, part in (("target", 1), ("max", 4 / 3))
]
CHUNKS += ["chunking.min_seconds=2.5"]
DEFAULT, EQUAL = (4, 16, 60), (27, 27, 26)


def shaped(blocks: tuple[int, ...]) -> list[str]:
    return [
        *CHUNKS,
        f"preset.block_sizes={list(blocks)}",
        f"preset.num_steps={[1] * len(blocks)}",
    ]


class PacedCodec(S1DAC):
    """A clock that no machine's load disturbs: ``rtf`` seconds for each second of audio."""

    def __init__(self, codec: S1DAC, rtf: float) -> None:
        nn.Module.__init__(self)
        self.__dict__ |= codec.__dict__
        self.rtf = rtf
        self.now_s = 0.0
        self.may_start = threading.Event()

    def decode(self, z_q: torch.Tensor, state: DecoderState | None = None) -> torch.Tensor:
        assert self.may_start.wait(10)
        samples = z_q.shape[-1] * HOP
        self.now_s += self.rtf * samples / SAMPLE_RATE
        return torch.full((1, 1, samples), 0.1)


@pytest.mark.parametrize(
    ("blocks", "rtf"),
    [(DEFAULT, 0.24), (EQUAL, 0.95)],  # a block must be made while the one before it plays
    ids=["default", "equal"],
)
def test_a_listener_never_starves_where_the_machine_is_fast_enough(run, blocks, rtf):
    with run(
        *shaped(blocks), change=lambda parts: replace(parts, codec=PacedCodec(parts.codec, rtf))
    ) as running:
        codec = running.engine.components.codec
        arrivals: list[tuple[float, int]] = []
        with running.engine.stream(SpeechRequest(TEXT, seed=1)) as stream:
            # Called by the worker itself, at the moment a block is handed over.
            stream.set_listener(lambda: arrivals.append((codec.now_s, stream.stats.samples)))
            codec.may_start.set()
            stream.read()
        made = [(block.chunk, block.latents) for block in stream.stats.blocks]
        chunks = len(stream.info.text.chunks)
    assert chunks >= 6
    assert made == [(chunk, size) for chunk in range(chunks) for size in blocks]
    heard = [(at, samples) for at, samples in arrivals if samples]
    begun, known = heard[0]
    for at, samples in heard[1:]:
        assert at <= begun + known / SAMPLE_RATE, "the listener waits"
        known = samples
    assert known == sum(size for _, size in made) * HOP


def test_chunks_are_made_ahead_of_a_listener_who_has_heard_one_block(run):
    with (
        run(*shaped(DEFAULT)) as running,
        running.engine.stream(SpeechRequest(TEXT, seed=1)) as stream,
    ):
        assert len(next(stream)) == DEFAULT[0] * HOP
        wait_until(lambda: stream.stats.samples > 2 * sum(DEFAULT) * HOP)


def test_each_chunk_is_heard_before_its_second_block_is_made(run):
    blocks = (4, 6)
    with run(*shaped(blocks), change=gated) as running:
        codec: GatedCodec = codec_of(running)
        with running.stream(input=TEXT, stream=True) as reply:
            parts, size, bounds = reply.iter_raw(), 0, []
            chunks = len(running.engine.streams[-1].info.text.chunks)
            for chunk in range(chunks):
                bounds.append((chunk * sum(blocks) + blocks[0]) * HOP * 2)
                while size < bounds[-1]:
                    size += len(next(parts))
                assert size == bounds[-1]
                codec.heard.set()
            size += sum(map(len, parts))
    assert chunks >= 6
    assert size == chunks * sum(blocks) * HOP * 2


SPEECH = ("/v1/audio/speech", {"input": TEXT * 3, "stream": True, "voice": "anna"})
INWORLD = {"text": TEXT * 3, "voiceId": "anna", "audioConfig": {"audioEncoding": "LINEAR16"}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (SPEECH[0], {**SPEECH[1], "stream_format": "sse"}),
        (SPEECH[0], {**SPEECH[1], "response_format": "flac"}),
        ("/tts/v1/voice:stream", INWORLD),
    ],
    ids=["events", "flac", "inworld"],
)
def test_a_slow_reader_pauses_its_generation_and_leaving_ends_it(run, path, body):
    shape = [*CHUNKS, "preset.block_sizes=[320]", "preset.num_steps=[1]"]
    small = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)]
    transport = httpx.HTTPTransport(socket_options=small)
    with run("engine.buffer_seconds=1", *shape) as running:
        with (
            httpx.Client(transport=transport, timeout=30) as client,
            client.stream("POST", f"{running.server.url}{path}", json=body) as reply,
        ):
            assert reply.status_code == 200
            stats = running.engine.streams[-1].stats
            made = -1
            while made != stats.samples:
                made = stats.samples
                time.sleep(1.0)
            assert running.engine.stats()["active"] == 1  # it rests, and is not at its end
        wait_until(lambda: running.engine.stats()["active"] == 0)
        assert stats.samples == made
