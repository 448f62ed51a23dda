"""Weights in 8 bits: near what they were made of, half their bytes, and clear about their needs."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import parity
from echo.config.schema import LoraConfig
from echo.errors import ConfigError
from echo.models.dit import DiTConfig, EchoDiT
from echo.models.load import load_dit
from echo.models.quantize import is_chosen, quantize_weight, quantizer, stored_bytes
from echo.models.recorder import CudaRecorder
from echo.modules.fusing import FusedProjections, fuse_
from echo.modules.linear import MIN_ROWS, apply_weight, int8_product, is_quantized, join_rows
from golden import PARITY

CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)  # only named, never asked
F32 = torch.float32
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def tiny(quantize: str | None, dtype: torch.dtype = F32) -> EchoDiT:
    return load_dit("shipped:tiny", device=CPU, dtype=dtype, quantize=quantize)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).float().norm() / wanted.float().norm())


@torch.inference_mode()
def velocity(model: EchoDiT, t: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(32, 120, (1, 60), generator=generator)
    voice = torch.randn(1, 100, 80, generator=generator)
    x = torch.randn(1, 32, 80, generator=generator)
    return model(
        x,
        torch.tensor([t]),
        text=model.encode_text(ids),
        text_mask=torch.ones(1, 60, dtype=torch.bool),
        speaker=model.encode_speaker(voice),
        speaker_mask=torch.ones(1, 100, dtype=torch.bool),
    )


def test_the_velocity_is_near_that_of_the_full_weights() -> None:
    full, eight = tiny(None), tiny("int8")
    errors = [relative_error(velocity(eight, t), velocity(full, t)) for t in (0.999, 0.5, 0.1)]
    assert max(errors) < 0.04  # bfloat16 alone: 0.014
    assert min(errors) > 0.001  # it is quantised


def test_golden_runs_are_met_within_what_8_bits_hold() -> None:
    """Whole generations, guided, over several blocks: errors of a pass add up."""
    repo = parity.as_checkpoint(PARITY, "dit")
    model = load_dit(repo, device=CPU, dtype=F32, quantize="int8")
    fuse_(model)
    io = load_file(PARITY / "dit_io.safetensors")
    runs = json.loads((PARITY / "dit_runs.json").read_text())["runs"]
    errors = {}
    for name, run in runs.items():
        if run["batch"] == 1:
            with torch.inference_mode():
                made = parity.engine_run(model, io, run)  # type: ignore[arg-type]
            errors[name] = relative_error(made, io[f"latent.{name}"])
    assert len(errors) > 5
    assert max(errors.values()) < 0.1, errors


def test_packed_projections_are_those_of_the_parts_and_take_no_more_memory() -> None:
    model = tiny("int8", torch.bfloat16)
    before, size, names = velocity(model, 0.5), stored_bytes(model), list(model.state_dict())
    fuse_(model)
    fused = model.blocks[0].attention.fused
    assert fused is not None
    assert is_quantized(fused)
    torch.testing.assert_close(velocity(model, 0.5), before, rtol=0.0, atol=0.0)
    assert stored_bytes(model) == size
    assert list(model.state_dict()) == names
    model.to(CPU)  # packs again
    torch.testing.assert_close(velocity(model, 0.5), before, rtol=0.0, atol=0.0)
    assert stored_bytes(model) == size


def test_it_takes_half_the_bytes_of_16_bits() -> None:
    plain, eight = tiny(None, torch.bfloat16), tiny("int8", torch.bfloat16)
    assert stored_bytes(plain) == 2 * sum(p.numel() for p in plain.parameters())
    chosen = sum(p.numel() for n, p in plain.named_parameters() if is_chosen(n, tuple(p.shape)))
    rows = sum(p.shape[0] for n, p in plain.named_parameters() if is_chosen(n, tuple(p.shape)))
    scales = rows * (4 + 1)  # a float32 and a zero point
    assert stored_bytes(eight) == stored_bytes(plain) - chosen + scales
    with torch.device("meta"):
        real = EchoDiT(DiTConfig())
    held = sum(p.numel() for n, p in real.named_parameters() if is_chosen(n, tuple(p.shape)))
    assert held > 0.93 * sum(p.numel() for p in real.parameters())


def test_what_goes_in_and_out_and_what_depends_on_time_stays_as_it_is() -> None:
    model = tiny("int8")
    whole = {name for name, p in model.named_parameters() if p.ndim == 2 and not is_quantized(p)}
    parts = ("in_proj", "out_proj", "cond_module", "adaln", "text_embedding", "_norm")
    assert whole
    assert all(any(part in name for part in parts) for name in whole)


def test_a_row_does_not_depend_on_its_company_nor_on_their_number() -> None:
    """Alone it is less than an int8 product takes; so is the prefix of a first block."""
    weight = quantizer("int8", CPU, F32)(torch.randn(48, 32))
    rows = torch.randn(MIN_ROWS + 7, 32) * torch.rand(MIN_ROWS + 7, 1)
    alone = torch.cat([apply_weight(row[None], weight) for row in rows])
    torch.testing.assert_close(alone, apply_weight(rows, weight))
    torch.testing.assert_close(apply_weight(rows[None, :4], weight), alone[None, :4])


@pytest.mark.parametrize("rows", [1, MIN_ROWS - 1, MIN_ROWS, 300])
@pytest.mark.parametrize("dtype", [F32, torch.bfloat16, torch.float16])
def test_the_product_for_gpus_is_that_of_torchao(rows: int, dtype: torch.dtype) -> None:
    full = torch.randn(96, 64) * torch.rand(96, 1)
    weight: Any = quantizer("int8", CPU, dtype)(full.to(dtype))
    x = (torch.randn(rows, 64) * torch.rand(rows, 1) * 10).to(dtype)
    ours = int8_product(x, weight.qdata, weight.scale)
    assert ours.shape == (rows, 96)
    assert ours.dtype == dtype
    # In 16 bits torchao rounds more often: the scale of a row, and each product before the last.
    assert relative_error(ours, apply_weight(x, weight)) < (1e-6 if dtype == F32 else 0.01)
    assert relative_error(ours, x.float() @ full.to(dtype).float().T) < 0.015


def test_the_product_for_gpus_is_exact_where_eight_bits_are() -> None:
    """Against sums made by hand: a scale of 1 for both, and whole numbers."""
    x, weight = torch.randint(-9, 9, (20, 32)), torch.randint(-127, 128, (16, 32))
    x[:, 0] = 127
    scale = torch.ones(16, 1)
    ours = int8_product(x.float() * (127.5 / 127), weight.to(torch.int8), scale)
    assert relative_error(ours, (x @ weight.T).float() * (127.5 / 127)) < 0.02
    zeros = int8_product(torch.zeros(3, 32), weight.to(torch.int8), scale)
    assert torch.equal(zeros, torch.zeros(3, 16))


def test_the_product_for_gpus_holds_sums_that_float16_does_not() -> None:
    x = torch.full((20, 4096), 60.0, dtype=torch.float16)
    full = torch.full((16, 4096), 0.2, dtype=torch.float16)
    weight: Any = quantizer("int8", CPU, torch.float16)(full)
    ours = int8_product(x, weight.qdata, weight.scale)
    assert float(weight.qdata[0].sum(dtype=torch.int64)) * 60 > torch.finfo(torch.float16).max
    torch.testing.assert_close(ours.float(), torch.full((20, 16), 49152.0), rtol=0.02, atol=0.0)


def test_the_product_for_gpus_can_be_compiled_as_a_whole() -> None:
    weight: Any = quantizer("int8", CPU, F32)(torch.randn(48, 32))
    x = torch.randn(30, 32)

    def product(x: Tensor, weight: Any) -> Tensor:
        return int8_product(x, weight.qdata, weight.scale)

    torch._dynamo.reset()
    compiled = torch.compile(product, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, weight), product(x, weight))


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_joined_rows_are_the_joined_weight_quantised(kind: str) -> None:
    import torchao.quantization as ao

    config = ao.Int8WeightOnlyConfig() if kind == "int8" else ao.Float8WeightOnlyConfig()
    parts = [torch.randn(size, 32) * size for size in (16, 48)]
    joined = join_rows([quantize_weight(part, config, ao) for part in parts])
    whole = quantize_weight(torch.cat(parts), config, ao)
    assert joined.shape == whole.shape
    x = torch.randn(20, 32)
    torch.testing.assert_close(apply_weight(x, joined), apply_weight(x, whole), rtol=0.0, atol=0.0)
    torch.testing.assert_close(
        apply_weight(x, joined[16:]), apply_weight(x, whole[16:]), rtol=0.0, atol=0.0
    )
    assert relative_error(apply_weight(x, joined), x @ torch.cat(parts).T) < 0.05


def test_a_lora_is_merged_before(toy_folder: Path, tmp_path: Path) -> None:
    layer = "blocks.0.attention.wq"
    down, up = torch.randn(2, 64), torch.randn(64, 2)
    save_file(
        {f"{layer}.lora_w1.weight": down, f"{layer}.lora_w2.weight": up}, tmp_path / "l.safetensors"
    )
    lora = LoraConfig(str(tmp_path), None, scale=1.0, alpha=2.0, first_block=False)
    settings: dict[str, Any] = {"device": CPU, "dtype": F32, "lora": lora}
    merged = load_dit(str(toy_folder), **settings).get_parameter(f"{layer}.weight")
    found = load_dit(str(toy_folder), quantize="int8", **settings).get_parameter(f"{layer}.weight")
    expected = quantizer("int8", CPU, F32)(merged.detach())
    eye = torch.eye(64)
    torch.testing.assert_close(apply_weight(eye, found), apply_weight(eye, expected))


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_projections_packed_while_loading_are_those_packed_afterwards(quantize: str | None) -> None:
    settings: dict[str, Any] = {"device": CPU, "dtype": F32, "quantize": quantize}
    at_once = load_dit("shipped:tiny", fuse=True, **settings)
    assert all(m.fused is not None for m in at_once.modules() if isinstance(m, FusedProjections))
    after = load_dit("shipped:tiny", **settings)
    assert not any(m.fused is not None for m in after.modules() if isinstance(m, FusedProjections))
    fuse_(after)
    assert torch.equal(velocity(at_once, 0.5), velocity(after, 0.5))
    assert stored_bytes(at_once) == stored_bytes(after)


def test_random_weights_are_quantised_too(toy_folder: Path) -> None:
    made = load_dit(str(toy_folder), device=CPU, dtype=F32, weights="random", quantize="int8")
    assert is_quantized(made.get_parameter("blocks.0.mlp.w2.weight"))


def test_without_torchao_it_says_what_to_install() -> None:
    def absent(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    with pytest.raises(ConfigError, match=r'pip install "echo-tts\[quantize\]"') as error:
        quantizer("int8", CPU, F32, load=absent)
    assert error.value.param == "model.quantize"


@pytest.mark.parametrize(
    ("kind", "device", "capability", "dtype", "message"),
    [
        ("int8", GPU, (7, 0), torch.float16, r"7\.5 \(Turing\) or newer, but cuda:0 has 7\.0"),
        ("fp8", GPU, (8, 6), torch.bfloat16, r"8\.9 \(Ada\).*model\.quantize=int8"),
        ("fp8", CPU, (0, 0), torch.bfloat16, "needs a GPU, but model.device is cpu"),
        ("fp8", GPU, (9, 0), torch.float16, "model.dtype=bfloat16"),
        ("int4", CPU, (0, 0), F32, "choose one of int8, fp8"),
    ],
)
def test_a_device_that_cannot_is_told_before_anything_is_loaded(
    kind: str, device: torch.device, capability: tuple[int, int], dtype: torch.dtype, message: str
) -> None:
    def never(name: str) -> Any:
        raise AssertionError("nothing is to be imported")

    with pytest.raises(ConfigError, match=message) as error:
        quantizer(kind, device, dtype, capability=lambda _: capability, load=never)
    assert error.value.param == "model.quantize"


def test_a_gpu_that_can_is_taken() -> None:
    for kind, capability in (("int8", (7, 5)), ("int8", (9, 0))):
        quantize = quantizer(kind, GPU, torch.float16, capability=lambda _, c=capability: c)  # type: ignore[misc]
        assert is_quantized(quantize(torch.ones(16, 16, dtype=torch.float16)))


@cuda
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_on_a_gpu_the_velocity_is_near_that_of_the_full_weights(kind: str) -> None:
    device = torch.device("cuda", 0)
    if kind == "fp8" and torch.cuda.get_device_capability(device) < (8, 9):
        pytest.skip("this GPU has no fp8")
    settings: dict[str, Any] = {"device": device, "dtype": torch.bfloat16}
    full = load_dit("shipped:tiny", **settings)
    eight = load_dit("shipped:tiny", quantize=kind, **settings)
    fuse_(eight)
    x = torch.randint(32, 120, (1, 60), device=device)
    with torch.inference_mode():
        pairs = zip(eight.encode_text(x), full.encode_text(x), strict=True)
        errors = [relative_error(a[0], b[0]) for a, b in pairs]
    assert max(errors) < (0.04 if kind == "int8" else 0.1)


@pytest.fixture
def on_gpu() -> tuple[Tensor, Tensor]:
    """Some rows, and a weight in int8."""
    device, dtype = torch.device("cuda", 0), torch.bfloat16
    weight = quantizer("int8", device, dtype)(torch.randn(96, 64, device=device, dtype=dtype))
    return torch.randn(40, 64, device=device, dtype=dtype), weight


@cuda
@pytest.mark.parametrize("rows", [5, 17, 40])
@torch.inference_mode()
def test_on_a_gpu_a_product_waits_for_nothing(on_gpu: tuple[Tensor, Tensor], rows: int) -> None:
    x, weight = on_gpu[0][:rows], on_gpu[1]
    expected = apply_weight(x.cpu(), weight.cpu())
    apply_weight(x, weight)  # what is set up at the first call may wait
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        ours = apply_weight(x, weight)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert relative_error(ours.cpu(), expected) < 0.01


@cuda
@torch.inference_mode()
def test_on_a_gpu_a_product_can_be_recorded(on_gpu: tuple[Tensor, Tensor]) -> None:
    x, weight = on_gpu
    out = torch.empty(40, 96, dtype=x.dtype, device=x.device)
    record = CudaRecorder(x.device)
    replay = record(lambda: out.copy_(apply_weight(x, weight)))
    x.mul_(3.0)
    replay()
    assert torch.equal(out, apply_weight(x, weight))


def test_loading_torchao_leaves_its_log_as_it_was() -> None:
    import logging

    before = logging.getLogger("torchao").level
    quantizer("int8", CPU, F32, load=importlib.import_module)
    assert logging.getLogger("torchao").level == before
