"""The stages in order, each from what the ones before left in the work folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from echo.config.training import CodecStageConfig, StageConfig, TrainingConfig
from echo.models.codec import CodecConfig
from echo.models.dit import DiTConfig
from echo.models.sizes import parse_codec_config, parse_dit_config
from echo.training.codec import (
    CodecLoss,
    CodecTraining,
    Crops,
    faster_snakes_,
    new_codec,
)
from echo.training.corpus_files import SpokenCorpus
from echo.training.loop import Schedule, TrainingLoop, draw_curve


@dataclass(frozen=True)
class Run:
    """One run of the recipe: its settings, its folder, where it speaks."""

    config: TrainingConfig
    say: Callable[[str], None]

    @property
    def folder(self) -> Path:
        return Path(self.config.work_dir)

    def sizes(self) -> tuple[DiTConfig, CodecConfig]:
        path = Path(self.config.sizes)
        raw = json.loads(path.read_text(encoding="utf-8"))
        return parse_dit_config(raw["dit"], str(path)), parse_codec_config(raw["codec"], str(path))

    def schedule(self, stage: StageConfig, betas: tuple[float, float] = (0.9, 0.98)) -> Schedule:
        return Schedule(
            steps=stage.steps,
            minutes=stage.minutes,
            slice_minutes=self.config.slice_minutes,
            learning_rate=stage.learning_rate,
            warmup_steps=stage.warmup_steps,
            checkpoint_seconds=self.config.checkpoint_seconds,
            ema=stage.ema,
            betas=betas,
        )

    def corpus(self, split: str) -> SpokenCorpus:
        return SpokenCorpus(self.folder / "corpus" / split)


def codec_training(stage: CodecStageConfig) -> CodecTraining:
    return CodecTraining(
        batch=stage.loop.batch,
        crop_latents=stage.crop_latents,
        noise=stage.noise,
        shift_weight=stage.shift_weight,
        shift_samples=stage.shift_samples,
        windows=stage.windows,
        mels=stage.mels,
    )


def train_codec(run: Run) -> bool:
    """Continuous codec; True when it is through."""
    stage = run.config.codec
    corpus = run.corpus("train")
    run.say(f"corpus: {len(corpus)} utterances, {corpus.hours():.2f} h")
    codec = new_codec(run.sizes()[1], run.config.seed).to(run.config.device)
    faster_snakes_(codec)
    schedule = run.schedule(stage.loop, betas=(0.8, 0.98))
    loop = TrainingLoop(run.folder / "codec", codec, schedule, seed=run.config.seed, say=run.say)
    crops = Crops(corpus, stage.crop_latents, stage.loop.batch)
    loss = CodecLoss(codec, crops, codec_training(stage), run.config.seed, run.config.device)
    through = loop.run(loss)
    if loop.progress.curve:
        draw_curve(run.folder / "codec" / "curve.png", loop.progress.curve, "codec")
    return through


STAGES: dict[str, Callable[[Run], bool]] = {"codec": train_codec}
