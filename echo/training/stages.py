"""The stages in order, each from what the ones before left in the work folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from echo.config.paths import shipped_path
from echo.config.training import StageConfig, TrainingConfig
from echo.errors import ConfigError
from echo.models.codec import S1DAC, CodecConfig
from echo.models.dit import DiTConfig, EchoDiT
from echo.models.load import CODEC_FILE, DIT_FILE, PCA_FILE, load_pca
from echo.models.pca import PCAState
from echo.models.sizes import parse_codec_config, parse_dit_config
from echo.modules.conv import fold_weight_norm
from echo.training.batches import Batches, BatchSettings
from echo.training.checkpoints import load_state
from echo.training.codec import (
    Crops,
    DecoderLoss,
    EncoderLoss,
    encode_continuous,
    faster_snakes_,
    new_codec,
)
from echo.training.corpus_files import SpokenCorpus
from echo.training.dit import DitLoss, new_dit
from echo.training.export import export_model, write_pca
from echo.training.features import Features, fit_features
from echo.training.latents import LatentCrops, Vectors, cache_vectors, to_latents
from echo.training.loop import Schedule, TrainingLoop, draw_curve
from echo.training.losses import SpectralLoss
from echo.training.rvq import fit_pca, fit_quantizer_

_FEATURES = "features.safetensors"
_FITTED = "fitted_codec.safetensors"
_ENCODED = "z_encoder"
_RVQ_SHARDS = 3  # half an hour of speech is enough for the codebooks


@dataclass(frozen=True)
class Run:
    """One run of the recipe: its settings, its folder, where it speaks."""

    config: TrainingConfig
    say: Callable[[str], None]

    @property
    def folder(self) -> Path:
        return Path(self.config.work_dir)

    @property
    def start(self) -> Path | None:
        return None if self.config.start is None else Path(self.config.start)

    @property
    def sizes_file(self) -> Path:
        path = Path(self.config.sizes)
        return path if path.is_file() else shipped_path("conf") / "training" / path

    def sizes(self) -> tuple[DiTConfig, CodecConfig]:
        path = self.sizes_file
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


def make_corpus(run: Run) -> bool:
    """Texts, and the teacher's speech of them."""
    from echo.training.corpus import CorpusConfig, build_corpus  # the judges' and teacher's extra
    from echo.training.texts import TextMix

    c = run.config.corpus
    build_corpus(
        CorpusConfig(
            seed=c.seed,
            hours=c.hours,
            held_out_minutes=c.held_out_minutes,
            shard_minutes=c.shard_minutes,
            voices=c.voices,
            others=c.others,
            workers=c.workers,
            mix=TextMix(c.sentences, c.slots, c.word_runs, c.short),
        ),
        run.folder,
    )
    return True


def make_features(run: Run) -> bool:
    """What z is to be, z of all of the corpus, and the PCA from z to latents."""
    config = run.config
    dit, codec = run.sizes()
    corpus = run.corpus("train")
    run.say(f"corpus: {len(corpus)} utterances, {corpus.hours():.2f} h")
    path = run.folder / _FEATURES
    if run.start is not None:
        run.folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run.start / _FEATURES, path)
    if not path.exists():
        order = np.random.default_rng(config.seed).permutation(len(corpus))
        some = [corpus.utterances[int(i)] for i in order[: config.features.utterances]]
        pieces = (torch.from_numpy(corpus.audio(u)) for u in some)
        fit_features(pieces, codec.latent_dim - 1).save(path)
    features = Features.load(path).to(config.device)
    for split in ("train", "held_out"):
        folder = run.folder / "z" / split
        cache_vectors(features, run.corpus(split), folder, device=config.device, say=run.say)
    if run.start is not None:
        write_pca(run.folder / PCA_FILE, load_pca(str(run.start), device="cpu"), torch.float32)
        return True
    z = Vectors(run.folder / "z" / "train").sample(100_000, config.seed)
    pca = fit_pca(z, dit.latent_size)
    back = pca.from_latent(pca.to_latent(z[None]))[0]
    kept = 1 - float((z - back).square().sum() / (z - z.mean(dim=0)).square().sum())
    run.say(f"{dit.latent_size} dimensions keep {kept:.4f} of the power")
    write_pca(run.folder / PCA_FILE, pca, torch.float32)
    return True


def train_encoder(run: Run) -> bool:
    """The encoder, on the features."""
    stage, config = run.config.encoder, run.config
    corpus = run.corpus("train")
    features = _made(run.folder / _FEATURES, "features", Features.load)
    codec = _first_codec(run)
    codec.requires_grad_(False)
    pre_module = codec.quantizer.pre_module
    for part in (codec.encoder, codec.quantizer.downsample, *pre_module.layers):
        part.requires_grad_(True)
    faster_snakes_(codec.to(config.device))
    schedule = run.schedule(stage.loop)
    loop = TrainingLoop(run.folder / "encoder", codec, schedule, seed=config.seed + 1, say=run.say)
    crops = Crops(corpus, stage.crop_latents, stage.loop.batch)
    through = loop.run(EncoderLoss(codec, crops, features, config.seed + 1, config.device))
    _draw(run, "encoder", loop)
    return through


def train_decoder(run: Run) -> bool:
    """The decoder, on features that went through the PCA, and quantised once that is fitted."""
    stage, config = run.config.decoder, run.config
    corpus, pca = run.corpus("train"), fitted_pca(run)
    codec = _first_codec(run)
    vectors = Vectors(run.folder / "z" / "train")
    latents = [to_latents(pca, vectors)]
    if (run.folder / _FITTED).exists():
        latents.append(to_latents(pca, vectors, fitted_codec(run)))
    run.say(f"{len(latents[0])} utterances")
    codec.requires_grad_(False)
    _after_z(codec).requires_grad_(True)
    faster_snakes_(codec.to(config.device))
    schedule = run.schedule(stage.loop, betas=(0.8, 0.98))
    loop = TrainingLoop(run.folder / "decoder", codec, schedule, seed=config.seed + 2, say=run.say)
    crops = LatentCrops(
        corpus,
        pca,
        latents,
        crop=stage.crop_latents,
        batch=stage.loop.batch,
        silence=stage.silence,
    )
    spectral = SpectralLoss(stage.windows, stage.mels)
    loss = DecoderLoss(codec, crops, spectral, config.seed + 2, stage.latent_noise, config.device)
    through = loop.run(loss)
    _draw(run, "decoder", loop)
    return through


def fit_rvq(run: Run) -> bool:
    """The ten codebooks, on what the trained encoder makes of the corpus."""
    config = run.config
    codec = new_codec(run.sizes()[1], config.seed)
    _take_averaged(codec, run.folder / "encoder" / "checkpoint", "encoder")
    codec.requires_grad_(False).to(config.device)
    folder = run.folder / _ENCODED

    def encode(audio: Tensor) -> Tensor:
        return encode_continuous(codec, audio[:, None]).transpose(1, 2)

    cache_vectors(
        encode, run.corpus("train"), folder, device=config.device, say=run.say, most=_RVQ_SHARDS
    )
    z = Vectors(folder).sample(config.rvq.vectors, config.seed).to(config.device)
    lost = fit_quantizer_(codec, z, iterations=config.rvq.iterations, seed=config.seed, say=run.say)
    run.say(f"{lost:.3f} of the power lost in the codebooks")
    save_file(_saved(codec), run.folder / _FITTED)
    return True


def fitted_codec(run: Run) -> S1DAC:
    """Encoder and codebooks, with a decoder that knows nothing yet."""
    codec = new_codec(run.sizes()[1], run.config.seed)
    codec.load_state_dict(_made(run.folder / _FITTED, "rvq", load_file))
    return codec.requires_grad_(False)


def trained_codec(run: Run) -> S1DAC:
    """Encoder, codebooks where they are fitted, and decoder as far as they are trained."""
    codec = new_codec(run.sizes()[1], run.config.seed)
    _take_averaged(codec, run.folder / "decoder" / "checkpoint", "decoder")
    if (run.folder / _FITTED).exists():
        after = _after_z(codec).state_dict()
        codec = fitted_codec(run)
        _after_z(codec).load_state_dict(after)
    return codec.requires_grad_(False).eval()


def fitted_pca(run: Run) -> PCAState:
    return load_pca(str(run.folder), device="cpu")


def train_dit(run: Run) -> bool:
    """The DiT on the latents there are."""
    stage, config = run.config.dit, run.config
    corpus = run.corpus("train")
    pca = fitted_pca(run)
    targets = to_latents(pca, Vectors(run.folder / "z" / "train"))
    heard: dict[int, Tensor] = {}
    if (run.folder / _FITTED).exists():
        heard = to_latents(pca, Vectors(run.folder / _ENCODED), fitted_codec(run))
    run.say(f"{len(targets)} utterances, {len(heard)} of them also as the codec hears them")
    sizes = run.sizes()[0]
    model = _first_dit(run).to(config.device)
    loop = TrainingLoop(
        run.folder / "dit",
        model,
        run.schedule(stage.loop),
        seed=config.seed + 3,
        say=run.say,
        muon=stage.muon,
    )
    batches = Batches(
        corpus,
        targets,
        BatchSettings(
            batch=stage.loop.batch,
            batch_latents=stage.batch_latents,
            max_latents=stage.max_latents,
            reference_latents=stage.reference_latents,
            text_dropout=stage.text_dropout,
            speaker_dropout=stage.speaker_dropout,
            prefix_share=stage.prefix_share,
        ),
        sizes.speaker_patch_size,
        heard,
    )
    loss = DitLoss(
        model,
        batches,
        seed=config.seed + 3,
        high_noise=stage.high_noise,
        guide_weight=stage.guide_weight,
        guide_until=stage.guide_until,
        guide_layers=stage.guide_layers,
        bf16=stage.bf16,
    )
    through = loop.run(loss)
    _draw(run, "dit", loop)
    return through


def trained_dit(run: Run) -> EchoDiT:
    """The DiT as far as it has been trained, averaged weights."""
    model = new_dit(run.sizes()[0], run.config.seed)
    _take_averaged(model, run.folder / "dit" / "checkpoint", "dit")
    return model.requires_grad_(False).eval()


def export(run: Run) -> bool:
    """Weights in float16 and ``config.json`` in ``WORK/export``, read back by the strict loader."""
    sizes = json.loads(run.sizes_file.read_text(encoding="utf-8"))
    folder = run.folder / "export"
    total = export_model(folder, sizes, trained_dit(run), trained_codec(run), fitted_pca(run))
    shutil.copyfile(run.folder / _FEATURES, folder / _FEATURES)  # to go on from
    run.say(f"{folder}: {total / 1e6:.1f} MB, read back and compared")
    return True


def judge(run: Run) -> bool:
    """Word error of the teacher, through decoder, codec and DiT, to ``WORK/judged.json``."""
    from echo.training.catalogue import VOICES
    from echo.training.judge import held_out_trials, judge_speaker
    from echo.training.judging import Guidance, by_dit, through_codec, through_decoder

    j = run.config.judge
    voices = [voice.name for voice in VOICES[: run.config.corpus.voices]]
    trials = held_out_trials(voices, slot_sentences=j.slot_sentences, choices=j.choices)
    codec, pca = trained_codec(run), fitted_pca(run)
    fold_weight_norm(codec.requires_grad_(True))
    codec.requires_grad_(False)
    features = _made(run.folder / _FEATURES, "features", Features.load)
    guidance = Guidance(
        j.block_sizes, j.num_steps, j.cfg_scale_text, j.cfg_scale_speaker, j.cfg_min_t
    )
    speakers = {"decoder": through_decoder(features, codec, pca)}
    if (run.folder / _FITTED).exists():
        speakers["codec"] = through_codec(codec, pca)
        if (run.folder / "dit" / "checkpoint").exists():
            speakers["dit"] = by_dit(trained_dit(run), codec, pca, guidance)
    reports = {}
    for name, speak in speakers.items():
        report = judge_speaker(speak, trials, progress=run.say)
        run.say(f"{name}\n{report.table()}")
        reports[name] = report.as_dict()
        text = json.dumps(reports, indent=1)
        (run.folder / "judged.json").write_text(text, encoding="utf-8")
    return True


def _first_codec(run: Run) -> S1DAC:
    """A new codec, or the one to go on from."""
    codec = new_codec(run.sizes()[1], run.config.seed)
    if run.start is not None:
        _take_weights(codec, run.start / CODEC_FILE)
    return codec


def _first_dit(run: Run) -> EchoDiT:
    """A new DiT, or the one to go on from."""
    model = new_dit(run.sizes()[0], run.config.seed)
    if run.start is not None:
        _take_weights(model, run.start / DIT_FILE)
    return model


@torch.no_grad()
def _take_weights(module: nn.Module, path: Path) -> None:
    weights = load_file(path)
    for name, parameter in module.named_parameters():
        parameter.copy_(weights[name])


def _after_z(codec: S1DAC) -> nn.ModuleList:
    """The parts that come after z_q."""
    return nn.ModuleList([codec.quantizer.post_module, codec.quantizer.upsample, codec.decoder])


def _draw(run: Run, stage: str, loop: TrainingLoop) -> None:
    if loop.progress.curve:
        draw_curve(run.folder / stage / "curve.png", loop.progress.curve, stage)


def _take_averaged(module: nn.Module, checkpoint: Path, stage: str) -> None:
    state = _made(checkpoint, stage, load_state)
    module.load_state_dict(state["module"])
    own = dict(module.named_parameters())
    with torch.no_grad():
        for name, value in state["averaged"].items():
            own[name].copy_(value)


def _made(path: Path, stage: str, read: Callable[[Path], Any]) -> Any:
    """What ``read`` finds at ``path``; :class:`ConfigError` names the stage that makes it."""
    found = read(path) if path.exists() else None
    if found is None:
        raise ConfigError(
            f"{path} is not there yet; make it with: python -m echo.training {stage}",
            param="work_dir",
        )
    return found


def _saved(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}


STAGES: dict[str, Callable[[Run], bool]] = {
    "corpus": make_corpus,
    "features": make_features,
    "encoder": train_encoder,
    "rvq": fit_rvq,
    "decoder": train_decoder,
    "dit": train_dit,
    "export": export,
    "judge": judge,
}
