"""Sizes of the networks from a ``config.json`` beside the weights.

Either flat, the fields of one config, or sections ``{"dit": {...}, "codec": {...}}`` so that one
folder can hold all. Without the file the networks have their real sizes.
"""

from __future__ import annotations

import json
import logging
import math
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from echo.errors import CheckpointError
from echo.models.codec import CodecConfig
from echo.models.dit import DiTConfig
from echo.models.hub import local_folder, resolve_file

CONFIG_FILE = "config.json"

T = TypeVar("T")

_SECTIONS = ("dit", "codec")
_log = logging.getLogger(__name__)


def dit_config(
    repo: str, *, token: str | None = None, local_only: bool = False, param: str = "model.repo"
) -> DiTConfig:
    """Sizes of the DiT in ``repo`` (hub id, folder or ``shipped:NAME``).

    ``local_only``: never ask the hub; a hub id has the real sizes.

    Raises:
        CheckpointError: unreadable file, unknown, missing or ill-typed key, impossible size;
            the message names the key.
    """
    raw, where = _read(repo, "dit", token, local_only, param)
    return DiTConfig() if raw is None else parse_dit_config(raw, where)


def codec_config(
    repo: str,
    *,
    token: str | None = None,
    local_only: bool = False,
    param: str = "model.codec_repo",
) -> CodecConfig:
    """Sizes of the codec in ``repo``; otherwise as :func:`dit_config`."""
    raw, where = _read(repo, "codec", token, local_only, param)
    return CodecConfig() if raw is None else parse_codec_config(raw, where)


def parse_dit_config(raw: Mapping[str, Any], where: str) -> DiTConfig:
    """Checked sizes from a mapping; ``where`` it comes from, for messages."""
    c = _build(DiTConfig, raw, where)
    check = _Checks(where)
    for field in fields(c):
        if field.name != "norm_eps":
            check.at_least(field.name, getattr(c, field.name), 1)
    check.that("norm_eps", math.isfinite(c.norm_eps) and c.norm_eps > 0, "must be above 0")
    check.at_least("num_heads", c.num_heads, 2)  # RoPE turns the first half of them
    check.heads("num_heads", c.num_heads, "model_size", c.model_size)
    check.heads("text_num_heads", c.text_num_heads, "text_model_size", c.text_model_size)
    check.heads(
        "speaker_num_heads", c.speaker_num_heads, "speaker_model_size", c.speaker_model_size
    )
    check.that("timestep_embed_size", c.timestep_embed_size % 2 == 0, "must be even")
    return c


def parse_codec_config(raw: Mapping[str, Any], where: str) -> CodecConfig:
    """Checked sizes from a mapping; ``where`` it comes from, for messages."""
    c = _build(CodecConfig, raw, where)
    check = _Checks(where)
    for name in ("encoder_rates", "decoder_rates", "downsample"):
        rates = getattr(c, name)
        check.that(name, len(rates) > 0, "must not be empty")
        check.at_least(name, min(rates), 1)
    for field in fields(c):
        value = getattr(c, field.name)
        if isinstance(value, int):
            check.at_least(field.name, value, 0 if field.name == "q_layers" else 1)
    check.that("q_head_dim", c.q_head_dim % 2 == 0, "must be even (RoPE turns pairs)")
    check.that(
        "decoder_rates",
        math.prod(c.decoder_rates) == math.prod(c.encoder_rates),
        f"multiply to {math.prod(c.decoder_rates)}, encoder_rates to "
        f"{math.prod(c.encoder_rates)}; audio would change its length",
    )
    stages = 2 ** len(c.decoder_rates)
    check.that("decoder_dim", c.decoder_dim % stages == 0, f"must be a multiple of {stages}")
    _check_encoder_transformer(c, check)
    return c


def _check_encoder_transformer(c: CodecConfig, check: _Checks) -> None:
    t = c.encoder_transformer
    check.at_least("encoder_transformer.layers", t.layers, 0)
    for name in ("heads", "dim", "ffn"):
        check.at_least(f"encoder_transformer.{name}", getattr(t, name), 1)
    if not t.layers:
        return
    width = c.encoder_dim * 2 ** len(c.encoder_rates)
    check.that(
        "encoder_transformer.dim",
        t.dim == width,
        f"is {t.dim}, but the last encoder stage is {width} wide",
    )
    check.heads("encoder_transformer.heads", t.heads, "encoder_transformer.dim", t.dim)


def _read(
    repo: str, section: str, token: str | None, local_only: bool, param: str
) -> tuple[Mapping[str, Any] | None, str]:
    """The part of config.json that belongs to ``section``, and its name; None: real sizes."""
    on_hub = local_folder(repo, param=param) is None
    if on_hub and local_only:
        return None, ""
    path = resolve_file(repo, CONFIG_FILE, required=False, token=token, param=param)
    if path is None:
        return None, ""
    data = _json_object(path)
    if any(name in data for name in _SECTIONS):
        for name in data:
            if name not in _SECTIONS:
                raise CheckpointError(f"{path}: unknown section {name!r}", param=name)
        if section not in data:
            raise CheckpointError(f"{path} has no section {section!r}", param=section)
        if not isinstance(data[section], dict):
            raise CheckpointError(f"{path}: {section} must hold keys and values", param=section)
        return data[section], f"{path}, section {section}"
    ours = {field.name for cls in (DiTConfig, CodecConfig) for field in fields(cls)}
    if on_hub and not ours & data.keys():
        _log.info("%s: its config.json holds no sizes; the real ones are used", repo)
        return None, ""
    return data, str(path)


def _json_object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable as JSON: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} must hold a JSON object with the sizes of the network")
    return data


def _build(cls: type[T], raw: Mapping[str, Any], where: str, prefix: str = "") -> T:
    hints = typing.get_type_hints(cls)
    for name in raw:
        if name not in hints:
            raise CheckpointError(f"{where}: unknown key {prefix}{name}", param=f"{prefix}{name}")
    values: dict[str, Any] = {}
    for name, hint in hints.items():
        key = f"{prefix}{name}"
        if name not in raw:
            raise CheckpointError(f"{where}: {key} is missing", param=key)
        values[name] = _convert(raw[name], hint, where, key)
    return cls(**values)


def _convert(value: Any, hint: Any, where: str, key: str) -> Any:
    if is_dataclass(hint) and isinstance(value, dict):
        return _build(typing.cast("type[Any]", hint), value, where, f"{key}.")
    if hint is int and _is_int(value):
        return value
    if hint is float and (_is_int(value) or isinstance(value, float)):
        return float(value)
    if typing.get_origin(hint) is tuple and isinstance(value, list) and all(map(_is_int, value)):
        return tuple(value)
    kinds = {int: "a whole number", float: "a number"}
    kind = kinds.get(hint) or ("keys and values" if is_dataclass(hint) else "whole numbers")
    raise CheckpointError(f"{where}: {key} must be {kind}, not {value!r}", param=key)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class _Checks:
    """Raises the errors of impossible sizes, with the file and the key in the message."""

    def __init__(self, where: str) -> None:
        self.where = where

    def that(self, key: str, ok: bool, problem: str) -> None:
        if not ok:
            raise CheckpointError(f"{self.where}: {key} {problem}", param=key)

    def at_least(self, key: str, value: int, low: int) -> None:
        self.that(key, value >= low, f"is {value}; the lowest possible value is {low}")

    def heads(self, key: str, heads: int, width_key: str, width: int) -> None:
        self.that(key, width % heads == 0, f"is {heads}, which does not divide {width_key} {width}")
        size = width // heads
        self.that(key, size % 2 == 0, f"makes heads of {size}; RoPE needs an even size")
