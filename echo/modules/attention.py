"""Attention of the encoders (self) and of the DiT (joint over self, prefix, text and speaker)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echo.modules.norm import RMSNorm
from echo.modules.rope import RopeTable, apply_rope, apply_rope_to_half_the_heads

KeyValue = tuple[Tensor, Tensor]  # keys and values of one layer, each [B, n, H, d]


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, causal: bool = False
) -> Tensor:
    """softmax(q kᵀ / √d) v over [B, n, H, d]; ``mask`` bool, True = visible, [B or 1, 1, n, m]."""
    q, k, v = (a.transpose(1, 2) for a in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    return out.transpose(1, 2)


class GatedAttention(nn.Module):
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

    def split_heads(self, x: Tensor) -> Tensor:
        """[B, n, D] to [B, n, H, d]."""
        return x.unflatten(-1, (self.heads, -1))

    def output(self, attended: Tensor, x: Tensor) -> Tensor:
        """Gate ``attended`` [B, n, H, d] by the layer's input ``x`` [B, n, D] and project it."""
        return self.wo(attended.flatten(-2) * torch.sigmoid(self.gate(x)))


class EncoderAttention(GatedAttention):
    """Self attention with RoPE on all heads; causal, or bidirectional under a padding mask."""

    def __init__(self, width: int, heads: int, eps: float, *, causal: bool) -> None:
        super().__init__(width, heads, eps)
        self.causal = causal

    def forward(self, x: Tensor, rope: RopeTable, mask: Tensor | None = None) -> Tensor:
        """``x`` [B, n, D]; ``mask`` [B, n] bool, True = a real token, or None."""
        q = apply_rope(self.q_norm(self.split_heads(self.wq(x))), rope)
        k = apply_rope(self.k_norm(self.split_heads(self.wk(x))), rope)
        v = self.split_heads(self.wv(x))
        visible = None if mask is None else mask[:, None, None, :]
        return self.output(attend(q, k, v, visible, causal=self.causal), x)


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

    def project_self(self, x: Tensor, rope: RopeTable) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v, each [B, N, H, d], of ``x`` [B, N, D]; ``rope`` from start_pos on."""
        q = apply_rope_to_half_the_heads(self.q_norm(self.split_heads(self.wq(x))), rope)
        k = apply_rope_to_half_the_heads(self.k_norm(self.split_heads(self.wk(x))), rope)
        return q, k, self.split_heads(self.wv(x))

    def forward(
        self, x: Tensor, rope: RopeTable, context: Sequence[KeyValue], mask: Tensor | None
    ) -> Tensor:
        """Plain path: one ``context`` for the whole batch under a ``mask`` [B, 1, 1, all keys]."""
        q, k, v = self.project_self(x, rope)
        keys = torch.cat([k, *(c[0] for c in context)], dim=1)
        values = torch.cat([v, *(c[1] for c in context)], dim=1)
        return self.output(attend(q, keys, values, mask), x)

    def forward_rows(self, x: Tensor, rope: RopeTable, contexts: Sequence[KeyValue]) -> Tensor:
        """Fast path: row i of ``x`` sees itself and exactly ``contexts[i]`` ([1, n_i, H, d])."""
        q, k, v = self.project_self(x, rope)
        rows = [
            attend(
                q[i : i + 1],
                torch.cat((k[i : i + 1], keys), dim=1),
                torch.cat((v[i : i + 1], values), dim=1),
            )
            for i, (keys, values) in enumerate(contexts)
        ]
        return self.output(torch.cat(rows), x)
