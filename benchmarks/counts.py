"""Operations and bytes that each part of a generation cannot do without, counted from the sizes.

    python -m benchmarks.counts [KEY=VALUE ...]      # the account of the time to first audio

A multiplication and an addition are two operations. Bytes are what must be moved once per call:
weights, keys and values that are attended to, inputs and outputs; activations between layers are
left out, as they can stay in caches. Attention counts only keys that are visible.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report import say, table
from echo.config import EchoConfig, compose
from echo.config.schema import sampler_of
from echo.errors import EchoError
from echo.models.codec import CodecConfig
from echo.models.dit import DiTConfig
from echo.models.sizes import codec_config, dit_config
from echo.sampling.schedule import is_guided, times
from echo.spec import INIT_SCALE, MAX_TEXT_TOKENS

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
TEXT_TOKENS = 66  # 60 characters, the speaker's tag and BOS
SPEAKER_LATENTS = 212  # 10 s, in whole patches
COPIES = 3  # of the sample, in the usual way
KERNEL = 7  # of the codec's residual units and ConvNeXt blocks


@dataclass(frozen=True)
class Work:
    """Operations, weights and other bytes of one call. Adding two calls adds all three."""

    flop: float
    weights: float  # numbers read
    data: float = 0.0  # other numbers read or written

    def __add__(self, other: Work) -> Work:
        return Work(self.flop + other.flop, self.weights + other.weights, self.data + other.data)

    def bytes(self, size: int) -> float:
        """Bytes at ``size`` bytes a number."""
        return size * (self.weights + self.data)


NOTHING = Work(0.0, 0.0)


def text_encoder(c: DiTConfig, tokens: int) -> Work:
    """Keys and values of a text, per layer."""
    d = c.text_model_size
    body = _encoder(d, c.text_intermediate_size, c.text_num_layers, tokens, causal=False)
    return body + _context(c, d, tokens) + Work(0.0, tokens * d)


def latent_encoder(c: DiTConfig, latents: int) -> Work:
    """Keys and values of a voice or a prefix of whole patches, per layer."""
    d, patch = c.speaker_model_size, c.speaker_patch_size
    n = latents // patch
    body = _encoder(d, c.speaker_intermediate_size, c.speaker_num_layers, n, causal=True)
    front = _linear(c.latent_size * patch, d, n, bias=True)
    return front + body + _context(c, d, n) + Work(0.0, 0.0, latents * c.latent_size)


def modulations(c: DiTConfig, batch: int) -> Work:
    """Everything that depends on t alone, for ``batch`` times at once."""
    d, r = c.model_size, c.adaln_rank
    cond = _linear(c.timestep_embed_size, d, batch) + _linear(d, d, batch)
    cond += _linear(d, 3 * d, batch)
    each = _linear(d, r, batch) + _linear(r, d, batch, bias=True)
    return cond + _times(each, 6 * c.num_layers)


def dit_pass(c: DiTConfig, latents: int, contexts: Sequence[int], shared: int) -> Work:
    """One pass over rows of ``latents``, row i with ``contexts[i]`` keys beside its own.

    ``shared``: different keys in all; rows that see the same ones read them once. Modulations
    are not counted: they come from a table.
    """
    d, n = c.model_size, latents * len(contexts)
    layer = _times(_linear(d, d, n), 5) + _swiglu(d, c.intermediate_size, n)
    seen = sum(latents * (latents + keys) for keys in contexts)
    layer += Work(4.0 * d * seen, 2 * d // c.num_heads * c.num_heads, 2.0 * shared * d)
    ends = _linear(c.latent_size, d, n, bias=True) + _linear(d, c.latent_size, n, bias=True)
    return _times(layer, c.num_layers) + ends + Work(0.0, d, 2.0 * n * c.latent_size)


def codec_decode(c: CodecConfig, latents: int) -> Work:
    """z_q of ``latents`` to audio."""
    width, n = c.latent_dim, latents
    work = _window(c, width, n)
    for rate in reversed(c.downsample):
        work += _conv(width, width, rate, n)
        n *= rate
        work += _convnext(width, n)
    wide = c.decoder_dim
    work += _conv(width, wide, KERNEL, n)
    for rate in c.decoder_rates:
        work += _conv(wide, wide // 2, 2 * rate, n)
        wide, n = wide // 2, n * rate
        work += _times(_conv(wide, wide, KERNEL, n) + _conv(wide, wide, 1, n), 3)
    work += _conv(wide, 1, KERNEL, n)
    return work + Work(0.0, 0.0, latents * width + n)


def codec_encode(c: CodecConfig, latents: int) -> Work:
    """Audio of ``latents`` to z_q."""
    n, wide = latents * c.hop, c.encoder_dim
    work = Work(0.0, 0.0, n + latents * c.latent_dim) + _conv(1, wide, KERNEL, n)
    for rate in c.encoder_rates:
        work += _times(_conv(wide, wide, KERNEL, n) + _conv(wide, wide, 1, n), 3)
        n //= rate
        work += _conv(wide, 2 * wide, 2 * rate, n)
        wide *= 2
    t = c.encoder_transformer
    work += _window_stack(t.dim, t.dim, t.ffn, t.layers, c.encoder_window, n)
    work += _conv(wide, c.latent_dim, 3, n)
    width = c.latent_dim
    for rate in c.downsample:
        n //= rate
        work += _conv(width, width, rate, n) + _convnext(width, n)
    work += _window(c, width, n)
    sizes = [c.semantic_codebook_size] + [c.codebook_size] * c.n_codebooks
    for entries in sizes:
        work += _conv(width, c.codebook_dim, 1, n) + _conv(c.codebook_dim, width, 1, n)
        work += _linear(c.codebook_dim, entries, n)
    return work


def pca(c: DiTConfig, codec: CodecConfig, latents: int) -> Work:
    """Latents to z_q, or back."""
    own = Work(0.0, 0.0, latents * (c.latent_size + codec.latent_dim))
    return _linear(c.latent_size, codec.latent_dim, latents) + own


def block(
    c: DiTConfig, latents: int, steps: int, text: int, speaker: int, prefix: int, config: EchoConfig
) -> Work:
    """Sampling one block: ``text`` tokens, ``speaker`` and ``prefix`` patches to attend to."""
    s = sampler_of(config.sampler, config.preset)
    scale = s.init_scale if isinstance(s.init_scale, float) else s.init_scale[0]
    work = NOTHING
    for t in times(steps, scale)[:-1]:
        full, no_text, no_speaker = prefix + text + speaker, prefix + speaker, prefix + text
        guided = is_guided(t, s.cfg_min_t, s.cfg_max_t)
        rows = (full, no_text, no_speaker) if guided else (full,)
        work += dit_pass(c, latents, rows, full)
    return work


def first_sound(config: EchoConfig, text: int, speaker_latents: int) -> dict[str, Work]:
    """What the first audio asks for, by stage, with the voice's keys and values at hand."""
    c, codec = dit_config(config.model.repo, local_only=True), _codec(config)
    size, steps = config.preset.block_sizes[0], config.preset.num_steps[0]
    patches = speaker_latents // c.speaker_patch_size
    return {
        "text": text_encoder(c, text),
        "sampling": block(c, size, steps, text, patches, 0, config),
        "codec": pca(c, codec, size) + codec_decode(codec, size),
    }


def usual_first_sound(config: EchoConfig, speaker_latents: int) -> dict[str, Work]:
    """The same for the usual way (``benchmarks.usual``): three copies, padding, masked keys."""
    c, codec = dit_config(config.model.repo, local_only=True), _codec(config)
    size, steps = config.preset.block_sizes[0], config.preset.num_steps[0]
    planned = sum(config.preset.block_sizes)
    patches = (planned + -planned % c.speaker_patch_size) // c.speaker_patch_size
    speaker = speaker_latents // c.speaker_patch_size
    keys = patches + MAX_TEXT_TOKENS + speaker
    s, sampling = sampler_of(config.sampler, config.preset), NOTHING
    for t in times(steps, INIT_SCALE)[:-1]:
        rows = COPIES if is_guided(t, s.cfg_min_t, s.cfg_max_t) else 1
        sampling += dit_pass(c, size, [keys] * rows, rows * keys) + modulations(c, rows)
    return {
        "text": _batch(text_encoder(c, MAX_TEXT_TOKENS), COPIES),
        "speaker": _batch(latent_encoder(c, speaker_latents), COPIES),
        "prefix": _batch(latent_encoder(c, patches * c.speaker_patch_size), COPIES),
        "sampling": sampling,
        "codec": pca(c, codec, size) + codec_decode(codec, size),
    }


def _batch(work: Work, count: int) -> Work:
    """Several samples at once: weights are read once."""
    return Work(count * work.flop, work.weights, count * work.data)


def _codec(config: EchoConfig) -> CodecConfig:
    return codec_config(config.model.codec_repo, local_only=True)


def _times(work: Work, count: int) -> Work:
    return Work(count * work.flop, count * work.weights, count * work.data)


def _linear(inputs: int, outputs: int, n: int, *, bias: bool = False) -> Work:
    return Work(2.0 * inputs * outputs * n, inputs * outputs + bias * outputs)


def _swiglu(width: int, hidden: int, n: int) -> Work:
    return _times(_linear(width, hidden, n), 3)


def _encoder(width: int, hidden: int, layers: int, n: int, *, causal: bool) -> Work:
    seen = n * (n + 1) / 2 if causal else n * n
    layer = _times(_linear(width, width, n), 5) + _swiglu(width, hidden, n)
    return _times(layer + Work(4.0 * width * seen, 4 * width), layers) + Work(0.0, width)


def _context(c: DiTConfig, width: int, n: int) -> Work:
    both = _times(_linear(width, c.model_size, n), 2 * c.num_layers)
    return both + Work(0.0, 0.0, 2.0 * n * c.model_size * c.num_layers)


def _conv(inputs: int, outputs: int, kernel: int, n: int) -> Work:
    """A convolution with ``n`` outputs, or a transposed one with ``n`` inputs; with bias."""
    return Work(2.0 * inputs * outputs * kernel * n, inputs * outputs * kernel + outputs)


def _convnext(width: int, n: int) -> Work:
    mlp = _linear(width, 4 * width, n, bias=True) + _linear(4 * width, width, n, bias=True)
    return mlp + Work(2.0 * KERNEL * width * n, (KERNEL + 4) * width)


def _window(c: CodecConfig, width: int, n: int) -> Work:
    return _window_stack(width, c.q_heads * c.q_head_dim, c.q_ffn, c.q_layers, c.q_window, n)


def _window_stack(width: int, inner: int, hidden: int, layers: int, window: int, n: int) -> Work:
    full = min(n, window)
    seen = full * (full + 1) / 2 + (n - full) * window
    layer = _linear(width, 3 * inner, n) + _linear(inner, width, n) + _swiglu(width, hidden, n)
    return _times(layer + Work(4.0 * inner * seen, 4 * width), layers) + Work(0.0, width)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the account of the first audio: 60 characters, a known voice of 10 s."""
    overrides = list(sys.argv[1:] if argv is None else argv)
    try:
        config = compose(["model=base", "model.weights=random", "preset=default", *overrides])
        ways = {
            "ours": first_sound(config, TEXT_TOKENS, SPEAKER_LATENTS),
            "usual": usual_first_sound(config, SPEAKER_LATENTS),
        }
    except EchoError as error:
        say(f"error: {error.message}", sys.stderr)
        return 2
    rows = []
    for way, stages in ways.items():
        for name, work in stages.items():
            size = BYTES[config.model.codec_dtype if name == "codec" else config.model.dtype]
            rows.append((way, name, f"{work.flop / 1e12:.3f}", f"{work.bytes(size) / 1e9:.2f}"))
    say(table(("way", "stage", "10^12 FLOP", "GB"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
