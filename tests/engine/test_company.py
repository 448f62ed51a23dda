"""Requests that share steps: each gets what it gets alone, whatever happens to others."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from echo.audio.encode import encode_file
from echo.config import EchoConfig
from echo.engine import Engine, SpeechRequest
from echo.engine.components import Components
from echo.errors import GenerationError
from echo.spec import HOP
from fakes import aiming

TEXT = "Hello there."
MakeEngine = Callable[..., Engine]
STEPS = "preset.num_steps=[6,6,6]"


def clip(seconds: float, pitch: float) -> np.ndarray[Any, Any]:
    t = np.arange(int(44_100 * seconds), dtype=np.float32) / 44_100
    return (0.4 * np.sin(2 * np.pi * pitch * t)).astype(np.float32)


@pytest.fixture
def voices(voice_root: Path) -> None:
    for name, seconds, pitch in (("ann", 1.0, 220.0), ("bob", 2.5, 110.0)):
        (voice_root / f"{name}.wav").write_bytes(encode_file(clip(seconds, pitch), 44_100, "wav"))


MIXED = [
    SpeechRequest("A.", seed=1),
    SpeechRequest("A much longer text, so that the keys are many. " * 6, voice="ann", seed=2),
    SpeechRequest(TEXT, voice="bob", seed=3, overrides={"num_steps": [2, 9, 4]}),
    SpeechRequest(TEXT, voice="bob", seed=4, overrides={"block_sizes": [5, 7, 30]}),
    SpeechRequest(TEXT, voice="ann", seed=5, overrides={"speaker_kv_scale": 1.5}),
    SpeechRequest(TEXT, seed=6, overrides={"rescale_k": 1.2, "rescale_sigma": 3.0}),
    SpeechRequest(TEXT, voice="ann", seed=7, streaming=False),
    SpeechRequest(TEXT, seed=8, overrides={"cfg_min_t": 0.0, "block_sizes": [3]}),
]


def at_once(engine: Engine, requests: list[SpeechRequest]) -> tuple[list[Any], list[Any]]:
    """Audio (or the error) and statistics of ``requests`` made at the same time."""
    streams = [engine.stream(request) for request in requests]
    results: list[Any] = []
    for stream in streams:
        try:
            results.append(stream.read())
        except GenerationError as error:
            results.append(error)
    return results, [stream.stats for stream in streams]


def learn(engine: Engine) -> None:
    """Let the engine see what steps cost."""
    engine.synthesize(SpeechRequest(TEXT, seed=0))


def test_any_company_leaves_the_speech_as_it_is_alone(
    make_engine: MakeEngine, voices: None
) -> None:
    engine = make_engine(STEPS, "sampler.nonstream_block_sizes=[24]", "engine.max_load=null")
    alone = [engine.synthesize(request) for request in MIXED]
    together, stats = at_once(engine, MIXED)
    for ours, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)
    assert max(each.batch_mean for each in stats) > 1.5  # it was company indeed
    assert max(engine.stats()["worker"]["batches"]) > 2


def test_steps_are_shared_even_where_every_step_alone_is_of_one_size(
    make_engine: MakeEngine, toy_components: Components
) -> None:
    costly = aiming(toy_components, lambda start, x: x)
    costly.model.overhead_s = 0.005  # type: ignore[attr-defined]
    settings = ("sampler.cfg_min_t=0", "preset.block_sizes=[8,8]", "preset.num_steps=[20,20]")
    engine = make_engine(*settings, components=costly)
    at_once(engine, [SpeechRequest(TEXT, seed=seed) for seed in range(4)])
    assert max(engine.stats()["worker"]["batches"]) > 2


class _SilentIfNegative:
    """Says of audio whose mean is below zero that it begins with a long silence."""

    def speech_spans(self, samples: Any, sample_rate: int) -> list[tuple[float, float]]:
        return [(0.5 if samples.mean() < 0 else 0.0, len(samples) / sample_rate)]


def test_rerolls_in_company_are_the_rerolls_alone(
    toy_components: Components, toy_config: Callable[..., EchoConfig]
) -> None:
    config = toy_config(
        STEPS, "vad.enabled=true", "vad.silence_threshold_ms=300", "engine.max_load=null"
    )
    requests = [SpeechRequest(TEXT, seed=10 * i) for i in range(6)]
    with Engine(config, toy_components, _SilentIfNegative()) as engine:  # type: ignore[arg-type]
        alone, tried = [], []
        for request in requests:
            stream = engine.stream(request)
            alone.append(stream.read())
            tried.append([block.attempts for block in stream.stats.blocks])
        together, stats = at_once(engine, requests)
    assert max(map(max, tried)) > 1
    assert [[block.attempts for block in each.blocks] for each in stats] == tried
    for ours, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)


@pytest.fixture
def aimed(
    toy_components: Components, toy_config: Callable[..., EchoConfig]
) -> Iterator[Callable[..., Engine]]:
    engines: list[Engine] = []

    def make(aim: Callable[[int, torch.Tensor], torch.Tensor], *overrides: str) -> Engine:
        engines.append(Engine(toy_config(*overrides), aiming(toy_components, aim)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def test_one_that_fails_takes_nobody_along(aimed: Callable[..., Engine]) -> None:
    poison = torch.randn((1, 8, 80), generator=torch.Generator().manual_seed(13))

    def aim(start: int, x: torch.Tensor) -> torch.Tensor:
        if start == 0 and torch.equal(x, poison):
            raise ZeroDivisionError("a planted fault")
        return x

    engine = aimed(aim, "preset.num_steps=[1,20,20]", "engine.max_load=null")
    learn(engine)
    requests = [SpeechRequest(TEXT, seed=seed) for seed in (11, 12, 13, 14)]
    together, _ = at_once(engine, requests)
    assert isinstance(together[2], GenerationError)
    assert "a planted fault" in together[2].message
    del together[2], requests[2]
    for ours, request in zip(together, requests, strict=True):
        np.testing.assert_allclose(ours, engine.synthesize(request), rtol=1e-3, atol=1e-4)


def test_a_fault_in_a_shared_step_is_its_owners_alone(
    make_engine: MakeEngine, toy_components: Components
) -> None:
    """The pass as a whole fails; made again one by one, only the culprit does."""
    broken = aiming(toy_components, lambda start, x: x)

    def aim(start: int, x: torch.Tensor) -> torch.Tensor:
        if start == 8 and len(broken.model.seen) > 30 and float(x[0, 0, 0]) == culprit:
            raise ZeroDivisionError("a planted fault")
        return x

    generator = torch.Generator().manual_seed(22)
    torch.randn((1, 8, 80), generator=generator)
    culprit = float(torch.randn((1, 12, 80), generator=generator)[0, 0, 0])
    broken.model.aim = aim  # type: ignore[attr-defined]
    broken.model.overhead_s = 0.005  # type: ignore[attr-defined]
    engine = make_engine("preset.num_steps=[1,30,1]", "engine.max_load=null", components=broken)
    learn(engine)
    together, _ = at_once(engine, [SpeechRequest(TEXT, seed=seed) for seed in (21, 22, 23)])
    assert [isinstance(each, GenerationError) for each in together] == [False, True, False]
    assert [len(each) for each in together[::2]] == [40 * HOP, 40 * HOP]
    assert engine.stats()["worker"]["retried_steps"] == 1


def test_who_leaves_in_the_middle_changes_nothing_for_the_others(make_engine: MakeEngine) -> None:
    engine = make_engine("preset.num_steps=[3,30,30]", "engine.max_load=null")
    requests = [SpeechRequest(TEXT, seed=seed) for seed in (1, 2, 3)]
    alone = [engine.synthesize(request) for request in requests]
    streams = [engine.stream(request) for request in requests]
    next(streams[1])
    streams[1].close()
    for i in (0, 2):
        np.testing.assert_allclose(streams[i].read(), alone[i], rtol=1e-3, atol=1e-4)
    assert len(streams[1].stats.blocks) < 3


def test_many_who_want_the_same_new_voice_wait_for_one_encoding(
    make_engine: MakeEngine, toy_components: Components, voices: None
) -> None:
    encoded: list[int] = []
    handle = toy_components.codec.encoder.register_forward_hook(
        lambda module, inputs, output: encoded.append(inputs[0].shape[-1])
    )
    engine = make_engine("engine.max_load=null")
    _, stats = at_once(engine, [SpeechRequest(TEXT, voice="bob", seed=i) for i in range(5)])
    handle.remove()
    assert len(encoded) == 1
    assert [each.voice_cached for each in stats].count(False) >= 1
    assert engine.stats()["voice_cache"]["entries"] == 1


def test_a_voice_that_cannot_be_encoded_fails_all_who_wait_and_nobody_after(
    make_engine: MakeEngine, toy_components: Components, voices: None
) -> None:
    def fail(module: Any, inputs: Any) -> None:
        raise ZeroDivisionError("a planted fault")

    handle = toy_components.codec.encoder.register_forward_pre_hook(fail)
    engine = make_engine()
    together, _ = at_once(engine, [SpeechRequest(TEXT, voice="ann", seed=i) for i in range(3)])
    handle.remove()
    assert all(isinstance(each, GenerationError) for each in together)
    assert len(engine.synthesize(SpeechRequest(TEXT, voice="ann", seed=1))) == 40 * HOP


@pytest.mark.parametrize("on_device", ["true", "false"])
def test_a_kept_voice_speaks_the_same_wherever_it_is_kept(
    make_engine: MakeEngine, voices: None, on_device: str
) -> None:
    engine = make_engine(f"voices.cache_on_device={on_device}")
    request = SpeechRequest(TEXT, voice="ann", seed=1)
    np.testing.assert_array_equal(engine.synthesize(request), engine.synthesize(request))
    assert engine.stats()["voice_cache"]["hits"] == 1


def test_the_time_to_the_first_sound_is_accounted_for(
    make_engine: MakeEngine, voices: None
) -> None:
    engine = make_engine()
    stream = engine.stream(SpeechRequest(TEXT, voice="ann", seed=1))
    stream.read()
    stats = stream.stats
    assert set(stats.ttfb_stages_s) == {"queue", "voice", "text", "sampling", "codec", "waiting"}
    assert sum(stats.ttfb_stages_s.values()) == pytest.approx(stats.ttfb_s, abs=1e-3)
    assert set(stats.stages_s) == {"voice", "text", "prefix", "sampling", "codec"}
    assert sum(stats.stages_s.values()) == pytest.approx(stats.compute_s)
    assert stats.steps == 9
    assert stats.batch_mean == 1.0
    worker = engine.stats()["worker"]
    assert (worker["steps"], worker["batches"]) == (9, {1: 9})
    assert worker["rows"] == 3 * (2 * 3 + 1)  # t of 0.999, 0.666 and 0.333
    assert worker["tokens"] == 7 * (8 + 12 + 20)
    assert 0 < worker["busy_s"] <= stats.total_s


def test_nothing_grows_over_many_requests(make_engine: MakeEngine) -> None:
    engine = make_engine(
        "preset.block_sizes=[2,2]", "preset.num_steps=[1,1]", "engine.max_load=null"
    )

    def speak(first: int, count: int) -> int:
        for seed in range(first, first + count, 4):
            at_once(engine, [SpeechRequest("Hi.", seed=seed + i) for i in range(4)])
        return min(tensors() for _ in range(5))  # the worker lets go of the last ones a bit later

    def tensors() -> int:
        time.sleep(0.2)
        gc.collect()
        return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())

    after_few = speak(0, 40)
    assert speak(40, 160) <= after_few + 5
    assert threading.active_count() < 50
