"""What a preset can be made of: the space that is searched, and the file that comes of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from omegaconf import OmegaConf

from echo.config.build import build_group
from echo.config.schema import PresetConfig, SamplerConfig, per_block
from echo.errors import ConfigError
from echo.spec import MAX_LATENTS

MARK = "# Found by python -m benchmarks.tune"
PATCH = 4  # block sizes are multiples of what the model's encoder takes at once
MOST_BLOCKS = 12
NAMES = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Space:
    """``benchmark.space``: lowest and highest value of each."""

    first_latents: tuple[int, ...]
    growth: tuple[float, ...]
    longest_latents: tuple[int, ...]
    first_steps: tuple[int, ...]
    later_steps: tuple[int, ...]
    cfg_min_t: tuple[float, ...]
    scales: tuple[float, ...]
    truncation: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, ends in vars(self).items():
            if len(ends) != 2 or ends[0] > ends[1]:
                raise ConfigError(
                    f"benchmark.space.{name} is {list(ends)}; give the lowest and the highest",
                    param=f"benchmark.space.{name}",
                )


@dataclass(frozen=True)
class Shape:
    """A preset that has no name yet."""

    block_sizes: tuple[int, ...]
    num_steps: tuple[int, ...]
    sampler: Mapping[str, float | None]

    def overrides(self) -> dict[str, Any]:
        """As settings of a request."""
        return {"block_sizes": self.block_sizes, "num_steps": self.num_steps, **self.sampler}


def shape_of(preset: PresetConfig) -> Shape:
    """What ``preset`` is made of."""
    return Shape(preset.block_sizes, preset.num_steps, preset.sampler)


def suggest(trial: optuna.trial.BaseTrial, space: Space, sampler: SamplerConfig) -> Shape:
    """The shape that ``trial`` asks about. ``sampler``: the model's own values."""
    first = trial.suggest_int("first_latents", *space.first_latents, step=PATCH)
    growth = trial.suggest_float("growth", *space.growth, step=0.25)
    longest = trial.suggest_int("longest_latents", *space.longest_latents, step=8 * PATCH)
    first_steps = trial.suggest_int("first_steps", *space.first_steps)
    later_steps = trial.suggest_int("later_steps", *space.later_steps)
    values = {
        "cfg_scale_text": _scaled(trial, "text_scale", space, sampler.cfg_scale_text),
        "cfg_scale_speaker": _scaled(trial, "speaker_scale", space, sampler.cfg_scale_speaker),
        "cfg_min_t": round(trial.suggest_float("cfg_min_t", *space.cfg_min_t, step=0.1), 3),
        "truncation_factor": round(
            trial.suggest_float("truncation_factor", *space.truncation, step=0.05), 3
        ),
    }
    sizes = block_sizes(first, growth, longest)
    return Shape(sizes, (first_steps, *[later_steps] * (len(sizes) - 1)), values)


def starts(preset: PresetConfig, space: Space, sampler: SamplerConfig) -> list[dict[str, Any]]:
    """Points to look at first: about what ``preset`` is, and with shorter later blocks."""
    first, steps = preset.block_sizes[0], preset.num_steps
    truncation = (per_block(sampler.truncation_factor) or (1.0,))[0]
    near = {
        "first_latents": _in_steps(first, space.first_latents, PATCH),
        "growth": _within(4.0, space.growth),
        "longest_latents": space.longest_latents[1],
        "first_steps": int(_within(steps[0], space.first_steps)),
        "later_steps": int(_within(steps[-1] if len(steps) < 2 else steps[1], space.later_steps)),
        "text_scale": _within(1.0, space.scales),
        "speaker_scale": _within(1.0, space.scales),
        "cfg_min_t": _in_steps(sampler.cfg_min_t, space.cfg_min_t, 0.1),
        "truncation_factor": _in_steps(truncation, space.truncation, 0.05),
    }
    shorter = {"growth": _within(1.0, space.growth)}
    more = {"later_steps": space.later_steps[1], "first_steps": near["first_steps"]}
    return [near, {**near, **shorter}, {**near, **shorter, **more}]


def block_sizes(first: int, growth: float, longest: int) -> tuple[int, ...]:
    """Blocks from ``first`` on, each ``growth`` times the one before up to ``longest`` latents.

    They add up to the most latents that one generation can have, in at most 12 blocks.
    """
    sizes: list[int] = []
    size = float(first)
    while (left := MAX_LATENTS - sum(sizes)) > 0:
        step = max(PATCH, round(min(size, max(first, longest)) / PATCH) * PATCH)
        sizes.append(left if step >= left or len(sizes) == MOST_BLOCKS - 1 else step)
        size *= growth
    return tuple(sizes)


def preset_path(name: str, folder: Path) -> Path:
    """Where the preset ``name`` is written. Raises ConfigError where that is not ours to write."""
    path = folder / f"{name}.yaml"
    if not NAMES.fullmatch(name):
        raise ConfigError(
            f"benchmark.preset_name is {name!r}; use a to z, 0 to 9 and _",
            param="benchmark.preset_name",
        )
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):  # to be known before the search
        raise ConfigError(
            f"{folder} can't be written; set benchmark.preset_folder",
            param="benchmark.preset_folder",
        )
    if path.is_file() and not path.read_text(encoding="utf-8").startswith(MARK):
        raise ConfigError(
            f"{path} was not written by this program; choose another benchmark.preset_name",
            param="benchmark.preset_name",
        )
    return path


def write_preset(path: Path, shape: Shape, header: Sequence[str]) -> PresetConfig:
    """Write the preset and read it again, as the service does. ``header``: lines about it."""
    lines = [
        MARK,
        *(f"# {line}".rstrip() for line in header),
        f"name: {path.stem}",
        f"block_sizes: {list(shape.block_sizes)}  # latents of 46.4 ms",
        f"num_steps: {list(shape.num_steps)}",
    ]
    if shape.sampler:
        lines.append("sampler:  # wins over the model's own values")
        lines += [f"  {name}: {_yaml(value)}" for name, value in shape.sampler.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_preset(path)


def read_preset(path: Path) -> PresetConfig:
    """The preset in a file."""
    return build_group(PresetConfig, OmegaConf.load(path), "preset.")  # type: ignore[arg-type]


def _scaled(trial: optuna.trial.BaseTrial, name: str, space: Space, value: float) -> float:
    low, high = space.scales
    return round(value * trial.suggest_float(name, low, high, step=0.125), 3)


def _within(value: float, ends: Sequence[float]) -> float:
    return float(min(max(value, ends[0]), ends[1]))


def _in_steps(value: float, ends: Sequence[float], step: float) -> Any:
    """The point of the grid from ``ends[0]`` on that is nearest to ``value``."""
    count = round((_within(value, ends) - ends[0]) / step)
    nearest = min(ends[0] + count * step, ends[1])
    return int(nearest) if isinstance(step, int) else round(nearest, 6)


def _yaml(value: float | None) -> str:
    return "null" if value is None else f"{value:g}"
