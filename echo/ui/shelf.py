"""The audio that the page plays: kept in memory, found by a name nobody can guess.

Nothing is written to disk. A clip can be read while it still grows.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable

import numpy as np

from echo.audio.encode import encode_file
from echo.audio.resample import Samples

MAX_BYTES = 256 << 20  # of all clips together: 25 minutes


class Clip:
    """Audio [T] float32, -1 ... 1, at ``sample_rate``, that grows until ``finish``. Thread-safe.

    ``name``: of a file with it, without extension.
    """

    def __init__(self, name: str, sample_rate: int) -> None:
        self.token = secrets.token_urlsafe(16)
        self.name = re.sub(r"[^\w-]+", "-", name).strip("-") or "echo"
        self.sample_rate = sample_rate
        self.finished = False
        self.samples = 0
        self._parts: list[Samples] = []
        self._lock = threading.Lock()
        self._encoded: tuple[str, bytes] | None = None

    @property
    def seconds(self) -> float:
        return self.samples / self.sample_rate

    @property
    def nbytes(self) -> int:
        """What its samples take in memory."""
        return 4 * self.samples

    def add(self, samples: Samples) -> None:
        """Append [T] float32."""
        with self._lock:
            self._parts.append(np.asarray(samples, np.float32))
            self.samples += len(samples)

    def finish(self) -> None:
        """Nothing more will come."""
        self.finished = True

    def parts_from(self, index: int) -> list[Samples]:
        """What was added, from the ``index``-th time on."""
        with self._lock:
            return self._parts[index:]

    def audio(self) -> Samples:
        """All of it so far, [T] float32."""
        with self._lock:
            if not self._parts:
                return np.zeros(0, np.float32)
            return np.concatenate(self._parts)

    def encoded(self, fmt: str) -> bytes:
        """A whole file of what there is; the latest of a finished clip is kept: players ask for
        it in ranges. Raises InvalidRequestError for an unknown format."""
        kept = self._encoded
        if kept is not None and kept[0] == fmt:
            return kept[1]
        data = encode_file(self.audio(), self.sample_rate, fmt)
        if self.finished:
            self._encoded = (fmt, data)
        return data


class Shelf:
    """All clips of the page. Thread-safe. Over ``max_bytes`` the oldest finished ones go."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._clips: OrderedDict[str, Clip] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, name: str, sample_rate: int) -> Clip:
        """A new clip to add to."""
        clip = Clip(name, sample_rate)
        with self._lock:
            self._clips[clip.token] = clip
            self._make_room()
        return clip

    def put(self, name: str, samples: Samples, sample_rate: int) -> Clip:
        """A clip that is all there."""
        clip = self.open(name, sample_rate)
        clip.add(samples)
        clip.finish()
        return clip

    def get(self, token: str) -> Clip | None:
        """The clip, or None if there is none or it had to go."""
        with self._lock:
            return self._clips.get(token)

    def drop(self, tokens: Iterable[str]) -> None:
        """Forget clips; those that are not there are no error."""
        with self._lock:
            for token in tokens:
                self._clips.pop(token, None)

    def __len__(self) -> int:
        return len(self._clips)

    def _make_room(self) -> None:
        total = sum(clip.nbytes for clip in self._clips.values())
        for token, clip in list(self._clips.items()):
            if total <= self._max_bytes:
                return
            if clip.finished:
                total -= clip.nbytes
                del self._clips[token]
