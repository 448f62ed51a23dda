"""The search behind :mod:`benchmarks.tune`: a study, its limits, the best few, the winner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from tqdm import tqdm

from benchmarks.cards import GIB, Card
from benchmarks.judging import Judge, Line
from benchmarks.memory import resident_bytes
from benchmarks.quality import voices_of
from benchmarks.recognition import Listener
from benchmarks.scoring import Score, Scorer, Weights, different_lines
from benchmarks.shapes import Shape, Space, shape_of, starts, suggest
from benchmarks.timing import mean_interval, median
from echo.config.schema import PresetConfig, SamplerConfig
from echo.engine import Engine
from echo.errors import ConfigError

CONFIDENCE = 0.95
STUDY = "shapes"
LOOK_AFTER = 4  # lines: a shape that is far too slow is not heard to the end
FAR = 1.5  # times the limit


@dataclass(frozen=True)
class TuneSettings:
    """``conf/benchmark_tune.yaml``."""

    seed: int
    preset_name: str
    preset_folder: str | None
    journals: str
    trials: int
    voices: tuple[str, ...] | None
    sentences: tuple[int, ...]
    search_lines: int
    final_lines: int
    finalists: int
    held_out_lines: int
    slack: float
    best_steps: int
    whisper_model: str | None
    weights: Weights
    space: Space
    gpu: Card


@dataclass(frozen=True)
class Limits:
    """Most that a preset may need: seconds to first sound, compute per audio time, bytes."""

    ttfb_s: float
    rtf: float
    memory_bytes: float | None


@dataclass(frozen=True)
class Judged:
    """What a shape came to over some lines. ``ttfb_s``: by :meth:`Scorer.seconds`."""

    scores: tuple[Score, ...]
    ttfb_s: float
    memory_bytes: float

    @property
    def cost(self) -> float:
        return sum(score.cost for score in self.scores) / len(self.scores)

    @property
    def rtf(self) -> float:
        return median([score.rtf for score in self.scores])


@dataclass(frozen=True)
class Found:
    """Everything that a search came to."""

    trials: tuple[optuna.trial.FrozenTrial, ...]
    limits: Limits
    base: PresetConfig  # to beat
    winner: Shape
    held_out: tuple[tuple[Score, ...], ...]  # of each line: the preset to beat, the winner

    def difference(self) -> tuple[float, float, float]:
        """Cost of the winner less that of the preset to beat, with its interval."""
        return mean_interval([b.cost - a.cost for a, b in self.held_out], CONFIDENCE)


def tune_engine(
    engine: Engine, s: TuneSettings, heard_by: Sequence[Listener], journal: Path
) -> Found:
    """Search, choose among the best, and hold the winner against the preset of ``engine``."""
    return tune_with(Scorer(Judge(engine, heard_by, s.best_steps), s.weights), s, journal)


def tune_with(scorer: Scorer, s: TuneSettings, journal: Path) -> Found:
    """:func:`tune_engine` with a scorer of one's own."""
    engine = scorer.judge.engine
    counts = (s.search_lines, s.final_lines, s.held_out_lines)
    sets = different_lines(counts, s.sentences, voices_of(engine, s.voices), s.seed)
    base = shape_of(engine.config.preset)
    with study_in(journal, s.seed) as study:
        limits = _limits_of(study, scorer, sets[0], base, s)
        search(study, scorer, sets[0], limits, s)
        trials = tuple(study.get_trials(states=[TrialState.COMPLETE]))
    winner = choose(trials, scorer, sets[1], s, engine.config.sampler)
    pairs = in_turns(scorer, sets[2], (base, winner), "held out")
    return Found(trials, limits, engine.config.preset, winner, tuple(pairs))


def search(
    study: optuna.Study, scorer: Scorer, lines: Sequence[Line], limits: Limits, s: TuneSettings
) -> None:
    """Ask for shapes until ``study`` has as many finished trials as wanted."""
    engine = scorer.judge.engine
    own = engine.config.sampler
    done = len(study.get_trials(states=[TrialState.COMPLETE]))
    if not study.get_trials():
        for point in starts(engine.config.preset, s.space, own):
            study.enqueue_trial(point)
    with tqdm(total=s.trials, initial=done, desc="search", disable=None) as bar:
        for _ in range(done, s.trials):
            trial = study.ask()
            shape = suggest(trial, s.space, own)
            heard = hear(scorer, lines, shape, limits)
            trial.set_user_attr("block_sizes", shape.block_sizes)
            trial.set_user_attr("num_steps", shape.num_steps)
            trial.set_constraint("ttfb", heard.ttfb_s / limits.ttfb_s - s.slack)
            trial.set_constraint("rtf", heard.rtf / limits.rtf - s.slack)
            if limits.memory_bytes is not None:
                trial.set_constraint("memory", heard.memory_bytes / limits.memory_bytes - 1)
            for name in ("cost", "ttfb_s", "rtf", "memory_bytes"):
                trial.set_user_attr(name, getattr(heard, name))
            trial.set_user_attr("lines", len(heard.scores))
            study.tell(trial, heard.cost)
            bar.set_postfix(cost=f"{heard.cost:.3f}", ttfb=f"{1e3 * heard.ttfb_s:.0f} ms")
            bar.update()


def choose(
    trials: Sequence[optuna.trial.FrozenTrial],
    scorer: Scorer,
    lines: Sequence[Line],
    s: TuneSettings,
    own: SamplerConfig,
) -> Shape:
    """The best of the best on lines that none was searched on; they take turns line by line.

    The first of many is partly lucky; on other lines luck does not help.
    """
    fitting = [t for t in trials if all(value <= 0 for value in t.constraints.values())]
    if not fitting:
        raise ConfigError(
            f"none of {len(trials)} shapes keeps the limits; "
            "allow more trials, or more time or memory in benchmark.gpu"
        )
    best = sorted(fitting, key=lambda trial: float(trial.user_attrs["cost"]))[: s.finalists]
    shapes = [suggest(optuna.trial.FixedTrial(trial.params), s.space, own) for trial in best]
    if len(shapes) == 1:
        return shapes[0]
    heard = in_turns(scorer, lines, shapes, "finalists")
    costs = [sum(scores[place].cost for scores in heard) for place in range(len(shapes))]
    return shapes[costs.index(min(costs))]


def hear(
    scorer: Scorer, lines: Sequence[Line], shape: Shape, limits: Limits | None = None
) -> Judged:
    """``lines`` spoken in ``shape``; only the first few of them where it is far over ``limits``."""
    device = scorer.judge.engine.components.model.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    overrides = shape.overrides()
    first = median([scorer.first_sound_s(line, overrides) for line in lines[:LOOK_AFTER]])
    scores: list[Score] = []
    for line in lines:
        scores.append(scorer.score(line, overrides))
        heard = Judged(tuple(scores), first, held_bytes(scorer.judge.engine))
        if len(scores) == LOOK_AFTER and limits is not None and _far_over(heard, limits):
            break
    return heard


def _far_over(heard: Judged, limits: Limits) -> bool:
    return max(heard.ttfb_s / limits.ttfb_s, heard.rtf / limits.rtf) > FAR


def in_turns(
    scorer: Scorer, lines: Sequence[Line], shapes: Sequence[Shape], what: str
) -> list[tuple[Score, ...]]:
    """Every line in every shape, one shape after the other: a busy machine meets all alike."""
    pairs = []
    for i, line in enumerate(tqdm(lines, desc=what, disable=None)):
        order = range(len(shapes)) if i % 2 == 0 else range(len(shapes) - 1, -1, -1)
        scores = {place: scorer.score(line, shapes[place].overrides()) for place in order}
        pairs.append(tuple(scores[place] for place in range(len(shapes))))
    return pairs


def held_bytes(engine: Engine) -> float:
    """The most that PyTorch held of the card since the last reset; on a CPU what is held now."""
    device = engine.components.model.device
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return resident_bytes()


@contextmanager
def study_in(journal: Path, seed: int) -> Iterator[optuna.Study]:
    """The study in ``journal``, made where there is none; a trial that was cut off is given up."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.parent.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    study = optuna.create_study(
        storage=storage, study_name=STUDY, sampler=_sampler(seed), load_if_exists=True
    )
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
    study.sampler = _sampler(seed + len(study.get_trials()))  # not the same draws once more
    yield study


def _sampler(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=8)


def _limits_of(
    study: optuna.Study, scorer: Scorer, lines: Sequence[Line], base: Shape, s: TuneSettings
) -> Limits:
    """The card's limits; what it leaves open is what the preset to beat needs, measured once."""
    if "limits" not in study.user_attrs:
        scorer.score(lines[0], base.overrides())  # warms up
        heard = hear(scorer, lines, base)
        study.set_user_attr("limits", {"ttfb_s": heard.ttfb_s, "rtf": heard.rtf})
    known, card = study.user_attrs["limits"], s.gpu
    return Limits(
        ttfb_s=known["ttfb_s"] if card.ttfb_s is None else card.ttfb_s,
        rtf=known["rtf"] if card.rtf is None else card.rtf,
        memory_bytes=None if card.memory_gib is None else card.memory_gib * GIB,
    )
