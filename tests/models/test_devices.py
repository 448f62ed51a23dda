from __future__ import annotations

import pytest
import torch

from echo.errors import ConfigError
from echo.models.devices import parse_dtype, pick_device


@pytest.mark.parametrize(
    ("names", "dtype"),
    [
        (("bfloat16", "bf16", "BF16"), torch.bfloat16),
        (("float16", "fp16"), torch.float16),
        (("float32", "fp32", " fp32 "), torch.float32),
    ],
)
def test_number_formats_have_long_and_short_names(names: list[str], dtype: torch.dtype) -> None:
    assert [parse_dtype(name) for name in names] == [dtype] * len(names)


def test_an_unknown_number_format_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"model\.codec_dtype is 'int8'.*bfloat16") as error:
        parse_dtype("int8", param="model.codec_dtype")
    assert error.value.param == "model.codec_dtype"


def test_auto_is_the_gpu_if_there_is_one() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert pick_device("auto").type == expected
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:4096", "gpu", "cuda:x", "mps", ""])
def test_a_device_that_is_not_there_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match="choose auto"):
        pick_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_cuda_without_a_gpu_is_an_error_that_says_so() -> None:
    with pytest.raises(ConfigError, match="PyTorch sees 0 CUDA devices"):
        pick_device("cuda")
