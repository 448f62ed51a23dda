from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from echo.audio.encode import encode_file
from echo.config.schema import VoicesConfig


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    first, second = tmp_path / "audio_prompts", tmp_path / "extra_prompt_audio"
    first.mkdir()
    second.mkdir()
    return first, second


@pytest.fixture
def make_cfg(roots: tuple[Path, Path]) -> Callable[..., VoicesConfig]:
    def make(**changes: object) -> VoicesConfig:
        settings: dict[str, object] = {
            "roots": tuple(str(root) for root in roots),
            "clone_root": str(roots[0]),
            "shared": None,
            "shared_cache": None,
            "shared_poll_seconds": 2.0,
            "default": None,
            "aliases": {},
            "folder_support": True,
            "folder_gap_seconds": 1.0,
            "max_file_bytes": 10_000_000,
            "max_inline_bytes": 1_000_000,
            "max_latents": 6_400,
            "cache_bytes": 1_000_000,
            "encode_device": None,
            "cache_on_device": False,
        }
        return VoicesConfig(**(settings | changes))

    return make


@pytest.fixture
def clip() -> Callable[..., bytes]:
    """A file with a tone of the given pitch."""

    def make(seconds: float = 0.5, hertz: float = 200.0, fmt: str = "wav") -> bytes:
        t = np.arange(round(seconds * 44_100)) / 44_100
        return encode_file((0.5 * np.sin(2 * np.pi * hertz * t)).astype(np.float32), 44_100, fmt)

    return make
