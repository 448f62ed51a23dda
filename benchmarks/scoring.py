"""One figure for how well a line was spoken, and at what load of the device: a weighted sum of
what :mod:`.judging` measures and the real-time factor.

0 is perfect, 1 about as bad as no word understood. The weights are a choice, told in
``conf/benchmark_tune.yaml`` and written beside every result.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.judging import Judge, Line, Take, seam_values, speak
from echo.engine import SpeechRequest
from echo.errors import ConfigError
from echo.training.slots import slot_sentence

PAUSE_S = 0.4  # pauses up to this belong to speech
TAIL_DBFS = -60.0  # tails below this are silent
SEAM = 1.0  # of seam_spectrum and seam_click: no more change than beside the join
WORDS = "word_error"


@dataclass(frozen=True)
class Weights:
    """Cost of each unit of what is wrong; 0: not looked at.

    ``word_error``: of one word in one. ``speaker``: of similarity 0 instead of 1. ``pause``: of a
    second over 0.4 s. ``seam`` and ``click``: of each unit over 1, ``tail``: of each 10 dB over
    -60 dBFS. ``mcd_best``: of each dB. ``load``: of a real-time factor of 1.
    """

    word_error: float
    speaker: float
    pause: float
    seam: float
    click: float
    tail: float
    mcd_best: float
    load: float


@dataclass(frozen=True)
class Score:
    """A line as it was spoken: what it cost, of what that is made, and how long it took.

    ``ttfb_s`` is as it was heard, on a busy machine long; ``rtf`` is by :meth:`Scorer.seconds`.
    """

    cost: float
    parts: Mapping[str, float]  # by the names of Weights, not weighted
    ttfb_s: float
    rtf: float


@dataclass
class Scorer:
    """Speaks lines and scores them, each with the request settings ``overrides``."""

    judge: Judge
    weights: Weights

    def __post_init__(self) -> None:
        if self.weights.word_error and not self.judge.listeners:
            raise ConfigError(
                "words can only be judged by a recogniser; install pocketsphinx "
                "(pip install 'echo-tts[train]') or set benchmark.weights.word_error=0"
            )

    def first_sound_s(self, line: Line, overrides: Mapping[str, Any]) -> float:
        """What the first sound of ``line`` takes of the device, in seconds; see :meth:`seconds`."""
        first = {**overrides}
        for name in ("block_sizes", "num_steps"):  # alone: nothing else is counted
            first[name] = tuple(overrides[name])[:1]
        request = SpeechRequest(line.text, line.voice, line.seed, overrides=first)
        begun = self.seconds()
        self.judge.engine.synthesize(request)
        return self.seconds() - begun

    def seconds(self) -> float:
        """A clock that other work on the machine does not move, as far as that can be had.

        On a CPU the processor time of this process over its threads, else the time on the wall.
        """
        if self.judge.engine.components.model.device.type == "cpu":
            return time.process_time() / torch.get_num_threads()
        return time.perf_counter()

    def score(self, line: Line, overrides: Mapping[str, Any]) -> Score:
        """``line``, spoken and judged."""
        begun = self.seconds()
        take = speak(self.judge.engine, line, overrides)
        rtf = (self.seconds() - begun) / max(take.stats.audio_s, 1e-9)
        parts = {**self._parts(take), "load": rtf}
        cost = sum(weight * parts.get(name, 0.0) for name, weight in asdict(self.weights).items())
        return Score(cost, parts, take.ttfb_s, rtf)

    def _parts(self, take: Take) -> dict[str, float]:
        w, judge = self.weights, self.judge
        sound = judge.of_sound(take)
        seams = list(seam_values(take))
        found = {
            "pause": max(0.0, sound["vad_longest_pause_s"] - PAUSE_S),
            "tail": max(0.0, sound["tail_noise_dbfs"] - TAIL_DBFS) / 10.0,
            "seam": _over(SEAM, [value for metric, _, value in seams if metric == "seam_spectrum"]),
            "click": _over(SEAM, [value for metric, _, value in seams if metric == "seam_click"]),
        }
        if w.word_error:
            rates = [v for k, v in judge.of_words(take, "").items() if "chance" not in k]
            found[WORDS] = min(1.0, sum(rates) / len(rates))
        if w.speaker:
            likeness = judge.speaker_similarity(take, ()).get("speaker_similarity", 0.0)
            found["speaker"] = 1.0 - likeness
        if w.mcd_best:
            found["mcd_best"] = judge.mcd_best_db(take)
        return found


def _over(limit: float, values: Sequence[float]) -> float:
    """By how much ``values`` exceed ``limit``, on average."""
    return sum(max(0.0, value - limit) for value in values) / len(values) if values else 0.0


def different_lines(
    counts: Sequence[int], sentences: Sequence[int], voices: Sequence[str | None], seed: int
) -> list[list[Line]]:
    """Sets of ``counts`` lines that have no text in common, nor with what a model was trained on.

    Lengths are ``sentences`` of the slot grammar in turn, and voices take turns as well.
    """
    rng = random.Random(f"lines/{seed}")
    seen: set[str] = set()
    sets = []
    for count in counts:
        lines: list[Line] = []
        while len(lines) < count:
            length = sentences[len(lines) % len(sentences)]
            parts = [slot_sentence(rng, held_out=True) for _ in range(length)]
            if seen.isdisjoint(parts) and len(set(parts)) == length:
                seen.update(parts)
                voice = voices[len(lines) // len(sentences) % len(voices)]
                lines.append(Line(" ".join(parts), voice, rng.randrange(1 << 31)))
        sets.append(lines)
    return sets
