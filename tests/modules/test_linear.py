"""The product is the same whichever way round it is taken."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from echo.modules.linear import FEW_ROWS, apply_weight


@pytest.mark.parametrize("shape", [(1,), (5,), (2, 3), (FEW_ROWS - 1,), (FEW_ROWS,), (2, FEW_ROWS)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_is_the_product_of_torch(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, 24, generator=generator).to(dtype)
    weight = torch.randn(40, 24, generator=generator).to(dtype)
    ours, expected = apply_weight(x, weight), F.linear(x, weight)
    assert ours.shape == expected.shape
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, expected)


def test_few_rows_of_a_cpu_in_bfloat16_are_taken_the_other_way_round() -> None:
    few, many = torch.randn(FEW_ROWS - 1, 8).bfloat16(), torch.randn(FEW_ROWS, 8).bfloat16()
    weight = torch.randn(16, 8).bfloat16()
    assert apply_weight(few, weight).stride() == (1, FEW_ROWS - 1)
    assert apply_weight(many, weight).is_contiguous()
    assert apply_weight(few.float(), weight.float()).is_contiguous()
