from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from conftest import SMALL_BLOCKS, TOY_CODEC, TOY_DIT


@pytest.fixture
def toy_sizes(tmp_path: Path) -> Path:
    """A folder with the sizes of toy networks, for ``model.repo`` with random weights."""
    folder = tmp_path / "sizes"
    folder.mkdir()
    sizes = {"dit": asdict(TOY_DIT), "codec": asdict(TOY_CODEC)}
    (folder / "config.json").write_text(json.dumps(sizes))
    return folder


@pytest.fixture
def toy_settings(toy_sizes: Path) -> Callable[..., list[str]]:
    """Overrides for a program: toy networks with random weights, short blocks."""

    def make(*more: str) -> list[str]:
        repos = [f"model.{key}='{toy_sizes}'" for key in ("repo", "codec_repo", "pca_repo")]
        small = [*SMALL_BLOCKS, "engine.cpu_threads=1"]
        return ["model=base", "model.weights=random", "model.dtype=float32", *repos, *small, *more]

    return make
