from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.capacity import CapacitySettings, measure, most, order_of, report
from benchmarks.datasheets import CARDS, Shares, costs_of, voice_bytes, weight_bytes
from benchmarks.record import Record, plain_config
from echo.config import compose
from echo.models.codec import CodecConfig
from echo.models.dit import DiTConfig
from echo.spec import LATENTS_PER_SECOND

BASE = ("model=base", "model.weights=random")
SHARES = Shares(flop=0.5, codec_flop=0.5, byte=0.5, launch_s=0.0)
SETTINGS = CapacitySettings(
    seed=1,
    cards=("l4",),
    flop_share=0.4,
    codec_flop_share=0.3,
    byte_share=0.6,
    launch_ms=2.0,
    listeners=(2, 2000),
    text_seconds=(2.0, 4.0),
    reference_seconds=5.0,
    voices_per_listener=0.5,
    ttfb_p95_s=0.3,
    starved_share=0.01,
    simulated_seconds=12.0,
    loop_ms=1.0,
    proxy_streams=1000,
    network_gbit=10.0,
    mp3_kbit=128.0,
)


@pytest.mark.parametrize("limit", [0, 1, 7, 64, 1000])
def test_the_most_is_found_to_a_twelfth(limit: int) -> None:
    found = most(lambda count: count <= limit, 1024)
    assert limit - max(1, limit // 12) <= found <= limit


def test_a_text_fills_its_blocks_one_after_the_other() -> None:
    latents = round(9.0 * LATENTS_PER_SECOND)
    assert order_of(9.0, (32, 128, 480), 0, 1).chunks == ((32, 128, latents - 160),)
    assert order_of(1.0, (32, 128, 480), 0, 1).chunks == ((22,),)
    long = order_of(45.0, (32, 128, 480), 0, 1).chunks
    assert len(long) == 2
    assert sum(map(sum, long)) == round(45.0 * LATENTS_PER_SECOND)


def test_a_card_takes_what_bytes_or_operations_take_whichever_is_more() -> None:
    card = CARDS["h100"]
    costs = costs_of(card, SHARES, DiTConfig(), CodecConfig(), 212)
    layers = 1.37e9  # weights of the transformer's layers
    assert costs.step_floor_s == pytest.approx(2 * layers / (card.bytes / 2), rel=0.05)
    assert costs.step(1) == costs.step_floor_s
    assert costs.step(100_000) == pytest.approx(100_000 * costs.step_latent_s)
    slower = costs_of(replace(card, bf16_flop=card.bf16_flop / 10), SHARES, *_sizes(), 212)
    assert slower.step(100_000) == pytest.approx(10 * costs.step(100_000))


def test_sizes_are_those_of_the_real_model() -> None:
    assert weight_bytes(*_sizes()) == pytest.approx(2 * 2.4e9 + 4 * 0.4e9, rel=0.2)
    per_patch = 2 * 24 * 2048 * 2
    assert voice_bytes(DiTConfig(), 212) == 53 * per_patch


def test_capacity_is_found_and_told(tmp_path) -> None:
    config = compose([*BASE, "preset.block_sizes=[8,16,32]", "preset.num_steps=[2,2,2]"])
    rows = measure(config, SETTINGS)
    described = {**plain_config(config), "benchmark": vars(SETTINGS)}
    record = Record.of("capacity", rows, seed=1, config=described)
    [carried] = record.values("carried", card="l4")
    assert carried >= 1
    few, many = (record.values("cards", card="l4", crowd=n)[0] for n in SETTINGS.listeners)
    assert few >= 1
    assert many >= 2000 / max(carried, 1) * 0.9
    told = report([record], tmp_path / "capacity.png")
    assert "cards for 2,000" in told
    assert (tmp_path / "capacity.png").stat().st_size > 1000


def _sizes() -> tuple[DiTConfig, CodecConfig]:
    return DiTConfig(), CodecConfig()
