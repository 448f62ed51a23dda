"""The golden values, item by item, and a proof that the checker can fail."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import parity

PARITY = Path(__file__).parent / "data" / "parity"


def test_every_golden_value_is_reproduced() -> None:
    items = list(parity.check_folder(PARITY))
    assert len(items) > 100
    assert [str(item) for item in items if not item.ok] == []


@pytest.mark.parametrize(
    ("file", "tensor", "named"),
    [
        ("codec_io.safetensors", "z_q", "codec z_q"),
        ("dit_io.safetensors", "latent.blocks_odd", "plain blocks_odd"),
        ("dit_io.safetensors", "kv_text.1.k", "dit kv_text.1.k"),
    ],
)
def test_a_wrong_golden_value_is_found(
    tmp_path: Path, file: str, tensor: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = file.split("_")[0]
    for path in PARITY.glob(f"{kind}_*"):
        shutil.copy(path, tmp_path)
    values = load_file(tmp_path / file)
    values[tensor] = values[tensor] + 0.01 * values[tensor].abs().max() * torch.rand(
        values[tensor].shape
    )
    save_file(values, tmp_path / file)
    assert parity.main([str(tmp_path)]) == 1
    failures = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert any(named in line for line in failures)


def test_a_folder_with_nothing_to_check_is_a_failure(tmp_path: Path) -> None:
    assert parity.main([str(tmp_path)]) == 1


def test_what_is_missing_or_unknown_in_a_folder_is_a_failure_and_the_rest_is_still_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in PARITY.iterdir():
        shutil.copy(path, tmp_path)
    values = load_file(tmp_path / "dit_io.safetensors")
    values["latent.surprise"] = values.pop("latent.blocks_odd")
    save_file(values, tmp_path / "dit_io.safetensors")
    extra = load_file(tmp_path / "codec_io.safetensors")
    extra["new_tensor"] = extra["z_q"].clone()
    save_file(extra, tmp_path / "codec_io.safetensors")
    assert parity.main([str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    failures = [line for line in lines if line.startswith("FAIL")]
    assert any("latent.blocks_odd" in line for line in failures)
    assert any("new_tensor is unknown" in line for line in failures)
    assert any("tail short" in line for line in lines)
