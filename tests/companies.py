"""Companies of requests that share a pass, and a recorder that needs no GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from echo.models.dit import EchoDiT
from echo.models.layer_kv import row_context
from echo.models.passes import Passes
from echo.sampling.packing import StepRequest, velocities
from echo.sampling.schedule import StepTables

# (latents, text, voice latents, start, guided) of the requests that share a pass
COMPANIES: list[list[tuple[int, int, int, int, bool]]] = [
    [(8, 5, 12, 0, True)],
    [(8, 5, 12, 0, False)],
    [(1, 5, 0, 0, False)],
    [(30, 60, 0, 6, True), (5, 17, 40, 0, True), (1, 8, 12, 9, False)],
    [(7, 9, 12, 4, False), (33, 9, 12, 4, False)],
    [(3, 4, 8, 0, True)] * 9,
    [(2, 5, 12, 0, False)],
]


def requests_of(model: EchoDiT, company: Sequence[tuple[int, ...]]) -> list[StepRequest]:
    generator = torch.Generator().manual_seed(3)
    tables, made = StepTables(model), []
    for i, (size, text, voice, start, guided) in enumerate(company):
        ids = torch.randint(1, 250, (1, text), generator=generator).to(model.device)
        spoken = model.encode_text(ids)
        latent = torch.randn((1, voice, 80), generator=generator).to(model.device)
        speaker = model.encode_speaker(latent) if voice else None
        prefix = None
        if start:
            before = torch.randn((1, start, 80), generator=generator).to(model.device)
            _, prefix = model.extend_prefix(None, before)
        layers = len(model.blocks)
        contexts = [row_context(layers, prefix, spoken, speaker)]
        if guided:
            contexts += [row_context(layers, prefix, speaker), row_context(layers, prefix, spoken)]
        x = torch.randn((1, size, 80), generator=generator).to(model.device)
        modulation = tables.get(11, 0.999).modulations[i % 11]
        rope = tables.rope(start, size)
        made.append(StepRequest(model, x, modulation, rope, tuple(contexts)))
    return made


@torch.inference_mode()
def spoken_by(model: EchoDiT, passes: Passes) -> list[Tensor]:
    """What every company is answered, one after the other."""
    model.passes = passes
    return [v for company in COMPANIES for v in velocities(requests_of(model, company))]


def assert_same(ours: list[Tensor], expected: list[Tensor], tolerance: float = 1e-4) -> None:
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


class Recording:
    """Stands for a CUDA graph: the work again, counted, on the same memory."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        work()

        def replay() -> None:
            self.replayed += 1
            with torch.inference_mode():
                work()

        return replay
