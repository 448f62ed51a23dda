"""One training loop for every network: resumable, timed, with its curve on disk.

Length is given in steps or minutes of training, whichever ends first. Minutes count over all runs
together, so a stage that is cut into slices anneals its learning rate as one run would.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from echo.training.checkpoints import load_state, save_state

_REPORT_SECONDS = 15.0
Say = Callable[[str], None]
LossOf = Callable[[int, float], Mapping[str, Tensor]]  # step, progress 0..1 -> "loss" and more


@dataclass(frozen=True)
class Schedule:
    """How long, how fast, how often written down."""

    steps: int
    minutes: float
    slice_minutes: float  # stop, with a checkpoint, after this much of one run; 0: never
    learning_rate: float
    warmup_steps: int
    checkpoint_seconds: float
    ema: float  # decay of the averaged weights per step
    clip: float = 1.0
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01


@dataclass
class Progress:
    """Where a stage stands; part of its checkpoint."""

    step: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)


class Averaged:
    """Exponential moving average of trainable parameters, float32."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {
            name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad
        }

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        # Young averages are short, or they would remember the random start.
        decay = min(self.decay, (1 + step) / (10 + step))
        own = dict(module.named_parameters())
        kept = list(self.values.values())
        torch._foreach_lerp_(kept, [own[name].detach() for name in self.values], 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        own = dict(module.named_parameters())
        for name, value in self.values.items():
            own[name].copy_(value)


class TrainingLoop:
    """Runs ``loss_of`` to the end of its schedule, or of this slice.

    Args:
        folder: of this stage: checkpoint, ``curve.csv`` and ``curve.png``.
        module: its trainable parameters are trained.
        seed: of everything random; step ``i`` draws from ``seed`` and ``i``, so a resumed run
            sees what an unbroken one would.
    """

    def __init__(
        self,
        folder: Path,
        module: nn.Module,
        schedule: Schedule,
        *,
        seed: int,
        say: Say,
        muon: bool = False,
    ) -> None:
        self.folder = folder
        self.module = module
        self.schedule = schedule
        self.seed = seed
        self.say = say
        self.progress = Progress()
        self.optimizers = _optimizers(module, schedule, muon)
        self.averaged = Averaged(module, schedule.ema)
        self._resume()

    @property
    def done(self) -> float:
        """How much of the schedule is behind, 0..1."""
        s, p = self.schedule, self.progress
        return min(1.0, max(p.step / s.steps, p.seconds / 60 / s.minutes))

    @property
    def finished(self) -> bool:
        return self.done >= 1.0

    def run(self, loss_of: LossOf) -> bool:
        """Train; True when the schedule is through, False where the slice ended first."""
        s = self.schedule
        began = spoke = saved = last = time.monotonic()
        sums: dict[str, list[float]] = {}
        while not self.finished:
            torch.manual_seed(self.seed * 1_000_003 + self.progress.step)
            values = self._step(loss_of)
            now = time.monotonic()
            self.progress.seconds += now - last
            last = now
            for name, value in values.items():
                sums.setdefault(name, []).append(value)
            if now - spoke > _REPORT_SECONDS or self.finished:
                self._report({name: sum(each) / len(each) for name, each in sums.items()})
                sums, spoke = {}, now
            if now - saved > s.checkpoint_seconds:
                self.save()
                saved = last = time.monotonic()
            if s.slice_minutes and now - began > s.slice_minutes * 60:
                break
        self.save()
        return self.finished

    def rate(self) -> float:
        """Learning rate of the next step: warm-up, then a cosine down to 2 %."""
        s = self.schedule
        warm = min(1.0, (self.progress.step + 1) / max(1, s.warmup_steps))
        return s.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.done)))

    def save(self) -> None:
        """Checkpoint and curve, now."""
        state = {
            "step": self.progress.step,
            "seconds": self.progress.seconds,
            "curve": self.progress.curve,
            "module": self.module.state_dict(),
            "optimizers": [each.state_dict() for each in self.optimizers],
            "averaged": self.averaged.values,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        save_state(self.folder / "checkpoint", state)
        write_curve(self.folder / "curve.csv", self.progress.curve)

    def _resume(self) -> None:
        state = load_state(self.folder / "checkpoint")
        if state is None:
            return
        self.module.load_state_dict(state["module"])
        for each, saved in zip(self.optimizers, state["optimizers"], strict=True):
            each.load_state_dict(saved)
        self.averaged.values = state["averaged"]
        self.progress = Progress(state["step"], state["seconds"], state["curve"])
        self.say(f"resumed at step {self.progress.step}, {self.done:.0%} done")

    def _step(self, loss_of: LossOf) -> dict[str, float]:
        rate = self.rate()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        values = loss_of(self.progress.step, self.done)
        self.module.zero_grad(set_to_none=True)
        values["loss"].backward()
        norm = nn.utils.clip_grad_norm_(
            [p for p in self.module.parameters() if p.grad is not None], self.schedule.clip
        )
        if torch.isfinite(norm):  # one bad batch must not end a run of hours
            for optimizer in self.optimizers:
                optimizer.step()
            self.averaged.update(self.module, self.progress.step)
        self.progress.step += 1
        return {name: float(value.detach()) for name, value in values.items()} | {
            "grad": float(norm)
        }

    def _report(self, means: dict[str, float]) -> None:
        p = self.progress
        p.curve.append({"step": float(p.step), "minutes": p.seconds / 60, **means})
        done = self.done
        left = p.seconds / done * (1 - done) if done else 0.0
        shown = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
        self.say(f"step {p.step}  {shown}  {done:.0%}  {left / 60:.1f} min left")


def _optimizers(module: nn.Module, schedule: Schedule, muon: bool) -> list[torch.optim.Optimizer]:
    """AdamW; ``muon``: Muon (scaled to AdamW's rates) for the matrices inside the blocks."""
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    inner = {
        name
        for name, p in named
        if muon and p.ndim == 2 and ".blocks." in f".{name}" and "adaln" not in name
    }
    matrices = [p for name, p in named if name not in inner and p.ndim >= 2]
    rest = [p for name, p in named if name not in inner and p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": schedule.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=schedule.learning_rate, betas=schedule.betas)
    ]
    if inner:
        optimizers.append(
            torch.optim.Muon(
                [p for name, p in named if name in inner],
                lr=schedule.learning_rate,
                weight_decay=schedule.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return optimizers


def write_curve(path: Path, rows: list[dict[str, float]]) -> None:
    """``path`` as CSV."""
    if not rows:
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows({name: round(value, 5) for name, value in row.items()} for row in rows)


def draw_curve(path: Path, rows: list[dict[str, Any]], title: str) -> None:
    """The losses over minutes as a PNG at ``path``."""
    from matplotlib.figure import Figure  # of the extra `train` alone

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name in (n for n in rows[-1] if n not in ("step", "minutes", "grad")):
        axes.plot(
            [r["minutes"] for r in rows if name in r],
            [r[name] for r in rows if name in r],
            label=name,
        )
    axes.set(xlabel="minutes", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=100)
