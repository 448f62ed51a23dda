"""The networks with their weights, ready to use."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from echo.config.schema import LoraConfig
from echo.errors import CheckpointError, ConfigError
from echo.models.checkpoint import (
    Convert,
    check_tensors,
    describe,
    load_checkpoint_,
    open_safetensors,
)
from echo.models.codec import S1DAC, CodecConfig
from echo.models.dit import DiTConfig, EchoDiT
from echo.models.hub import only_safetensors, resolve_file
from echo.models.lora import Lora, read_lora
from echo.models.pca import PCAState
from echo.models.quantize import adopt_quantized_, is_chosen, quantizer
from echo.models.random_weights import random_pca, randomize_
from echo.models.sizes import codec_config, dit_config
from echo.modules.conv import fold_weight_norm, lay_out_
from echo.modules.fusing import FusedProjections

WEIGHTS_FILE = "pytorch_model.safetensors"
DIT_FILE = "dit.safetensors"  # taken first: one folder may hold both networks
CODEC_FILE = "codec.safetensors"
PCA_FILE = "pca_state.safetensors"
PCA_TENSORS = ("pca_components", "pca_mean", "latent_scale")
CODEC_BUFFERS = ("*.freqs_cis", "*.causal_mask")  # in the public file; we compute them

_DIT_REPO = "model.repo"
_CODEC_REPO = "model.codec_repo"
_PCA_REPO = "model.pca_repo"
_LORA_REPO = "model.lora.repo"

_log = logging.getLogger(__name__)


def load_dit(
    repo: str,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    weights: str = "checkpoint",
    random_seed: int = 0,
    lora: LoraConfig | None = None,
    quantize: str | None = None,
    fuse: bool = False,
    token: str | None = None,
) -> EchoDiT:
    """The DiT of ``repo`` (hub id, folder or ``shipped:NAME``) on ``device`` in ``dtype``.

    ``weights="random"``: sizes of the folder's config.json, or the real ones, and weights from
    ``random_seed``; never touches the network. A ``lora`` with a repo is merged. ``quantize``:
    int8 or fp8, see :mod:`echo.models.quantize`; each weight as it arrives, so that the model is
    never there in ``dtype``. ``fuse``: its projections packed (:mod:`echo.modules.fusing`).

    Raises:
        CheckpointError: not to be had, incomplete, or not of this model.
        ConfigError: ``weights`` is neither ``checkpoint`` nor ``random``; the device cannot
            do what ``quantize`` says.
    """
    started = time.perf_counter()
    random = _is_random(weights)
    if quantize:
        quantizer(quantize, torch.device(device), dtype)  # that it can be done
    # Weights before sizes: what the hub says of config.json must belong to the same revision.
    path = None if random else _weights(repo, DIT_FILE, token, _DIT_REPO)
    config = dit_config(repo, token=token, local_only=random)
    with torch.device("meta"):
        model = EchoDiT(config)
    update = _lora(model, lora.repo, lora, token) if lora is not None and lora.repo else None

    def put(model: nn.Module, convert: Convert) -> None:
        if path is None:
            randomize_(model, random_seed, device=device, dtype=dtype, convert=convert)
        else:
            load_checkpoint_(model, path, device=device, dtype=dtype, convert=convert)

    fill_(
        model,
        put,
        device=torch.device(device),
        dtype=dtype,
        quantize=quantize,
        lora=update,
        fuse=fuse,
    )
    _report("DiT", repo, weights, started)
    return model.requires_grad_(False).eval()


def fill_(
    model: nn.Module,
    put: Callable[[nn.Module, Convert], None],
    *,
    device: torch.device,
    dtype: torch.dtype,
    quantize: str | None = None,
    lora: Lora | None = None,
    fuse: bool = False,
) -> None:
    """Have ``put`` set the weights of ``model``, each of them changed by ``lora`` and quantised
    on its way in.

    ``fuse``: projections are packed when the last of a module has arrived, so that the memory of
    its parts serves the next; packed later, the parts would leave holes all over the device.
    """
    to_8_bits = quantizer(quantize, device, dtype) if quantize else None
    if to_8_bits is not None:
        adopt_quantized_(model)

    parts = _projections(model) if fuse else {}
    missing = Counter(parts.values())
    whole: list[FusedProjections] = []

    def pack() -> None:
        while whole:
            whole.pop().fuse_()

    def convert(name: str, value: Tensor) -> Tensor:
        pack()
        if name in parts:
            missing[parts[name]] -= 1
            if not missing[parts[name]]:
                whole.append(parts[name])
        if lora is not None:
            lora.update(name, value)
        if to_8_bits is not None and is_chosen(name, tuple(value.shape)):
            return to_8_bits(value)
        return value

    put(model, convert)
    pack()


def _projections(model: nn.Module) -> dict[str, FusedProjections]:
    """The weights below ``model`` that are packed, by name, each with the module that packs it."""
    names: dict[Tensor, str] = {weight: name for name, weight in model.named_parameters()}
    modules = [module for module in model.modules() if isinstance(module, FusedProjections)]
    return {names[each.weight]: module for module in modules for each in module.linears()}


def load_codec(
    repo: str,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    weights: str = "checkpoint",
    random_seed: int = 0,
    encoder_device: torch.device | str | None = None,
    token: str | None = None,
) -> S1DAC:
    """The codec of ``repo``; otherwise as :func:`load_dit`.

    Weight norm is folded in float32 on the CPU, so that a GPU only ever holds the result.
    ``encoder_device``: of what only encoding needs, there in float32; None: with the rest.
    """
    started = time.perf_counter()
    random = _is_random(weights)
    path = None if random else _weights(repo, CODEC_FILE, token, _CODEC_REPO)
    config = codec_config(repo, token=token, local_only=random)
    with torch.device("meta"):
        codec = S1DAC(config)
    if path is None:
        randomize_(codec, random_seed, device="cpu", dtype=torch.float32)
    else:
        load_checkpoint_(codec, path, device="cpu", dtype=torch.float32, ignored=CODEC_BUFFERS)
    fold_weight_norm(codec.requires_grad_(True))  # without, folded weights become buffers
    codec.requires_grad_(False).eval()
    if encoder_device is None:
        codec.to(device, dtype)
    else:
        codec.move_decoder_(torch.device(device), dtype)
        codec.move_encoder_(torch.device(encoder_device), torch.float32)
    lay_out_(codec)
    _report("codec", repo, weights, started)
    return codec


def load_pca(
    repo: str,
    *,
    device: torch.device | str,
    dit: DiTConfig | None = None,
    codec: CodecConfig | None = None,
    weights: str = "checkpoint",
    random_seed: int = 0,
    token: str | None = None,
) -> PCAState:
    """The PCA of ``repo``, float32 on ``device``; otherwise as :func:`load_dit`.

    ``dit`` and ``codec``: the sizes it must fit. ``weights="random"`` without them takes those
    of the folder's config.json, or the real ones.
    """
    if _is_random(weights):
        dit = dit or dit_config(repo, local_only=True, param=_PCA_REPO)
        codec = codec or codec_config(repo, local_only=True, param=_PCA_REPO)
        return random_pca(dit.latent_size, codec.latent_dim, random_seed, device=device)
    path = resolve_file(repo, PCA_FILE, required=True, token=token, param=_PCA_REPO)
    pca = _read_pca(path)
    rows, columns = pca.components.shape
    if dit is not None and rows != dit.latent_size:
        raise CheckpointError(
            f"{path} has {rows} components, but the DiT has latents of {dit.latent_size}",
            param=_PCA_REPO,
        )
    if codec is not None and columns != codec.latent_dim:
        raise CheckpointError(
            f"{path} is for vectors of {columns}, but those of the codec have {codec.latent_dim}",
            param=_PCA_REPO,
        )
    return pca.to(device)


def _read_pca(path: Path) -> PCAState:
    with open_safetensors(path) as file:
        found = describe(file)
        shapes = {name: found[name][0] if name in found else () for name in PCA_TENSORS}
        check_tensors(path, found, shapes)  # names and number formats
        components, mean, scale = shapes.values()
        if len(components) != 2 or mean != components[1:] or math.prod(scale) != 1:
            raise CheckpointError(
                f"{path}: pca_components {list(components)}, pca_mean {list(mean)} and "
                f"latent_scale {list(scale)} must have the shapes [k, d], [d] and []",
                param=_PCA_REPO,
            )
        # Copies: the tensors of an open file are views of it.
        tensors = [file.get_tensor(name).to(torch.float32, copy=True) for name in PCA_TENSORS]
    factor = float(tensors[2])
    if not math.isfinite(factor) or factor == 0:
        raise CheckpointError(f"{path}: latent_scale is {factor}", param=_PCA_REPO)
    return PCAState(tensors[0], tensors[1], factor)


def _weights(repo: str, own_name: str, token: str | None, param: str) -> Path:
    own = resolve_file(repo, own_name, required=False, token=token, param=param)
    if own is not None:
        return own
    return resolve_file(repo, WEIGHTS_FILE, required=True, token=token, param=param)


def _lora(model: EchoDiT, repo: str, lora: LoraConfig, token: str | None) -> Lora:
    name = lora.filename or only_safetensors(repo, token=token, param=_LORA_REPO)
    path = resolve_file(repo, name, required=True, token=token, param=_LORA_REPO)
    update = read_lora(model, path, alpha=lora.alpha, scale=lora.scale)
    _log.info("LoRA %s/%s changes %d weights", repo, name, len(update.pairs))
    return update


def _is_random(weights: str) -> bool:
    if weights not in ("checkpoint", "random"):
        raise ConfigError(
            f"model.weights is {weights!r}; choose checkpoint or random", param="model.weights"
        )
    return weights == "random"


def _report(what: str, repo: str, weights: str, started: float) -> None:
    took = time.perf_counter() - started
    _log.info("%s of %s ready (weights: %s) in %.1f s", what, repo, weights, took)
