from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from echo.errors import CheckpointError
from echo.models.checkpoint import load_checkpoint_
from echo.models.codec import S1DAC, CodecConfig
from echo.models.dit import DiTConfig, EchoDiT
from echo.models.load import CODEC_BUFFERS


def on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return make()


def small() -> nn.Module:
    return on_meta(lambda: nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5)))


def tensors() -> dict[str, Tensor]:
    shapes = {"0.weight": (5, 3), "0.bias": (5,), "1.weight": (5,), "1.bias": (5,)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def load(path: Path, **options: Any) -> nn.Module:
    module = small()
    load_checkpoint_(module, path, device="cpu", dtype=torch.float32, **options)
    return module


def is_codec_buffer(name: str) -> bool:
    return name.endswith((".freqs_cis", ".causal_mask"))


@pytest.mark.parametrize(
    ("file", "make"),
    [
        ("echo-tts-base/pytorch_model.safetensors", lambda: EchoDiT(DiTConfig())),
        ("fish-s1-dac-min/pytorch_model.safetensors", lambda: S1DAC(CodecConfig())),
    ],
)
def test_names_and_shapes_are_those_of_the_public_file(
    parity: Path, file: str, make: Callable[[], nn.Module]
) -> None:
    public = json.loads((parity / "checkpoint_tensors.json").read_text())[file]
    buffers = {name for name in public if is_codec_buffer(name)}
    assert len(buffers) == (6 if "dac" in file else 0)
    module = on_meta(make)
    ours = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
    assert ours == {name: shape for name, shape in public.items() if name not in buffers}


def test_a_file_that_fits_is_loaded_value_by_value(tmp_path: Path) -> None:
    values = tensors()
    save_file(values, tmp_path / "x.safetensors")
    loaded = load(tmp_path / "x.safetensors")
    assert loaded.state_dict().keys() == values.keys()
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, values[name])
    assert not any(p.requires_grad for p in loaded.parameters())


def test_the_number_format_is_cast_on_the_way(tmp_path: Path) -> None:
    values = tensors()
    half = {name: v.half() for name, v in values.items()}
    save_file(half, tmp_path / "x.safetensors")
    module = small()
    load_checkpoint_(module, tmp_path / "x.safetensors", device="cpu", dtype=torch.bfloat16)
    for name, value in module.state_dict().items():
        assert torch.equal(value, half[name].bfloat16())


def test_a_loaded_module_does_not_need_its_file_any_more(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    values = tensors()
    save_file(values, path)
    module = load(path)
    path.write_bytes(b"\x00" * path.stat().st_size)  # in place: a mapping would see it
    assert torch.equal(module.get_parameter("0.weight"), values["0.weight"])


def test_missing_tensors_are_named_and_counted(tmp_path: Path) -> None:
    values = tensors()
    del values["0.bias"], values["1.bias"]
    save_file(values, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"2 missing \(0\.bias, 1\.bias\)"):
        load(tmp_path / "x.safetensors")


def test_extra_tensors_are_named_the_first_few_of_them(tmp_path: Path) -> None:
    extra = {f"head.{i}": torch.zeros(1) for i in range(9)}
    save_file(tensors() | extra, tmp_path / "x.safetensors")
    with pytest.raises(
        CheckpointError, match=r"9 not of this model \(head\.0, .*head\.3, and 5 more\)"
    ):
        load(tmp_path / "x.safetensors")


def test_misshapen_tensors_are_named_with_both_shapes(tmp_path: Path) -> None:
    save_file(tensors() | {"0.weight": torch.zeros(3, 5)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"0\.weight \[3, 5\] instead of \[5, 3\]"):
        load(tmp_path / "x.safetensors")


def test_whole_numbers_are_not_weights(tmp_path: Path) -> None:
    values = tensors() | {"0.bias": torch.zeros(5, dtype=torch.int8)}
    save_file(values, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"1 not floating point \(0\.bias I8\)"):
        load(tmp_path / "x.safetensors")


def test_only_the_listed_buffers_are_ignored(tmp_path: Path) -> None:
    buffers = {"a.b.freqs_cis": torch.zeros(2, 2), "a.b.causal_mask": torch.zeros(2).bool()}
    save_file(tensors() | buffers, tmp_path / "x.safetensors")
    load(tmp_path / "x.safetensors", ignored=CODEC_BUFFERS)
    with pytest.raises(CheckpointError, match="2 not of this model"):
        load(tmp_path / "x.safetensors")
    save_file(tensors() | {"freqs_cis_b": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="freqs_cis_b"):
        load(tmp_path / "x.safetensors", ignored=CODEC_BUFFERS)


@pytest.mark.parametrize("left", [0, 5, 100, -1])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path: Path, left: int) -> None:
    path = tmp_path / "x.safetensors"
    save_file(tensors(), path)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(CheckpointError, match=r"x\.safetensors is not a complete safetensors file"):
        load(path)


@pytest.mark.parametrize(
    "content", [b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"{}", b"\xff" * 99]
)
def test_a_file_of_another_kind_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        load(path)


MEMORY = """
import re, torch
from pathlib import Path
from torch import nn
from echo.models.checkpoint import load_checkpoint_

def memory_mib(what):
    return int(re.search(what + r":\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

with torch.device("meta"):
    module = nn.Sequential(*(nn.Linear(1024, 1024, bias=False) for _ in range({layers})))
before = memory_mib("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
{load}
result = memory_mib("VmHWM") - before
"""
LEAN = 'load_checkpoint_(module, Path({path!r}), device="cpu", dtype=torch.bfloat16)'
NAIVE = """from safetensors.torch import load_file
whole = {{name: value.clone() for name, value in load_file({path!r}).items()}}
module.to_empty(device="cpu").load_state_dict(whole)
module.bfloat16()"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's /proc")
def test_loading_needs_the_memory_of_one_checkpoint_not_two(
    tmp_path: Path, client: Callable[..., Any]
) -> None:
    layers = 72
    path = tmp_path / "x.safetensors"
    save_file({f"{i}.weight": torch.zeros(1024, 1024) for i in range(layers)}, path)
    file_mib = layers * 4  # float32; half of that is what stays, in bfloat16
    peaks = {}
    for name, code in (("lean", LEAN), ("naive", NAIVE)):
        load = code.format(path=str(path))
        peaks[name] = client(MEMORY.format(layers=layers, load=load))
    assert 0.4 * file_mib < peaks["lean"] < 1.0 * file_mib
    assert peaks["naive"] > 1.5 * file_mib  # the measure does see a second copy


def test_the_toy_weights_load_through_the_same_door(parity: Path) -> None:
    config = DiTConfig(**json.loads((parity / "dit_config.json").read_text()))
    model = on_meta(lambda: EchoDiT(config))
    path = parity / "dit_weights.safetensors"
    load_checkpoint_(model, path, device="cpu", dtype=torch.float32)
    values = load_file(path)
    assert all(torch.equal(v, values[k]) for k, v in model.state_dict().items())
    assert sum(p.numel() for p in model.parameters()) == sum(
        math.prod(v.shape) for v in values.values()
    )
