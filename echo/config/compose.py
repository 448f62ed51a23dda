"""Composing the configuration: YAML defaults, then the environment, then overrides."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from echo.config.build import build, build_group, is_known_key, unknown_key
from echo.config.paths import shipped_path
from echo.config.resolvers import (
    PRESET_FLAG,
    flag_in,
    group_options,
    preset_names,
    register_resolvers,
)
from echo.config.schema import EchoConfig, PresetConfig
from echo.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

SECRETS = ("server.api_keys", "ui.password")  # never shown
HIDDEN = "(hidden)"

_LIST_INDEX = re.compile(r"\.\d+$")
_lock = threading.RLock()  # Hydra keeps its state in a process-wide object


@dataclass(frozen=True)
class Setting:
    """One value in force and where it comes from."""

    key: str
    value: Any
    source: str  # "default" | "environment NAME" | "command line"


def compose(overrides: Sequence[str] = ()) -> EchoConfig:
    """The configuration with ``overrides`` in Hydra's syntax: ``preset=equal``, ``server.port=1``.

    Can be called from any working directory, any thread, repeatedly, and under ``@hydra.main``.
    Raises :class:`ConfigError`, whose message names the key at fault.
    """
    return build(_compose(overrides))


def to_yaml(overrides: Sequence[str] = ()) -> str:
    """The values in force, checked and resolved, as YAML; secrets are left out."""
    from omegaconf import OmegaConf

    cfg = OmegaConf.create(_plain(asdict(compose(overrides))))
    for key in SECRETS:
        OmegaConf.update(cfg, key, None)
    return OmegaConf.to_yaml(cfg)


def describe(overrides: Sequence[str] = ()) -> list[Setting]:
    """Every value in force with its source, in the order of ``schema.py``; secrets hidden."""
    parsed = [_parse(override) for override in overrides]
    cfg = _compose(overrides)
    raw = _unresolved(cfg)
    return [
        Setting(key, HIDDEN if key in SECRETS and value else value, _source(key, raw, parsed))
        for key, value in _flat(asdict(build_group(EchoConfig, cfg, ""))).items()
    ]


def load_preset(name: str) -> PresetConfig:
    """The preset ``name``. Raises :class:`ConfigError` listing the presets if there is none."""
    from omegaconf import OmegaConf

    if name not in preset_names():
        raise _no_such_option("preset", name)
    node = OmegaConf.load(shipped_path("conf") / "preset" / f"{name}.yaml")
    return build_group(PresetConfig, node, "preset.")  # type: ignore[arg-type]


def prefer_command_line(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Take from the preset in ``cfg`` what the command line says of the sampler itself.

    ``preset=mine sampler.cfg_min_t=0.5`` means 0.5, whatever the preset has. For programs under
    ``@hydra.main``; :func:`compose` does it.
    """
    from omegaconf import open_dict

    given = {override.partition("=")[0].lstrip("+") for override in overrides}
    own = cfg.preset.get("sampler") or {}
    with open_dict(cfg):
        for name in [name for name in own if f"sampler.{name}" in given]:
            del own[name]


def raw_values(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Every key with its value as written in ``conf/``, interpolations not resolved."""
    return _unresolved(_compose(overrides))


def _compose(overrides: Sequence[str]) -> DictConfig:
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    parsed = [_parse(override) for override in overrides]
    register_resolvers()
    with _lock:
        state = GlobalHydra.instance()
        outer, state.hydra = state.hydra, None  # of a @hydra.main around us
        try:
            with hydra.initialize_config_dir(str(shipped_path("conf")), version_base="1.3"):
                cfg = hydra.compose("config", overrides=list(overrides))
                prefer_command_line(cfg, overrides)
                return cfg
        except (HydraException, OmegaConfBaseException) as error:
            raise _explain(error, parsed) from error
        finally:
            GlobalHydra.instance().hydra = outer


def _parse(override: str) -> Override:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException as error:
        raise _unreadable(override) from error
    if parsed.is_sweep_override():
        raise _unreadable(override)
    key = parsed.key_or_group
    if key.replace("/", ".").partition(".")[0] == "hydra":
        raise ConfigError(f"{override!r}: Hydra's own settings are not used here", param="hydra")
    options = group_options()
    if key in options:
        if parsed.is_delete() or parsed.is_add() or parsed.package is not None:
            raise ConfigError(f"{override!r}: write {key}=OPTION", param=key)
        if parsed.value() not in options[key]:
            raise _no_such_option(key, parsed.value())
    elif not is_known_key(_LIST_INDEX.sub("", key)):
        raise unknown_key(key)
    return parsed


def _unreadable(override: str) -> ConfigError:
    key, equals, value = override.partition("=")
    if not equals:
        return ConfigError(f"{override!r} is not an override; write KEY=VALUE", param=key)
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return ConfigError(
        f"cannot read the override {override!r}; text with special characters needs quotes"
        f""" inside the shell's: '{key}="{quoted}"'""",
        param=key,
    )


def _explain(error: Exception, overrides: Sequence[Override]) -> ConfigError:
    """Hydra's failure, with the override that it speaks of."""
    reason = " ".join(str(error).split())
    guilty = [each for each in overrides if each.input_line and each.input_line in reason]
    key = guilty[0].key_or_group if guilty else None
    given = " ".join(str(each.input_line) for each in guilty or overrides)
    return ConfigError(f"cannot apply {given or 'conf/'}: {reason}", param=key)


def _no_such_option(group: str, name: object) -> ConfigError:
    options = ", ".join(group_options()[group])
    return ConfigError(
        f"{group}={name}: there is no such option; choose one of {options}", param=group
    )


def _source(key: str, raw: dict[str, Any], overrides: Sequence[Override]) -> str:
    groups = group_options()
    chosen = [override.key_or_group for override in overrides]
    for name in chosen:
        if name not in groups and (key == name or key.startswith(f"{name}.")):
            return "command line"
    if flag := flag_in(raw.get(key)):
        return f"environment {flag}"
    group = key.partition(".")[0]
    if group in chosen:
        return "command line"
    if group == "preset" and os.environ.get(PRESET_FLAG, "").strip().lower() in preset_names():
        return f"environment {PRESET_FLAG}"
    return "default"


def _unresolved(cfg: DictConfig) -> dict[str, Any]:
    from omegaconf import OmegaConf

    return _flat(OmegaConf.to_container(cfg, resolve=False))


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _plain(value: Any) -> Any:
    """Tuples as lists: OmegaConf writes only those."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return list(value) if isinstance(value, tuple) else value
