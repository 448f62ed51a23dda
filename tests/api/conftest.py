"""A toy engine (seeded noise, milliseconds per block) behind a real server on loopback."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType

import httpx
import numpy as np
import pytest

from echo.api.app import create_app
from echo.api.server import EchoServer, bind
from echo.audio.encode import encode_file
from echo.config import compose
from echo.engine import Engine, SpeechRequest, SpeechStream
from echo.engine.components import load_components
from echo.models.codec import CodecConfig, EncoderTransformerConfig
from echo.models.dit import DiTConfig

DIT = DiTConfig(
    model_size=64,
    num_layers=1,
    num_heads=4,
    intermediate_size=96,
    text_model_size=32,
    text_num_layers=1,
    text_num_heads=2,
    text_intermediate_size=48,
    speaker_model_size=32,
    speaker_num_layers=1,
    speaker_num_heads=2,
    speaker_intermediate_size=48,
    timestep_embed_size=32,
    adaln_rank=8,
)
CODEC = CodecConfig(
    encoder_dim=4,
    latent_dim=80,
    decoder_dim=16,
    encoder_transformer=EncoderTransformerConfig(layers=1, heads=2, dim=64, ffn=64),
    q_layers=1,
    q_heads=2,
    q_head_dim=8,
    q_ffn=32,
    n_codebooks=2,
    codebook_size=32,
    semantic_codebook_size=32,
    q_window=8,
    encoder_window=16,
)


def steps_of(stream: SpeechStream) -> int:
    return stream.progress.steps_done if stream.progress else 0


class WatchedEngine(Engine):
    """Keeps its streams, and how far each was when it was closed."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.streams: list[SpeechStream] = []
        self.steps_at_close: dict[SpeechStream, int] = {}

    def stream(self, request: SpeechRequest) -> SpeechStream:
        stream = super().stream(request)
        close = stream.close

        def watched_close() -> None:
            self.steps_at_close.setdefault(stream, steps_of(stream))
            close()

        stream.close = watched_close
        self.streams.append(stream)
        return stream


@dataclass
class Running:
    """A server and a client that is connected to it."""

    engine: WatchedEngine
    server: EchoServer
    client: httpx.Client
    headers: dict[str, str] = field(default_factory=dict)

    def speak(self, **body: object) -> httpx.Response:
        return self.client.post("/v1/audio/speech", json={"voice": "anna", **body})

    def stream(self, **body: object) -> AbstractContextManager[httpx.Response]:
        return self.client.stream("POST", "/v1/audio/speech", json={"voice": "anna", **body})


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.002)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sizes of the toy networks and with voices."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "config.json").write_text(json.dumps({"dit": asdict(DIT), "codec": asdict(CODEC)}))
    voices = folder / "audio_prompts"
    (voices / "pair").mkdir(parents=True)
    noise = 0.3 * np.random.default_rng(0).standard_normal(44_100).astype(np.float32)
    clip = encode_file(noise, 44_100, "wav")
    for name in ("anna.wav", "pair/1.wav", "pair/2.wav"):
        (voices / name).write_bytes(clip)
    (voices / "letter.wav").write_text("Dear Anna, this is a text and no audio. " * 100)
    (folder / "secret.wav").write_bytes(clip)
    return folder


@pytest.fixture(scope="session")
def toy_overrides(toy: Path) -> list[str]:
    """What makes a configuration use the toy."""
    return [
        "model=tiny",
        "model.weights=random",
        "model.max_chunk_seconds=null",
        *(f"model.{key}={toy}" for key in ("repo", "codec_repo", "pca_repo")),
        "model.device=cpu",
        "model.codec_device=cpu",
        "engine.cpu_threads=1",
        "preset.block_sizes=[4,4]",
        "preset.num_steps=[2,2]",
        "sampler.nonstream_block_sizes=[8]",
        "sampler.nonstream_num_steps=2",
        "sampler.early_stop_on_zero=false",
        f"voices.roots=[{toy / 'audio_prompts'}]",
        f"voices.clone_root={toy / 'audio_prompts'}",
        "voices.default=null",
        "server.port=0",
    ]


@pytest.fixture(scope="session")
def run(toy_overrides: list[str]) -> Callable[..., AbstractContextManager[Running]]:
    """Starts a server with further overrides.

    ``change``: applied to its networks. ``without``: keys of the toy's overrides left out.
    ``flags``: environment variables.
    """

    @contextmanager
    def start(
        *overrides: str,
        change: Callable | None = None,
        without: tuple[str, ...] = (),
        flags: Mapping[str, str] = MappingProxyType({}),
    ) -> Iterator[Running]:
        kept = [each for each in toy_overrides if each.partition("=")[0] not in without]
        with pytest.MonkeyPatch.context() as patch:
            for name in list(os.environ):
                if name.startswith("ECHO_") or name in ("PORT", "HOST"):
                    patch.delenv(name)
            for name, value in flags.items():
                patch.setenv(name, value)
            config = compose([*kept, *overrides])
        components = load_components(config)
        if change is not None:
            components = change(components)
        with (
            WatchedEngine(config, components) as engine,
            bind(config.server) as listener,
        ):
            server = EchoServer(create_app(engine, config), listener)
            thread = threading.Thread(target=server.run)
            thread.start()
            try:
                wait_until(lambda: server.started)
                with httpx.Client(base_url=server.url, timeout=30) as client:
                    yield Running(engine, server, client)
            finally:
                server.should_exit = True
                thread.join(20)
            assert not thread.is_alive()

    return start


@pytest.fixture(scope="session")
def running(run) -> Iterator[Running]:
    """The server that most tests share."""
    with run() as running:
        yield running
