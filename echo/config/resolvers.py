"""The interpolations used in ``conf/`` and the environment flags behind them.

``${echo.env:NAME,default}``  environment variable NAME; unset or empty, the default
                              (``oc.env`` would take an empty value as it is)
``${echo.preset:}``           the preset named by ECHO_PERFORMANCE_PRESET, or ``default``
``${echo.auto_model:}``       ``base`` or ``tiny``
``${echo.folder:NAME}``       folder NAME in the working directory, else the one shipped
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from echo.config.paths import shipped_path
from echo.errors import ConfigError

PRESET_FLAG = "ECHO_PERFORMANCE_PRESET"
CHECKPOINT_FLAGS = ("ECHO_MODEL_REPO", "ECHO_FISH_REPO", "ECHO_PCA_REPO", "ECHO_LORA_REPO")
FALLBACK_PRESET = "default"
OTHER_PROGRAMS = ("training", "gpu")  # groups of conf/ that the service does not have

_ENV = re.compile(r"\$\{echo\.env:(\w+)")


def register_resolvers() -> None:
    """Make the interpolations known to OmegaConf. Doing it again changes nothing.

    :func:`echo.config.compose` does it by itself. A program under ``@hydra.main`` calls it before
    Hydra starts.
    """
    from omegaconf import OmegaConf

    resolvers: dict[str, Callable[..., Any]] = {
        "echo.env": _env,
        "echo.preset": lambda: choose_preset(os.environ),
        "echo.auto_model": lambda: choose_model(os.environ, _cuda_present),
        "echo.folder": _folder,
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


def choose_model(environ: Mapping[str, str], cuda_present: Callable[[], bool]) -> str:
    """``base`` where a flag names a checkpoint or CUDA is present, else ``tiny``."""
    if any(environ.get(flag) for flag in CHECKPOINT_FLAGS) or cuda_present():
        return "base"
    return "tiny"


def choose_preset(environ: Mapping[str, str]) -> str:
    """The preset that ECHO_PERFORMANCE_PRESET names; not set or unknown: ``default``."""
    name = environ.get(PRESET_FLAG, "").strip().lower()
    return name if name in preset_names() else FALLBACK_PRESET


def preset_names() -> tuple[str, ...]:
    """The presets in ``conf/preset/``, in alphabetical order."""
    return group_options()["preset"]


def group_options() -> dict[str, tuple[str, ...]]:
    """The groups of ``conf/``, each with the names of its options, in alphabetical order."""
    folders = sorted(folder for folder in shipped_path("conf").iterdir() if folder.is_dir())
    groups = [folder for folder in folders if folder.name not in OTHER_PROGRAMS]
    options = {
        folder.name: tuple(sorted(file.stem for file in folder.glob("*.yaml"))) for folder in groups
    }
    return {group: names for group, names in options.items() if names}


def known_flags() -> tuple[str, ...]:
    """Every environment variable that ``conf/`` reads, in alphabetical order."""
    files = shipped_path("conf").rglob("*.yaml")
    values = (line.partition("#")[0] for file in files for line in file.read_text().splitlines())
    return tuple(sorted({PRESET_FLAG, *(flag for value in values for flag in _ENV.findall(value))}))


def unknown_flags(environ: Mapping[str, str]) -> dict[str, str | None]:
    """The variables ``ECHO_…`` that are no flags, each with the nearest name that is one."""
    flags = known_flags()
    unknown = sorted(n for n in environ if n.upper().startswith("ECHO_") and n not in flags)
    return {
        name: next(iter(difflib.get_close_matches(name.upper(), flags, n=1)), None)
        for name in unknown
    }


def flag_in(raw: object) -> str | None:
    """The environment flag that ``raw``, an unresolved value, takes its value from right now."""
    if not isinstance(raw, str):
        return None
    return next((name for name in _ENV.findall(raw) if os.environ.get(name)), None)


def _env(name: str, default: Any = None) -> Any:
    return os.environ.get(name) or default


def _folder(name: str) -> str:
    if Path(name).is_dir() and not _only_clones(Path(name)):
        return name
    try:
        return str(shipped_path(name))
    except ConfigError:  # removed on purpose: voice folders that do not exist are skipped
        return name


def _only_clones(folder: Path) -> bool:
    """Whether somebody cloned a voice into ``folder`` and nobody put one there: it was made for
    that and does not replace what is shipped."""
    names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    return bool(names) and all("__" in name for name in names)


def _cuda_present() -> bool:
    import torch  # seconds; only the choice between two models needs it

    return torch.cuda.is_available()
