"""Training state on disk: atomic, and in parts that small file limits let through."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import torch

PART_BYTES = 15 * 2**20


def save_state(folder: Path, state: dict[str, Any], *, part_bytes: int = PART_BYTES) -> None:
    """Write ``state`` to ``folder`` as ``state.000``, ...; a crash leaves the one before.

    The new folder is complete before it takes the old one's place.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    starts = range(0, len(data), part_bytes)
    for i, start in enumerate(starts):
        (fresh / f"state.{i:03d}").write_bytes(data[start : start + part_bytes])
    index = {"bytes": len(data), "parts": len(starts)}
    (fresh / "index.json").write_text(json.dumps(index), encoding="utf-8")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path) -> dict[str, Any] | None:
    """What :func:`save_state` wrote; None where there is nothing yet.

    Falls back to the one before if the process ended between two renames.
    """
    old = folder.with_name(folder.name + ".old")
    for place in (folder, old):
        if (place / "index.json").is_file():
            break
    else:
        return None
    index = json.loads((place / "index.json").read_text(encoding="utf-8"))
    data = b"".join((place / f"state.{i:03d}").read_bytes() for i in range(index["parts"]))
    if len(data) != index["bytes"]:
        raise ValueError(f"{place} is not complete: {len(data)} of {index['bytes']} bytes")
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state
