"""Where the model looks: attention weights over the text, from the model's own projections.

A plain pass that is written out, as the fast attention of the product never has its weights in
memory. A test holds its velocity to that of ``EchoDiT.forward``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from echo.audio.resample import Samples
from echo.config.schema import per_block
from echo.engine import Engine
from echo.inference import (
    ae_decode,
    find_flattening_point,
    get_speaker_latent_and_mask,
    sample_blockwise_euler_cfg_independent_guidances,
)
from echo.models.dit import EchoDiT
from echo.models.layer_kv import LayerKV
from echo.modules.attention import JointAttention, KeyValue
from echo.modules.rope import RopeTable, apply_rope_to_half_the_heads
from echo.text import prepare, tokenize
from echo.voices.source import resolve


@dataclass(frozen=True)
class Gaze:
    """What each latent looks at, [L, H, S, keys] float32 on the CPU; over keys it adds up to 1.

    L layers, H heads, S latents. Keys are the latents themselves, the text, the speaker.
    """

    velocity: Tensor  # [1, S, 80] float32
    itself: Tensor  # [L, H, S, S]
    text: Tensor  # [L, H, S, N]
    speaker: Tensor  # [L, H, S, P]

    def shares(self) -> dict[str, Tensor]:
        """How much of the attention goes where: [L] each, mean over heads and latents."""
        parts = {"the sound itself": self.itself, "text": self.text, "voice": self.speaker}
        return {name: part.sum(dim=-1).mean(dim=(1, 2)) for name, part in parts.items()}

    def reader(self) -> tuple[int, int]:
        """(layer, head) that reads the text in order most clearly.

        The one whose place in the text correlates best with the place in the sound, weighted by
        how much of its attention goes to the text at all.
        """
        weight = self.text.sum(dim=-1)  # [L, H, S]
        places = torch.arange(self.text.shape[-1], dtype=torch.float32)
        where = (self.text @ places) / weight.clamp_min(1e-6)
        time = torch.arange(where.shape[-1], dtype=torch.float32).expand_as(where)
        x, y = time - time.mean(-1, keepdim=True), where - where.mean(-1, keepdim=True)
        slope = (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1)).clamp_min(1e-6)
        score = slope * weight.mean(dim=-1)
        best = int(score.flatten().argmax())
        return best // score.shape[1], best % score.shape[1]


@dataclass(frozen=True)
class Said:
    """One sentence in the model's own terms."""

    latent: Tensor  # [1, S, 80] float32, PCA space, up to the end of speech
    planned: Tensor  # [1, planned, 80], with what was made after that
    tokens: list[int]
    letters: list[str]  # of the tokens; ``^`` is the start
    speaker: Tensor  # [1, P, 80], the reference voice

    def audio(self, engine: Engine) -> Samples:
        """[T] float32 at 44.1 kHz."""
        c = engine.components
        return ae_decode(c.codec, c.pca, self.latent.to(c.codec.device))[0, 0].cpu().numpy()


def say(
    engine: Engine, text: str, voice: str, *, seed: int, planned: int = 128, steps: int = 20
) -> Said:
    """``text`` by the plain path in one block of ``planned`` latents, with the engine's sampler."""
    c, s = engine.components, engine.config.sampler
    source = resolve(voice, engine.voices, engine.config.voices)
    assert source is not None, "a name is always found"
    clip = torch.from_numpy(source.load())[None]
    speaker, mask = get_speaker_latent_and_mask(c.codec, c.pca, clip)
    chunk = prepare(text, engine.config.text, engine.config.chunking).chunks[0]
    tokens = tokenize(chunk, engine.config.text.max_text_length)
    ids = torch.tensor([tokens])
    latent = sample_blockwise_euler_cfg_independent_guidances(
        c.model,
        speaker,
        mask,
        ids,
        torch.ones_like(ids, dtype=torch.bool),
        rng_seed=seed,
        block_sizes=[planned],
        num_steps=steps,
        cfg_scale_text=s.cfg_scale_text,
        cfg_scale_speaker=s.cfg_scale_speaker,
        cfg_min_t=s.cfg_min_t,
        cfg_max_t=s.cfg_max_t,
        truncation_factor=next(iter(per_block(s.truncation_factor)), None),
    )
    end = find_flattening_point(latent[0])
    letters = ["^", *(chr(token) for token in tokens[1:])]
    return Said(latent[:, :end], latent, tokens, letters, speaker)


@torch.inference_mode()
def look(
    model: EchoDiT,
    latent: Tensor,
    tokens: list[int],
    speaker: Tensor | None,
    *,
    t: float,
    seed: int,
) -> Gaze:
    """The gaze of one pass over ``latent`` [1, S, 80] put back into noise up to ``t``.

    Args:
        latent: what was said, PCA space, as a sampler gave it.
        tokens: of the whole text.
        speaker: latents [1, S, 80] of the reference voice; None: without one.
        t: 1 is noise alone, 0 the finished sound.
        seed: of the noise.
    """
    device = model.device
    generator = torch.Generator(device).manual_seed(seed)
    noise = torch.randn(latent.shape, generator=generator, device=device)
    x = (1 - t) * latent.to(device) + t * noise
    text = model.encode_text(torch.tensor([tokens], device=device))
    contexts = [text] if speaker is None else [text, model.encode_speaker(speaker.to(device))]
    velocity, weights = _pass(model, x, t, contexts)
    widths = [x.shape[1], *(context[0][0].shape[1] for context in contexts)]
    parts = weights.float().cpu().split(widths, dim=-1)
    nothing = parts[0][..., :0]
    return Gaze(velocity, parts[0], parts[1], parts[2] if speaker is not None else nothing)


def _pass(model: EchoDiT, x: Tensor, t: float, contexts: list[LayerKV]) -> tuple[Tensor, Tensor]:
    """Velocity [1, S, 80], and weights [L, H, S, keys] over latents and contexts."""
    condition = model.condition(torch.tensor([t], device=x.device))
    rope = model.rope(torch.arange(x.shape[1], device=x.device))
    h = model.in_proj(x.to(model.dtype))
    seen = []
    for i, block in enumerate(model.blocks):
        mod = condition.attention[i]
        y = block.attention_adaln(h, mod)
        y, weights = _attend(block.attention, y, rope, [context[i] for context in contexts])
        seen.append(weights)
        h = h + mod.gate * y
        mod = condition.mlp[i]
        h = h + mod.gate * block.mlp(block.mlp_adaln(h, mod))
    return model.out_proj(model.out_norm(h)).float(), torch.stack(seen)


def _attend(
    attention: JointAttention, x: Tensor, rope: RopeTable, context: list[KeyValue]
) -> tuple[Tensor, Tensor]:
    """Output [1, S, D] of one layer and its weights [H, S, keys]."""
    q, k, v, gate = attention.project(x)
    q = apply_rope_to_half_the_heads(attention.q_norm(attention.split_heads(q)), rope)
    k = apply_rope_to_half_the_heads(attention.k_norm(attention.split_heads(k)), rope)
    keys = torch.cat([k, *(c[0] for c in context)], dim=1)
    values = torch.cat([attention.split_heads(v), *(c[1] for c in context)], dim=1)
    scores = torch.einsum("bshd,bkhd->bhsk", q.float(), keys.float()) * q.shape[-1] ** -0.5
    weights = scores.softmax(dim=-1)
    attended = torch.einsum("bhsk,bkhd->bshd", weights.to(values.dtype), values)
    return attention.output(attended, gate), weights[0]
