from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch
from torch import nn

from echo.audio.encode import encode_file, pcm16
from echo.engine import SpeechRequest
from echo.engine.components import Components
from echo.models.codec import S1DAC, DecoderState

from .conftest import Running, steps_of, wait_until

TEXT = "Hello there."
LONG = {"block_sizes": [4] * 100, "num_steps": 200}  # far more than any test waits for
PLANNED = 100 * 200


def stopped_within_one_step(running: Running) -> None:
    """The last stream's sampler is at rest, at most one step beyond where it was closed."""
    stream = running.engine.streams[-1]
    wait_until(lambda: running.engine.stats()["active"] == 0)
    at_close = running.engine.steps_at_close[stream]
    assert at_close < PLANNED / 10
    assert steps_of(stream) - at_close <= 1
    time.sleep(0.05)
    assert steps_of(stream) - at_close <= 1


def test_the_first_part_arrives_before_the_rest_is_made(running):
    shape = {"block_sizes": [4, 8], "num_steps": [1, 200]}
    with running.stream(input=TEXT, stream=True, seed=1, **shape) as reply:
        parts = reply.iter_raw()
        first = next(parts)
        stream = running.engine.streams[-1]
        assert len(first) == 4 * 2048 * 2
        assert stream.stats.total_s is None
        rest = b"".join(parts)
    wanted = running.engine.synthesize(SpeechRequest(TEXT, voice="anna", seed=1, overrides=shape))
    assert first + rest == pcm16(wanted)


def test_a_client_that_leaves_stops_the_sampler_within_one_step(running):
    with running.stream(input=TEXT, stream=True, **LONG) as reply:
        next(reply.iter_raw())
    stopped_within_one_step(running)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_before_the_first_byte_stops_the_sampler(running, stream):
    body = {"input": TEXT, "voice": "anna", "stream": stream, **LONG}
    if stream:
        body |= {"block_sizes": [640], "num_steps": [200]}
    before = len(running.engine.streams)
    raw = json.dumps(body).encode()
    head = b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(
        raw
    )
    with socket.create_connection((running.server.host, running.server.port)) as connection:
        connection.sendall(head + raw)
        wait_until(lambda: len(running.engine.streams) > before)
        wait_until(lambda: steps_of(running.engine.streams[-1]) > 1)
    stopped_within_one_step(running)


def test_a_client_that_leaves_does_not_disturb_another(running):
    shape = {"block_sizes": [4] * 8, "num_steps": 20}
    alone = running.speak(input=TEXT, stream=True, seed=4, **shape).content
    with running.stream(input=TEXT, stream=True, seed=4, **shape) as reply:
        parts = reply.iter_raw()
        kept = next(parts)
        with httpx.Client(base_url=running.server.url) as other:
            body = {"input": TEXT, "stream": True, **LONG}
            with other.stream("POST", "/v1/audio/speech", json=body) as leaving:
                next(leaving.iter_raw())
        kept += b"".join(parts)
    assert kept == alone


def test_a_slow_reader_pauses_its_generation(run):
    text = "This goes on and on, and it does not end soon. " * 300
    body = {"input": text, "stream": True, "block_sizes": [128], "num_steps": 1}
    small = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)]
    with (
        run("engine.buffer_seconds=1") as running,
        httpx.Client(transport=httpx.HTTPTransport(socket_options=small), timeout=30) as client,
        client.stream("POST", f"{running.server.url}/v1/audio/speech", json=body) as reply,
    ):
        stream = running.engine.streams[-1]
        total = len(stream.info.text.chunks) * 128 * 2048
        made = -1
        while made != stream.stats.samples:
            made = stream.stats.samples
            time.sleep(0.5)
        assert made < total * 0.7
        assert sum(len(part) for part in reply.iter_raw()) == total * 2


def test_a_full_queue_is_429_with_a_time_to_come_back(run):
    with (
        run("engine.max_active=1", "engine.max_queued=0") as running,
        running.stream(input=TEXT, stream=True, **LONG) as first,
    ):
        parts = first.iter_raw()
        next(parts)
        with httpx.Client(base_url=running.server.url) as other:
            reply = other.post("/v1/audio/speech", json={"input": TEXT})
            health = other.get("/health").json()
        assert reply.status_code == 429
        assert reply.json()["error"]["type"] == "rate_limit_error"
        assert int(reply.headers["retry-after"]) >= 1
        assert (health["active"], health["queued"]) == (1, 0)
        parts.close()


class FailingCodec(S1DAC):
    """Another codec's weights; breaks at its decoding number ``fails_at``, from 1."""

    def __init__(self, codec: S1DAC, fails_at: int) -> None:
        nn.Module.__init__(self)
        self.__dict__ |= codec.__dict__
        self.fails_at = fails_at

    def decode(self, z_q: torch.Tensor, state: DecoderState | None = None) -> torch.Tensor:
        self.fails_at -= 1
        if self.fails_at == 0:
            raise RuntimeError("the device is gone")
        return super().decode(z_q, state)


def failing_at(number: int) -> Callable[[Components], Components]:
    return lambda parts: replace(parts, codec=FailingCodec(parts.codec, number))


def test_a_failure_before_the_first_byte_is_a_500(run):
    with run(change=failing_at(1)) as running:
        reply = running.speak(input=TEXT, stream=True)
        assert reply.status_code == 500
        assert reply.json()["error"]["type"] == "server_error"
        assert reply.json()["error"]["code"] == "generation_failed"
        assert running.speak(input=TEXT, stream=True).status_code == 200


@pytest.mark.parametrize("fmt", ["pcm", "wav", "mp3"])
def test_a_failure_after_the_first_byte_breaks_the_connection(run, fmt):
    with run(change=failing_at(2)) as running:
        with running.stream(input=TEXT, stream=True, response_format=fmt) as reply:
            assert reply.status_code == 200
            with pytest.raises(httpx.RemoteProtocolError):
                reply.read()
        assert running.speak(input=TEXT, stream=True).status_code == 200


def test_running_streams_end_when_the_server_is_stopped(run):
    shape = {"block_sizes": [4, 8], "num_steps": [1, 100]}
    with run() as running, running.stream(input=TEXT, stream=True, **shape) as reply:
        parts = reply.iter_raw()
        size = len(next(parts))
        running.server.should_exit = True
        size += sum(len(part) for part in parts)
        assert size == 12 * 2048 * 2


def test_debug_mode_keeps_the_last_generation(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with run("engine.debug=true") as running:
        running.speak(input=TEXT, response_format="mp3", seed=1)
        wanted = running.engine.synthesize(SpeechRequest(TEXT, voice="anna", seed=1))
    assert Path("api_generation.wav").read_bytes() == encode_file(wanted, 44_100, "wav")


@pytest.mark.parametrize("fmt", ["wav", "mp3", "opus", "aac", "flac"])
def test_who_leaves_amid_a_coded_stream_stops_the_sampler(running, fmt):
    with running.stream(input=TEXT, stream=True, response_format=fmt, **LONG) as reply:
        next(reply.iter_raw())
    stopped_within_one_step(running)


def test_who_leaves_amid_events_stops_the_sampler(running):
    with running.stream(input=TEXT, stream=True, stream_format="sse", **LONG) as reply:
        next(reply.iter_raw())
    stopped_within_one_step(running)
