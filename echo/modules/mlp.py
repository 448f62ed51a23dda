"""Feed-forward layers."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from echo.modules.fusing import FusedProjections
from echo.modules.linear import apply_weight


class SwiGLU(FusedProjections):
    """``w2(silu(w1 x) * w3 x)``, no bias (arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)
        self.w3 = nn.Linear(width, hidden, bias=False)

    def linears(self) -> tuple[nn.Linear, ...]:
        return self.w1, self.w3

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.project(x)
        return apply_weight(F.silu(gate) * value, self.w2.weight)
