"""The codec: its encoder learns to compute given vectors, its decoder to speak from them.

Apart from each other, so both can start at once, and so can the DiT.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from echo.models.codec import S1DAC, CodecConfig
from echo.models.random_weights import randomize_
from echo.modules.conv import Snake
from echo.spec import HOP
from echo.training.corpus_files import SpokenCorpus
from echo.training.features import Features
from echo.training.latents import LatentCrops
from echo.training.losses import SpectralLoss

_SILENT_NOISE = 0.05  # of the noise elsewhere: the DiT's zeros are nearly zeros


def new_codec(config: CodecConfig, seed: int) -> S1DAC:
    """A codec with random weights, ready to be trained; its z has a power of 1 each."""
    codec = S1DAC(config)
    randomize_(codec, seed, device="cpu", dtype=torch.float32)
    codec.requires_grad_(True)
    # The features lie on the sphere of the norm without weights.
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

    def draw(self, seed: int) -> Tensor:
        """[batch, samples] float32."""
        random = np.random.default_rng(seed)
        return torch.from_numpy(np.stack([self._one(random) for _ in range(self.batch)]))

    def _one(self, random: np.random.Generator) -> npt.NDArray[np.float32]:
        row = np.zeros(self.samples, dtype=np.float32)
        chosen = self.corpus.utterances[int(random.choice(len(self.weights), p=self.weights))]
        audio = self.corpus.audio(chosen)
        margin = self.samples // 5
        first = int(random.integers(-margin, max(1, len(audio) - self.samples + margin)))
        begin = max(0, -first)
        source = audio[max(0, first) : max(0, first + self.samples)]
        row[begin : begin + len(source)] = source
        return row


class EncoderLoss:
    """The encoder against the vectors it is to compute; callable by the training loop."""

    def __init__(
        self, codec: S1DAC, crops: Crops, features: Features, seed: int, device: str
    ) -> None:
        self.codec = codec
        self.crops = crops
        self.features = features.to(device)
        self.seed = seed
        self.device = device

    def __call__(self, step: int, done: float) -> dict[str, Tensor]:
        audio = self.crops.draw(self.seed * 1_000_003 + step).to(self.device)
        wanted = self.features(audio)
        z = encode_continuous(self.codec, audio[:, None]).transpose(1, 2).float()
        off = (z - wanted).square().mean()
        lost = off.detach() / wanted.var(dim=(0, 1)).mean()
        return {"loss": off, "lost": lost}


class DecoderLoss:
    """The decoder on vectors as the DiT will hand them over: through the PCA, not quite right.

    Some crops end in latents of zero, which must sound like nothing: what the DiT emits after the
    last word.
    """

    def __init__(
        self,
        codec: S1DAC,
        crops: LatentCrops,
        spectral: SpectralLoss,
        seed: int,
        latent_noise: float,
        device: str,
    ) -> None:
        self.codec = codec
        self.crops = crops
        self.spectral = spectral.to(device)
        self.seed = seed
        self.latent_noise = latent_noise
        self.device = device

    def __call__(self, step: int, done: float) -> dict[str, Tensor]:
        latent, audio = self.crops.draw(self.seed * 1_000_003 + step)
        silent = (latent == 0).all(dim=2, keepdim=True)
        size = self.latent_noise * torch.rand(len(latent), 1, 1)
        noise = size * torch.randn_like(latent) * torch.where(silent, _SILENT_NOISE, 1.0)
        z = self.crops.pca.from_latent(latent + noise).transpose(1, 2).to(self.device)
        made = self.codec.decode(z)[:, 0].float()
        loss, mel = self.spectral(made, audio.to(self.device))
        return {"loss": loss, "mel": mel}


def faster_snakes_(module: nn.Module) -> None:
    """Give every :class:`Snake` below ``module`` a pass with fewer sweeps over memory.

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
        rest = grad.sum(dim=(0, 2), keepdim=True) - (grad * cosine).sum(dim=(0, 2), keepdim=True)
        return torch.addcmul(grad, grad, sine), ways - rest / (2 * alpha * alpha)
