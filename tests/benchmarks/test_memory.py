from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest

from benchmarks.memory import (
    MemorySettings,
    growth_per_request,
    measure,
    measure_engine,
    peak_resident_bytes,
    report,
    resident_bytes,
)
from benchmarks.record import Record
from benchmarks.speech import reference, write_voice
from echo.config import compose
from echo.engine import Engine, SpeechRequest, SpeechStream

SETTINGS = MemorySettings(
    seed=1,
    requests=4,
    text_seconds=(1.0,),
    reference_seconds=(1.0,),
    voices=1,
    sample_every=1,
    warmup=1,
)


def test_a_profile_is_measured_in_a_process_of_its_own(toy_settings, tmp_path) -> None:
    rows = measure(compose(toy_settings()), SETTINGS)
    record = Record.of("memory", rows, seed=1, config={})
    assert record.levels("after_requests") == [1, 2, 3, 4]
    (peak,) = record.values("peak_resident")
    assert max(record.values("resident")) <= peak
    assert record.values("empty_process") < record.values("resident_loaded")
    (counted,) = record.values("counted_alone")
    assert 0 < counted <= record.values("counted_house")[0]
    assert "peak resident" in report([record], tmp_path / "memory.png")
    assert (tmp_path / "memory.png").is_file()


class LeakingEngine(Engine):
    """Never gives back 40 MiB of every request: more than malloc serves from what was freed."""

    lost: ClassVar[list[bytes]] = []

    def stream(self, request: SpeechRequest) -> SpeechStream:
        self.lost.append(b"x" * (40 * 2**20))
        return super().stream(request)


def test_a_leak_shows_as_growth(toy_components, toy_config, voice_root) -> None:
    name = write_voice(voice_root, "one", reference(1.0, 1))
    config = toy_config("preset.block_sizes=[4]", "preset.num_steps=[1]")
    settings = replace(SETTINGS, requests=12, warmup=3)
    with LeakingEngine(config, toy_components) as engine:
        rows = measure_engine(engine, [name], settings)
    LeakingEngine.lost.clear()
    record = Record.of("memory", rows, seed=1, config={})
    assert record.values("resident_growth")[0] > 20 * 2**20


def test_growth_is_deaf_to_a_single_jump() -> None:
    flat = [1e9, 1e9, 1e9, 1.2e9, 1.2e9, 1.2e9]
    assert growth_per_request(range(6), [1e9 + 100 * i for i in range(6)]) == pytest.approx(100)
    assert growth_per_request([1, 2, 3], [5.0, 5.0, 9.0]) <= 4.0
    assert growth_per_request(range(12), flat[:3] * 2 + flat[3:] * 2) < 5e7


def test_memory_of_this_process_is_plausible() -> None:
    assert 50 * 2**20 < resident_bytes() <= peak_resident_bytes() * 1.01
