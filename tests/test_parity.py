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
