"""Where speech ends: the model emits near-zero latents after the last word."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from echo.config.schema import SamplerConfig
from echo.spec import END_MEAN, END_STD, END_WINDOW_LATENTS


def find_end_point(
    latent: Tensor,
    *,
    target: float = 0.0,
    window: int = END_WINDOW_LATENTS,
    max_std: float = END_STD,
) -> int:
    """First latent of ``latent`` [N, 80] from which a whole window is flat (model.md §7); else N.

    Flat: over all values of the window the unbiased standard deviation is below ``max_std`` and
    the mean within 0.1 of ``target``. A window of zeros is appended, so the last words can end
    at the very end.
    """
    if latent.shape[0] == 0:
        return 0
    padded = F.pad(latent.float(), (0, 0, 0, window))
    windows = padded.unfold(0, window, 1)[: latent.shape[0]].flatten(1)
    flat = (windows.std(dim=1) < max_std) & ((windows.mean(dim=1) - target).abs() < END_MEAN)
    found = torch.nonzero(flat)
    return int(found[0]) if len(found) else latent.shape[0]


def ends_in_zeros(latent: Tensor, settings: SamplerConfig) -> bool:
    """Early stop (service.md §1): the tail of a block ``latent`` [N, 80] is practically zero.

    In the last ``zero_tail_frames`` at least ``zero_tail_min_frac`` of the values are within
    ± ``zero_eps`` and none exceeds ± ``zero_tail_absmax``. A block shorter than the tail is
    judged whole.
    """
    size = latent[-settings.zero_tail_frames :].abs()
    still = (size <= settings.zero_eps).float().mean() >= settings.zero_tail_min_frac
    return bool(still & (size.max() <= settings.zero_tail_absmax))
