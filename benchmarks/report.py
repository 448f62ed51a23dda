"""Tables and pictures for people."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

INK, GREY = "#22303c", "#8a94a3"
BLUE, ORANGE, GREEN = "#2a6f97", "#e07a2f", "#4f9d69"  # told apart by light as well as by hue


def say(text: str, to: TextIO | None = None) -> None:
    """One line or table on stdout."""
    (to or sys.stdout).write(f"{text}\n")


def integers(text: str) -> tuple[int, ...]:
    """``8,16`` of a command line."""
    return tuple(int(part) for part in text.split(","))


def decimals(text: str) -> tuple[float, ...]:
    """``10,2.5`` of a command line."""
    return tuple(float(part) for part in text.split(","))


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as they must be; what looks like a number stands to the right."""
    cells = [[str(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    numeric = [all(_is_number(row[i]) for row in cells[1:]) for i in range(len(heads))]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join((lines[0], "  ".join("-" * width for width in widths), *lines[1:]))


def _is_number(cell: str) -> bool:
    return not cell or cell[0] in "0123456789.-+<" or cell == "nan"


def figure(
    width: float = 8.0, height: float = 4.5, columns: int = 1, rows: int = 1
) -> tuple[Any, list[Any]]:
    """A matplotlib figure that needs no screen, and its axes, row by row."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout="constrained")
    axes = [fig.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(axis="y", alpha=0.3)
        each.set_axisbelow(True)
    return fig, axes


def small_png(fig: Any, dots_per_inch: int) -> bytes:
    """``fig`` as a PNG of 64 colours, without the version of what drew it: a third of the size."""
    from PIL import Image  # matplotlib needs it, too

    drawn, small = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, dpi=dots_per_inch)
    image = Image.open(drawn).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    image.save(small, "PNG", optimize=True)
    return small.getvalue()


def save_figure(fig: Any, path: Path) -> Path:
    """Write ``fig`` as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=120)
    return path
