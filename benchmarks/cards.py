"""Which card is tuned for: ``conf/gpu``, chosen by what is there, and the setups to try on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

import torch
from omegaconf import OmegaConf

from benchmarks.record import LEFT_OUT, plain_config
from echo.config import EchoConfig, build
from echo.errors import ConfigError

GIB = 2**30
SIZES = {80: "80gb", 48: "48gb", 24: "24gb", 12: "12gb", 8: "8gb", 6: "6gb"}  # by GB on the box
SHOWN = 0.92  # of that; the least that a card shows


@dataclass(frozen=True)
class Card:
    """``conf/gpu/NAME.yaml``: what the device may be asked for.

    ``setups`` are settings of the service that hold for a whole server (number formats,
    compilation), ``KEY=VALUE`` separated by spaces; the fastest that fits is tuned. A limit of
    None is what the preset to beat needs on this machine.
    """

    name: str
    setups: tuple[str, ...]
    memory_gib: float | None  # most that PyTorch may hold of the card, or the process on a CPU
    ttfb_s: float | None
    rtf: float | None


def register_card_resolver() -> None:
    """Make ``${bench.card:}`` known to OmegaConf: the profile of this machine."""
    OmegaConf.register_new_resolver("bench.card", lambda: choose_card(_memory_gib), replace=True)


def choose_card(memory_gib: Callable[[], float | None]) -> str:
    """The largest profile that a card of so many GiB can hold; without a card, ``cpu``.

    A card shows a little less than is written on its box: 24 GB are 23.5 GiB or so. One that is
    smaller than every profile gets the smallest, and then nothing may fit.
    """
    there = memory_gib()
    if there is None:
        return "cpu"
    return next((name for size, name in SIZES.items() if there >= SHOWN * size), SIZES[min(SIZES)])


def with_setup(config: EchoConfig, setup: str) -> EchoConfig:
    """``config`` with ``KEY=VALUE KEY=VALUE``. Raises ConfigError as the command line does."""
    plain = OmegaConf.create(plain_config(config))
    given = OmegaConf.from_dotlist(setup.split())
    merged = OmegaConf.merge(plain, given)
    for path in LEFT_OUT:
        OmegaConf.update(merged, path, attrgetter(path)(config))
    return build(merged)  # type: ignore[arg-type]


def check_card(config: EchoConfig, card: Card) -> None:
    """Raise ConfigError where the card's profile asks for a device that is not there."""
    if config.model.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"gpu={card.name} needs a CUDA device, and there is none; gpu=cpu tunes for this CPU",
            param="gpu",
        )


def _memory_gib() -> float | None:
    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_properties(0).total_memory / GIB
