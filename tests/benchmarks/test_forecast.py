from __future__ import annotations

from copy import deepcopy

import pytest

from benchmarks.forecast import (
    Alone,
    ForecastSettings,
    chunks_of,
    fit,
    learn,
    measure_engine,
    report,
    shape_of,
)
from benchmarks.paced import PRESET, Pace, in_blocks, paced
from benchmarks.record import Record
from benchmarks.speech import reference, write_voice
from echo.engine import Engine, SpeechRequest
from echo.engine.stats import BlockStats, RequestStats
from echo.spec import HOP, SAMPLE_RATE

SETTINGS = ForecastSettings(
    seed=1,
    paced=False,
    listeners=(1, 2),
    text_seconds=(1.0, 2.0),
    reference_seconds=(1.0,),
    rounds=2,
    alone=2,
    rest_s=0.0,
    requests=2,
    repeats=3,
)


def stats_of(*blocks: tuple[int, int, int, float, float], **stages: float) -> RequestStats:
    """``blocks``: chunk, block, latents that were kept, sampling and decoding seconds."""
    stats = RequestStats(SAMPLE_RATE, stages_s=dict(stages), ttfb_stages_s=dict(stages))
    for chunk, block, kept, sample_s, decode_s in blocks:
        stats.blocks.append(
            BlockStats(chunk, block, 0, 3, sample_s, decode_s, kept * HOP, False, 1, None)
        )
    return stats


def test_a_fit_finds_what_made_the_samples() -> None:
    made = [(x, y, 0.5 * x + 0.01 * y) for x, y in ((8, 100), (15, 900), (20, 4_000))]
    assert fit(made) == pytest.approx((0.5, 0.01))


def test_a_part_that_would_be_negative_is_nothing() -> None:
    a, b = fit([(1, 10, 1.0), (1, 20, 2.2), (1, 40, 4.6)])
    assert a == 0.0
    assert b == pytest.approx(0.11, rel=0.05)


def test_costs_and_texts_are_learned_from_requests_alone(toy_config) -> None:
    shape = shape_of(toy_config())
    latents = [sum(shape.step_latents(block)) for block in range(3)]

    def block(chunk: int, number: int, kept: int) -> tuple[int, int, int, float, float]:
        return chunk, number, kept, 3 * 0.02 + latents[number] * 1e-3, 0.05 + kept * 1e-3

    first = stats_of(block(0, 0, 8), block(0, 1, 5), text=0.01, prefix=0.03, voice=0.002)
    second = stats_of(
        *(block(0, 0, 8), block(0, 1, 12), block(0, 2, 20), block(1, 0, 4)),
        **{"text": 0.02, "prefix": 0.06, "voice": 0.002},
    )
    ttfb_s = 0.01 + 0.002 + block(0, 0, 8)[3] + block(0, 0, 8)[4]
    costs, orders = learn([Alone(ttfb_s + 0.004, first)], shape)
    assert costs.edge_s == pytest.approx(0.004)
    costs, orders = learn([Alone(0.0, first), Alone(0.0, second)], shape)
    assert (costs.step_s, costs.step_latent_s) == pytest.approx((0.02, 1e-3))
    assert (costs.codec_s, costs.codec_latent_s) == pytest.approx((0.05, 1e-3))
    assert (costs.text_s, costs.prefix_s, costs.voice_s) == pytest.approx((0.01, 0.03, 0.002))
    assert [order.chunks for order in orders] == [((8, 5),), ((8, 12, 20), (4,))]
    assert chunks_of(second) == orders[1].chunks


def test_an_engine_is_foretold_and_measured(make_engine, voice_root, tmp_path) -> None:
    name = write_voice(voice_root, "one", reference(1.0, 1))
    engine = make_engine("sampler.early_stop_on_zero=false")
    record = Record.of("forecast", measure_engine(engine, [name], SETTINGS), seed=1, config={})
    for source, requests in (("measured", 2), ("forecast", 0)):
        for count in SETTINGS.listeners:
            factors = {"listeners": count, "source": source}
            [busy] = record.values("busy", **factors)
            assert 0 < busy <= 1.05
            assert record.values("ttfb_p95_s", **factors)[0] > 0
            assert len(record.values("ttfb_s", **factors)) == requests * count * SETTINGS.rounds
    told = report([record], tmp_path / "forecast.png")
    assert "ttfb_p95_s" in told
    assert (tmp_path / "forecast.png").stat().st_size > 1000


def test_paced_networks_take_their_time_and_make_the_planned_length(
    toy_components, toy_config
) -> None:
    pace = Pace(step_s=0.01, step_latent_s=0.0, codec_s=0.02, codec_latent_s=0.0)
    with Engine(in_blocks(toy_config()), paced(deepcopy(toy_components), pace)) as engine:
        stream = engine.stream(SpeechRequest("Hello there.", seed=1))
        assert len(stream.read()) == sum(PRESET.block_sizes) * HOP
    stages = stream.stats.stages_s
    assert stages["sampling"] >= sum(PRESET.num_steps) * pace.step_s
    assert stages["codec"] >= 5 * pace.codec_s  # pieces of 32 latents
