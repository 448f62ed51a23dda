"""Bytes that a generation takes of a GPU, counted from the real code without one.

    python -m benchmarks.footprint [card=8gb] [KEY=VALUE ...]

The networks are built on PyTorch's meta device, in their real sizes, and run: every tensor has a
size and a lifetime but no numbers. What is counted is what the tensors of the GPU hold. Not
counted is what a driver, kernels and the allocator take beside them: see :data:`OVERHEAD`.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves

from benchmarks.report import say, table
from echo.config import EchoConfig, compose
from echo.engine.components import Components
from echo.errors import EchoError
from echo.models.checkpoint import Convert
from echo.models.codec import S1DAC, DecoderState
from echo.models.compile import piecewise_graphs, recorded_decoder, step_graphs
from echo.models.devices import parse_dtype
from echo.models.dit import EchoDiT, PrefixState
from echo.models.encoder_graphs import TEXT_SIZES, EncoderGraphs
from echo.models.layer_kv import LayerKV
from echo.models.load import fill_
from echo.models.pca import PCAState
from echo.models.quantize import is_chosen
from echo.models.sizes import codec_config, dit_config
from echo.modules.attention import Offsets
from echo.modules.conv import fold_weight_norm
from echo.sampling.block import BlockShape, Conditions, sample_block
from echo.sampling.packing import StepRequest, velocities
from echo.spec import MAX_LATENTS, SPEAKER_PIECE_LATENTS

GIB = 2**30
META = torch.device("meta")
OVERHEAD = int(0.6 * GIB)  # assumed: CUDA context, cuBLAS and cuDNN workspaces, fragments
PASSES = 3  # of a guided step


class Ledger(TorchDispatchMode):
    """Bytes held by the tensors of one device that were made while it is active."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.held = 0
        self.peak = 0
        self._device = device
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and not is_traceable_wrapper_subclass(leaf):
                self._count(leaf)
        return result

    @contextmanager
    def watch(self, stages: dict[str, int], name: str) -> Iterator[None]:
        """The most that was held while inside goes to ``stages[name]``."""
        self.peak = self.held
        yield
        stages[name] = max(self.peak, stages.get(name, 0))

    def _count(self, tensor: Tensor) -> None:
        if tensor.device.type != self._device.type:
            return
        storage = tensor.untyped_storage()
        if storage._cdata in self._known:
            return
        self._known.add(storage._cdata)
        self.held += storage.nbytes()
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._drop, storage._cdata, storage.nbytes())

    def _drop(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.held -= size


class Pool:
    """Stands for a recorder of CUDA graphs: what the largest works in stays taken."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._memory = torch.empty(0, dtype=torch.uint8, device=META)

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        before = self._ledger.peak = self._ledger.held
        work()
        taken = self._ledger.peak - before
        if taken > self._memory.nbytes:
            self._memory = torch.empty(taken, dtype=torch.uint8, device=META)
        return self._replay

    def _replay(self) -> None:
        """Takes nothing more."""


@dataclass(frozen=True)
class Footprint:
    """Bytes on the GPU. ``stages``: the most held in each, by one listener alone."""

    weights: int
    graphs: int  # of passes, encoders and codec
    stages: dict[str, int]
    listener: int  # held by a listener between steps, at most, beside the weights
    house: int  # the most that engine.max_active listeners take, all at their most at once

    @property
    def alone(self) -> int:
        return max(self.stages.values())


def footprint(config: EchoConfig) -> Footprint:
    """Count a generation of ``config.preset`` on one GPU, with the longest text and reference."""
    stages: dict[str, int] = {}
    model, codec = skeletons(config)
    with Ledger(META) as ledger:
        with ledger.watch(stages, "load"), torch.no_grad():
            components = fill(config, model, codec)
        weights = ledger.held
        with torch.inference_mode():
            _record(config, components, ledger)
            graphs = ledger.held - weights
            listener = _generation(config, components, ledger, stages)
    transient = max(stages.values()) - weights - graphs - listener
    house = weights + graphs + config.engine.max_active * listener + max(0, transient)
    del stages["company"]
    return Footprint(weights, graphs, stages, listener, max(house, stages["load"]))


def _record(config: EchoConfig, c: Components, ledger: Ledger) -> None:
    """As on CUDA at the start, unless the configuration says no."""
    if config.compile.cuda_graphs is False:
        return
    in_32_bits = c.model.dtype == torch.float32
    passes = (
        piecewise_graphs(c.model.passes, config.compile)
        if in_32_bits
        else step_graphs(c.model.passes, config.compile, _attended)
    )
    passes.warm_up(c.model, Pool(ledger))
    c.model.passes = passes
    texts = [size for size in TEXT_SIZES if size <= config.compile.graph_latents]
    c.model.recorded = EncoderGraphs(c.model, config.preset.block_sizes, texts, Pool(ledger))
    decoder = recorded_decoder(c.codec, config.compile)
    decoder.warm_up(Pool(ledger))
    c.codec.streams = decoder


def _attended(q: Tensor, k: Tensor, v: Tensor, offsets: Offsets) -> Tensor:
    """Of the same size; the kernel that is asked on a GPU takes next to nothing beside it."""
    return torch.empty_like(q)


def _generation(config: EchoConfig, c: Components, ledger: Ledger, stages: dict[str, int]) -> int:
    """Its stages, and ``company``: the largest step that listeners share. Returns what a
    listener holds."""
    before = ledger.held
    speaker = _voice(config, c, ledger, stages)
    with ledger.watch(stages, "text"):
        ids = torch.zeros(1, config.text.max_text_length, dtype=torch.int64, device=META)
        text = c.model.encode_text(ids)
    conditions = Conditions(text, speaker)
    state = c.codec.init_state()
    prefix = _blocks(config, c, conditions, state, ledger, stages)
    listener = ledger.held - before
    rows = max(1, config.engine.max_batch_tokens // (PASSES * MAX_LATENTS))
    with ledger.watch(stages, "company"):
        shape = BlockShape(MAX_LATENTS, 1, 0.999, None)
        _step([_begin(config, c, conditions, shape) for _ in range(rows)])
    del prefix
    return listener


def skeletons(config: EchoConfig) -> tuple[EchoDiT, S1DAC]:
    """The networks before their weights, which are not to be counted."""
    with META:
        model = EchoDiT(dit_config(config.model.repo, local_only=True))
        codec = S1DAC(codec_config(config.model.codec_repo, local_only=True))
    fold_weight_norm(codec)
    return model.requires_grad_(False).eval(), codec.requires_grad_(False).eval()


def fill(config: EchoConfig, model: EchoDiT, codec: S1DAC) -> Components:
    """Give weights to what is on the GPU, in the order and formats of loading."""
    m, dtype = config.model, parse_dtype(config.model.dtype)

    seen: dict[tuple[tuple[int, ...], bool], Tensor] = {}

    def put(module: nn.Module, convert: Convert) -> None:
        def once(name: str, value: Tensor) -> Tensor:
            """``convert`` for the first of each kind of weight; the others are as large."""
            kind = (tuple(value.shape), is_chosen(name, tuple(value.shape)))
            if kind not in seen:
                seen[kind] = convert(name, value)
            return _another(seen[kind])

        _empty_(module, dtype, once)

    fill_(model, put, device=META, dtype=dtype, quantize=m.quantize, fuse=True)
    on_gpu = (codec.decoder, codec.quantizer.post_module, codec.quantizer.upsample)
    for part in on_gpu if config.voices.encode_device else (codec,):
        _empty_(part, parse_dtype(m.codec_dtype))
    return Components.from_parts(model, codec, _pca(config))


def _another(weight: Tensor) -> Tensor:
    """A tensor of its own, as large and of the same kind."""
    if not is_traceable_wrapper_subclass(weight):
        return torch.empty_like(weight)
    names, context = weight.__tensor_flatten__()
    parts = {name: torch.empty_like(getattr(weight, name)) for name in names}
    return type(weight).__tensor_unflatten__(parts, context, weight.shape, weight.stride())


def _empty_(module: nn.Module, dtype: torch.dtype, convert: Convert | None = None) -> None:
    for name in [name for name, _ in module.named_parameters()]:
        owner, _, leaf = name.rpartition(".")
        value = torch.empty_like(module.get_parameter(name), dtype=dtype)
        value = value if convert is None else convert(name, value)
        held = nn.Parameter(value, requires_grad=False)
        setattr(module.get_submodule(owner), leaf, held)


def _pca(config: EchoConfig) -> PCAState:
    sizes = codec_config(config.model.codec_repo, local_only=True)
    latents = dit_config(config.model.repo, local_only=True).latent_size
    components = torch.empty(latents, sizes.latent_dim, device=META)
    return PCAState(components, torch.empty(sizes.latent_dim, device=META), 1.0)


def _voice(
    config: EchoConfig, components: Components, ledger: Ledger, stages: dict[str, int]
) -> LayerKV:
    """Keys and values of the longest reference."""
    c = components
    with ledger.watch(stages, "voice"):
        if config.voices.encode_device is None:
            hop = c.codec.config.hop
            audio = torch.empty(1, 1, SPEAKER_PIECE_LATENTS * hop, device=META)
            z_q = c.codec.encode(audio)[0]
            c.pca.to_latent(z_q.transpose(1, 2))
            del audio, z_q
        latent = torch.empty(1, config.voices.max_latents, c.model.config.latent_size, device=META)
        return c.model.encode_speaker(latent)


def _blocks(
    config: EchoConfig,
    components: Components,
    conditions: Conditions,
    codec_state: DecoderState,
    ledger: Ledger,
    stages: dict[str, int],
) -> tuple[PrefixState | None, LayerKV | None]:
    """The blocks of the preset: the prefix grows by all but the last, and one guided step is
    made of that; a step takes what the one before took."""
    c, state, context = components, None, None
    *earlier, last = config.preset.block_sizes
    for size in earlier:
        with ledger.watch(stages, "prefix"):
            latent = torch.empty(1, size, c.model.config.latent_size, device=META)
            state, context = c.model.extend_prefix(state, latent)
    conditions = replace(conditions, prefix=context, start=sum(earlier))
    with ledger.watch(stages, "sampling"):
        (latent,) = _step([_begin(config, c, conditions, BlockShape(last, 1, 0.999, None))])
    with ledger.watch(stages, "codec"):
        # All audio of the block, and a piece that is decoded.
        audio = torch.empty(last * c.codec.config.hop, dtype=c.codec.dtype, device=META)
        z_q = c.pca.from_latent(latent[:, : c.codec.piece_latents]).transpose(1, 2)
        c.codec.decode(z_q, codec_state)
        torch.cat([audio])
    return state, context


def _begin(
    config: EchoConfig, c: Components, conditions: Conditions, shape: BlockShape
) -> Generator[StepRequest, Tensor, Tensor]:
    noise = torch.empty(1, shape.size, c.model.config.latent_size, device=META)
    return sample_block(c.model, c.tables[c.model], conditions, noise, shape, config.sampler)


def _step(generators: Sequence[Generator[StepRequest, Tensor, Tensor]]) -> list[Tensor]:
    """Run ``generators`` to their end, in one pass a step."""
    answers: list[Any] = [None] * len(generators)
    while True:
        try:
            requests = [g.send(a) for g, a in zip(generators, answers, strict=True)]
        except StopIteration as end:
            return [end.value]
        answers = list(velocities(requests))


def report(config: EchoConfig, found: Footprint) -> str:
    """Peaks by stage, then of a full house."""
    rows = [("weights", _gib(found.weights), "")]
    rows += [(name, _gib(peak), _gib(peak - found.weights)) for name, peak in found.stages.items()]
    rows.append(("graphs", "", _gib(found.graphs)))
    rows.append(("held by a listener", "", _gib(found.listener)))
    rows.append((f"{config.engine.max_active} listeners", _gib(found.house), ""))
    rows.append(("with the driver", _gib(found.house + OVERHEAD), ""))
    return table(("most held in", "GiB", "beside the weights"), rows)


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"


def main(overrides: Sequence[str]) -> int:
    """The program; returns the exit status."""
    try:
        config = compose(["model=base", *overrides])
        say(report(config, footprint(config)))
    except EchoError as error:
        say(f"error: {error.message}", sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
