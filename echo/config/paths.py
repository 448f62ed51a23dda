"""Where the folders that ship with Echo lie: in a checkout and in an installed package."""

from __future__ import annotations

from pathlib import Path

from echo.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_path(name: str) -> Path:
    """The absolute path of the shipped folder ``name`` (``conf``, ``audio_prompts``).

    An installed package has it as ``echo/_NAME``, a checkout beside ``echo/``.
    Raises :class:`ConfigError` where it is in neither place.
    """
    for folder in (_PACKAGE / f"_{name}", _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise ConfigError(
        f"the folder {name!r} that ships with Echo is missing; install Echo again", param=name
    )
