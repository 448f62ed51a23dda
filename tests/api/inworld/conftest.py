from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest

from echo.audio.encode import encode_file

TONE = np.sin(np.arange(44_100) / 30).astype(np.float32) / 2


def audio_of(told: dict[str, Any]) -> bytes:
    return base64.b64decode(told["audioContent"], validate=True)


def lines_of(reply: httpx.Response) -> list[dict[str, Any]]:
    assert reply.text.endswith("\n")
    return [json.loads(line) for line in reply.text.splitlines()]


def decoded(data: bytes, fmt: str | None = None, rate: int | None = None) -> tuple[np.ndarray, int]:
    """Mono samples and rate of a file, by FFmpeg; ``fmt`` and ``rate``: of bare samples."""
    options = {} if rate is None else {"sample_rate": str(rate)}
    with av.open(io.BytesIO(data), format=fmt, options=options) as container:
        frames = list(container.decode(audio=0))
    parts = [
        frame.to_ndarray().reshape(-1) / (1 if "flt" in frame.format.name else 32768.0)
        for frame in frames
    ]
    return np.concatenate(parts), frames[0].sample_rate


@pytest.fixture
def clip() -> bytes:
    return encode_file(TONE, 44_100, "wav")


@pytest.fixture
def clone_body(clip) -> Callable[..., dict[str, Any]]:
    def make(name: str = "Anna", audio: bytes = clip, **more: object) -> dict[str, Any]:
        data = base64.b64encode(audio).decode()
        return {"displayName": name, "voiceSamples": [{"audioData": data}], **more}

    return make


@pytest.fixture
def cloning(run, tmp_path) -> Callable[..., Any]:
    """Starts a server where cloning is on, with a folder of its own."""
    folder = tmp_path / "clones"

    @contextmanager
    def start(*overrides: str) -> Iterator[tuple[Any, Path]]:
        on = [f"voices.clone_root={folder}", "inworld.clone_enabled=true"]
        with run(*on, *overrides) as running:
            yield running, folder

    return start
