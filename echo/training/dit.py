"""The diffusion transformer: rectified flow on latents (model.md §5, in reverse)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from echo.models.dit import DiTConfig, EchoDiT
from echo.models.random_weights import randomize_
from echo.modules.adaln import LowRankAdaLN
from echo.modules.encoder import EncoderBlock
from echo.training.batches import Batches
from echo.training.guidance import AttentionGuide

_OPEN_GATE = 0.6


def new_dit(config: DiTConfig, seed: int) -> EchoDiT:
    """A DiT with random weights; gates half open, so that every block learns from the start."""
    model = EchoDiT(config)
    randomize_(model, seed, device="cpu", dtype=torch.float32)
    model.requires_grad_(True)
    with torch.no_grad():
        model.out_proj.weight.mul_(0.1)
        last = model.cond_module[-1]
        assert isinstance(last, nn.Linear)
        last.weight.mul_(0.1)
        for module in model.modules():
            if isinstance(module, LowRankAdaLN):
                for up in (module.shift_up, module.scale_up, module.gate_up):
                    up.weight.mul_(0.1)
                module.gate_up.bias.fill_(_OPEN_GATE)
        model.text_encoder.text_embedding.weight.mul_(0.5)
        for encoder in (model.text_encoder, model.speaker_encoder, model.latent_encoder):
            blocks = cast("Sequence[EncoderBlock]", encoder.blocks)
            for block in blocks:
                gain = 1.0 / math.sqrt(2 * len(blocks))
                block.attention.wo.weight.mul_(gain)
                block.mlp.w2.weight.mul_(gain)
    return model


def draw_times(count: int, high_noise: float, generator: torch.Generator | None = None) -> Tensor:
    """[count] in 0..1: uniform, and a share ``high_noise`` logit-normal around 0.82.

    What is said where is decided near t = 1.
    """
    uniform = torch.rand(count, generator=generator)
    high = torch.sigmoid(torch.randn(count, generator=generator) + 1.5)
    pick = torch.rand(count, generator=generator) < high_noise
    return torch.where(pick, high, uniform).clamp(1e-4, 0.9999)


class FullPrecisionAttention(TorchFunctionMode):
    """Attention in float32 within a bfloat16 autocast: on CPUs its bfloat16 backward is slow."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        with torch.autocast(args[0].device.type, enabled=False):
            return func(*(each.float() for each in args), **kwargs)


class DitLoss:
    """Loss of one step; callable by the training loop."""

    def __init__(
        self,
        model: EchoDiT,
        batches: Batches,
        *,
        seed: int,
        high_noise: float,
        guide_weight: float,
        guide_until: float,
        guide_layers: tuple[int, ...],
        bf16: bool,
    ) -> None:
        self.model = model
        self.batches = batches
        self.seed = seed
        self.high_noise = high_noise
        self.guide_weight = guide_weight
        self.guide_until = guide_until
        self.guide = AttentionGuide(model, guide_layers)
        self.bf16 = bf16

    def __call__(self, step: int, done: float) -> dict[str, Tensor]:
        device = self.model.device
        b = self.batches.draw(self.seed * 1_000_003 + step, done)
        target = b.target.to(device)
        noise = torch.randn(target.shape).to(device)
        t = draw_times(len(target), self.high_noise).to(device)
        noisy = torch.lerp(target, noise, t[:, None, None])
        text_mask = b.text_mask.to(device)
        on_cpu = self.bf16 and device.type == "cpu"
        with (
            torch.autocast(device.type, torch.bfloat16, enabled=self.bf16),
            FullPrecisionAttention() if on_cpu else nullcontext(),
        ):
            made = self.model(
                noisy,
                t,
                text=self.model.encode_text(b.ids.to(device), text_mask),
                text_mask=text_mask,
                speaker=self.model.encode_speaker(b.speaker.to(device)),
                speaker_mask=b.speaker_mask.to(device),
                prefix=None if b.prefix is None else self.model.encode_prefix(b.prefix.to(device)),
                start_pos=b.start_pos,
            )
            attended = self.guide.loss(b.targets.to(device), text_mask)
        weight = b.weight.to(device)
        errors = (made - (noise - target)).square().mean(dim=2)
        flow = (errors * weight).sum() / weight.sum()
        values = {"loss": flow, "flow": flow.detach(), "guide": attended.detach()}
        if done < self.guide_until:
            values["loss"] = flow + self.guide_weight * attended
        high = (t > 0.95)[:, None] & (weight == 1.0)
        if high.any():
            values["flow_high"] = errors.detach()[high].mean()
        return values
