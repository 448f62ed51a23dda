"""Batches for the DiT: text, reference, latents with their zero tail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from echo.spec import LATENTS_PER_SECOND, MAX_TEXT_TOKENS
from echo.text.tokens import tokenize
from echo.training.corpus_files import SpokenCorpus
from echo.training.guidance import phone_targets

TAIL = 20  # latents of zeros after the last word: the window that finds the end
_HEARD_SHARE = 0.5
_REFERENCE_FAULTS = 0.3  # standard deviation at most, where latents have 1


@dataclass(frozen=True)
class DitBatch:
    """What one step sees.

    ids, text_mask: [B, L]. speaker: [B, S, size], speaker_mask: [B, S]. target: [B, N, size];
    weight: [B, N]. targets: [B, N] token of each latent. prefix: [B, n, size] or None, before
    ``start_pos``.
    """

    ids: Tensor
    text_mask: Tensor
    speaker: Tensor
    speaker_mask: Tensor
    target: Tensor
    weight: Tensor
    targets: Tensor
    prefix: Tensor | None
    start_pos: int


@dataclass(frozen=True)
class Spoken:
    """A training sample before batching."""

    text: str
    latent: Tensor  # [n, size]
    targets: list[int]
    voice: int


@dataclass(frozen=True)
class BatchSettings:
    """How samples are drawn."""

    batch: int
    batch_latents: int
    max_latents: int
    reference_latents: int
    text_dropout: float
    speaker_dropout: float
    prefix_share: float
    joined: float = 0.15  # share of samples that are two or three utterances
    long_tail: float = 0.04  # share of batches with a long zero tail


class Batches:
    """Draws batches of similar length; step ``i`` of a seed is always the same.

    ``heard``: latents of some utterances by way of encoder and codebooks, as a reference voice
    comes in service; half of the references are of these where there are any.
    """

    def __init__(
        self,
        corpus: SpokenCorpus,
        latents: dict[int, Tensor],
        settings: BatchSettings,
        patch: int,
        heard: dict[int, Tensor] | None = None,
    ) -> None:
        self.corpus = corpus
        self.latents = latents
        self.settings = settings
        self.patch = patch
        fits = [i for i in latents if len(latents[i]) <= settings.max_latents]
        self.by_length = sorted(fits, key=lambda i: len(latents[i]))
        self.of_voice: dict[int, list[int]] = {}
        for index in self.by_length:
            self.of_voice.setdefault(corpus.utterances[index].voice, []).append(index)
        self.heard = heard or {}
        self.heard_of: dict[int, list[int]] = {}
        for index in self.heard:
            self.heard_of.setdefault(corpus.utterances[index].voice, []).append(index)

    def draw(self, seed: int, done: float) -> DitBatch:
        """A batch; short utterances first: the longest grow over the first tenth of a run."""
        s = self.settings
        random = np.random.default_rng(seed)
        reach = min(1.0, 0.4 + 6.0 * done)
        middle = int(random.random() * reach * len(self.by_length))
        length = len(self.latents[self.by_length[middle]]) + TAIL
        count = max(4, min(s.batch, s.batch_latents // length))
        around = np.arange(middle - 2 * count, middle + 2 * count)
        around = around[(around >= 0) & (around < len(self.by_length))]
        chosen = random.choice(around, count, replace=len(around) < count)
        samples = [self._sample(self.by_length[int(i)]) for i in chosen]
        if random.random() < s.joined:
            samples = [self._joined(sample, random) for sample in samples[: max(4, count // 2)]]
        return self._collate(samples, random)

    def _sample(self, index: int) -> Spoken:
        u = self.corpus.utterances[index]
        latent = self.latents[index]
        tokens = [int(byte) + 1 for byte in u.phone_byte]  # the start token is in front
        targets = phone_targets(
            u.phone_start.tolist(), u.phone_end.tolist(), tokens, len(latent), LATENTS_PER_SECOND
        )
        return Spoken(u.text, latent, targets, u.voice)

    def _joined(self, sample: Spoken, random: np.random.Generator) -> Spoken:
        """``sample`` and one or two more sentences of its voice, if they fit."""
        for _ in range(int(random.integers(1, 3))):
            more = self._sample(int(random.choice(self.of_voice[sample.voice])))
            added = more.text.removeprefix("[S1] ")
            text = f"{sample.text} {added}"
            length = len(sample.latent) + len(more.latent)
            if length > self.settings.max_latents or len(text.encode()) >= MAX_TEXT_TOKENS:
                break
            shift = len(text.encode()) - len(more.text.encode())
            moved = [t + shift if t >= 0 else t for t in more.targets]
            sample = Spoken(
                text,
                torch.cat((sample.latent, more.latent)),
                sample.targets + moved,
                sample.voice,
            )
        return sample

    def _collate(self, samples: list[Spoken], random: np.random.Generator) -> DitBatch:
        s = self.settings
        size = samples[0].latent.shape[1]
        longest = max(len(x.latent) for x in samples)
        total = longest + int(random.integers(4, 24))
        if random.random() < s.long_tail:
            samples = samples[:4]
            total = int(random.integers(total, max(total + 1, 640)))
        batch = len(samples)
        target = torch.zeros(batch, total, size)
        weight = torch.full((batch, total), 0.15)
        targets = torch.full((batch, total), -1, dtype=torch.long)
        for i, x in enumerate(samples):
            n = len(x.latent)
            target[i, :n] = x.latent
            weight[i, : n + TAIL] = 1.0
            targets[i, :n] = torch.tensor(x.targets, dtype=torch.long)
        ids, text_mask = self._text(samples, random)
        speaker, speaker_mask = self._speaker(samples, random)
        prefix, start = None, 0
        if random.random() < s.prefix_share:
            start = int(random.integers(4, max(5, longest)))
            padded = start + -start % self.patch
            prefix = torch.zeros(batch, padded, size)
            prefix[:, :start] = target[:, :start]
            # What it will continue is its own work, with its own faults.
            prefix[:, :start] += float(random.random()) * 0.2 * torch.randn(batch, start, size)
            target, weight, targets = target[:, start:], weight[:, start:], targets[:, start:]
        return DitBatch(
            ids, text_mask, speaker, speaker_mask, target, weight, targets, prefix, start
        )

    def _text(self, samples: list[Spoken], random: np.random.Generator) -> tuple[Tensor, Tensor]:
        rows = [tokenize(x.text, MAX_TEXT_TOKENS, truncate=True) for x in samples]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int32)
        mask = torch.zeros(ids.shape, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row, dtype=torch.int32)
            mask[i, : len(row)] = random.random() >= self.settings.text_dropout
        return ids, mask

    def _speaker(self, samples: list[Spoken], random: np.random.Generator) -> tuple[Tensor, Tensor]:
        most = self.settings.reference_latents
        length = int(random.integers(most // 8, most + 1)) // self.patch * self.patch
        rows, masks = [], []
        for x in samples:
            by_codec = x.voice in self.heard_of and random.random() < _HEARD_SHARE
            latents = self.heard if by_codec else self.latents
            choices = (self.heard_of if by_codec else self.of_voice)[x.voice]
            row: list[Tensor] = []
            while sum(map(len, row)) < length:
                row.append(latents[int(random.choice(choices))])
            reference = torch.cat(row)[:length]
            if not by_codec:  # as it comes from the encoder and the codebooks: not quite right
                faults = float(random.random()) * _REFERENCE_FAULTS
                reference = reference + faults * torch.randn(reference.shape)
            rows.append(reference)
            masks.append(random.random() >= self.settings.speaker_dropout)
        return torch.stack(rows), torch.tensor(masks)[:, None].expand(-1, length)
