"""Attention of the encoders (self) and of the DiT (joint over self, prefix, text and speaker)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import accumulate, groupby
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echo.modules.fusing import FusedProjections
from echo.modules.linear import apply_weight
from echo.modules.norm import RMSNorm, rms_normalize
from echo.modules.rope import RopeTable, apply_rope, apply_rope_to_half_the_heads

KeyValue = tuple[Tensor, Tensor]  # keys and values of one layer, each [B, n, H, d]
# What a row sees beside itself in one layer: keys, values, in pieces [n, H, d] of any number.
PackedContext = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]

HAS_VARLEN = find_spec("torch.nn.attention.varlen") is not None  # PyTorch 2.10 and newer


@dataclass(frozen=True)
class Packing:
    """Lengths of rows that lie one after the other: ``queries``, and ``keys`` they see."""

    queries: tuple[int, ...]
    keys: tuple[int, ...]

    def groups(self) -> list[tuple[int, int, int]]:
        """(rows, queries, keys) of neighbours of one shape: they share an attention call."""
        shapes = groupby(zip(self.queries, self.keys, strict=True))
        return [(sum(1 for _ in rows), *shape) for shape, rows in shapes]

    def offsets(self, device: torch.device) -> Offsets:
        """Where rows begin and end, for one attention call over all of them."""
        starts = [[0, *accumulate(lengths)] for lengths in (self.queries, self.keys)]
        both = torch.tensor(starts, dtype=torch.int32)
        both = both.pin_memory() if device.type == "cuda" else both
        of_queries, of_keys = both.to(device, non_blocking=True)
        return Offsets(of_queries, of_keys, max(self.queries), max(self.keys))


@dataclass(frozen=True)
class Offsets:
    """A :class:`Packing` on the device: [rows + 1] int32 each, and the longest row."""

    queries: Tensor
    keys: Tensor
    longest_query: int
    longest_keys: int


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, causal: bool = False
) -> Tensor:
    """softmax(q kᵀ / √d) v over [B, n, H, d]; ``mask`` bool, True = visible, [B or 1, 1, n, m]."""
    q, k, v = (a.transpose(1, 2) for a in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    return out.transpose(1, 2)


def attend_packed(
    q: Tensor, k: Tensor, v: Tensor, packing: Packing, offsets: Offsets | None = None
) -> Tensor:
    """Each row's queries, [T, H, d] in all, over its own keys and values, [K, H, d] in all.

    With ``offsets`` in one call, which :func:`takes_any_rows` must allow; else one for each shape.
    """
    if offsets is not None:
        return attend_any_rows(q, k, v, offsets)
    out, first, first_key = [], 0, 0
    for rows, queries, keys in packing.groups():
        last, last_key = first + rows * queries, first_key + rows * keys
        row = attend(
            q[first:last].unflatten(0, (rows, queries)),
            k[first_key:last_key].unflatten(0, (rows, keys)),
            v[first_key:last_key].unflatten(0, (rows, keys)),
        )
        out.append(row.flatten(0, 1))
        first, first_key = last, last_key
    return out[0] if len(out) == 1 else torch.cat(out)


def takes_any_rows(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether one attention call can do rows of any lengths: on a GPU in 16 bits."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return False
    return HAS_VARLEN and torch.cuda.get_device_capability(device) >= (8, 0)


class GatedAttention(FusedProjections):
    """What both kinds share: projections, norms per head, output gated by ``sigmoid(gate(x))``."""

    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.wq = nn.Linear(width, width, bias=False)
        self.wk = nn.Linear(width, width, bias=False)
        self.wv = nn.Linear(width, width, bias=False)
        self.wo = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, width, bias=False)
        self.q_norm = RMSNorm((heads, width // heads), eps)
        self.k_norm = RMSNorm((heads, width // heads), eps)

    def linears(self) -> tuple[nn.Linear, ...]:
        return self.wq, self.wk, self.wv, self.gate

    def split_heads(self, x: Tensor) -> Tensor:
        """[..., n, D] to [..., n, H, d]."""
        return x.unflatten(-1, (self.heads, -1))

    def output(self, attended: Tensor, gate: Tensor) -> Tensor:
        """``attended`` [..., n, H, d] through the gate's projection [..., n, D] and the last."""
        return apply_weight(attended.flatten(-2) * torch.sigmoid(gate), self.wo.weight)


class EncoderAttention(GatedAttention):
    """Self attention with RoPE on all heads; causal, or bidirectional under a padding mask."""

    def __init__(self, width: int, heads: int, eps: float, *, causal: bool) -> None:
        super().__init__(width, heads, eps)
        self.causal = causal

    def forward(self, x: Tensor, rope: RopeTable, mask: Tensor | None = None) -> Tensor:
        """``x`` [B, n, D]; ``mask`` [B, n] bool, True = a real token, or None."""
        q, k, v, gate = self._project(x, rope)
        visible = None if mask is None else mask[:, None, None, :]
        return self.output(attend(q, k, v, visible, causal=self.causal), gate)

    def extend(self, x: Tensor, rope: RopeTable, past: KeyValue) -> tuple[Tensor, KeyValue]:
        """Causal: ``x`` [B, n, D] sees ``past`` and itself; also its own keys and values."""
        q, k, v, gate = self._project(x, rope)
        keys, values = torch.cat((past[0], k), dim=1), torch.cat((past[1], v), dim=1)
        first = past[0].shape[1]
        mask = torch.ones(k.shape[1], keys.shape[1], dtype=torch.bool, device=x.device).tril(first)
        return self.output(attend(q, keys, values, mask), gate), (k, v)

    def _project(self, x: Tensor, rope: RopeTable) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q, k, v, gate = self.project(x)
        q = apply_rope(self.q_norm(self.split_heads(q)), rope)
        k = apply_rope(self.k_norm(self.split_heads(k)), rope)
        return q, k, self.split_heads(v), gate


class JointAttention(GatedAttention):
    """Queries of the noisy latents over [self, prefix, text, speaker] (model.md §4)."""

    def __init__(
        self, width: int, heads: int, text_width: int, speaker_width: int, eps: float
    ) -> None:
        super().__init__(width, heads, eps)
        self.wk_text = nn.Linear(text_width, width, bias=False)
        self.wv_text = nn.Linear(text_width, width, bias=False)
        self.wk_speaker = nn.Linear(speaker_width, width, bias=False)
        self.wv_speaker = nn.Linear(speaker_width, width, bias=False)
        self.wk_latent = nn.Linear(speaker_width, width, bias=False)
        self.wv_latent = nn.Linear(speaker_width, width, bias=False)

    def project_text(self, encoded: Tensor) -> KeyValue:
        """Keys and values of the encoded text [B, L, text width]: no RoPE."""
        return self.k_norm(self.split_heads(self.wk_text(encoded))), self.split_heads(
            self.wv_text(encoded)
        )

    def project_speaker(self, encoded: Tensor) -> KeyValue:
        """Keys and values of the encoded voice [B, P, speaker width]: no RoPE."""
        return self.k_norm(self.split_heads(self.wk_speaker(encoded))), self.split_heads(
            self.wv_speaker(encoded)
        )

    def project_prefix(self, encoded: Tensor, rope: RopeTable) -> KeyValue:
        """Keys and values of the encoded prefix [B, P, speaker width]; ``rope`` at 0, 4, 8, ..."""
        k = self.k_norm(self.split_heads(self.wk_latent(encoded)))
        return apply_rope_to_half_the_heads(k, rope), self.split_heads(self.wv_latent(encoded))

    def forward(
        self, x: Tensor, rope: RopeTable, context: Sequence[KeyValue], mask: Tensor | None
    ) -> Tensor:
        """Plain path: one ``context`` for the whole batch under a ``mask`` [B, 1, 1, all keys]."""
        q, k, v, gate = self.project(x)
        q = apply_rope_to_half_the_heads(self.q_norm(self.split_heads(q)), rope)
        k = apply_rope_to_half_the_heads(self.k_norm(self.split_heads(k)), rope)
        keys = torch.cat([k, *(c[0] for c in context)], dim=1)
        values = torch.cat([self.split_heads(v), *(c[1] for c in context)], dim=1)
        return self.output(attend(q, keys, values, mask), gate)

    def heads_of(self, x: Tensor, rope: RopeTable) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Fast path, each latent alone: ``x`` [T, D] to q, k, v [T, H, d] and gate [T, D].

        ``rope`` holds the T positions.
        """
        qkv, gate = self.project_joined(x).split([3 * x.shape[-1], x.shape[-1]], dim=-1)
        heads = qkv.unflatten(-1, (3, self.heads, -1)).transpose(0, 1)  # [3, T, H, d]
        weights = torch.stack((self.q_norm.weight, self.k_norm.weight))[:, None]
        qk = (rms_normalize(heads[:2], self.q_norm.eps) * weights).to(x.dtype)
        q, k = apply_rope_to_half_the_heads(qk, rope).unbind(0)
        return q, k, heads[2], gate


def attend_with_contexts(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    contexts: Sequence[PackedContext],
    packing: Packing,
    offsets: Offsets | None = None,
) -> Tensor:
    """Rows of any lengths, one after the other in q, k, v [T, H, d]; [T, H, d].

    Row i sees itself and exactly ``contexts[i]``.
    """
    keys = _join(k.split(packing.queries), [keys for keys, _ in contexts])
    values = _join(v.split(packing.queries), [values for _, values in contexts])
    return attend_packed(q, keys, values, packing, offsets)


def _join(own: Sequence[Tensor], others: Sequence[tuple[Tensor, ...]]) -> Tensor:
    """Each row's own part and then what else it sees, row after row."""
    return torch.cat([a for row, more in zip(own, others, strict=True) for a in (row, *more)])


def attend_any_rows(q: Tensor, k: Tensor, v: Tensor, offsets: Offsets) -> Tensor:
    """As :func:`attend_packed`, where :func:`takes_any_rows` allows it. Rows may be empty."""
    from torch.nn.attention.varlen import varlen_attn

    longest = offsets.longest_query, offsets.longest_keys
    return cast(Tensor, varlen_attn(q, k, v, offsets.queries, offsets.keys, *longest))
