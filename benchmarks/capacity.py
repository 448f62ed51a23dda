"""How many cards do N listeners need, and what gives out next?

    python -m benchmarks.capacity [preset=low] [benchmark.cards=[h100]]

Simulates the engine's scheduler on cards whose step times follow from data sheets and assumptions
(``benchmarks.datasheets``; none was measured): for each card the most listeners whose first sound
comes in time, then for each N the cards, and how much of everything else N listeners take.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.app import launch
from benchmarks.datasheets import (
    CARDS,
    Card,
    Shares,
    costs_of,
    request_bytes,
    voice_bytes,
    weight_bytes,
)
from benchmarks.forecast import limits_of, shape_of
from benchmarks.record import Factor, Record, Row
from benchmarks.replica import Order
from benchmarks.report import figure, save_figure, table
from benchmarks.simulated import Cluster, Listener, Outcome, simulate
from benchmarks.timing import median, percentile
from echo.audio.encode import open_encoder
from echo.config import EchoConfig
from echo.models.codec import DECODE_PIECE_LATENTS, CodecConfig
from echo.models.dit import DiTConfig
from echo.models.sizes import codec_config, dit_config
from echo.spec import LATENTS_PER_SECOND, MAX_LATENTS, SAMPLE_RATE

NAME = "capacity"
FORMATS = ("pcm", "mp3", "opus")
MOST = 1024  # listeners that one card is tried with
SIMULATED = 1_000  # listeners; more are reckoned from these
ENCODED_SECONDS = 20
PART_SECONDS = 6.0  # of audio between two parts that a listener is sent, on average
PCM_BITS = 16 * SAMPLE_RATE  # per second


@dataclass(frozen=True)
class CapacitySettings:
    """``conf/benchmark_capacity.yaml``."""

    seed: int
    cards: tuple[str, ...]
    flop_share: float
    codec_flop_share: float
    byte_share: float
    launch_ms: float
    listeners: tuple[int, ...]
    text_seconds: tuple[float, ...]
    reference_seconds: float
    voices_per_listener: float
    ttfb_p95_s: float
    starved_share: float
    simulated_seconds: float
    loop_ms: float
    proxy_streams: int
    network_gbit: float
    mp3_kbit: float


@dataclass(frozen=True)
class Tried:
    """One simulated load, once it had settled."""

    outcome: Outcome
    ttfb_s: tuple[float, ...]
    starved: float  # share of the audio
    refused: int
    python_s: float  # of a turn: what the scheduler's own Python takes here, simulation included

    def keeps(self, s: CapacitySettings) -> bool:
        """What is promised to listeners."""
        in_time = percentile(self.ttfb_s, 95) <= s.ttfb_p95_s
        return in_time and self.starved <= s.starved_share and not self.refused


def measure(config: EchoConfig, settings: CapacitySettings) -> list[Row]:
    """What each card carries, what many cards do, and what else is used."""
    rows = list(_encoding(settings))
    for name in tqdm(settings.cards, desc=NAME, disable=None):
        rows += _card(config, settings, name)
    return rows


def cluster_of(config: EchoConfig, s: CapacitySettings, card: Card) -> Cluster:
    """One replica on ``card``."""
    dit, codec = _sizes(config)
    shares = Shares(s.flop_share, s.codec_flop_share, s.byte_share, s.launch_ms / 1e3)
    costs = costs_of(card, shares, dit, codec, _speaker_latents(s))
    cache = config.voices.cache_bytes
    recorded = config.compile.cuda_graphs is not False
    piece = config.compile.codec_graph_latents if recorded else DECODE_PIECE_LATENTS
    return Cluster(costs, shape_of(config, piece), limits_of(config), cache_bytes=cache)


def order_of(seconds: float, sizes: Sequence[int], voice: int, size: int) -> Order:
    """A text of so much speech: chunks of equal length, blocks filled one after the other."""
    latents = round(seconds * LATENTS_PER_SECOND)
    chunks = -(-latents // min(MAX_LATENTS, sum(sizes)))
    left, text = latents, []
    for index in range(chunks):
        of_chunk = left // (chunks - index)
        left -= of_chunk
        blocks: list[int] = []
        for block in sizes:
            if of_chunk > 0:
                blocks.append(min(block, of_chunk))
                of_chunk -= blocks[-1]
        text.append(tuple(blocks))
    return Order(tuple(text), voice, size)


def try_load(cluster: Cluster, s: CapacitySettings, count: int, voice_size: int) -> Tried:
    """``count`` listeners who begin one by one and go on; what they ask for in the first third is
    not judged."""
    rng, sizes = random.Random(f"{s.seed}/{count}"), cluster.shape.sizes
    voices = max(1, round(count * s.voices_per_listener))
    length = sum(s.text_seconds) / len(s.text_seconds)
    asks = int(2 * s.simulated_seconds / length) + 1
    settled = s.simulated_seconds / 3
    crowd = []
    for _ in range(count):
        voice = rng.randrange(voices)
        texts = [
            order_of(rng.choice(s.text_seconds), sizes, voice, voice_size) for _ in range(asks)
        ]
        crowd.append(Listener(texts, begins=rng.uniform(0.0, min(length, settled))))
    begun = time.process_time()
    outcome = simulate(cluster, crowd, s.seed, window=(settled, s.simulated_seconds))
    spent = time.process_time() - begun
    judged = [each for each in outcome.heard if each.arrived >= settled]
    served = [each for each in judged if not each.refused]
    audio = sum(each.audio_s for each in served) or 1.0
    return Tried(
        outcome,
        tuple(each.ttfb_s for each in served),
        sum(each.gap_s for each in served) / audio,
        len(judged) - len(served),
        spent / sum(use.turns for use in outcome.uses),
    )


def _card(config: EchoConfig, s: CapacitySettings, name: str) -> Iterator[Row]:
    """Rows of one card: every load that was tried, what it carries, how many are needed."""
    factors: dict[str, Factor] = {"preset": config.preset.name, "card": name}
    cluster = cluster_of(config, s, CARDS[name])
    dit, codec = _sizes(config)
    own = voice_bytes(dit, _speaker_latents(s))
    room = CARDS[name].memory - weight_bytes(dit, codec)
    yield Row("fit", room // (request_bytes(dit) + own), "count", "", 0, factors)
    yield Row("voice_bytes", own, "B", "", 0, factors)
    for stage, seconds in vars(cluster.costs).items():
        yield Row("assumed_s", seconds, "s", "", 0, {**factors, "cost": stage})
    tried: dict[int, Tried] = {}

    def works(count: int) -> bool:
        tried[count] = try_load(cluster, s, count, own)
        return tried[count].keeps(s)

    carried = most(works, MOST)
    for count, each in sorted(tried.items()):
        yield from _figures(each, {**factors, "listeners": count})
    yield Row("carried", carried, "count", "higher", 0, factors)
    if carried:
        yield from _many(cluster, s, carried, own, factors)


def most(works: Callable[[int], bool], limit: int) -> int:
    """The largest count that ``works``, to about a twelfth; 0: not even one does."""
    low, high = 0, 1
    while high <= limit and works(high):
        low, high = high, 2 * high
    while high - low > max(1, low // 12):
        middle = (low + high) // 2
        if works(middle):
            low = middle
        else:
            high = middle
    return low


def _many(
    cluster: Cluster, s: CapacitySettings, carried: int, own: int, factors: dict[str, Factor]
) -> Iterator[Row]:
    """Cards for each number of listeners. Up to ``SIMULATED`` all of them are simulated, routed by
    voice; beyond, the cards of the largest that was are multiplied: replicas share nothing but the
    router."""
    per_card = float(carried)
    for count in sorted(s.listeners):
        simulated = count <= SIMULATED
        cards = max(1, round(count / (carried if simulated else per_card)))
        place: dict[str, Factor] = {**factors, "crowd": count, "simulated": simulated}
        if simulated:
            while not (tried := try_load(replace(cluster, replicas=cards), s, count, own)).keeps(s):
                cards += max(1, cards // 12)
            per_card = count / cards if cards > 4 else per_card  # a few say little of many
            misses = sum(use.voice_misses for use in tried.outcome.uses)
            hits = sum(use.voice_hits for use in tried.outcome.uses)
            yield Row("ttfb_p95_s", percentile(tried.ttfb_s, 95), "s", "lower", 0, place)
            yield Row("voice_misses", misses / (hits + misses), "ratio", "lower", 0, place)
        yield Row("cards", cards, "count", "lower", 0, place)


def _figures(tried: Tried, factors: dict[str, Factor]) -> Iterator[Row]:
    [use] = tried.outcome.uses
    yield Row("ttfb_p50_s", median(tried.ttfb_s), "s", "lower", 0, factors)
    yield Row("ttfb_p95_s", percentile(tried.ttfb_s, 95), "s", "lower", 0, factors)
    yield Row("starved", tried.starved, "ratio", "lower", 0, factors)
    yield Row("refused", tried.refused, "count", "lower", 0, factors)
    yield Row("busy", tried.outcome.busy, "ratio", "", 0, factors)
    yield Row("company", use.shared / use.steps, "count", "", 0, factors)
    yield Row("most_active", use.most_active, "count", "", 0, factors)
    yield Row("turns_per_s", use.turns / tried.outcome.seconds, "1/s", "", 0, factors)
    yield Row("turn_python_s", tried.python_s, "s", "lower", 0, factors)
    for stage, seconds in use.by_stage.items():
        share = seconds / use.busy_s
        yield Row("stage_share", share, "ratio", "", 0, {**factors, "stage": stage})


def _encoding(s: CapacitySettings) -> Iterator[Row]:
    """Seconds of this CPU per second of audio, measured: the one thing here that is."""
    rng = np.random.default_rng(s.seed)
    second = (0.1 * rng.standard_normal(SAMPLE_RATE)).astype(np.float32)
    for name in FORMATS:
        for i in range(3):
            encoder = open_encoder(name, SAMPLE_RATE)
            begun = time.process_time()
            for _ in range(ENCODED_SECONDS):
                encoder.push(second)
            encoder.close()
            spent = (time.process_time() - begun) / ENCODED_SECONDS
            yield Row("encode_s", spent, "s", "lower", i, {"format": name})


def _sizes(config: EchoConfig) -> tuple[DiTConfig, CodecConfig]:
    m = config.model
    return dit_config(m.repo, local_only=True), codec_config(m.codec_repo, local_only=True)


def _speaker_latents(s: CapacitySettings) -> int:
    return round(s.reference_seconds * LATENTS_PER_SECOND)


def report(records: Sequence[Record], picture: Path) -> str:
    """What cards carry, how many are needed, and what N listeners take of everything else."""
    carried, needed = [], []
    for record in records:
        preset = record.config["preset"]["name"]
        for card in record.levels("card"):
            [count] = (int(value) for value in record.values("carried", card=card))
            at: dict[str, Factor] = {"card": card, "listeners": count}
            carried.append(
                (
                    preset,
                    card,
                    count,
                    *(_shown(record.values(m, **at)) for m in ("ttfb_p50_s", "ttfb_p95_s")),
                    *(_shown(record.values(m, **at)) for m in ("busy", "company")),
                    *(
                        _shown(record.values("stage_share", stage=stage, **at))
                        for stage in ("step", "codec", "voice")
                    ),
                    f"{median(record.values('fit', card=card)):.0f}",
                )
            )
            cards = [
                f"{median(record.values('cards', card=card, crowd=n)):.0f}"
                for n in record.levels("crowd")
            ]
            needed.append((preset, card, *cards))
    heads = ("", "card", "listeners", "TTFB s", "p95", "busy", "per step", "steps", "codec")
    crowds = [f"{count:,}" for count in records[0].levels("crowd")]
    _draw(records, picture)
    return "\n\n".join(
        (
            table((*heads, "voices", "fit in memory"), carried),
            table(("", "card", *(f"cards for {count}" for count in crowds)), needed),
            table(("besides the cards", *crowds), list(besides(records[0]))),
        )
    )


def besides(record: Record) -> Iterator[tuple[str, ...]]:
    """What each crowd takes of the rest."""
    b = record.config["benchmark"]
    crowds = record.levels("crowd")
    encode = {name: median(record.values("encode_s", format=name)) for name in FORMATS}
    for name in FORMATS[1:]:
        yield (f"cores that encode {name}", *(f"{n * encode[name]:.1f}" for n in crowds))
    loops = b["loop_ms"] / 1e3 / PART_SECONDS
    yield ("cores for event loops", *(f"{n * loops:.2f}" for n in crowds))
    for name, bits in (("pcm", PCM_BITS), ("mp3", 1e3 * b["mp3_kbit"])):
        yield (f"Gbit/s of {name}", *(f"{n * bits / 1e9:.3f}" for n in crowds))
    links = b["network_gbit"] * 1e9 / PCM_BITS
    yield ("network links, pcm", *(f"{n / links:.2f}" for n in crowds))
    yield ("proxies", *(f"{n / b['proxy_streams']:.2f}" for n in crowds))
    size = median(record.values("voice_bytes"))
    voices = [n * b["voices_per_listener"] for n in crowds]
    yield ("GB of encoded voices", *(f"{n * size / 1e9:.2f}" for n in voices))


def _shown(values: Sequence[float]) -> str:
    return f"{median(values):.2f}" if values else ""


def _draw(records: Sequence[Record], picture: Path) -> None:
    fig, (left, right) = figure(9.0, 3.6, columns=2)
    record = records[0]
    for card in record.levels("card"):
        counts = sorted(record.levels("listeners"))
        points = [
            (n, v) for n in counts for v in record.values("ttfb_p95_s", card=card, listeners=n)
        ]
        left.plot(*zip(*points, strict=True), "o-", markersize=3, label=card)
    left.axhline(record.config["benchmark"]["ttfb_p95_s"], color="0.6", linewidth=0.8)
    left.set_xscale("log", base=2)
    left.set_yscale("log")
    left.set_xlabel("listeners on one card; the line: what is promised")
    left.set_ylabel("s to first sound, p95 (simulated)")
    left.legend(frameon=False, fontsize="small")
    for card in record.levels("card"):
        crowds = record.levels("crowd")
        cards = [median(record.values("cards", card=card, crowd=n)) for n in crowds]
        right.plot(crowds, cards, "o-", markersize=3, label=card)
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xlabel("listeners")
    right.set_ylabel("cards")
    save_figure(fig, picture)


if __name__ == "__main__":
    launch(NAME, CapacitySettings, measure)
