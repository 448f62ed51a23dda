"""Each part of a generation by itself, with the operations and bytes per second it reaches.

    python -m benchmarks.components -m model=tiny,base model.weights=random

Counts come from ``benchmarks.counts``; the peaks beside them are measured here, by a large matrix
product and a large copy. ``dit_step`` is a step as the engine runs it, ``dit_plain`` the masked
textbook pass of ``echo.inference``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import counts
from benchmarks.app import launch
from benchmarks.latency import factors_of, label_of, voice_name, voices_of
from benchmarks.record import Factor, Record, Row
from benchmarks.report import figure, save_figure, table
from benchmarks.speaking import speak
from benchmarks.speech import texts
from benchmarks.timing import median, time_calls
from echo.config import EchoConfig
from echo.engine import Engine, SpeechRequest
from echo.models.codec import S1DAC
from echo.models.dit import PrefixState
from echo.spec import LATENTS_PER_SECOND
from echo.text import prepare, tokenize

NAME = "components"
STEPS = 8  # of one block whose steps are timed
STEP_TEXT_SECONDS = 4.0
UNTIL_STOPPED = {"early_stop_on_zero": False, "chunking_enabled": False}
PEAK_MATRIX = {"cpu": 2048, "cuda": 8192}  # rows and columns
PEAK_COPY_BYTES = {"cpu": 2**28, "cuda": 2**31}


@dataclass(frozen=True)
class ComponentSettings:
    """``conf/benchmark_components.yaml``."""

    seed: int
    repeats: int
    warmup: int
    min_seconds: float
    text_tokens: tuple[int, ...]
    speaker_latents: tuple[int, ...]
    block_latents: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """One call: its name, what varies, its work at ``dtype``, and where it runs."""

    name: str
    size: int
    call: Callable[[], object]
    work: counts.Work
    dtype: torch.dtype
    device: torch.device


def measure(config: EchoConfig, settings: ComponentSettings) -> list[Row]:
    """Load the engine of ``config`` and measure its parts."""
    voice_seconds = settings.speaker_latents[0] / LATENTS_PER_SECOND
    with (
        voices_of(config, [voice_seconds], 0, settings.seed) as own,
        Engine.from_config(own) as engine,
    ):
        engine.warm_up()
        return measure_engine(engine, settings)


@torch.inference_mode()
def measure_engine(engine: Engine, settings: ComponentSettings) -> list[Row]:
    """Rows of the parts of ``engine``, then of its steps, then of the machine's peaks."""
    s, common = settings, factors_of(engine.config)
    c = engine.components
    parts = list(_parts(engine, s))
    rows: list[Row] = []
    with tqdm(total=len(parts) + 2 * len(s.block_latents) + 2, desc=NAME, disable=None) as bar:
        for part in parts:
            taken = time_calls(
                part.call, part.device, repeats=s.repeats, warmup=s.warmup, min_s=s.min_seconds
            )
            factors = {**common, "component": part.name, "size": part.size}
            rows += _rows(taken, part.work, part.dtype.itemsize, factors)
            bar.update()
        for latents in s.block_latents:
            for guided in (True, False):
                rows += _steps(engine, s, latents, guided, common)
                bar.update()
        for what, device, dtype in (
            ("model", c.model.device, c.model.dtype),
            ("codec", c.codec.device, c.codec.dtype),
        ):
            for metric, unit, values in _peaks(device, dtype, s):
                rows += [
                    Row(metric, v, unit, "", i, {**common, "of": what})
                    for i, v in enumerate(values)
                ]
            bar.update()
    return rows


def _parts(engine: Engine, s: ComponentSettings) -> Iterator[Part]:
    c = engine.components
    model, codec, pca = c.model, c.codec, c.pca
    dit, device, dtype = model.config, model.device, model.dtype
    for tokens in s.text_tokens:
        ids = torch.randint(32, 127, (1, tokens), device=device)
        work = counts.text_encoder(dit, tokens)
        yield Part("text_encoder", tokens, partial(model.encode_text, ids), work, dtype, device)
    for latents in s.speaker_latents:
        x = torch.randn(1, latents, dit.latent_size, device=device)
        work = counts.latent_encoder(dit, latents)
        yield Part("speaker", latents, partial(model.encode_speaker, x), work, dtype, device)
    before: PrefixState | None = None
    for latents in engine.config.preset.block_sizes[:-1]:  # as a stream has them
        x = torch.randn(1, latents, dit.latent_size, device=device)
        work = counts.latent_encoder(dit, latents)
        yield Part("prefix", latents, partial(model.extend_prefix, before, x), work, dtype, device)
        before, _ = model.extend_prefix(before, x)
    for latents in s.block_latents:
        yield _plain_pass(engine, s, latents)
    for latents in s.block_latents:
        x = torch.randn(1, latents, dit.latent_size, device=codec.device)
        z_q = torch.randn(1, codec.config.latent_dim, latents, device=codec.device)
        work = counts.pca(dit, codec.config, latents)
        yield Part("pca", latents, partial(pca.from_latent, x), work, torch.float32, codec.device)
        work = counts.codec_decode(codec.config, latents)
        decode = partial(c.lane.run, partial(_decode, codec, z_q))
        yield Part("codec_decode", latents, decode, work, codec.dtype, codec.device)
    latents = s.block_latents[0]
    audio = torch.randn(1, 1, latents * codec.config.hop, device=codec.device) / 10
    work = counts.codec_encode(codec.config, latents)
    yield Part(
        "codec_encode", latents, partial(codec.encode, audio), work, codec.dtype, codec.device
    )


def _decode(codec: S1DAC, z_q: Tensor) -> None:
    """A stream, in the pieces that the engine takes."""
    state = codec.init_state()
    for piece in z_q.split(codec.piece_latents, dim=-1):
        codec.decode(piece, state)


def _plain_pass(engine: Engine, s: ComponentSettings, latents: int) -> Part:
    """Three rows under masks that let everything be seen, as the count has it."""
    model = engine.components.model
    c, device = model.config, model.device
    tokens, speaker_latents = s.text_tokens[0], s.speaker_latents[0]
    voice = torch.randn(3, speaker_latents, c.latent_size, device=device)
    text = model.encode_text(torch.randint(32, 127, (3, tokens), device=device))
    speaker = model.encode_speaker(voice)
    x = torch.randn(3, latents, c.latent_size, device=device)
    t = torch.full((3,), 0.75, device=device)
    text_mask = torch.ones(3, tokens, dtype=torch.bool, device=device)
    speaker_mask = torch.ones(3, speaker_latents, dtype=torch.bool, device=device)
    keys = tokens + speaker_latents // model.patch
    work = counts.dit_pass(c, latents, [keys] * 3, 3 * keys) + counts.modulations(c, 3)

    def call() -> object:
        return model(
            x, t, text=text, text_mask=text_mask, speaker=speaker, speaker_mask=speaker_mask
        )

    return Part("dit_plain", latents, call, work, model.dtype, device)


def _steps(
    engine: Engine, s: ComponentSettings, latents: int, guided: bool, common: dict[str, Factor]
) -> Iterator[Row]:
    """Seconds per step by the engine's own account of one block of ``STEPS`` steps."""
    model = engine.components.model
    span = {"cfg_min_t": 0.0, "cfg_max_t": 1.0} if guided else {"cfg_min_t": 1.0, "cfg_max_t": 0.0}
    shape = {"block_sizes": [latents], "num_steps": STEPS}
    lengths = [s.speaker_latents[0] / LATENTS_PER_SECOND]
    voice = voice_name(lengths, None, 0)
    lines = texts(STEP_TEXT_SECONDS, s.seed)
    patches = int(lengths[0] * LATENTS_PER_SECOND + 1e-6) // model.patch
    taken, work = [], counts.NOTHING
    for i in range(-s.warmup, s.repeats):
        text = next(lines)
        overrides = {**UNTIL_STOPPED, **span, **shape}
        spoken = speak(engine, SpeechRequest(text, voice=voice, seed=s.seed, overrides=overrides))
        if i < 0:
            continue
        taken.append(spoken.blocks[0]["sample_s"] / STEPS)
        chunk = prepare(text, engine.config.text, engine.config.chunking).chunks[0]
        tokens = len(tokenize(chunk, engine.config.text.max_text_length))
        rows = [tokens + patches, patches, tokens] if guided else [tokens + patches]
        work = counts.dit_pass(model.config, latents, rows, tokens + patches)
    factors = {**common, "component": "dit_step", "size": latents, "guided": guided}
    yield from _rows(taken, work, model.dtype.itemsize, factors)


def _rows(
    taken: Sequence[float], work: counts.Work, itemsize: int, factors: dict[str, Factor]
) -> Iterator[Row]:
    for i, seconds in enumerate(taken):
        yield Row("component_s", seconds, "s", "lower", i, factors)
        yield Row("flop_per_s", work.flop / seconds, "FLOP/s", "", i, factors)
        yield Row("byte_per_s", work.bytes(itemsize) / seconds, "B/s", "", i, factors)


def _peaks(
    device: torch.device, dtype: torch.dtype, s: ComponentSettings
) -> Iterator[tuple[str, str, list[float]]]:
    """What a large matrix product and a large copy reach on ``device``."""
    n = PEAK_MATRIX[device.type]
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    timed = partial(
        time_calls, device=device, repeats=s.repeats, warmup=s.warmup, min_s=s.min_seconds
    )
    taken = timed(lambda: a @ b)
    yield "peak_flop_per_s", "FLOP/s", [2.0 * n**3 / seconds for seconds in taken]
    source = torch.zeros(PEAK_COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    taken = timed(lambda: target.copy_(source))
    moved = 2.0 * source.numel()
    yield "peak_byte_per_s", "B/s", [moved / seconds for seconds in taken]


def report(records: Sequence[Record], picture: Path) -> str:
    """Times and rates of each record's parts, as shares of the peaks measured beside them."""
    label = label_of(records)
    rows = []
    for record in records:
        for name, size, guided in _places(record):
            pick: dict[str, Factor] = {"component": name, "size": size}
            if guided is not None:
                pick["guided"] = guided
            of = "codec" if name in ("codec_decode", "codec_encode", "pca") else "model"
            flop, byte = (median(record.values(f"{m}_per_s", **pick)) for m in ("flop", "byte"))
            peaks = [median(record.values(f"peak_{m}_per_s", of=of)) for m in ("flop", "byte")]
            rows.append(
                (
                    label(record),
                    name + {None: "", True: " guided", False: " unguided"}[guided],
                    size,
                    f"{1e3 * median(record.values('component_s', **pick)):.3f}",
                    f"{flop / 1e9:.1f}",
                    f"{100 * flop / peaks[0]:.0f}",
                    f"{byte / 1e9:.2f}",
                    f"{100 * byte / peaks[1]:.0f}",
                )
            )
    heads = ("", "part", "size", "ms", "GFLOP/s", "% of peak", "GB/s", "% of peak")
    _draw(rows, picture)
    best = "\n".join(
        f"{label(record)}: peak of the {of}'s device and number format "
        f"{median(record.values('peak_flop_per_s', of=of)) / 1e9:.0f} GFLOP/s, "
        f"{median(record.values('peak_byte_per_s', of=of)) / 1e9:.1f} GB/s"
        for record in records
        for of in ("model", "codec")
    )
    return f"{table(heads, rows)}\n\n{best}"


def _places(record: Record) -> list[tuple[str, int, bool | None]]:
    rows = [row.factors for row in record.rows if row.metric == "component_s"]
    return list(dict.fromkeys((f["component"], f["size"], f.get("guided")) for f in rows))  # type: ignore[misc]


def _draw(rows: Sequence[Sequence[object]], picture: Path) -> None:
    fig, (axes,) = figure(8.0, 0.6 + 0.22 * len(rows))
    names = [" ".join(map(str, row[:3])).strip() for row in rows]
    places = range(len(rows))
    for offset, column, label in ((-0.2, 5, "operations"), (0.2, 7, "bytes")):
        shares = [float(str(row[column])) for row in rows]
        axes.barh([p + offset for p in places], shares, height=0.4, label=label)
    axes.set_yticks(list(places), names, fontsize="small")
    axes.invert_yaxis()
    axes.set_xlabel("% of the measured peak")
    axes.legend(frameon=False)
    save_figure(fig, picture)


if __name__ == "__main__":
    launch(NAME, ComponentSettings, measure)
