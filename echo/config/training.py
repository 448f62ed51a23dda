"""The configuration of the training recipe: sizes in ``conf/training/``, one file per machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from echo.config.build import build_group
from echo.config.paths import shipped_path
from echo.errors import ConfigError


@dataclass(frozen=True)
class CorpusConfig:
    """What is synthesised; the last four are weights of the kinds of text."""

    seed: int
    hours: float
    held_out_minutes: float
    shard_minutes: float
    voices: int
    others: float  # share of the speech by speakers that are not shipped
    workers: int  # processes
    sentences: float
    slots: float
    word_runs: float
    short: float


@dataclass(frozen=True)
class StageConfig:
    """How long a stage trains; whichever of steps and minutes ends first."""

    steps: int
    minutes: float
    learning_rate: float
    warmup_steps: int
    batch: int
    ema: float


@dataclass(frozen=True)
class FeaturesConfig:
    """What the vectors of the codec hold; fitted on so many utterances."""

    utterances: int


@dataclass(frozen=True)
class EncoderStageConfig:
    """The codec's encoder, taught the features."""

    loop: StageConfig
    crop_latents: int


@dataclass(frozen=True)
class DecoderStageConfig:
    """The codec's decoder, on features that went through the PCA."""

    loop: StageConfig
    crop_latents: int
    latent_noise: float  # at most, where latents have a standard deviation of 1
    silence: float  # share of crops that run into the zero tail
    windows: tuple[int, ...]  # samples, of the spectral loss
    mels: tuple[int, ...]  # bands of each window


@dataclass(frozen=True)
class RvqConfig:
    """Fitting the codebooks on the encoder's vectors."""

    vectors: int  # drawn from the corpus
    iterations: int  # of k-means


@dataclass(frozen=True)
class DitStageConfig:
    """The diffusion transformer."""

    loop: StageConfig
    batch_latents: int  # of a batch together: short utterances come in larger batches
    max_latents: int  # of a training sample
    reference_latents: int
    text_dropout: float
    speaker_dropout: float
    prefix_share: float
    guide_weight: float  # of the guided attention
    guide_until: float  # share of the run with it
    high_noise: float  # share of t drawn near the noise end
    guide_layers: tuple[int, ...]
    bf16: bool
    muon: bool


@dataclass(frozen=True)
class JudgeConfig:
    """The held-out judging, and how the DiT is sampled for it."""

    slot_sentences: int
    choices: int  # general sentences per voice
    block_sizes: tuple[int, ...]
    num_steps: tuple[int, ...]
    cfg_scale_text: float
    cfg_scale_speaker: float
    cfg_min_t: float


@dataclass(frozen=True)
class TrainingConfig:
    """All of one run of the recipe."""

    work_dir: str
    sizes: str  # config.json with the sizes of the networks; else one beside the configuration
    start: str | None  # folder of an export to go on from, features and sizes included
    seed: int
    threads: int
    device: str
    slice_minutes: float
    checkpoint_seconds: float
    corpus: CorpusConfig
    features: FeaturesConfig
    encoder: EncoderStageConfig
    decoder: DecoderStageConfig
    rvq: RvqConfig
    dit: DitStageConfig
    judge: JudgeConfig


def compose_training(size: str, overrides: Sequence[str] = ()) -> TrainingConfig:
    """The configuration ``conf/training/SIZE.yaml`` with overrides in Hydra's syntax.

    Raises :class:`ConfigError` for a size that does not exist and for unknown or ill-typed keys.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    folder = shipped_path("conf") / "training"
    sizes = sorted(path.stem for path in folder.glob("*.yaml"))
    if size not in sizes:
        raise ConfigError(f"size={size}: choose one of {', '.join(sizes)}", param="size")
    state = GlobalHydra.instance()
    outer, state.hydra = state.hydra, None
    try:
        with hydra.initialize_config_dir(str(folder), version_base="1.3"):
            node = hydra.compose(size, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"cannot apply {' '.join(overrides)}: {reason}") from error
    finally:
        GlobalHydra.instance().hydra = outer
    return build_group(TrainingConfig, node, "")
