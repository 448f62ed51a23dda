"""The corpus: drawn texts, said by espeak-ng, in shards that record the time of each sound."""

from __future__ import annotations

import json
import logging
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from echo.audio.resample import Samples, resample
from echo.errors import ConfigError
from echo.spec import SAMPLE_RATE
from echo.training.catalogue import PASSERS_BY, VOICES
from echo.training.espeak import EspeakVoice, PhoneEvent, speak
from echo.training.texts import TextMix, draw_text

logger = logging.getLogger(__name__)

BEFORE_SECONDS = 0.07  # of near silence kept in front of the first sound
AFTER_SECONDS = 0.12  # the end must be heard to be silent
MAX_SECONDS = 12.0  # longer utterances are left out
LEVEL_RMS = 0.1  # of the speech, all voices alike
PEAK = 0.89
_SILENCE = 10 ** (-50 / 20)  # of the peak
_TAG = "[S1] "
_MAY_CHANGE = {"workers", "hours", "held_out_minutes"}  # from one call to the next


@dataclass(frozen=True)
class CorpusConfig:
    """What to make. The same values give the same corpus, whatever ``workers`` is.

    More ``hours`` later add to what is there.
    """

    seed: int
    hours: float  # of training speech
    held_out_minutes: float
    shard_minutes: float  # a whole number of shards is made
    voices: int  # the first so many of the catalogue
    others: float  # share of the speech by speakers that are not shipped
    workers: int  # processes
    mix: TextMix

    def __post_init__(self) -> None:
        if not 1 <= self.voices <= len(VOICES):
            raise ConfigError(
                f"training.corpus.voices is {self.voices}; the catalogue has {len(VOICES)}",
                param="training.corpus.voices",
            )
        if not 0 <= self.others <= 0.9:
            raise ConfigError(
                "training.corpus.others must be 0 to 0.9", param="training.corpus.others"
            )
        for name in ("hours", "held_out_minutes", "shard_minutes", "workers"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"training.corpus.{name} must be above 0", param=f"training.corpus.{name}"
                )


@dataclass(frozen=True)
class Spoken:
    """One utterance, ready to train on.

    ``samples``: [T] float32 at 44.1 kHz, levelled, trimmed; ``text`` as in the shards;
    ``phones``: in seconds from the first sample, ``char`` an index into ``text``.
    """

    samples: Samples
    text: str
    voice: int
    phones: tuple[PhoneEvent, ...]


def build_corpus(cfg: CorpusConfig, work_dir: Path) -> Path:
    """Write ``work_dir/corpus/{train,held_out}/shard_*.npz`` and return the folder.

    Continues where it was interrupted: shards that exist are kept. Each shard holds ``audio``
    [T] int16 at 44.1 kHz, utterances back to back; ``offsets`` [n+1] int64; ``texts`` [n];
    ``voice`` [n] int32, of the catalogue, then of its passers-by; ``phone_offsets`` [n+1] int64;
    ``phone_start``, ``phone_end`` float32, seconds from the start of the utterance;
    ``phone_byte`` int32, an index into the text.
    Raises :class:`ConfigError` if the folder holds a corpus of other settings.
    """
    folder = work_dir / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    _write_settings(folder, cfg)
    jobs = [job for job in _jobs(cfg, folder) if not job.path.exists()]
    logger.info("corpus: %d shards to make in %s", len(jobs), folder)
    for job in jobs:
        job.path.parent.mkdir(exist_ok=True)
    if cfg.workers == 1:
        for job in jobs:
            logger.info("corpus: %s", _make_shard(job))
    else:
        with ProcessPoolExecutor(cfg.workers, mp_context=get_context("spawn")) as pool:
            for line in pool.map(_make_shard, jobs):
                logger.info("corpus: %s", line)
    return folder


def say(text: str, voice: int) -> Spoken:
    """``text`` (normalised, with ``[S1] ``) in voice ``voice`` of the catalogue."""
    return say_as(text, VOICES[voice], voice)


def say_as(text: str, voice: EspeakVoice, index: int = 0) -> Spoken:
    """The same for any espeak-ng voice, counted as voice ``index``."""
    spoken = speak(text.removeprefix(_TAG), voice)
    start, end = _extent(spoken.samples)
    before, after = (round(s * spoken.sample_rate) for s in (BEFORE_SECONDS, AFTER_SECONDS))
    padded = np.pad(spoken.samples, (before, after))[start : end + before + after]
    shift = BEFORE_SECONDS - start / spoken.sample_rate
    seconds = padded.size / spoken.sample_rate
    tag = len(text) - len(text.removeprefix(_TAG))
    phones = tuple(
        PhoneEvent(max(0.0, p.start + shift), min(seconds, p.end + shift), p.char + tag)
        for p in spoken.phones
        if p.start + shift < seconds
    )
    samples = resample(_levelled(padded), spoken.sample_rate, SAMPLE_RATE)
    return Spoken(np.clip(samples, -1.0, 1.0), text, index, phones)


@dataclass(frozen=True)
class _Job:
    path: Path
    seed: str
    seconds: float
    held_out: bool
    voices: int
    others: float
    mix: TextMix


def _jobs(cfg: CorpusConfig, folder: Path) -> list[_Job]:
    jobs = []
    for split, minutes in (("held_out", cfg.held_out_minutes), ("train", cfg.hours * 60.0)):
        for index in range(max(1, round(minutes / cfg.shard_minutes))):
            jobs.append(
                _Job(
                    path=folder / split / f"shard_{index:04d}.npz",
                    seed=f"{cfg.seed}/{split}/{index}",
                    seconds=cfg.shard_minutes * 60.0,
                    held_out=split == "held_out",
                    voices=cfg.voices,
                    others=0.0 if split == "held_out" else cfg.others,
                    mix=cfg.mix,
                )
            )
    return jobs


@dataclass
class _Shard:
    audio: list[npt.NDArray[np.int16]] = field(default_factory=list)
    spoken: list[tuple[str, int]] = field(default_factory=list)
    phones: list[tuple[PhoneEvent, ...]] = field(default_factory=list)
    samples: int = 0

    def add(self, spoken: Spoken) -> None:
        self.audio.append(np.round(spoken.samples * 32767.0).astype(np.int16))
        self.spoken.append((spoken.text, spoken.voice))
        self.phones.append(spoken.phones)
        self.samples += spoken.samples.size

    def arrays(self) -> dict[str, Any]:
        flat = [phone for phones in self.phones for phone in phones]
        return {
            "audio": np.concatenate(self.audio),
            "offsets": np.cumsum([0, *(part.size for part in self.audio)], dtype=np.int64),
            "texts": np.array([text for text, _ in self.spoken]),
            "voice": np.array([voice for _, voice in self.spoken], np.int32),
            "phone_offsets": np.cumsum([0, *map(len, self.phones)], dtype=np.int64),
            "phone_start": np.array([phone.start for phone in flat], np.float32),
            "phone_end": np.array([phone.end for phone in flat], np.float32),
            "phone_byte": np.array([phone.char for phone in flat], np.int32),
        }


def _make_shard(job: _Job) -> str:
    rng = random.Random(job.seed)
    shard = _Shard()
    while shard.samples < job.seconds * SAMPLE_RATE:
        text = draw_text(rng, job.mix, held_out=job.held_out)
        if rng.random() < job.others:
            other = rng.randrange(len(PASSERS_BY))
            spoken = say_as(text, PASSERS_BY[other], job.voices + other)
        else:
            spoken = say(text, rng.randrange(job.voices))
        if spoken.samples.size <= MAX_SECONDS * SAMPLE_RATE:
            shard.add(spoken)
    unfinished = job.path.with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez(file, **shard.arrays())
    unfinished.replace(job.path)
    minutes = shard.samples / SAMPLE_RATE / 60.0
    return f"{job.path.parent.name}/{job.path.name}: {minutes:.1f} min, {len(shard.spoken)} texts"


def _write_settings(folder: Path, cfg: CorpusConfig) -> None:
    path = folder / "settings.json"
    settings = {key: value for key, value in asdict(cfg).items() if key not in _MAY_CHANGE}
    settings["voices"] = [asdict(voice) for voice in (*VOICES[: cfg.voices], *PASSERS_BY)]
    text = json.dumps(settings, indent=2) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise ConfigError(
            f"{path} describes a corpus of other settings; delete {folder} to make a new one",
            param="training.work_dir",
        )
    path.write_text(text, encoding="utf-8")
    voices = [{"engine": "espeak-ng", **voice} for voice in settings["voices"]]
    (folder / "voices.json").write_text(json.dumps(voices, indent=2) + "\n", encoding="utf-8")


def _extent(samples: Samples) -> tuple[int, int]:
    """First and last sample above -50 dB of the peak, the last one exclusive."""
    loud = np.flatnonzero(np.abs(samples) > _SILENCE * np.abs(samples).max())
    return int(loud[0]), int(loud[-1]) + 1


def _levelled(samples: Samples) -> Samples:
    """At the RMS all voices share; what would clip is a little softer."""
    magnitude = np.abs(samples)
    speech = samples[magnitude > _SILENCE * magnitude.max()]
    gain = min(LEVEL_RMS / float(np.sqrt(np.mean(speech**2))), PEAK / float(magnitude.max()))
    return (samples * np.float32(gain)).astype(np.float32)
