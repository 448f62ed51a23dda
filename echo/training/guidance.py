"""Guided attention: a few heads are taught where in the text each latent is (training only)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from echo.models.dit import EchoDiT
from echo.modules.attention import JointAttention

_NOWHERE = -1


class AttentionGuide:
    """Cross-entropy of position-free heads' attention to the text against the spoken bytes.

    The last head of each layer in ``layers`` is taught. It listens to the model's own pass and
    adds only the logits of these heads.
    """

    def __init__(self, model: EchoDiT, layers: Sequence[int]) -> None:
        self._seen: list[tuple[JointAttention, Tensor, Tensor]] = []
        self._hooks = [
            model.blocks[i].attention.register_forward_pre_hook(self._listen) for i in layers
        ]

    def _listen(self, module: nn.Module, inputs: tuple[object, ...]) -> None:
        x, _, context, _ = inputs
        text_keys = context[-2][0]  # type: ignore[index]
        self._seen.append((module, x, text_keys))  # type: ignore[arg-type]

    def loss(self, targets: Tensor, text_mask: Tensor) -> Tensor:
        """Mean over the layers and the latents that have a target, for the pass just made.

        Args:
            targets: [B, N] int64, the token each latent belongs to; -1: none.
            text_mask: [B, L] bool as the model saw it; samples without text do not count.
        """
        known = torch.where(text_mask.any(dim=1, keepdim=True), targets, _NOWHERE)
        losses = []
        for attention, x, keys in self._seen:
            logits = _last_head_logits(attention, x, keys[:, :, -1])
            logits = logits.float().masked_fill(~text_mask[:, None], -1e4)
            losses.append(
                F.cross_entropy(
                    logits.flatten(0, 1), known.flatten(), ignore_index=_NOWHERE, reduction="sum"
                )
            )
        self._seen.clear()
        # A batch of prefixes that leave nothing to say has no targets at all.
        return torch.stack(losses).mean() / (known != _NOWHERE).sum().clamp(min=1)

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _last_head_logits(attention: JointAttention, x: Tensor, keys: Tensor) -> Tensor:
    """[B, N, L] of queries from ``x`` [B, N, D] and the last head's ``keys`` [B, L, d]."""
    size = keys.shape[-1]
    q = F.linear(x, attention.wq.weight[-size:])
    norm = attention.q_norm
    q = q.float()
    q = q * torch.rsqrt(q.square().mean(dim=-1, keepdim=True) + norm.eps) * norm.weight[-1]
    return q @ keys.float().transpose(1, 2) / size**0.5


def phone_targets(
    starts: Sequence[float],
    ends: Sequence[float],
    tokens: Sequence[int],
    latents: int,
    latents_per_second: float,
) -> list[int]:
    """The token of each of ``latents`` latents: of the phone sounding at its middle; else -1."""
    targets = [_NOWHERE] * latents
    for start, end, token in zip(starts, ends, tokens, strict=True):
        first = int(start * latents_per_second + 0.5)
        last = int(end * latents_per_second + 0.5)
        for i in range(first, min(max(last, first + 1), latents)):
            if last > first or targets[i] == _NOWHERE:
                targets[i] = token
    return targets
