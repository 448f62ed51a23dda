"""The simulation against what queueing theory knows in closed form, and against the engine."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from benchmarks.replica import Costs, Order, Shape
from benchmarks.simulated import Cluster, Listener, Outcome, poisson, simulate
from benchmarks.timing import median
from echo.config import compose
from echo.engine.task import Limits
from echo.sampling.block import BlockShape
from echo.spec import HOP, SAMPLE_RATE

SAMPLER = replace(compose(["model=tiny"]).sampler, cfg_min_t=1.0, cfg_max_t=0.0)  # unguided
GUIDED = replace(SAMPLER, cfg_min_t=0.0, cfg_max_t=1.0)
HALF_GUIDED = replace(GUIDED, cfg_min_t=0.5)
ONE_STEP = Shape([BlockShape(10, 1, 1.0, None)], SAMPLER, 3)
LIMITS = Limits(
    max_active=100_000,
    max_queued=0,
    max_batch_tokens=1 << 30,
    max_load=None,
    buffer_samples=math.inf,
    sample_rate=SAMPLE_RATE,
)
REAL_TIME = replace(LIMITS, max_queued=100, max_load=1.0)
SERVICE_S = 0.1
COSTS = Costs(step_s=0.0, step_latent_s=SERVICE_S / 10)  # nothing is gained by sharing a step
ORDER = Order(chunks=((10,),))


def cluster(costs: Costs = COSTS, shape: Shape = ONE_STEP, **more: object) -> Cluster:
    return Cluster(costs, shape, LIMITS, **more)  # type: ignore[arg-type]


def mean_ttfb(outcome: Outcome) -> float:
    return sum(each.ttfb_s for each in outcome.heard) / len(outcome.heard)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_random_arrivals_wait_as_long_as_pollaczek_and_khinchine_say(load: float) -> None:
    """M/D/1: the mean wait is load * service / (2 (1 - load))."""
    outcome = simulate(cluster(), poisson([ORDER] * 20_000, load / SERVICE_S, seed=1))
    expected = SERVICE_S + load * SERVICE_S / (2 * (1 - load))
    assert mean_ttfb(outcome) == pytest.approx(expected, rel=0.05)
    assert outcome.busy == pytest.approx(load, rel=0.02)


def test_turns_that_vary_wait_longer_by_their_variance() -> None:
    """M/G/1: the mean wait grows with 1 + the squared coefficient of variation."""
    load, spread = 0.6, 1.0
    costs = replace(COSTS, spread=spread)
    alone = replace(LIMITS, max_batch_tokens=10)  # such times would make company look cheap
    queue = Cluster(costs, ONE_STEP, alone)
    outcome = simulate(queue, poisson([ORDER] * 20_000, load / SERVICE_S, seed=2))
    wait = load * SERVICE_S * (1 + spread**2) / (2 * (1 - load))
    assert mean_ttfb(outcome) - SERVICE_S == pytest.approx(wait, rel=0.1)


def test_a_closed_crowd_obeys_little_and_the_bottleneck_bound() -> None:
    """N listeners who ask again at once: X = 1 / service, and N = X * R."""
    crowd = [Listener([ORDER] * 400, plays=False) for _ in range(5)]
    outcome = simulate(cluster(), crowd)
    rate = len(outcome.heard) / outcome.seconds
    assert rate == pytest.approx(1 / SERVICE_S, rel=1e-6)
    assert rate * mean_ttfb(outcome) == pytest.approx(5, rel=0.01)


def test_listeners_who_rest_ask_as_often_as_the_response_time_law_says() -> None:
    """One listener alone: X = 1 / (service + audio + rest)."""
    audio_s, rest_s = 10 * HOP / SAMPLE_RATE, 0.7
    outcome = simulate(cluster(), [Listener([ORDER] * 100, rest_s=rest_s)])
    cycle = SERVICE_S + audio_s + rest_s
    last = outcome.heard[-1].arrived - outcome.heard[0].arrived
    assert last == pytest.approx(99 * cycle)


def test_steps_that_cost_the_same_together_are_shared_by_all() -> None:
    """Eight at once are served in the time of one."""
    shape = Shape([BlockShape(10, 8, 1.0, None)], HALF_GUIDED, 3)
    first, crowd = Listener([ORDER]), [Listener([ORDER], begins=100.0) for _ in range(8)]
    outcome = simulate(cluster(Costs(SERVICE_S, 1e-9), shape), [first, *crowd])
    alone, *together = (each.ttfb_s for each in outcome.heard)
    assert alone == pytest.approx(8 * SERVICE_S)
    assert max(together) == pytest.approx(alone, rel=0.01)
    assert outcome.uses[0].shared == 8 + 8 * 8
    apart = simulate(cluster(Costs(0.0, SERVICE_S / 10), shape), [first, *crowd])
    assert apart.uses[0].shared == apart.uses[0].steps  # nothing to gain: nothing is shared


def test_a_request_alone_takes_the_sum_of_its_parts() -> None:
    shape = Shape([BlockShape(40, 3, 1.0, None), BlockShape(80, 2, 1.0, None)], GUIDED, 3)
    costs = Costs(
        step_s=0.01,
        step_latent_s=1e-3,
        text_s=0.02,
        prefix_s=0.03,
        prefix_latent_s=1e-4,
        codec_s=0.001,
        codec_latent_s=1e-3,
        voice_s=0.5,
        cached_voice_s=0.004,
        edge_s=0.005,
    )
    order = Order(((40, 70), (40,)), voice=1, voice_bytes=10)
    outcome = simulate(cluster(costs, shape), [Listener([order, order], plays=False)])
    first_block = 0.02 + 3 * (0.01 + 120e-3) + 2 * 0.001 + 40e-3
    second_block = 0.03 + 40e-4 + 2 * (0.01 + 240e-3) + 3 * 0.001 + 70e-3
    new, known = outcome.heard
    assert new.ttfb_s == pytest.approx(0.5 + first_block + 0.005)
    assert known.ttfb_s == pytest.approx(0.004 + first_block + 0.005)
    assert known.ended - known.arrived == pytest.approx(
        0.004 + 2 * first_block + second_block + 0.005
    )
    assert known.audio_s == pytest.approx((40 + 70 + 40) * HOP / SAMPLE_RATE)
    assert outcome.uses[0].voice_hits == outcome.uses[0].voice_misses == 1


def test_requests_of_a_voice_that_is_being_encoded_share_the_encoding() -> None:
    costs = replace(COSTS, voice_s=1.0)
    order = Order(((10,),), voice=3, voice_bytes=1)
    outcome = simulate(cluster(costs), [Listener([order]) for _ in range(4)])
    assert outcome.uses[0].by_stage["voice"] == pytest.approx(1.0)


def test_a_cache_that_is_too_small_encodes_again_and_routing_by_voice_mends_it() -> None:
    costs = replace(COSTS, voice_s=0.05)
    voices = [Order(((10,),), voice=i % 64, voice_bytes=1) for i in range(4_000)]
    misses = {}
    for route in ("least", "voice"):
        own = cluster(costs, replicas=4, cache_bytes=24, route=route, slack=20)
        outcome = simulate(own, poisson(voices, 8.0, seed=3))
        misses[route] = sum(use.voice_misses for use in outcome.uses)
    assert misses["voice"] < 0.2 * misses["least"]


def test_two_replicas_serve_twice_as_many() -> None:
    crowd = [Listener([ORDER] * 100, plays=False) for _ in range(8)]
    one, two = (simulate(cluster(replicas=n), crowd).seconds for n in (1, 2))
    assert two == pytest.approx(one / 2, rel=0.02)


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    costs = replace(COSTS, spread=0.3)
    crowd = poisson([ORDER] * 500, 6.0, seed=4)
    first, again, other = (simulate(cluster(costs), crowd, seed=s).heard for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_who_finds_the_queue_full_is_refused_and_not_served() -> None:
    own = Cluster(COSTS, ONE_STEP, replace(LIMITS, max_active=1, max_queued=1))
    outcome = simulate(own, [Listener([ORDER]) for _ in range(5)])
    served = [each for each in outcome.heard if not each.refused]
    assert len(served) == 2
    assert median([each.ttfb_s for each in served]) == pytest.approx(1.5 * SERVICE_S)


def test_a_window_looks_at_the_middle_and_ends_the_asking() -> None:
    crowd = [Listener([ORDER] * 1000, plays=False)]
    outcome = simulate(cluster(), [*crowd, Listener([ORDER], begins=40.0)], window=(10.0, 20.0))
    assert outcome.busy == pytest.approx(1.0, abs=0.02)
    assert outcome.seconds == pytest.approx(20.0, abs=0.2)


@pytest.mark.parametrize("count", [2, 4, 6])
def test_a_full_room_hears_no_gap_and_most_newcomers_hardly_wait(count: int) -> None:
    """The admission's promise, on a device of the speed of two CPU cores, texts of three lengths.

    Most of a newcomer's wait is one pass of somebody else. The room begins at one moment.
    """
    costs = Costs(
        step_s=0.003,
        step_latent_s=0.0001,
        text_s=0.004,
        prefix_s=0.002,
        prefix_latent_s=0.0001,
        codec_s=0.002,
        codec_latent_s=0.0005,
        spread=0.1,
    )
    blocks = [BlockShape(32, 8, 1.0, None), BlockShape(128, 15, 1.0, None)]
    device = replace(cluster(costs, Shape(blocks, HALF_GUIDED, 3)), limits=REAL_TIME)
    orders = [Order(((32, 54),) * chunks) for chunks in (1, 3, 7)]
    rng, waits, gaps = random.Random(count), [], []
    for seed in range(10):
        room = [Listener(rng.choices(orders, k=3)) for _ in range(count)]
        moments = [rng.uniform(3.0, 30.0) for _ in range(5)]
        newcomers = [Listener([orders[0]], begins=moment) for moment in moments]
        heard = simulate(device, [*room, *newcomers], seed=seed).heard
        alone = heard[0].ttfb_s
        gaps += [each.gap_s for each in heard]
        waits += [each.ttfb_s for each in heard if each.arrived in moments]
    assert max(gaps) == 0.0
    assert median(waits) < 2 * alone + costs.step(3 * 128)
