"""On a GPU: compiled, recorded, in company and in its own lanes, the engine says the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from echo.config import compose
from echo.engine import Engine, SpeechRequest
from echo.engine.lane import Lane
from echo.modules.streaming import FlatState
from echo.sampling.block import BlockShape, Conditions, draw_noise, sample_block
from echo.sampling.packing import velocities

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

ON_CUDA = ("model=tiny", "model.device=cuda", "model.codec_device=cuda", "engine.max_load=null")
REQUESTS = [
    SpeechRequest("The kettle is on, and the tea is nearly ready.", seed=1),
    SpeechRequest("Come in.", voice="oscar", seed=2),
    SpeechRequest("It rained all night. The river is high. Mind the step.", voice="iris", seed=3),
    SpeechRequest("Hello there.", seed=4, overrides={"speaker_kv_scale": 1.2}),
]


EXACT = ("model.dtype=float32", "model.tf32=false")
IN_8_BITS = ("model.dtype=bfloat16", "model.quantize=int8")


@pytest.fixture(autouse=True)
def _precision() -> Iterator[None]:
    """What engines set for the whole process is theirs only for the test."""
    precision, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = convolutions


@contextmanager
def engine(*settings: str) -> Iterator[Engine]:
    with Engine.from_config(compose([*ON_CUDA, *settings])) as made:
        made.warm_up()
        yield made


def together(engine: Engine) -> list[Any]:
    return [stream.read() for stream in [engine.stream(request) for request in REQUESTS]]


def difference(ours: Any, expected: Any) -> float:
    """RMS of the difference over the RMS of what was expected."""
    assert len(ours) == len(expected)
    return float(np.sqrt(np.mean((ours - expected) ** 2) / np.mean(expected**2)))


@pytest.mark.parametrize("mode", ["off", "graphs", "full"])
def test_company_and_graphs_leave_the_speech_as_it_is(mode: str, tmp_path: Any) -> None:
    with engine("compile=off", *EXACT) as plain:
        alone = [plain.synthesize(request) for request in REQUESTS]
    with engine(f"compile={mode}", *EXACT, f"compile.cache_dir='{tmp_path}'") as fast:
        recorded = mode != "off"
        assert (fast.components.model.recorded is not None) == recorded
        assert isinstance(fast.components.codec.init_state(), FlatState) == recorded
        for ours, expected in zip(together(fast), alone, strict=True):
            assert difference(ours, expected) < 0.02


def test_in_sixteen_bits_rows_of_any_lengths_share_one_attention_call() -> None:
    with engine("compile=off", "model.dtype=bfloat16") as plain:
        audio = together(plain)
        assert all(np.isfinite(each).all() and np.abs(each).max() > 0.01 for each in audio)


def test_a_lane_waits_for_what_it_takes_and_not_for_what_comes_after() -> None:
    device = torch.device("cuda", 0)
    lane, x = Lane.beside(device), torch.zeros(1000, device=device)
    assert lane.stream is not None
    torch.cuda._sleep(10_000_000)  # some milliseconds
    x += 1
    taken = lane.take(x)
    torch.cuda._sleep(1_000_000_000)  # half a second
    doubled = lane.run(lambda: taken * 2)
    lane.stream.synchronize()
    assert not torch.cuda.current_stream(device).query()
    torch.cuda.synchronize()
    assert torch.equal(doubled, torch.full_like(doubled, 2.0))


def test_eight_bits_are_recorded_too() -> None:
    with engine("compile=graphs", *IN_8_BITS) as fast:
        assert fast.components.model.passes.recorded  # type: ignore[attr-defined]
        audio = together(fast)
        assert all(np.isfinite(each).all() and np.abs(each).max() > 0.01 for each in audio)


@pytest.mark.parametrize("settings", [("model.dtype=bfloat16",), IN_8_BITS])
def test_a_block_is_sampled_without_waiting_for_the_device(settings: tuple[str, ...]) -> None:
    with engine("compile=off", *settings) as made, torch.inference_mode():
        c = made.components
        text = c.model.encode_text(torch.tensor([[0, 72, 105]], device=c.model.device))
        noise = draw_noise(torch.Generator(c.model.device).manual_seed(0), 32, 80, None)
        shape = BlockShape(32, 4, 0.999, None)
        steps = sample_block(
            c.model, c.tables[c.model], Conditions(text, None), noise, shape, made.config.sampler
        )
        request = next(steps)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(3):
                request = steps.send(velocities([request])[0])
        finally:
            torch.cuda.set_sync_debug_mode("default")
