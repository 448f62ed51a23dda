"""The codec: first continuous, later its decoder on the quantised vectors.

Encoder and decoder learn together with nothing between them but noise. The vectors z are
RMS-normalised, so their power is fixed: noise makes the encoder spread that power over many
dimensions by what each is worth, and what quantiser, PCA and DiT will get wrong does no harm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echo.models.codec import S1DAC, CodecConfig
from echo.models.random_weights import randomize_
from echo.modules.conv import Snake
from echo.spec import HOP
from echo.training.corpus_files import SpokenCorpus
from echo.training.losses import SpectralLoss


@dataclass(frozen=True)
class CodecTraining:
    """What one step of the codec sees and is asked for."""

    batch: int
    crop_latents: int
    noise: float  # standard deviation, where z has 1
    shift_weight: float
    shift_samples: int  # the farthest that the same audio is moved
    windows: tuple[int, ...]
    mels: tuple[int, ...]


def new_codec(config: CodecConfig, seed: int) -> S1DAC:
    """A codec with random weights, ready to be trained; z keeps a power of one per dimension."""
    codec = S1DAC(config)
    randomize_(codec, seed, device="cpu", dtype=torch.float32)
    codec.requires_grad_(True)
    # A learnt scale would outgrow the noise.
    codec.quantizer.pre_module.norm.weight.requires_grad_(False)
    codec.quantizer.semantic_quantizer.requires_grad_(False)
    codec.quantizer.quantizer.requires_grad_(False)
    return codec


def encode_continuous(codec: S1DAC, audio: Tensor) -> Tensor:
    """``audio`` [B, 1, T], T whole hops, to z [B, latent_dim, n], not quantised."""
    return codec.quantizer.pre_module(codec.quantizer.downsample(codec.encoder(audio)))


class Crops:
    """Random pieces of a corpus; those that begin before or end after an utterance hold silence."""

    def __init__(self, corpus: SpokenCorpus, latents: int, batch: int) -> None:
        self.corpus = corpus
        self.samples = latents * HOP
        self.batch = batch
        lengths = np.array([u.samples for u in corpus.utterances], dtype=np.float64)
        self.weights = lengths / lengths.sum()

    def draw(self, seed: int, extra: int = 0) -> Tensor:
        """[batch, samples + extra] float32."""
        random = np.random.default_rng(seed)
        rows = [self._one(random, extra) for _ in range(self.batch)]
        return torch.from_numpy(np.stack(rows))

    def _one(self, random: np.random.Generator, extra: int) -> Any:
        length = self.samples + extra
        row = np.zeros(length, dtype=np.float32)
        chosen = self.corpus.utterances[int(random.choice(len(self.weights), p=self.weights))]
        audio = self.corpus.audio(chosen)
        margin = self.samples // 5
        first = int(random.integers(-margin, max(1, len(audio) - length + margin)))
        source = audio[max(0, first) : max(0, first + length)]
        begin = max(0, -first)
        row[begin : begin + len(source)] = source
        return row


class CodecLoss:
    """Loss of one step of the continuous codec; callable by the training loop."""

    def __init__(
        self, codec: S1DAC, crops: Crops, settings: CodecTraining, seed: int, device: str = "cpu"
    ) -> None:
        self.codec = codec
        self.crops = crops
        self.settings = settings
        self.seed = seed
        self.device = device
        self.spectral = SpectralLoss(settings.windows, settings.mels).to(device)

    def __call__(self, step: int, done: float) -> dict[str, Tensor]:
        s = self.settings
        seed = self.seed * 1_000_003 + step
        wide = self.crops.draw(seed, extra=s.shift_samples).to(self.device)
        length = self.crops.samples
        audio = wide[:, :length]
        z = encode_continuous(self.codec, audio[:, None])
        noisy = z + s.noise * min(1.0, 0.2 + 8 * done) * torch.randn_like(z)
        made = self.codec.decode(noisy)[:, 0].float()
        loss, mel = self.spectral(made, audio)
        values = {"loss": loss, "mel": mel}
        if s.shift_weight and step % 2 == 0:
            by = 1 + seed % s.shift_samples
            half = max(1, audio.shape[0] // 2)
            moved = encode_continuous(self.codec, wide[:half, None, by : by + length])
            values["shift"] = shift_distance(z[:half], moved)
            values["loss"] = loss + s.shift_weight * 2 * values["shift"]
        return values


def shift_distance(z: Tensor, moved: Tensor) -> Tensor:
    """Mean squared distance of two z [B, C, n], in units of each dimension's own variance."""
    variance = z.detach().var(dim=(0, 2), keepdim=True) + 1e-3
    return ((z - moved).square() / variance).mean()


class DecoderLoss:
    """The decoder on vectors as the DiT will hand them over: quantised, through the PCA, noisy.

    Some crops end in latents of zero, which must sound like nothing: what the DiT emits after the
    last word.
    """

    def __init__(
        self,
        codec: S1DAC,
        cache: Any,
        settings: CodecTraining,
        seed: int,
        latent_noise: float,
        device: str = "cpu",
    ) -> None:
        self.codec = codec
        self.cache = cache
        self.settings = settings
        self.seed = seed
        self.latent_noise = latent_noise
        self.device = device
        self.spectral = SpectralLoss(settings.windows, settings.mels).to(device)

    def __call__(self, step: int, done: float) -> dict[str, Tensor]:
        latent, audio = self.cache.draw(self.seed * 1_000_003 + step)
        latent, audio = latent.to(self.device), audio.to(self.device)
        silent = (latent == 0).all(dim=2, keepdim=True)
        noise = self.latent_noise * torch.rand(latent.shape[0], 1, 1, device=self.device)
        latent = latent + noise * torch.randn_like(latent) * torch.where(silent, 0.05, 1.0)
        z = self.cache.pca.from_latent(latent).transpose(1, 2)
        made = self.codec.decode(z)[:, 0].float()
        loss, mel = self.spectral(made, audio)
        return {"loss": loss, "mel": mel}


def faster_snakes_(module: nn.Module) -> None:
    """Give every :class:`Snake` below ``module`` a backward pass with fewer sweeps over memory.

    The values are the same; only training needs it.
    """
    for child in module.modules():
        if isinstance(child, Snake):
            child.forward = _SnakeForward(child)  # type: ignore[method-assign]


class _SnakeForward:
    def __init__(self, snake: Snake) -> None:
        self.snake = snake

    def __call__(self, x: Tensor) -> Tensor:
        return cast(Tensor, _SnakeFunction.apply(x, self.snake.alpha))


class _SnakeFunction(torch.autograd.Function):
    """x + sin²(αx)/α = x + (1 − cos 2αx)/2α; its slope is 1 + sin 2αx."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor) -> Tensor:
        turned = x * (2 * alpha)
        sine, cosine = turned.sin(), turned.cos_()
        ctx.save_for_backward(x, alpha, sine, cosine)
        return torch.addcmul(x + 0.5 / alpha, cosine, -0.5 / alpha)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, alpha, sine, cosine = ctx.saved_tensors
        # d/dα = x sin(2αx)/α − (1 − cos 2αx)/2α², summed over all that shares α.
        ways = (grad * sine).mul_(x).sum(dim=(0, 2), keepdim=True) / alpha
        rest = (grad.sum(dim=(0, 2), keepdim=True) - (grad * cosine).sum(dim=(0, 2), keepdim=True))
        return torch.addcmul(grad, grad, sine), ways - rest / (2 * alpha * alpha)
