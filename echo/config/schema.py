"""The configuration as frozen dataclasses, one per group of ``conf/``.

Fields have no defaults: a default lives once, in ``conf/``, with its unit in the name.
Values are checked when an object is made; a :class:`ConfigError` names the key at fault.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from echo.errors import ConfigError
from echo.spec import MAX_LATENTS, MAX_SPEAKER_LATENTS, MAX_TEXT_TOKENS

MAX_STEPS = 200  # more never helped and would let one request hold the device for minutes
PAGE_PATH = "/ui"  # of the page on the API's server

DTYPES = ("bfloat16", "float16", "float32")
MAX_SEED = 2**63 - 1  # the highest one that every torch.Generator takes


@dataclass(frozen=True)
class LoraConfig:
    """A low-rank update merged into the DiT at load (model.md §8)."""

    repo: str | None  # hub id or local folder
    filename: str | None  # file in it; None: the only .safetensors there
    scale: float
    alpha: float
    first_block: bool  # only the first block of a stream uses it: 5 steps, no guidance

    def __post_init__(self) -> None:
        _finite("model.lora.scale", self.scale)
        _range("model.lora.alpha", self.alpha, low=0.0, low_open=True)


@dataclass(frozen=True)
class ModelConfig:
    """Which weights, where and in what number format."""

    name: str
    repo: str  # hub id, local folder, or shipped:NAME
    codec_repo: str
    pca_repo: str
    weights: str  # checkpoint | random
    random_seed: int  # of weights=random
    device: str  # auto (cuda if present, else cpu) | cpu | cuda | cuda:N
    codec_device: str
    dtype: str  # one of DTYPES
    codec_dtype: str
    tf32: bool  # on CUDA: what is float32 multiplies with 10 bits, several times as fast
    quantize: str | None  # int8 | fp8 (weights of the DiT and its encoders); None: neither
    max_chunk_seconds: float | None  # what it can say in one go, by the chunking's estimate
    lora: LoraConfig

    def __post_init__(self) -> None:
        _one_of("model.weights", self.weights, ("checkpoint", "random"))
        if self.max_chunk_seconds is not None:
            _range("model.max_chunk_seconds", self.max_chunk_seconds, 1.0, 1e6)
        _range("model.random_seed", self.random_seed, 0, MAX_SEED)
        for key in ("device", "codec_device"):
            _device(f"model.{key}", getattr(self, key))
        for key in ("dtype", "codec_dtype"):
            _one_of(f"model.{key}", getattr(self, key), DTYPES)
        if self.quantize is not None:
            _one_of("model.quantize", self.quantize, ("int8", "fp8"))
        for key in ("repo", "codec_repo", "pca_repo"):
            _check(bool(getattr(self, key)), f"model.{key}", "must not be empty")


# What a preset may say of the sampler: plain numbers that change how well and how fast it speaks.
PRESET_SAMPLER_KEYS = (
    *("cfg_scale_text", "cfg_scale_speaker", "cfg_min_t", "cfg_max_t", "truncation_factor"),
    *("init_scale", "rescale_k", "rescale_sigma", "speaker_kv_scale", "speaker_kv_min_t"),
)


@dataclass(frozen=True)
class PresetConfig:
    """Shape of a streamed generation: latents per block (46.4 ms each), Euler steps per block.

    ``sampler``: values that belong to it; they win over the model's, not over those of the command
    line or of a request.
    """

    name: str
    block_sizes: tuple[int, ...]
    num_steps: tuple[int, ...]
    sampler: Mapping[str, float | None] = field(hash=False)

    def __post_init__(self) -> None:
        check_blocks("preset.block_sizes", self.block_sizes)
        check_steps("preset.num_steps", self.num_steps, len(self.block_sizes))
        for name in self.sampler:
            known = ", ".join(PRESET_SAMPLER_KEYS)
            _check(
                name in PRESET_SAMPLER_KEYS,
                f"preset.sampler.{name}",
                f"is nothing that a preset sets; it may set {known}",
            )


@dataclass(frozen=True)
class SamplerConfig:
    """Guidance, noise, score rescaling, forced speaker, early stop (model.md §5, service.md §1)."""

    guidance_mode: str  # independent: three passes
    cfg_scale_text: float
    cfg_scale_speaker: float
    cfg_min_t: float
    cfg_max_t: float
    truncation_factor: float | tuple[float, ...] | None  # one value, or one per block
    init_scale: float | tuple[float, ...]
    rescale_k: float | None
    rescale_sigma: float | None
    speaker_kv_scale: float | None
    speaker_kv_min_t: float | None
    speaker_kv_max_layers: int | None
    early_stop_on_zero: bool
    zero_eps: float
    zero_tail_frames: int
    zero_tail_min_frac: float
    zero_tail_absmax: float
    nonstream_block_sizes: tuple[int, ...]
    nonstream_num_steps: tuple[int, ...]

    def __post_init__(self) -> None:
        _one_of("sampler.guidance_mode", self.guidance_mode, ("independent",))
        _range("sampler.cfg_scale_text", self.cfg_scale_text, -100.0, 100.0)
        _range("sampler.cfg_scale_speaker", self.cfg_scale_speaker, -100.0, 100.0)
        _range("sampler.cfg_min_t", self.cfg_min_t, 0.0, 1.0)
        _range("sampler.cfg_max_t", self.cfg_max_t, 0.0, 1.0)
        for name in ("truncation_factor", "init_scale"):
            _check(getattr(self, name) != (), f"sampler.{name}", "is an empty list")
        for value in per_block(self.truncation_factor):
            _range("sampler.truncation_factor", value, 0.0, 10.0, low_open=True)
        for value in per_block(self.init_scale):
            _range("sampler.init_scale", value, 0.0, 1.0, low_open=True)
        for name in ("rescale_k", "rescale_sigma", "speaker_kv_scale"):
            value = getattr(self, name)
            if value is not None:
                _range(f"sampler.{name}", value, 0.0, 1000.0, low_open=True)
        if self.speaker_kv_min_t is not None:
            _range("sampler.speaker_kv_min_t", self.speaker_kv_min_t, 0.0, 1.0)
        if self.speaker_kv_max_layers is not None:
            _range("sampler.speaker_kv_max_layers", self.speaker_kv_max_layers, 0)
        _range("sampler.zero_eps", self.zero_eps, 0.0)
        _range("sampler.zero_tail_frames", self.zero_tail_frames, 1, MAX_LATENTS)
        _range("sampler.zero_tail_min_frac", self.zero_tail_min_frac, 0.0, 1.0)
        _range("sampler.zero_tail_absmax", self.zero_tail_absmax, 0.0)
        check_blocks("sampler.nonstream_block_sizes", self.nonstream_block_sizes)
        check_steps(
            "sampler.nonstream_num_steps",
            self.nonstream_num_steps,
            len(self.nonstream_block_sizes),
        )


@dataclass(frozen=True)
class TextConfig:
    """Normalisation and limits of the text."""

    normalize_exclamation: bool
    max_text_length: int  # tokens (bytes + BOS) of one generation
    max_input_chars: int  # of a whole request

    def __post_init__(self) -> None:
        _range("text.max_text_length", self.max_text_length, 16, MAX_TEXT_TOKENS)
        _range("text.max_input_chars", self.max_input_chars, 1)


@dataclass(frozen=True)
class ChunkingConfig:
    """How a long text is cut into generations (service.md §1)."""

    enabled: bool
    target_seconds: float
    min_seconds: float
    max_seconds: float
    chars_per_second: float
    words_per_second: float

    def __post_init__(self) -> None:
        for name in (
            "target_seconds",
            "max_seconds",
            "chars_per_second",
            "words_per_second",
        ):
            _range(f"chunking.{name}", getattr(self, name), 0.0, 1e6, low_open=True)
        _range("chunking.min_seconds", self.min_seconds, 0.0, 1e6)
        _check(
            self.min_seconds <= self.target_seconds <= self.max_seconds,
            "chunking.target_seconds",
            "must lie between chunking.min_seconds and chunking.max_seconds",
        )


@dataclass(frozen=True)
class CompileConfig:
    """torch.compile of the model and the codec. None: on CUDA yes, on the CPU no."""

    model: bool | None
    codec: bool | None
    cuda_graphs: bool | None  # of passes, texts, prefixes and the codec; None: on CUDA
    graph_latents: int  # of all rows of the largest recorded pass; also tokens of a recorded text
    codec_graph_latents: int  # the most that one graph of the codec decodes
    lora_only: bool  # of the two models of lora.first_block, compile only the one with LoRA
    cache_dir: str | None  # None: the temporary folder of the system
    cache_version: str

    def __post_init__(self) -> None:
        _range("compile.graph_latents", self.graph_latents, 32, 1920)
        _range("compile.codec_graph_latents", self.codec_graph_latents, 32, 640)


@dataclass(frozen=True)
class VadConfig:
    """Reroll of blocks with a long silence, found by Silero VAD."""

    enabled: bool
    silence_threshold_ms: float
    max_rerolls: int

    def __post_init__(self) -> None:
        _range("vad.silence_threshold_ms", self.silence_threshold_ms, 50.0, 60_000.0)
        _range("vad.max_rerolls", self.max_rerolls, 0, 20)


@dataclass(frozen=True)
class VoicesConfig:
    """Where reference voices live, how they are read, and the cache of encoded ones."""

    roots: tuple[str, ...]  # folders; those that do not exist are skipped
    clone_root: str  # folder of the voices that users make; searched after the others
    shared: str | None  # where they live instead, for several machines; None: in clone_root
    shared_cache: str | None  # folder of the copies of those; None: in the system's temporary one
    shared_poll_seconds: float
    default: str | None  # of requests that name no voice; if it is not there, the first by name
    aliases: Mapping[str, str | None] = field(hash=False)  # other names; None: dealt out in order
    folder_support: bool
    folder_gap_seconds: float
    max_file_bytes: int
    max_inline_bytes: int  # of base64 audio in a request, decoded
    max_latents: int  # of the encoded reference
    encode_device: str | None  # cpu: the codec's encoder stays there; None: with its decoder
    cache_bytes: int
    cache_on_device: bool

    def __post_init__(self) -> None:
        _check(bool(self.clone_root), "voices.clone_root", "must not be empty")
        for name in ("shared", "shared_cache"):
            _check(getattr(self, name) != "", f"voices.{name}", "must not be empty; null for none")
        _range("voices.shared_poll_seconds", self.shared_poll_seconds, 0.1, 3600.0)
        _range("voices.folder_gap_seconds", self.folder_gap_seconds, 0.0, 60.0)
        _range("voices.max_file_bytes", self.max_file_bytes, 1)
        _range("voices.max_inline_bytes", self.max_inline_bytes, 1)
        _range("voices.max_latents", self.max_latents, 4, MAX_SPEAKER_LATENTS)
        if self.encode_device is not None:
            _one_of("voices.encode_device", self.encode_device, ("cpu",))
        _range("voices.cache_bytes", self.cache_bytes, 0)


@dataclass(frozen=True)
class EngineConfig:
    """Queueing, warm-up and diagnostics of the engine."""

    max_active: int  # requests advanced together, step by step
    max_queued: int  # requests waiting beyond those
    max_batch_tokens: int  # latents of all passes in one step of several requests
    max_load: float | None  # let in while the predicted real-time load is up to this; None: all
    buffer_seconds: float  # audio kept ready for a slow reader before its request pauses
    cpu_threads: int | None  # None: OMP_NUM_THREADS, else the cores it may use
    idle_unload_seconds: float | None  # weights leave memory until the next request; None: never
    warmup_text: str | None
    warmup_voice: str | None
    debug: bool  # verbose timings; the last generation is saved to api_generation.wav

    def __post_init__(self) -> None:
        _range("engine.max_active", self.max_active, 1, 1024)
        _range("engine.max_queued", self.max_queued, 0, 100_000)
        _range("engine.max_batch_tokens", self.max_batch_tokens, 1, 1_000_000)
        if self.max_load is not None:
            _range("engine.max_load", self.max_load, 0.0, 1000.0, low_open=True)
        _range("engine.buffer_seconds", self.buffer_seconds, 0.0, 3600.0, low_open=True)
        if self.cpu_threads is not None:
            _range("engine.cpu_threads", self.cpu_threads, 1, 1024)
        if self.idle_unload_seconds is not None:
            _range("engine.idle_unload_seconds", self.idle_unload_seconds, 0.0, low_open=True)


@dataclass(frozen=True)
class ServerConfig:
    """The HTTP server."""

    host: str
    port: int
    allowed_hosts: tuple[str, ...] | None  # Host names answered; None: on loopback its own ones
    cors_origins: tuple[str, ...]  # web pages that may call; empty: none
    api_keys: str | None = field(repr=False)  # separated by spaces or commas
    api_keys_file: str | None  # one key a line
    max_body_bytes: int
    body_timeout_seconds: float  # without any byte of a body
    max_concurrent: int | None  # requests in work; None: the engine's queue is the limit
    max_concurrent_per_key: int | None  # per key or, without keys, per client address
    metrics: bool  # serve /metrics
    traces: bool  # OpenTelemetry, sent by OTLP over HTTP as the OTEL_* variables say
    log_format: str  # readable | json
    log_texts: bool  # what is said, and what could not be; users' words are not logged otherwise

    def __post_init__(self) -> None:
        _check(bool(self.host.strip()), "server.host", "must not be empty")
        _range("server.port", self.port, 0, 65_535)
        _range("server.max_body_bytes", self.max_body_bytes, 1024)
        _range("server.body_timeout_seconds", self.body_timeout_seconds, 0.0, low_open=True)
        for name in ("max_concurrent", "max_concurrent_per_key"):
            value = getattr(self, name)
            if value is not None:
                _range(f"server.{name}", value, 1)
        _one_of("server.log_format", self.log_format, ("readable", "json"))
        for origin in self.cors_origins:
            _check(
                origin == "*" or re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", origin) is not None,
                "server.cors_origins",
                f"has {origin!r}; write http://host:port, or * for any",
            )


@dataclass(frozen=True)
class UIConfig:
    """The page in the browser."""

    on_server: bool | None  # beside the API; None: where Gradio is installed and keys don't forbid
    host: str
    port: int
    password: str | None = field(repr=False)  # asked for before the page; None: none
    votes_file: str | None  # CSV that votes are added to; None: they last as long as the visit

    def __post_init__(self) -> None:
        _check(bool(self.host), "ui.host", "must not be empty")
        _range("ui.port", self.port, 1, 65_535)
        for name in ("password", "votes_file"):
            _check(getattr(self, name) != "", f"ui.{name}", "must not be empty; null for none")


@dataclass(frozen=True)
class InworldConfig:
    """The Inworld-like protocol (service.md §2 and §3)."""

    compat: bool
    clone_enabled: bool
    max_sample_size: int  # bytes
    default_workspace: str

    def __post_init__(self) -> None:
        _range("inworld.max_sample_size", self.max_sample_size, 1)


@dataclass(frozen=True)
class ClusterConfig:
    """Several engines behind one address, on Ray Serve."""

    enabled: bool
    address: str | None  # of a running Ray cluster; None: one of this machine alone
    replicas: int  # engines; the fewest, where they may become more
    max_replicas: int | None  # None: as many as replicas
    gpus_per_replica: float | None  # None: 1 if the model is to run on CUDA, else 0
    cpus_per_replica: float
    target_streams: float  # requests in work at a replica that the autoscaler aims at
    max_streams: int | None  # sent to one replica at once; None: as many as its engine takes
    max_waiting: int  # at each proxy, when all replicas have max_streams
    voice_slack: float  # times the mean load that a voice's own replica takes
    upscale_delay_seconds: float
    downscale_delay_seconds: float
    drain_seconds: float
    surge_percent: int

    def __post_init__(self) -> None:
        _range("cluster.replicas", self.replicas, 1, 10_000)
        if self.max_replicas is not None:
            _range("cluster.max_replicas", self.max_replicas, self.replicas, 10_000)
        if self.gpus_per_replica is not None:
            _range("cluster.gpus_per_replica", self.gpus_per_replica, 0.0, 64.0)
        _range("cluster.cpus_per_replica", self.cpus_per_replica, 0.0, 1024.0, low_open=True)
        _range("cluster.target_streams", self.target_streams, 0.0, 10_000.0, low_open=True)
        if self.max_streams is not None:
            _range("cluster.max_streams", self.max_streams, 1, 100_000)
        _range("cluster.max_waiting", self.max_waiting, 1, 1_000_000)
        _range("cluster.voice_slack", self.voice_slack, 1.0, 1000.0)
        for name in ("upscale_delay_seconds", "downscale_delay_seconds", "drain_seconds"):
            _range(f"cluster.{name}", getattr(self, name), 0.0, 86_400.0)
        _range("cluster.surge_percent", self.surge_percent, 0, 100)


@dataclass(frozen=True)
class EchoConfig:
    """All of it. ``Engine.from_config`` takes this and nothing else."""

    model: ModelConfig
    preset: PresetConfig
    sampler: SamplerConfig
    text: TextConfig
    chunking: ChunkingConfig
    compile: CompileConfig
    vad: VadConfig
    voices: VoicesConfig
    engine: EngineConfig
    server: ServerConfig
    ui: UIConfig
    inworld: InworldConfig
    cluster: ClusterConfig

    def __post_init__(self) -> None:
        sampler_of(self.sampler, self.preset)
        blocks = len(self.preset.block_sizes)
        for name in ("init_scale", "truncation_factor"):
            values = per_block(getattr(self.sampler, name))
            _check(
                len(values) in (0, 1, blocks),
                f"sampler.{name}",
                f"lists {len(values)} values for {blocks} blocks; give one, or one for each",
            )


def sampler_of(sampler: SamplerConfig, preset: PresetConfig) -> SamplerConfig:
    """``sampler`` with what ``preset`` says of it. Raises ConfigError for an impossible value."""
    try:
        return replace(sampler, **preset.sampler)  # type: ignore[arg-type]  # plain numbers
    except ConfigError as error:
        raise ConfigError(f"preset.{error.message}", param=f"preset.{error.param}") from error


def per_block(value: float | tuple[float, ...] | None) -> tuple[float, ...]:
    """A setting given once or per block, as a tuple (empty for None)."""
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)


def check_blocks(key: str, block_sizes: tuple[int, ...]) -> None:
    """Raise unless there is at least one block, each >= 1, together at most ``MAX_LATENTS``."""
    _check(len(block_sizes) > 0, key, "needs at least one block")
    for size in block_sizes:
        _range(key, size, 1)
    total = sum(block_sizes)
    _check(total <= MAX_LATENTS, key, f"adds up to {total} latents; at most {MAX_LATENTS} fit")


def check_steps(key: str, num_steps: tuple[int, ...], blocks: int) -> None:
    """Raise unless there is one step count for each of ``blocks`` blocks, each in 1..MAX_STEPS."""
    _check(
        len(num_steps) == blocks,
        key,
        f"lists {len(num_steps)} step counts for {blocks} blocks; give one for each",
    )
    for steps in num_steps:
        _range(key, steps, 1, MAX_STEPS)


def _finite(key: str, value: float) -> None:
    _check(math.isfinite(value), key, f"must be a finite number, not {value}")


def _range(
    key: str,
    value: float,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    low_open: bool = False,
) -> None:
    _finite(key, value)
    if low_open:
        _check(value > low, key, f"is {value}; it must be above {low:g}")
    _check(value >= low, key, f"is {value}; the lowest allowed value is {low:.10g}")
    _check(value <= high, key, f"is {value}; the highest allowed value is {high:.10g}")


def _device(key: str, value: str) -> None:
    ok = re.fullmatch(r"auto|cpu|cuda(:\d+)?", value) is not None
    _check(ok, key, f"is {value!r}; choose auto, cpu, cuda or cuda:N")


def _one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    _check(value in choices, key, f"is {value!r}; choose one of {', '.join(choices)}")


def _check(ok: bool, key: str, problem: str) -> None:
    if not ok:
        raise ConfigError(f"{key} {problem}", param=key)
