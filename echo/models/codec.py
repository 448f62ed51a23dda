"""The Fish S1-DAC codec: 44.1 kHz audio to 21.5 Hz vectors and back (model.md §6).

Causal throughout: ``decode`` with a state goes block by block, exactly as in one go.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echo.modules.conv import CausalConv1d, CausalConvTranspose1d, ConvNeXtBlock, Snake
from echo.modules.quantizer import ResidualQuantizer
from echo.modules.streaming import FlatState, SequenceState, TransformerState
from echo.modules.window_transformer import WindowTransformer

DECODE_PIECE_LATENTS = 32  # unrecorded; bounds the decoder's memory, and how long others wait


@dataclass(frozen=True)
class EncoderTransformerConfig:
    """The transformer at the end of the last encoder stage; head size = dim / heads."""

    layers: int = 4
    heads: int = 16
    dim: int = 1024
    ffn: int = 3072


@dataclass(frozen=True)
class CodecConfig:
    """Sizes of the codec; the defaults are those of fish-s1-dac-min."""

    encoder_dim: int = 64
    encoder_rates: tuple[int, ...] = (2, 4, 8, 8)
    latent_dim: int = 1024
    decoder_dim: int = 1536
    decoder_rates: tuple[int, ...] = (8, 8, 4, 2)
    encoder_transformer: EncoderTransformerConfig = field(default_factory=EncoderTransformerConfig)
    q_layers: int = 8
    q_heads: int = 16
    q_head_dim: int = 64
    q_ffn: int = 3072
    n_codebooks: int = 9
    codebook_size: int = 1024
    codebook_dim: int = 8
    semantic_codebook_size: int = 4096
    q_window: int = 128
    encoder_window: int = 512
    downsample: tuple[int, ...] = (2, 2)

    @property
    def hop(self) -> int:
        """Samples per vector of z."""
        return math.prod(self.encoder_rates) * math.prod(self.downsample)


class StreamingSequential(nn.Sequential):
    """Modules in a row; those that have state get theirs, in order."""

    def init_state(self, batch: int, like: Tensor) -> SequenceState:
        stateful = [cast(Any, m) for m in self if hasattr(m, "init_state")]
        return SequenceState([m.init_state(batch, like) for m in stateful])

    def forward(self, x: Tensor, state: SequenceState | None = None) -> Tensor:
        states = iter(state.states) if state is not None else None
        for module in self:
            if states is not None and hasattr(module, "init_state"):
                x = module(x, next(states))
            else:
                x = module(x)
        return x


class ResidualUnit(nn.Module):
    """Snake, dilated conv k7, snake, conv k1, plus the input."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.block = StreamingSequential(
            Snake(channels),
            CausalConv1d(channels, channels, 7, dilation=dilation),
            Snake(channels),
            CausalConv1d(channels, channels, 1),
        )

    def init_state(self, batch: int, like: Tensor) -> SequenceState:
        return self.block.init_state(batch, like)

    def forward(self, x: Tensor, state: SequenceState | None = None) -> Tensor:
        return x + self.block(x, state)


def _residual_units(channels: int) -> list[nn.Module]:
    return [ResidualUnit(channels, dilation) for dilation in (1, 3, 9)]


class EncoderStage(nn.Module):
    """Residual units, then a strided convolution; the last stage ends in a transformer."""

    def __init__(self, channels: int, out: int, stride: int, tail: list[nn.Module]) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *_residual_units(channels),
            Snake(channels),
            CausalConv1d(channels, out, 2 * stride, stride=stride),
            *tail,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Encoder(nn.Module):
    """[B, 1, T] to [B, latent_dim, T / prod(encoder_rates)]."""

    def __init__(self, c: CodecConfig) -> None:
        super().__init__()
        width = c.encoder_dim
        layers: list[nn.Module] = [CausalConv1d(1, width, 7)]
        for i, stride in enumerate(c.encoder_rates):
            last = i == len(c.encoder_rates) - 1
            tail = [self._transformer(c)] if last and c.encoder_transformer.layers else []
            layers.append(EncoderStage(width, 2 * width, stride, tail))
            width *= 2
        self.block = nn.Sequential(*layers, Snake(width), CausalConv1d(width, c.latent_dim, 3))

    @staticmethod
    def _transformer(c: CodecConfig) -> nn.Module:
        t = c.encoder_transformer
        return WindowTransformer(
            t.dim, t.layers, t.heads, t.dim // t.heads, t.ffn, c.encoder_window
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class DecoderStage(nn.Module):
    """Snake, transposed convolution, residual units."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.block = StreamingSequential(
            Snake(channels),
            CausalConvTranspose1d(channels, channels // 2, 2 * stride, stride),
            *_residual_units(channels // 2),
        )

    def init_state(self, batch: int, like: Tensor) -> SequenceState:
        return self.block.init_state(batch, like)

    def forward(self, x: Tensor, state: SequenceState | None = None) -> Tensor:
        return self.block(x, state)


class Decoder(nn.Module):
    """[B, latent_dim, n] to [B, 1, n * prod(decoder_rates)], -1 ... 1."""

    def __init__(self, c: CodecConfig) -> None:
        super().__init__()
        width = c.decoder_dim
        layers: list[nn.Module] = [CausalConv1d(c.latent_dim, width, 7)]
        for stride in c.decoder_rates:
            layers.append(DecoderStage(width, stride))
            width //= 2
        self.model = StreamingSequential(
            *layers, Snake(width), CausalConv1d(width, 1, 7), nn.Tanh()
        )

    def init_state(self, batch: int, like: Tensor) -> SequenceState:
        return self.model.init_state(batch, like)

    def forward(self, x: Tensor, state: SequenceState | None = None) -> Tensor:
        return self.model(x, state)


class Quantizer(nn.Module):
    """Down to the final rate, transformer, codebooks; and the way back up."""

    def __init__(self, c: CodecConfig) -> None:
        super().__init__()
        width = c.latent_dim
        self.downsample = nn.Sequential(
            *(
                nn.Sequential(
                    CausalConv1d(width, width, s, stride=s, normed=False), ConvNeXtBlock(width)
                )
                for s in c.downsample
            )
        )
        self.pre_module = self._transformer(c)
        self.semantic_quantizer = ResidualQuantizer(
            width, 1, c.semantic_codebook_size, c.codebook_dim
        )
        self.quantizer = ResidualQuantizer(width, c.n_codebooks, c.codebook_size, c.codebook_dim)
        self.post_module = self._transformer(c)
        self.upsample = StreamingSequential(
            *(
                StreamingSequential(
                    CausalConvTranspose1d(width, width, s, s, normed=False), ConvNeXtBlock(width)
                )
                for s in reversed(c.downsample)
            )
        )

    @staticmethod
    def _transformer(c: CodecConfig) -> WindowTransformer:
        return WindowTransformer(
            c.latent_dim, c.q_layers, c.q_heads, c.q_head_dim, c.q_ffn, c.q_window
        )

    def encode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``z`` [B, width, n] at the final rate to (z_q, codes [B, 1 + n_codebooks, n])."""
        semantic, semantic_codes = self.semantic_quantizer(z)
        residual, codes = self.quantizer(z - semantic)
        return semantic + residual, torch.cat((semantic_codes, codes), dim=1)

    def lookup(self, codes: Tensor) -> Tensor:
        """[B, 1 + n_codebooks, n] codes (the semantic one first) to z_q [B, width, n]."""
        return self.semantic_quantizer.lookup(codes[:, :1]) + self.quantizer.lookup(codes[:, 1:])


@dataclass
class DecoderParts:
    """Everything the decoder remembers between two blocks of one stream, part by part."""

    post_module: TransformerState
    upsample: SequenceState
    decoder: SequenceState

    def clone(self) -> DecoderParts:
        return DecoderParts(self.post_module.clone(), self.upsample.clone(), self.decoder.clone())


DecoderState: TypeAlias = DecoderParts | FlatState  # flat where decoding is recorded


class StreamDecoder(Protocol):
    """Another way to decode: one stream at a time, recorded."""

    @property
    def recorded(self) -> bool:
        """Whether it can begin."""

    @property
    def piece_latents(self) -> int:
        """The most it does at once."""

    def warm_up(self) -> None: ...

    def init_state(self) -> FlatState: ...

    def decode(self, z_q: Tensor, state: FlatState) -> Tensor: ...


class S1DAC(nn.Module):
    """Encoder, quantiser and decoder. Weights only: a stream's state is passed in.

    ``streams``: decodes those that begin once it has recorded how.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantizer = Quantizer(config)
        self.decoder = Decoder(config)
        self.streams: StreamDecoder | None = None

    @property
    def piece_latents(self) -> int:
        """How many latents of a stream are best decoded at a time."""
        if self.streams is not None and self.streams.recorded:
            return self.streams.piece_latents
        return DECODE_PIECE_LATENTS

    @property
    def dtype(self) -> torch.dtype:
        return self._decoding.dtype

    @property
    def device(self) -> torch.device:
        """Where it decodes; it encodes on :attr:`encoder_device`."""
        return self._decoding.device

    @property
    def encoder_device(self) -> torch.device:
        return self._encoding.device

    @property
    def _decoding(self) -> Tensor:
        return self.quantizer.post_module.norm.weight

    @property
    def _encoding(self) -> Tensor:
        return self.quantizer.pre_module.norm.weight

    def move_decoder_(self, device: torch.device, dtype: torch.dtype) -> None:
        """Keep what only ``decode`` needs, half of the weights, there."""
        for part in (self.decoder, self.quantizer.post_module, self.quantizer.upsample):
            part.to(device, dtype)

    def move_encoder_(self, device: torch.device, dtype: torch.dtype) -> None:
        """Keep what only ``encode`` needs, the other half, there."""
        q = self.quantizer
        for part in (self.encoder, q.downsample, q.pre_module, q.semantic_quantizer, q.quantizer):
            part.to(device, dtype)

    def encode(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Audio [B, 1, T], -1 ... 1, to (z_q [B, latent_dim, n], codes [B, 1 + codebooks, n]).

        Zero-padded on the right to whole hops: n = ceil(T / hop). The results are where the
        encoder is.
        """
        audio = audio.to(self._encoding)
        padded = F.pad(audio, (0, -audio.shape[-1] % self.config.hop))
        z = self.quantizer.downsample(self.encoder(padded))
        return self.quantizer.encode(self.quantizer.pre_module(z))

    def init_state(self, batch: int = 1) -> DecoderState:
        """The state before the first vector of a stream."""
        if batch == 1 and self.streams is not None and self.streams.recorded:
            return self.streams.init_state()
        return self.init_parts(batch)

    def init_parts(self, batch: int = 1) -> DecoderParts:
        """:meth:`init_state` of a stream that is not recorded."""
        like = self._decoding
        return DecoderParts(
            self.quantizer.post_module.init_state(batch, like),
            self.quantizer.upsample.init_state(batch, like),
            self.decoder.init_state(batch, like),
        )

    def decode(self, z_q: Tensor, state: DecoderState | None = None) -> Tensor:
        """z_q [B, latent_dim, n] to audio [B, 1, n * hop] in the codec's dtype.

        With a ``state``, this continues the stream it belongs to: the joined outputs are those
        of one call over all of z_q.
        """
        if isinstance(state, FlatState):
            if self.streams is None:
                raise ValueError("the state is of a recorded decoder, and there is none")
            return self.streams.decode(z_q, state)
        return self.decode_parts(z_q, self.init_parts(z_q.shape[0]) if state is None else state)

    def decode_parts(self, z_q: Tensor, state: DecoderParts) -> Tensor:
        """:meth:`decode`, unrecorded."""
        x = self.quantizer.post_module(z_q.to(self.dtype), state.post_module)
        x = self.quantizer.upsample(x, state.upsample)
        return self.decoder(x, state.decoder)

    def decode_in_pieces(self, z_q: Tensor, piece: int) -> Tensor:
        """:meth:`decode` with the memory of ``piece`` vectors at a time; the same result."""
        state = self.init_parts(z_q.shape[0])  # whoever calls may be beside the streams' lane
        return torch.cat([self.decode_parts(z, state) for z in z_q.split(piece, dim=-1)], dim=-1)
