"""What a caller asks for, and the checked settings that come of it."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from echo.config.compose import load_preset
from echo.config.schema import (
    MAX_SEED,
    ChunkingConfig,
    EchoConfig,
    PresetConfig,
    SamplerConfig,
    TextConfig,
    VadConfig,
    check_blocks,
    check_steps,
    per_block,
    sampler_of,
)
from echo.errors import ConfigError, InvalidRequestError
from echo.sampling.block import BlockShape


@dataclass(frozen=True)
class SpeechRequest:
    """One text to speak.

    Attributes:
        text: what to say; ``[S1]``, ``[S2]`` switch speakers, ``(laughs)`` and the like are styles.
        voice: a voice's name, or base64 audio (plain or a data URL); None: the default voice.
        seed: of the noise, 0 ... 2^63 - 1; None or -1: drawn at random.
        streaming: blocks of the preset, for early first sound; else the non-streaming shape.
        overrides: sampler, chunking, text and reroll settings by the names of :data:`OVERRIDES`.
    """

    text: str
    voice: str | None = None
    seed: int | None = None
    streaming: bool = True
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GenerationSettings:
    """A request's settings after defaults, preset and overrides."""

    preset: str
    blocks: tuple[BlockShape, ...]
    sampler: SamplerConfig
    text: TextConfig
    chunking: ChunkingConfig
    vad: VadConfig


def resolve_seed(seed: object) -> int:
    """A request's seed as a number; random for None and -1.

    Raises:
        InvalidRequestError: not a whole number in -1 ... 2^63 - 1.
    """
    if seed is None or seed == -1:
        return secrets.randbits(31)
    number = _whole(seed)
    if number is None or not 0 <= number <= MAX_SEED:
        raise InvalidRequestError(
            f"seed is {_show(seed)}; give a whole number from 0 to {MAX_SEED}, or -1 for random",
            param="seed",
        )
    return number


def resolve_settings(config: EchoConfig, request: SpeechRequest) -> GenerationSettings:
    """Defaults, then the preset, then the request's overrides.

    Raises:
        InvalidRequestError: an unknown key, a wrong type or an impossible value; ``param`` is it.
    """
    given = {
        key: _parse(key, value)
        for key, value in request.overrides.items()
        if value is not None or key in _NULLABLE
    }
    try:
        preset = load_preset(given["preset"]) if "preset" in given else config.preset
        sampler = replace(sampler_of(config.sampler, preset), **_subset(given, _SAMPLER))
        text = replace(config.text, **_subset(given, _TEXT))
        vad = replace(config.vad, **_unprefixed(_subset(given, _VAD)))
        chunking = replace(config.chunking, **_unprefixed(_subset(given, _CHUNKING)))
        chunking = _within(chunking, config.model.max_chunk_seconds)
        blocks = _blocks(preset, sampler, given, streaming=request.streaming)
    except ConfigError as error:
        raise _as_request_error(error, given) from error
    return GenerationSettings(preset.name, blocks, sampler, text, chunking, vad)


def override_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas of a request's ``overrides``, by name. null is none given or, where
    :mod:`echo.config.help` says so, turns it off."""
    return {
        key: {"anyOf": [*kind.schema.get("anyOf", (kind.schema,)), {"type": "null"}]}
        for key, kind in _KINDS.items()
    }


def _within(chunking: ChunkingConfig, longest: float | None) -> ChunkingConfig:
    """Shorter chunks for a model that was trained on shorter speech than the chunking allows."""
    if longest is None or chunking.max_seconds <= longest:
        return chunking
    return replace(
        chunking,
        max_seconds=longest,
        target_seconds=min(chunking.target_seconds, longest),
        min_seconds=min(chunking.min_seconds, longest / 2),
    )


def _blocks(
    preset: PresetConfig, sampler: SamplerConfig, given: Mapping[str, Any], *, streaming: bool
) -> tuple[BlockShape, ...]:
    sizes = preset.block_sizes if streaming else sampler.nonstream_block_sizes
    steps = preset.num_steps if streaming else sampler.nonstream_num_steps
    sizes = given.get("block_sizes", sizes)
    check_blocks("block_sizes", sizes)
    if "num_steps" in given:
        steps = given["num_steps"]
        steps = steps if isinstance(steps, tuple) else (steps,) * len(sizes)
    elif len(steps) != len(sizes):  # own blocks, the preset's steps: the last one goes on
        steps = (steps + (steps[-1],) * len(sizes))[: len(sizes)]
    check_steps("num_steps", steps, len(sizes))
    scales = _spread("init_scale", per_block(sampler.init_scale), len(sizes), given)
    factors = per_block(sampler.truncation_factor)
    truncations = _spread("truncation_factor", factors, len(sizes), given) if factors else ()
    return tuple(
        BlockShape(size, steps[i], scales[i], truncations[i] if truncations else None)
        for i, size in enumerate(sizes)
    )


def _spread(
    key: str, values: tuple[float, ...], count: int, given: Mapping[str, Any]
) -> tuple[float, ...]:
    """One value for each block. A configured list is for the preset's blocks; for another shape
    its last value goes on. One that came with the request must fit."""
    if key in given and len(values) not in (1, count):
        raise ConfigError(f"{key} lists {len(values)} values for {count} blocks", param=key)
    return (values + (values[-1],) * count)[:count]


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not value.is_integer():
        return None
    return int(value) if abs(value) <= MAX_SEED else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # JSON knows integers of any length
        return None
    return number if math.isfinite(number) else None


def _boolean(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _list_of(parse: Callable[[object], Any]) -> Callable[[object], Any]:
    def parse_list(value: object) -> tuple[Any, ...] | None:
        if not isinstance(value, list | tuple) or not value:
            return None
        items = tuple(parse(item) for item in value)
        return None if None in items else items

    return parse_list


def _one_or_list_of(parse: Callable[[object], Any]) -> Callable[[object], Any]:
    parse_list = _list_of(parse)
    return lambda value: parse_list(value) if isinstance(value, list | tuple) else parse(value)


@dataclass(frozen=True)
class _Kind:
    """Of values: how they are read (None: they are wrong), what to call them, their JSON Schema."""

    parse: Callable[[object], Any]
    wanted: str
    schema: Mapping[str, Any]


def _array(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1}


_INTEGER, _REAL = {"type": "integer"}, {"type": "number"}
_WHOLE = _Kind(_whole, "a whole number", _INTEGER)
_NUMBER = _Kind(_number, "a finite number", _REAL)
_FLAG = _Kind(_boolean, "true or false", {"type": "boolean"})
_NAME = _Kind(_string, "a string", {"type": "string"})
_SIZES = _Kind(_list_of(_whole), "a list of whole numbers", _array(_INTEGER))
_STEPS = _Kind(
    _one_or_list_of(_whole),
    "a whole number, or a list with one per block",
    {"anyOf": [_INTEGER, _array(_INTEGER)]},
)
_PER_BLOCK = _Kind(
    _one_or_list_of(_number),
    "a number, or a list with one per block",
    {"anyOf": [_REAL, _array(_REAL)]},
)
_SAMPLER: dict[str, _Kind] = {
    "cfg_scale_text": _NUMBER,
    "cfg_scale_speaker": _NUMBER,
    "cfg_min_t": _NUMBER,
    "cfg_max_t": _NUMBER,
    "guidance_mode": _NAME,
    "truncation_factor": _PER_BLOCK,
    "init_scale": _PER_BLOCK,
    "rescale_k": _NUMBER,
    "rescale_sigma": _NUMBER,
    "speaker_kv_scale": _NUMBER,
    "speaker_kv_min_t": _NUMBER,
    "speaker_kv_max_layers": _WHOLE,
    "early_stop_on_zero": _FLAG,
    "zero_eps": _NUMBER,
    "zero_tail_frames": _WHOLE,
    "zero_tail_min_frac": _NUMBER,
    "zero_tail_absmax": _NUMBER,
}
_TEXT: dict[str, _Kind] = {"max_text_length": _WHOLE, "normalize_exclamation": _FLAG}
_CHUNKING: dict[str, _Kind] = {
    "chunking_enabled": _FLAG,
    "chunk_target_seconds": _NUMBER,
    "chunk_min_seconds": _NUMBER,
    "chunk_max_seconds": _NUMBER,
    "chunk_chars_per_second": _NUMBER,
    "chunk_words_per_second": _NUMBER,
}
_VAD: dict[str, _Kind] = {
    "vad_enabled": _FLAG,
    "vad_silence_threshold_ms": _NUMBER,
    "vad_max_rerolls": _WHOLE,
}
_SHAPE: dict[str, _Kind] = {"preset": _NAME, "block_sizes": _SIZES, "num_steps": _STEPS}
_KINDS = {**_SHAPE, **_SAMPLER, **_TEXT, **_CHUNKING, **_VAD}
_PREFIXES = ("chunking_", "chunk_", "vad_")  # of requests' names; in conf/ they are groups
_NULLABLE = frozenset(
    (
        "truncation_factor",
        "rescale_k",
        "rescale_sigma",
        "speaker_kv_scale",
        "speaker_kv_min_t",
        "speaker_kv_max_layers",
    )
)
OVERRIDES = frozenset(_KINDS)
"""Names a request's ``overrides`` may use (service.md §1, ``preset`` and the reroll's)."""


def _parse(key: str, value: object) -> Any:
    if key not in _KINDS:
        raise InvalidRequestError(
            f"unknown setting {key!r}; known are {', '.join(sorted(OVERRIDES))}", param=key
        )
    if value is None:
        return None
    kind = _KINDS[key]
    parsed = kind.parse(value)
    if parsed is None:
        raise InvalidRequestError(f"{key} is {_show(value)}; it must be {kind.wanted}", param=key)
    return parsed


def _subset(given: Mapping[str, Any], keys: Mapping[str, object]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key in keys}


def _unprefixed(given: Mapping[str, Any]) -> dict[str, Any]:
    """By the names of ``conf/``."""
    found = {}
    for key, value in given.items():
        prefix = next(p for p in _PREFIXES if key.startswith(p))
        found[key.removeprefix(prefix)] = value
    return found


def _as_request_error(error: ConfigError, given: Mapping[str, Any]) -> InvalidRequestError:
    """The same problem under the request's own name for the setting."""
    key = error.param or ""
    short = key.rpartition(".")[2]
    names = (short, *(prefix + short for prefix in _PREFIXES))
    name = next((n for n in names if n in given), short)
    return InvalidRequestError(error.message.replace(key, name), param=name)


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
