"""The corpus on disk, as the training stages read it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from echo.errors import ConfigError


@dataclass(frozen=True)
class Utterance:
    """One sentence: its place in a corpus, text, voice and timing."""

    index: int
    text: str
    voice: int
    start: int  # sample in its shard
    samples: int
    shard: int
    phone_start: npt.NDArray[np.float32]  # seconds from the utterance's start
    phone_end: npt.NDArray[np.float32]
    phone_byte: npt.NDArray[np.int32]  # byte of the text each belongs to


class SpokenCorpus:
    """All shards of one split in memory; int16 audio, 44.1 kHz mono.

    Raises :class:`ConfigError` where the split has not been made yet.
    """

    def __init__(self, folder: Path) -> None:
        paths = sorted(folder.glob("shard_*.npz"))
        if not paths:
            raise ConfigError(
                f"{folder} holds no corpus; make it with: python -m echo.training corpus",
                param="work_dir",
            )
        self._audio: list[npt.NDArray[np.int16]] = []
        self.utterances: list[Utterance] = []
        for number, path in enumerate(paths):
            with np.load(path) as shard:
                self._audio.append(shard["audio"])
                self.utterances += _utterances(shard, number, len(self.utterances))
        voices = [folder / "voices.json", folder.parent / "voices.json"]
        known = [path for path in voices if path.is_file()]
        self.voices: list[dict[str, Any]] = (
            json.loads(known[0].read_text(encoding="utf-8")) if known else []
        )

    def __len__(self) -> int:
        return len(self.utterances)

    def audio(self, utterance: Utterance) -> npt.NDArray[np.float32]:
        """Samples [T] float32, -1..1."""
        stop = utterance.start + utterance.samples
        return self._audio[utterance.shard][utterance.start : stop].astype(np.float32) / 32768.0

    def of_voice(self) -> dict[int, list[int]]:
        """Utterances of each voice, by index."""
        groups: dict[int, list[int]] = {}
        for utterance in self.utterances:
            groups.setdefault(utterance.voice, []).append(utterance.index)
        return groups

    def hours(self) -> float:
        return sum(u.samples for u in self.utterances) / 44_100 / 3600


def _utterances(shard: Any, number: int, first: int) -> list[Utterance]:
    offsets, phones = shard["offsets"], shard["phone_offsets"]
    texts, voices = shard["texts"], shard["voice"]
    start, end, byte = shard["phone_start"], shard["phone_end"], shard["phone_byte"]
    return [
        Utterance(
            index=first + i,
            text=str(texts[i]),
            voice=int(voices[i]),
            start=int(offsets[i]),
            samples=int(offsets[i + 1] - offsets[i]),
            shard=number,
            phone_start=start[phones[i] : phones[i + 1]],
            phone_end=end[phones[i] : phones[i + 1]],
            phone_byte=byte[phones[i] : phones[i + 1]],
        )
        for i in range(len(texts))
    ]
