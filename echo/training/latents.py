"""Vectors and latents of the corpus, made once and kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from echo.models.codec import S1DAC
from echo.models.pca import PCAState
from echo.spec import HOP
from echo.training.corpus_files import SpokenCorpus, Utterance

_BATCH_LATENTS = 400  # encoded at a time: memory stays small


Encode = Callable[[Tensor], Tensor]  # audio [B, T], T whole hops, to z [B, n, latent_dim]


@torch.no_grad()
def cache_vectors(
    encode: Encode,
    corpus: SpokenCorpus,
    folder: Path,
    *,
    device: str,
    say: Callable[[str], None],
    most: int | None = None,
) -> None:
    """Write z of every utterance to ``folder/shard_NNNN.npz``; shards already there are kept.

    ``most``: stop after so many shards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, utterances in enumerate(_by_shard(corpus)[:most]):
        path = folder / f"shard_{number:04d}.npz"
        if path.exists():
            continue
        vectors = _encode(encode, corpus, utterances, device)
        lengths = [len(v) for v in vectors]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        partial = path.with_suffix(f".{os.getpid()}.part")
        with partial.open("wb") as file:
            np.savez(
                file,
                z=np.concatenate(vectors).astype(np.float16),
                offsets=offsets,
                first=np.int64(utterances[0].index),
            )
        partial.rename(path)
        say(f"encoded {path.name} ({number + 1} of {len(_by_shard(corpus))} shards)")


def _by_shard(corpus: SpokenCorpus) -> list[list[Utterance]]:
    shards: dict[int, list[Utterance]] = {}
    for utterance in corpus.utterances:
        shards.setdefault(utterance.shard, []).append(utterance)
    return list(shards.values())


def _encode(
    encode: Encode, corpus: SpokenCorpus, utterances: list[Utterance], device: str
) -> list[npt.NDArray[np.float32]]:
    found: dict[int, npt.NDArray[np.float32]] = {}
    for group in _groups(utterances):
        longest = max(_latents(u) for u in group) * HOP
        rows = [corpus.audio(u) for u in group]
        batch = np.stack([np.pad(row, (0, longest - len(row))) for row in rows])
        z = encode(torch.from_numpy(batch).to(device)).float().cpu().numpy()
        for utterance, row in zip(group, z, strict=True):
            found[utterance.index] = row[: _latents(utterance)]
    return [found[u.index] for u in utterances]


def _latents(utterance: Utterance) -> int:
    return -(-utterance.samples // HOP)


def _groups(utterances: list[Utterance]) -> Iterator[list[Utterance]]:
    """Utterances of similar length together; causal, so what pads one changes nothing before."""
    group: list[Utterance] = []
    for utterance in sorted(utterances, key=lambda u: u.samples):
        if group and (len(group) + 1) * _latents(utterance) > _BATCH_LATENTS:
            yield group
            group = []
        group.append(utterance)
    if group:
        yield group


class Vectors:
    """The cached z of the shards there are, by utterance."""

    def __init__(self, folder: Path) -> None:
        self.by_utterance: dict[int, npt.NDArray[np.float16]] = {}
        for path in sorted(folder.glob("shard_*.npz")):
            with np.load(path) as shard:
                z, offsets, first = shard["z"], shard["offsets"], int(shard["first"])
            for i in range(len(offsets) - 1):
                self.by_utterance[first + i] = z[offsets[i] : offsets[i + 1]]

    def sample(self, most: int, seed: int) -> Tensor:
        """Up to ``most`` vectors [n, latent_dim] float32 of random utterances."""
        order = np.random.default_rng(seed).permutation(sorted(self.by_utterance))
        parts: list[npt.NDArray[np.float16]] = []
        count = 0
        for index in order:
            if count >= most:
                break
            parts.append(self.by_utterance[int(index)])
            count += len(parts[-1])
        return torch.from_numpy(np.concatenate(parts).astype(np.float32))[:most]


@torch.no_grad()
def to_latents(
    pca: PCAState, vectors: Vectors, quantized_by: S1DAC | None = None
) -> dict[int, Tensor]:
    """Latents [n, latent_size] float32 of every utterance, by way of z_q if a codec is given."""
    indices = sorted(vectors.by_utterance)
    latents: dict[int, Tensor] = {}
    for start in range(0, len(indices), 256):
        part = indices[start : start + 256]
        rows = [torch.from_numpy(vectors.by_utterance[i].astype(np.float32)) for i in part]
        z = torch.cat(rows)
        if quantized_by is not None:
            z = quantized_by.quantizer.encode(z.T[None])[0][0].T
        found = pca.to_latent(z[None])[0]
        latents |= dict(zip(part, found.split([len(row) for row in rows]), strict=True))
    return latents


class LatentCrops:
    """Pieces of latents with their audio, for the decoder."""

    def __init__(
        self,
        corpus: SpokenCorpus,
        pca: PCAState,
        latents: list[dict[int, Tensor]],
        *,
        crop: int,
        batch: int,
        silence: float,
    ) -> None:
        self.corpus = corpus
        self.pca = pca
        self.latents = latents  # the same utterances, made in different ways
        self.crop = crop
        self.batch = batch
        self.silence = silence
        self.indices = sorted(latents[0])
        lengths = np.array([len(latents[0][i]) for i in self.indices], dtype=np.float64)
        self.weights = lengths / lengths.sum()

    def draw(self, seed: int) -> tuple[Tensor, Tensor]:
        """Latents [batch, crop, latent_size] and audio [batch, crop * HOP] float32."""
        random = np.random.default_rng(seed)
        rows = [self._one(random) for _ in range(self.batch)]
        return torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])

    def _one(self, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        index = self.indices[int(random.choice(len(self.weights), p=self.weights))]
        latent = self.latents[int(random.integers(len(self.latents)))][index]
        if random.random() < self.silence:
            first = max(0, len(latent) - int(random.integers(0, self.crop)))
        else:
            first = int(random.integers(0, max(1, len(latent) - self.crop + 1)))
        latent = latent[first : first + self.crop]
        audio = self.corpus.audio(self.corpus.utterances[index])
        piece = torch.from_numpy(audio[first * HOP : (first + self.crop) * HOP])
        missing = self.crop - len(latent)
        return F.pad(latent, (0, 0, 0, missing)), F.pad(piece, (0, self.crop * HOP - len(piece)))
