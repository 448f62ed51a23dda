"""From a composed Hydra configuration to the frozen dataclasses of ``schema.py``.

Hydra's structured configs cannot be frozen, so types are checked here, against the annotations.
"""

from __future__ import annotations

import difflib
import logging
import math
import os
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from echo.config.resolvers import FALLBACK_PRESET, PRESET_FLAG, flag_in, preset_names
from echo.config.schema import EchoConfig
from echo.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

T = TypeVar("T")

_log = logging.getLogger(__name__)

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")
_DTYPES = {
    "bfloat16": ("bfloat16", "bf16"),
    "float16": ("float16", "fp16", "f16", "half"),
    "float32": ("float32", "fp32", "f32", "float"),
}
_DTYPE_KEYS = ("model.dtype", "model.codec_dtype")
TABLES = ("voices.aliases", "preset.sampler")  # not every entry is known beforehand
# Step counts given as one number hold for every block.
_ONE_PER_BLOCK = {
    "num_steps": "block_sizes",
    "nonstream_num_steps": "nonstream_block_sizes",
}


def build(cfg: DictConfig) -> EchoConfig:
    """The typed configuration of a composed ``conf/config.yaml``.

    Raises :class:`ConfigError` for a missing or unknown key, a wrong type or an impossible value;
    the message names the key and, where the value came from one, the environment flag. Warns of an
    unknown ECHO_PERFORMANCE_PRESET, for which ``cfg`` holds the default preset.
    """
    named = os.environ.get(PRESET_FLAG, "").strip()
    if named and named.lower() not in preset_names():
        there_are = ", ".join(preset_names())
        _log.warning(
            "%s=%r is no preset, using %s; there are: %s",
            PRESET_FLAG,
            named,
            FALLBACK_PRESET,
            there_are,
        )
    return build_group(EchoConfig, cfg, "")


def build_group(cls: type[T], node: DictConfig, prefix: str) -> T:
    """The dataclass ``cls`` from ``node``, whose keys are called ``prefix`` + name in messages."""
    from omegaconf import OmegaConf

    raw = typing.cast("dict[str, Any]", OmegaConf.to_container(node, resolve=False))
    hints = typing.get_type_hints(cls)
    for name in raw:
        if name not in hints:
            raise unknown_key(f"{prefix}{name}")
    values: dict[str, Any] = {}
    scalars = set()
    for name, hint in hints.items():
        key = f"{prefix}{name}"
        is_table = typing.get_origin(hint) is Mapping
        if name not in raw:
            if is_table:
                values[name] = {}
                continue
            raise ConfigError(f"{key} is missing from the configuration", param=key)
        value = _resolve(node, name, key)
        if (is_dataclass(hint) or is_table) and not isinstance(value, Mapping):
            raise ConfigError(f"{key} is a group of keys, not the value {value!r}", param=key)
        if is_table:
            item = typing.get_args(hint)[1]
            values[name] = {
                str(each): _convert(f"{key}.{each}", _resolve(node[name], each, key), item, "")
                for each in value
            }
            continue
        if is_dataclass(hint):
            values[name] = build_group(typing.cast("type[Any]", hint), node[name], f"{key}.")
            continue
        values[name] = _convert(key, value, hint, _source(key, raw[name]))
        if not _is_list(value):
            scalars.add(name)
    for steps, blocks in _ONE_PER_BLOCK.items():
        if steps in scalars:
            values[steps] = values[steps] * len(values[blocks])
    return _checked(cls, values, raw, prefix)


def known_keys(cls: type = EchoConfig, prefix: str = "") -> Iterator[str]:
    """Every key of the configuration, groups included: ``server``, ``server.host``, ..."""
    hints = typing.get_type_hints(cls)
    for field in fields(cls):
        yield f"{prefix}{field.name}"
        if is_dataclass(hints[field.name]):
            yield from known_keys(hints[field.name], f"{prefix}{field.name}.")


def is_known_key(key: str) -> bool:
    """Whether ``key`` is one of :func:`known_keys`, or an entry of a table with free names."""
    group, _, name = key.rpartition(".")
    return key in known_keys() or (group in TABLES and bool(name))


def unknown_key(key: str) -> ConfigError:
    """The error for a key that does not exist, with the nearest one that does."""
    keys = list(known_keys())
    last = key.rsplit(".", 1)[-1]
    near = [known for known in keys if known.rsplit(".", 1)[-1] == last]
    near = near or difflib.get_close_matches(key, keys, n=1)
    near = near or [
        known for known in keys if difflib.get_close_matches(last, [known.rsplit(".", 1)[-1]])
    ]
    hint = f"did you mean {' or '.join(near[:3])}?" if near else "--help lists the keys"
    return ConfigError(f"unknown key {key!r}; {hint}", param=key)


def _resolve(node: DictConfig, name: str, key: str) -> Any:
    from omegaconf.errors import OmegaConfBaseException

    try:
        value = node[name]
        return list(value) if _is_list(value) else value  # resolves the items, too
    except OmegaConfBaseException as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"{key} cannot be resolved: {reason}", param=key) from error


def _checked(cls: type[T], values: dict[str, Any], raw: Mapping[str, Any], prefix: str) -> T:
    """``cls(**values)``; an error about a value that came from a flag says so."""
    try:
        return cls(**values)
    except ConfigError as error:
        name = (error.param or "").removeprefix(prefix)
        source = _source(error.param or "", raw.get(name))
        raise ConfigError(error.message + source, param=error.param) from error


def _source(key: str, raw: object) -> str:
    flag = flag_in(raw)
    return f" ({key} comes from the environment: {flag}={os.environ[flag]!r})" if flag else ""


def _convert(key: str, value: Any, hint: Any, source: str) -> Any:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    choices = typing.get_args(hint) if union else (hint,)
    if value is None and type(None) in choices:
        return None
    lists = [choice for choice in choices if typing.get_origin(choice) is tuple]
    plain = [choice for choice in choices if choice in _SCALARS]
    if lists and (_is_list(value) or not plain):
        item = typing.get_args(lists[0])[0]
        items = list(value) if _is_list(value) else [value]
        return tuple(_scalar(key, each, item, source) for each in items)
    value = _scalar(key, value, plain[0], source)
    return _dtype(key, value, source) if key in _DTYPE_KEYS else value


def _scalar(key: str, value: Any, kind: type, source: str) -> Any:
    what, parse = _SCALARS[kind]
    parsed = parse(value)
    if parsed is None:
        shown = "null" if value is None else repr(value)
        raise ConfigError(f"{key} must be {what}, not {shown}{source}", param=key)
    return parsed


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _bool(value: Any) -> bool | None:
    text = str(value).strip().lower()
    return text in _TRUE if text in _TRUE + _FALSE else None


def _int(value: Any) -> int | None:
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"\s*[+-]?\d{1,18}\s*", value) else None
    number = _float(value)
    return int(value) if number is not None and number.is_integer() else None


def _float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):  # not a number, or an int beyond any float
        return None
    return number if math.isfinite(number) else None


def _str(value: Any) -> str | None:
    """Text; a bare number counts, so that a voice may be called 7."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    return str(value)


def _dtype(key: str, value: str, source: str) -> str:
    name = value.strip().lower().removeprefix("torch.")
    for dtype, spellings in _DTYPES.items():
        if name in spellings:
            return dtype
    raise ConfigError(
        f"{key} is {value!r}; choose one of {', '.join(_DTYPES)}{source}",
        param=key,
    )


_SCALARS: dict[Any, tuple[str, typing.Callable[[Any], Any]]] = {
    bool: ("true or false (or 1/0, yes/no, on/off)", _bool),
    int: ("a whole number", _int),
    float: ("a finite number", _float),
    str: ("text (quote it if it looks like something else)", _str),
}
