"""From a configuration back to the overrides that compose it, as far as the sound goes."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from echo.config.compose import compose
from echo.config.schema import EchoConfig
from echo.errors import ConfigError

# What bears on the samples, and where voices are found.
GROUPS = ("model", "preset", "sampler", "text", "chunking", "vad")
KEYS = ("voices.roots", "voices.clone_root")


def overrides_of(config: EchoConfig) -> dict[str, str]:
    """Key to value, both in Hydra's syntax: what differs from the defaults, in as few words as
    there are: ``{"preset": "low", "sampler.cfg_scale_text": "4"}``."""
    chosen: dict[str, str] = {}
    base = _composed()
    for group in ("model", "preset"):
        name = getattr(config, group).name
        if getattr(config, group) != getattr(base, group):
            option = _option(*chosen.items(), (group, name))
            if option is not None:
                chosen[group], base = name, option
    here, there = _flat(config), _flat(base)
    return chosen | {key: hydra_value(here[key]) for key in here if here[key] != there[key]}


def hydra_value(value: Any) -> str:
    """A value as an override has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(hydra_value, value))}]"
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, int):
        return str(value)
    quoted = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"


def _option(*chosen: tuple[str, str]) -> EchoConfig | None:
    """With those options of groups; None where one is no option but a name of the user's own."""
    try:
        return _composed(*(f"{group}={name}" for group, name in chosen))
    except ConfigError:
        return None


@functools.lru_cache(maxsize=16)
def _composed(*overrides: str) -> EchoConfig:
    return compose(overrides)


def _flat(config: EchoConfig) -> dict[str, Any]:
    groups = ((group, asdict(getattr(config, group))) for group in GROUPS)
    found = {key: value for group, values in groups for key, value in _leaves(group, values)}
    for key in ("model.name", "preset.name"):  # these are what was chosen, they choose nothing
        del found[key]
    for key in KEYS:
        group, _, name = key.partition(".")
        found[key] = getattr(getattr(config, group), name)
    return found


def _leaves(prefix: str, tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(f"{prefix}.{name}", value)
        else:
            yield f"{prefix}.{name}", value
