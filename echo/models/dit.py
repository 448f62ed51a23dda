"""The diffusion transformer with its three encoders (model.md §3 and §4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echo.models.layer_kv import LayerKV, RowContext
from echo.models.passes import Passes, PlainPasses
from echo.modules.adaln import LowRankAdaLN, Modulation, timestep_embedding
from echo.modules.attention import JointAttention, Offsets, PackedContext, Packing, takes_any_rows
from echo.modules.encoder import LatentEncoder, TextEncoder
from echo.modules.mlp import SwiGLU
from echo.modules.norm import RMSNorm, rms_normalize
from echo.modules.rope import RopeTable, rope_table


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of the model; the defaults are those of echo-tts-base."""

    latent_size: int = 80
    model_size: int = 2048
    num_layers: int = 24
    num_heads: int = 16
    intermediate_size: int = 5888
    norm_eps: float = 1e-5
    text_vocab_size: int = 256
    text_model_size: int = 1280
    text_num_layers: int = 14
    text_num_heads: int = 10
    text_intermediate_size: int = 3328
    speaker_patch_size: int = 4
    speaker_model_size: int = 1280
    speaker_num_layers: int = 14
    speaker_num_heads: int = 10
    speaker_intermediate_size: int = 3328
    timestep_embed_size: int = 512
    adaln_rank: int = 256


@dataclass(frozen=True)
class Conditioning:
    """Everything a step needs that depends on t alone: the modulations of every layer."""

    attention: tuple[Modulation, ...]
    mlp: tuple[Modulation, ...]

    def stacked(self) -> Tensor:
        """All in one, [B, L, 6, D]: shift, 1 + scale and gate of attention, then of the MLP."""
        layers = [
            torch.cat([m.shift, 1 + m.scale, m.gate, n.shift, 1 + n.scale, n.gate], dim=1)
            for m, n in zip(self.attention, self.mlp, strict=True)
        ]
        return torch.stack(layers, dim=1)


@dataclass(frozen=True)
class PrefixState:
    """The prefix as far as it is encoded: an immutable value, so that a block can be tried again.

    Whole patches only: the one that the prefix ends within is encoded for each block anew.
    """

    latents: int  # in all
    rest: Tensor  # [1, r, 80], r < patch: those of no whole patch yet
    encoder: LayerKV  # of the encoder, p keys
    context: LayerKV  # of the DiT, p keys


@dataclass(frozen=True)
class PackedRow:
    """One guidance pass of one block of a generation."""

    context: RowContext  # belongs to the block: another block, another context
    rope: RopeTable  # of its positions
    time: int  # of those there are

    @property
    def latents(self) -> int:
        return self.rope.cos.shape[0]


@dataclass(frozen=True)
class PackedStep:
    """One Euler step of many rows, T latents in all, one row after the other.

    Rows differ in time, position and length. What follows from them is made when it is asked for.
    """

    x: Tensor  # [T, 80] float32
    modulation: Tensor  # [M, L, 6, D], of the M times there are
    rows: tuple[PackedRow, ...]

    @cached_property
    def packing(self) -> Packing:
        lengths = tuple(row.latents for row in self.rows)
        keys = (n + row.context.keys for n, row in zip(lengths, self.rows, strict=True))
        return Packing(lengths, tuple(keys))

    @cached_property
    def rope(self) -> RopeTable:
        """Of the T positions."""
        tables = [row.rope for row in self.rows]
        return RopeTable(
            torch.cat([table.cos for table in tables]), torch.cat([table.sin for table in tables])
        )

    @cached_property
    def which(self) -> Tensor | None:
        """[T] int64, the time of each latent; None: there is one only."""
        if len(self.modulation) == 1:
            return None
        times = [row.time for row in self.rows for _ in range(row.latents)]
        return torch.tensor(times).to(self.x.device, non_blocking=True)

    @cached_property
    def offsets(self) -> Offsets | None:
        """Of ``packing``, where one attention call does all rows."""
        at_once = takes_any_rows(self.x.device, self.modulation.dtype)
        return self.packing.offsets(self.x.device) if at_once else None

    def contexts(self, layer: int) -> list[PackedContext]:
        """By row."""
        return [row.context.layers[layer] for row in self.rows]


class RecordedEncoders(Protocol):
    """Another way to run the encoders; None: not for what is asked."""

    def text(self, ids: Tensor) -> LayerKV | None: ...

    def prefix(self, latent: Tensor, past: LayerKV | None) -> tuple[LayerKV, LayerKV] | None: ...


class DiTBlock(nn.Module):
    """Joint attention and SwiGLU, each behind its own adaptive norm and gate."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        c = config
        self.attention = JointAttention(
            c.model_size, c.num_heads, c.text_model_size, c.speaker_model_size, c.norm_eps
        )
        self.mlp = SwiGLU(c.model_size, c.intermediate_size)
        self.attention_adaln = LowRankAdaLN(c.model_size, c.adaln_rank, c.norm_eps)
        self.mlp_adaln = LowRankAdaLN(c.model_size, c.adaln_rank, c.norm_eps)
        self.eps = c.norm_eps

    def before_attention(
        self, h: Tensor, modulation: Tensor, rope: RopeTable
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``h`` [T, D] under ``modulation`` [T or 1, 6, D] to q, k, v [T, H, d] and gate [T, D]."""
        shift, factor = modulation[:, 0], modulation[:, 1]
        y = (rms_normalize(h, self.eps) * factor + shift).to(h.dtype)
        return self.attention.heads_of(y, rope)

    def after_attention(
        self, h: Tensor, attended: Tensor, gate: Tensor, modulation: Tensor
    ) -> Tensor:
        """[T, D]: ``h`` with what was ``attended`` [T, H, d], and through the MLP."""
        _, _, own_gate, shift, factor, mlp_gate = modulation.unbind(1)
        h = h + own_gate * self.attention.output(attended, gate)
        y = (rms_normalize(h, self.eps) * factor + shift).to(h.dtype)
        return h + mlp_gate * self.mlp(y)


class EchoDiT(nn.Module):
    """Velocity of the noisy latents given text, voice and what was said before.

    Weights only: keys and values come in as immutable :class:`LayerKV`, made once by
    ``encode_text``, ``encode_speaker`` and ``encode_prefix`` and used in every step.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = c = config
        self.text_encoder = TextEncoder(
            c.text_vocab_size,
            c.text_model_size,
            c.text_num_layers,
            c.text_num_heads,
            c.text_intermediate_size,
            c.norm_eps,
        )
        self.speaker_encoder = self._latent_encoder()
        self.latent_encoder = self._latent_encoder()
        self.text_norm = RMSNorm(c.text_model_size, c.norm_eps)
        self.speaker_norm = RMSNorm(c.speaker_model_size, c.norm_eps)
        self.latent_norm = RMSNorm(c.speaker_model_size, c.norm_eps)
        self.in_proj = nn.Linear(c.latent_size, c.model_size)
        self.cond_module = nn.Sequential(
            nn.Linear(c.timestep_embed_size, c.model_size, bias=False),
            nn.SiLU(),
            nn.Linear(c.model_size, c.model_size, bias=False),
            nn.SiLU(),
            nn.Linear(c.model_size, 3 * c.model_size, bias=False),
        )
        self.blocks = cast(
            "Sequence[DiTBlock]", nn.ModuleList(DiTBlock(c) for _ in range(c.num_layers))
        )
        self.out_norm = RMSNorm(c.model_size, c.norm_eps)
        self.out_proj = nn.Linear(c.model_size, c.latent_size)
        self.passes: Passes = PlainPasses()  # how the fast pass runs; see compile.py
        self.recorded: RecordedEncoders | None = None  # likewise

    def _latent_encoder(self) -> LatentEncoder:
        c = self.config
        return LatentEncoder(
            c.latent_size,
            c.speaker_patch_size,
            c.speaker_model_size,
            c.speaker_num_layers,
            c.speaker_num_heads,
            c.speaker_intermediate_size,
            c.norm_eps,
        )

    @property
    def dtype(self) -> torch.dtype:
        return self.in_proj.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.in_proj.weight.device

    @property
    def patch(self) -> int:
        """Latents per patch of the speaker and prefix encoders."""
        return self.config.speaker_patch_size

    def delete_prefix_modules(self) -> None:
        """Free the prefix encoder, a fifth of the weights: full-length sampling needs none."""
        del self.latent_encoder, self.latent_norm
        for block in self.blocks:
            del block.attention.wk_latent, block.attention.wv_latent

    def encode_text(self, ids: Tensor, mask: Tensor | None = None) -> LayerKV:
        """Keys and values of a text.

        Args:
            ids: [B, L] int token ids.
            mask: [B, L] bool, True = a real token; None: no padding.

        Returns:
            Per layer (k, v), each [B, L, H, d] in the model's dtype.
        """
        recorded = None
        if self.recorded is not None and mask is None and len(ids) == 1:
            recorded = self.recorded.text(ids)
        return self.text_plainly(ids, mask) if recorded is None else recorded

    def text_plainly(self, ids: Tensor, mask: Tensor | None) -> LayerKV:
        """As it is written."""
        encoded = self.text_norm(self.text_encoder(ids, mask))
        return LayerKV.of([block.attention.project_text(encoded) for block in self.blocks])

    def encode_speaker(self, latent: Tensor) -> LayerKV:
        """Per layer (k, v) [B, S / patch, H, d] of a voice [B, S, 80]; S cut to whole patches."""
        latent = latent[:, : latent.shape[1] // self.patch * self.patch].to(self.dtype)
        encoded = self.speaker_norm(self.speaker_encoder(latent))
        return LayerKV.of([block.attention.project_speaker(encoded) for block in self.blocks])

    def encode_prefix(self, latent: Tensor) -> LayerKV:
        """Keys and values [B, n / patch, H, d] per layer of generated latents [B, n, 80].

        ``n`` is a multiple of the patch; latents not generated yet are zeros.
        """
        encoded = self.latent_norm(self.latent_encoder(latent.to(self.dtype)))
        positions = torch.arange(encoded.shape[1], device=latent.device) * self.patch
        rope = self.rope(positions)
        return LayerKV.of([block.attention.project_prefix(encoded, rope) for block in self.blocks])

    def extend_prefix(
        self, state: PrefixState | None, latent: Tensor
    ) -> tuple[PrefixState, LayerKV]:
        """What :meth:`encode_prefix` gives for all latents so far, encoding only the new ones.

        Args:
            state: of the latents before; None: there are none. It stays as it is.
            latent: [1, n, 80] float32, the new ones; any number.

        Returns:
            The state with them, and per layer (k, v) [1, ceil(all / patch), H, d]: a last patch
            that is not whole has zeros where latents are missing.
        """
        new = latent if state is None else torch.cat((state.rest, latent), dim=1)
        total = latent.shape[1] + (0 if state is None else state.latents)
        whole = total // self.patch
        old = 0 if state is None else state.latents // self.patch
        padded = F.pad(new, (0, 0, 0, -new.shape[1] % self.patch))
        encoder, context = self.prefix_after(padded, None if state is None else state.encoder)
        if state is not None:
            encoder = state.encoder.followed_by(encoder)
            context = state.context.followed_by(context)
        rest = new[:, (whole - old) * self.patch :]
        return PrefixState(total, rest, encoder.first(whole), context.first(whole)), context

    def prefix_after(self, latent: Tensor, past: LayerKV | None) -> tuple[LayerKV, LayerKV]:
        """Of whole patches of ``latent`` [1, n, 80] after those of ``past``: keys and values of
        the encoder, and of the DiT, each of the n / patch new ones."""
        recorded = None if self.recorded is None else self.recorded.prefix(latent, past)
        return self.prefix_plainly(latent, past) if recorded is None else recorded

    def prefix_plainly(self, latent: Tensor, past: LayerKV | None) -> tuple[LayerKV, LayerKV]:
        """As it is written."""
        old = 0 if past is None else past.length
        encoded, added = self.latent_encoder.extend(latent.to(self.dtype), past)
        encoded = self.latent_norm(encoded)
        positions = torch.arange(old, old + encoded.shape[1], device=latent.device) * self.patch
        rope = self.rope(positions)
        context = [block.attention.project_prefix(encoded, rope) for block in self.blocks]
        return LayerKV.of(added), LayerKV.of(context)

    def condition(self, t: Tensor) -> Conditioning:
        """Modulations of every layer at times ``t`` [B] in 0..1, rounded to the model's dtype."""
        embedded = timestep_embedding(t.to(self.dtype), self.config.timestep_embed_size)
        c = self.cond_module(embedded)[:, None]
        return Conditioning(
            attention=tuple(block.attention_adaln.modulation(c) for block in self.blocks),
            mlp=tuple(block.mlp_adaln.modulation(c) for block in self.blocks),
        )

    def rope(self, positions: Tensor) -> RopeTable:
        """Angles of the DiT's heads at ``positions`` [n] (in latents)."""
        return rope_table(positions, self.config.model_size // self.config.num_heads)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        *,
        text: LayerKV,
        text_mask: Tensor,
        speaker: LayerKV,
        speaker_mask: Tensor,
        prefix: LayerKV | None = None,
        start_pos: int = 0,
    ) -> Tensor:
        """The plain pass: everything in one batch, what a sample must not see is masked.

        Args:
            x: [B, N, 80] float32 noisy latents at ``start_pos`` ...
            t: [B] time in 0..1.
            text, speaker, prefix: from the ``encode_`` methods.
            text_mask: [B, L] bool.
            speaker_mask: [B, S] bool; every patch-th value counts.
            start_pos: latents before ``x``; a prefix patch is seen if it begins before that.

        Returns:
            Velocity dx/dt, [B, N, 80] float32.
        """
        condition = self.condition(t)
        mask = self._joint_mask(x, text_mask, speaker_mask, prefix, start_pos)
        rope = self.rope(start_pos + torch.arange(x.shape[1], device=x.device))
        h = self.in_proj(x.to(self.dtype))
        for i, block in enumerate(self.blocks):
            context = [text[i], speaker[i]]
            if prefix is not None:
                context.insert(0, prefix[i])
            mod = condition.attention[i]
            y = block.attention(block.attention_adaln(h, mod), rope, context, mask)
            h = h + mod.gate * y
            mod = condition.mlp[i]
            h = h + mod.gate * block.mlp(block.mlp_adaln(h, mod))
        return self.out_proj(self.out_norm(h)).float()

    def velocity_packed(self, step: PackedStep) -> Tensor:
        """The fast pass: rows of any company in one batch, [T, 80] float32.

        No masks and no keys that are not attended to; all but attention is shared by all rows.
        """
        return self.passes.velocity(self, step)

    def _joint_mask(
        self,
        x: Tensor,
        text_mask: Tensor,
        speaker_mask: Tensor,
        prefix: LayerKV | None,
        start_pos: int,
    ) -> Tensor:
        batch, length = x.shape[:2]
        parts = [torch.ones(batch, length, dtype=torch.bool, device=x.device)]
        if prefix is not None:
            firsts = torch.arange(prefix[0][0].shape[1], device=x.device) * self.patch
            parts.append((firsts < start_pos).expand(batch, -1))
        patches = speaker_mask.shape[1] // self.patch * self.patch
        parts += [text_mask, speaker_mask[:, : patches : self.patch]]
        return torch.cat(parts, dim=1)[:, None, None, :]
