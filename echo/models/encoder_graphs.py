"""CUDA graphs of the encoders of text and prefix: a thousand small kernels in one launch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from tqdm import tqdm

from echo.models.dit import EchoDiT
from echo.models.layer_kv import LayerKV
from echo.models.recorder import CudaRecorder, Recorder, Replay, told_if_it_fails
from echo.spec import MAX_TEXT_TOKENS

# Tokens of a text; a shorter one is padded, and the padding masked.
TEXT_SIZES = (32, 64, 96, 128, 192, 256, 384, 512, MAX_TEXT_TOKENS)


class EncoderGraphs:
    """Encoders of one model, recorded for texts of any length and prefixes of some blocks.

    Raises RuntimeError where recording fails.
    """

    def __init__(
        self,
        model: EchoDiT,
        blocks: Sequence[int],
        text_sizes: Sequence[int] = TEXT_SIZES,
        record: Recorder | None = None,
    ) -> None:
        """``blocks``: latents of the blocks of a stream, in order."""
        record = record or CudaRecorder(model.device)
        sizes = sorted(text_sizes, reverse=True)  # the largest first, as its memory serves all
        shapes = _prefixes(blocks, model.patch)
        self._prefixes: dict[tuple[int, int], _Prefix] = {}
        with tqdm(
            total=len(sizes) + len(shapes), desc="recording the encoders", disable=None
        ) as bar:
            texts: list[_Text] = []
            for size in sizes:
                texts.append(_Text.of(model, size, record, texts[0] if texts else None))
                bar.update()
            for old, new in shapes:
                self._prefixes[old, new] = _Prefix.of(model, old, new, record)
                bar.update()
        self._texts = texts[::-1]

    @classmethod
    def or_none(
        cls, model: EchoDiT, blocks: Sequence[int], longest_text: int
    ) -> EncoderGraphs | None:
        """Says so once where recording fails."""
        with told_if_it_fails("the encoders run"):
            return cls(model, blocks, [size for size in TEXT_SIZES if size <= longest_text])
        return None

    @torch.inference_mode()
    def text(self, ids: Tensor) -> LayerKV | None:
        """Of [1, L] token ids; None: no graph is long enough."""
        fitting = next((text for text in self._texts if text.size >= ids.shape[1]), None)
        return None if fitting is None else fitting(ids)

    @torch.inference_mode()
    def prefix(self, latent: Tensor, past: LayerKV | None) -> tuple[LayerKV, LayerKV] | None:
        """As :meth:`EchoDiT.prefix_after`; None: there is no graph of this shape."""
        old = 0 if past is None else past.length
        fitting = self._prefixes.get((old, latent.shape[1]))
        return None if fitting is None else fitting(latent, past)


@dataclass(frozen=True)
class _Text:
    size: int
    ids: Tensor  # [1, size]
    length: Tensor  # [1] int64, of the real ones
    joined: Tensor  # as in LayerKV
    replay: Replay

    @classmethod
    def of(cls, model: EchoDiT, size: int, record: Recorder, longest: _Text | None) -> _Text:
        """``longest``: whose memory for what is made serves all."""
        ids = torch.zeros((1, size), dtype=torch.int64, device=model.device)
        length = torch.full((1,), size, device=model.device)

        def encode() -> tuple[Tensor]:
            real = torch.arange(size, device=model.device) < length
            return (model.text_plainly(ids, real[None]).joined,)

        into = None if longest is None else (longest.joined[:, :, :, :size],)
        (joined,), replay = _recorded(encode, record, into)
        return cls(size, ids, length, joined, replay)

    def __call__(self, ids: Tensor) -> LayerKV:
        length = ids.shape[1]
        self.ids[:, :length].copy_(ids)
        self.length.fill_(length)
        self.replay()
        return LayerKV(self.joined[:, :, :, :length].clone())


@dataclass(frozen=True)
class _Prefix:
    latent: Tensor  # [1, n, 80] float32
    past: LayerKV | None
    made: tuple[Tensor, ...]  # of the encoder and of the DiT, as in LayerKV
    replay: Replay

    @classmethod
    def of(cls, model: EchoDiT, old: int, new: int, record: Recorder) -> _Prefix:
        c, device = model.config, model.device
        latent = torch.zeros((1, new, c.latent_size), device=device)
        past = None
        if old:
            heads = (c.speaker_num_heads, c.speaker_model_size // c.speaker_num_heads)
            shape = (c.speaker_num_layers, 2, 1, old, *heads)
            past = LayerKV(torch.zeros(shape, dtype=model.dtype, device=device))

        def encode() -> tuple[Tensor, Tensor]:
            encoder, context = model.prefix_plainly(latent, past)
            return encoder.joined, context.joined

        made, replay = _recorded(encode, record)
        return cls(latent, past, made, replay)

    def __call__(self, latent: Tensor, past: LayerKV | None) -> tuple[LayerKV, LayerKV]:
        self.latent.copy_(latent)
        if self.past is not None and past is not None:
            self.past.joined.copy_(past.joined)
        self.replay()
        encoder, context = self.made
        return LayerKV(encoder.clone()), LayerKV(context.clone())


def _recorded(
    make: Callable[[], tuple[Tensor, ...]],
    record: Recorder,
    into: tuple[Tensor, ...] | None = None,
) -> tuple[tuple[Tensor, ...], Replay]:
    """What ``make`` makes, there anew after each replay; ``into``: where it is put."""
    kept = make() if into is None else into

    def work() -> None:
        for place, new in zip(kept, make(), strict=True):
            place.copy_(new)

    return kept, record(work)


def _prefixes(blocks: Sequence[int], patch: int) -> list[tuple[int, int]]:
    """Of the blocks but the last: patches before it, and its latents."""
    befores = [0, *accumulate(blocks)]
    pairs = zip(befores, blocks[:-1], strict=False)
    return [(old // patch, new) for old, new in pairs if old % patch == new % patch == 0]
