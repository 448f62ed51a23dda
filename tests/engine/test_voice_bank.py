"""Voices encoded by the worker or, with ``voices.encode_device=cpu``, by who asks for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from echo.audio.encode import encode_file
from echo.engine import Engine, SpeechRequest
from echo.engine.components import Components
from echo.models.load import load_codec
from echo.voices.source import resolve

REQUEST = SpeechRequest("Hello there.", voice="ann", seed=1)
MakeEngine = Callable[..., Engine]


@pytest.fixture
def ann(voice_root: Path) -> None:
    t = np.arange(44_100 * 2, dtype=np.float32) / 44_100
    clip = (0.4 * np.sin(2 * np.pi * 220.0 * t)).astype(np.float32)
    (voice_root / "ann.wav").write_bytes(encode_file(clip, 44_100, "wav"))


@pytest.mark.usefixtures("ann")
def test_it_is_the_same_voice_whoever_encodes_it(make_engine: MakeEngine) -> None:
    by_worker = make_engine().synthesize(REQUEST)
    engine = make_engine("voices.encode_device=cpu")
    with engine.stream(REQUEST) as stream:
        by_caller = stream.read()
    np.testing.assert_allclose(by_caller, by_worker, atol=1e-5)
    assert not stream.stats.voice_cached
    with engine.stream(REQUEST) as stream:
        stream.read()
    assert stream.stats.voice_cached


class _CountingCodec:
    """A forward hook of the codec's encoder: whose thread it runs in."""

    def __init__(self) -> None:
        self.threads: list[str] = []

    def __call__(self, module: Any, inputs: Any, output: Any) -> None:
        self.threads.append(threading.current_thread().name)


@pytest.mark.usefixtures("ann")
@pytest.mark.parametrize("where", ["null", "cpu"])
def test_a_new_voice_is_encoded_once_and_off_the_worker_if_wanted(
    make_engine: MakeEngine, toy_components: Components, where: str
) -> None:
    hook = _CountingCodec()
    handle = toy_components.codec.encoder.register_forward_hook(hook)
    try:
        engine = make_engine(f"voices.encode_device={where}")
        barrier = threading.Barrier(4)

        def ask() -> None:
            barrier.wait()
            engine.synthesize(REQUEST)

        callers = [threading.Thread(target=ask, name="caller") for _ in range(4)]
        for each in callers:
            each.start()
        for each in callers:
            each.join()
    finally:
        handle.remove()
    assert len(hook.threads) == 1
    assert (hook.threads == ["echo-worker"]) == (where == "null")


@pytest.mark.usefixtures("ann")
@pytest.mark.parametrize("where", ["null", "cpu"])
def test_a_voice_deleted_while_it_is_encoded_is_not_kept(
    make_engine: MakeEngine, toy_components: Components, where: str
) -> None:
    engine = make_engine(f"voices.encode_device={where}")
    source = resolve("ann", engine.voices, engine.config.voices)
    assert source is not None
    key = source.content_key
    handle = toy_components.codec.encoder.register_forward_hook(
        lambda module, inputs, output: engine.forget_voice(key)
    )
    try:
        assert len(engine.synthesize(REQUEST)) > 0  # who asked before still hears it
    finally:
        handle.remove()
    assert engine.stats()["voice_cache"]["entries"] == 0
    engine.synthesize(REQUEST)  # it is there again, such as a file put back
    assert engine.stats()["voice_cache"]["entries"] == 1


@pytest.mark.usefixtures("ann")
def test_a_voice_that_fell_out_of_the_cache_is_encoded_again(make_engine: MakeEngine) -> None:
    engine = make_engine("voices.encode_device=cpu", "voices.cache_bytes=0")
    first, second = engine.synthesize(REQUEST), engine.synthesize(REQUEST)
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_the_halves_of_a_codec_can_differ_in_place_and_format() -> None:
    """bfloat16 for the decoder only: a voice's latents are those of the float32 codec."""
    cpu = torch.device("cpu")
    settings: dict[str, Any] = {"device": cpu, "weights": "checkpoint"}
    plain = load_codec("shipped:tiny", dtype=torch.float32, **settings)
    halves = load_codec("shipped:tiny", dtype=torch.bfloat16, encoder_device=cpu, **settings)
    assert (halves.dtype, plain.dtype) == (torch.bfloat16, torch.float32)
    assert {p.dtype for p in halves.encoder.parameters()} == {torch.float32}
    assert {p.dtype for p in halves.quantizer.quantizer.parameters()} == {torch.float32}
    assert {p.dtype for p in halves.decoder.parameters()} == {torch.bfloat16}
    audio = torch.randn(1, 1, 4096) / 10
    with torch.inference_mode():
        torch.testing.assert_close(halves.encode(audio)[0], plain.encode(audio)[0])
        assert halves.decode(halves.encode(audio)[0]).dtype == torch.bfloat16
