"""One picture and one table of the kept records, for the README.

    python -m benchmarks.picture [--results FOLDER] [--picture FILE] [--readme FILE]

Both come from the records alone. The picture is written, the table printed and put into the
README between its markers; with ``--readme ''`` it is only printed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.record import RecordError
from benchmarks.report import BLUE, GREEN, GREY, INK, ORANGE, figure, say, small_png
from benchmarks.results import (
    CONFIDENCE,
    RESULTS,
    Kept,
    against,
    by_series,
    crowds,
    first_sounds,
    load,
    table,
)
from benchmarks.timing import median, median_interval, percentile

BEGIN, END = "<!-- results: python -m benchmarks.picture -->", "<!-- end of results -->"
COLOURS = (BLUE, ORANGE, GREEN, INK, GREY)
PRESETS = ("quality", "equal", "default", "low_mid", "low")  # latest first sound first
DOTS_PER_INCH = 110

Panel = Callable[[Any, Sequence[Kept]], None]


def draw(kept: Sequence[Kept], path: Path) -> None:
    """Write the picture; what there are no records of is left out.

    Raises :class:`RecordError` where nothing is left.
    """
    latency = [each for each in kept if each.name == "latency"]
    first = [each for each in kept if each.name == "first_sound"]
    crowd = [each for each in kept if each.name in ("throughput", "gpu") and crowds(each)]
    wanted: list[tuple[Panel, list[Kept]]] = [
        (_first_sounds, latency),
        (_real_time, latency),
        (_against, first),
        (_crowds, crowd),
    ]
    panels = [(panel, records) for panel, records in wanted if records]
    if not panels:
        raise RecordError("there is no record of latency, first_sound, throughput or gpu to draw")
    fig, places = figure(
        10.0, 3.3 * -(-len(panels) // 2), min(2, len(panels)), -(-len(panels) // 2)
    )
    for axes, (panel, records) in zip(places, panels, strict=False):
        panel(axes, records)
        axes.xaxis.label.set_size("small")
        axes.yaxis.label.set_size("small")
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    shown: dict[str, list[str]] = {}
    for each in (each for _, records in panels for each in records):
        commits = shown.setdefault(each.hardware, [])
        commits += [each.commit] if each.commit not in commits else []
    sources = "; ".join(f"{on}: {', '.join(commits)}" for on, commits in shown.items())
    fig.supxlabel(f"by commit: {sources}", fontsize="small", color=GREY)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(small_png(fig, DOTS_PER_INCH))


def _first_sounds(axes: Any, kept: Sequence[Kept]) -> None:
    _by_preset(axes, kept, lambda each: [1e3 * value for value in first_sounds(each)])
    axes.set_title("First sound, by preset", loc="left", fontsize="medium")
    axes.set_xlabel("ms: median with its 90 % interval; thin: to the 95th percentile")
    axes.set_xlim(left=0)


def _real_time(axes: Any, kept: Sequence[Kept]) -> None:
    _by_preset(axes, kept, lambda each: each.record.values("rtf"))
    axes.set_title("Real-time factor, by preset", loc="left", fontsize="medium")
    axes.set_xlabel("compute time / audio time; below 1: faster than it plays")
    axes.set_xlim(left=0)


def _by_preset(axes: Any, kept: Sequence[Kept], values_of: Callable[[Kept], list[float]]) -> None:
    series = by_series(kept)
    names = list(dict.fromkeys(each.preset for each in kept))
    names.sort(key=lambda name: PRESETS.index(name) if name in PRESETS else len(PRESETS))
    for number, (label, own) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        shift = 0.6 * ((number + 0.5) / len(series) - 0.5)
        for each in own:
            values, row = values_of(each), names.index(each.preset) + shift
            middle, low, high = median_interval(values, CONFIDENCE)
            axes.plot([middle, percentile(values, 95)], [row, row], color=colour, linewidth=1)
            axes.plot([low, high], [row, row], color=colour, linewidth=3)
            axes.plot(middle, row, "o", color=colour, label=label, markersize=6)
            label = "_"  # in the legend once
            axes.annotate(
                f"{middle:.3g}",
                (middle, row),
                textcoords="offset points",
                xytext=(0, 6),
                ha="center",
                fontsize="small",
                color=INK,
            )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.1, -0.6)  # with room for the legend
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", alpha=0.3)
    axes.legend(frameon=False, fontsize="small", loc="lower right")


def _against(axes: Any, kept: Sequence[Kept]) -> None:
    rows = [(each, *row) for each in kept for row in against(each.record)]
    several = len(by_series(kept)) > 1
    for place, (_, _, _, ours, usual, ratio, _) in enumerate(rows):
        axes.barh(place, 100, color=GREY, alpha=0.3, height=0.6)
        axes.barh(place, 100 * ratio, color=BLUE, height=0.6)
        text = f"{ours:.1f} s instead of {usual:.1f} s"
        axes.annotate(text, (102 * ratio, place), va="center", fontsize="small", color=INK)
    names = [
        f"{words}, voice of {voice:g} s" + (f"\n{each.hardware}" if several else "")
        for each, _, words, _, _, _, voice in rows
    ]
    axes.set_yticks(range(len(rows)), names, fontsize="small")
    axes.set_ylim(max(3, len(rows)) - 0.5, -0.5)
    axes.grid(visible=False)
    title = f"Against the usual way ({kept[0].model})" if not several else "Against the usual way"
    axes.set_title(title, loc="left", fontsize="medium")
    axes.set_xlabel("% of the time of the usual way, which ran in turns with ours")


def _crowds(axes: Any, kept: Sequence[Kept]) -> None:
    for number, each in enumerate(kept):
        record, colour = each.record, COLOURS[number % len(COLOURS)]
        loads = crowds(each)
        counts = [count for count, _ in loads]
        ttfb = [record.values("ttfb_s", **factors) for _, factors in loads]
        middle = [median(values) for values in ttfb]
        label = f"{each.model}, {each.hardware}"
        axes.plot(counts, middle, "-", color=colour, label=label)
        late = [percentile(values, 95) for values in ttfb]
        axes.fill_between(counts, middle, late, color=colour, alpha=0.15, linewidth=0)
        for (count, factors), value in zip(loads, middle, strict=True):
            starved = any(record.values("starved_s", **factors))
            face = "white" if starved else colour
            axes.plot(count, value, "o", color=colour, markerfacecolor=face, markersize=6)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    counts_shown = sorted({count for each in kept for count, _ in crowds(each)})
    axes.set_xticks(counts_shown, [str(count) for count in counts_shown])
    axes.set_title("Listeners at once", loc="left", fontsize="medium")
    axes.set_xlabel("listeners who play in real time; hollow: somebody heard a gap")
    axes.set_ylabel("s to first sound\n(median; shaded to p95)")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylim(top=8 * axes.get_ylim()[1])  # room for the legend
    axes.legend(frameon=False, fontsize="small", loc="upper left")


def block(kept: Sequence[Kept], picture: str) -> str:
    """What stands between the markers of the README, markers included."""
    if not kept:
        return f"{BEGIN}\n{END}"
    alt = "First sound and real-time factor by preset, against the usual way, listeners at once"
    return f"{BEGIN}\n![{alt}]({picture})\n\n{table(kept)}\n{END}"


def insert(readme: str, new: str) -> str:
    """``readme`` with ``new`` in place of what its markers hold. Raises :class:`RecordError`."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise RecordError(f"the README must have {BEGIN} and {END} once each")
    before, _, rest = readme.partition(BEGIN)
    return before + new + rest.partition(END)[2]


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status: 2 where there is nothing to show."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.picture", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "results.png")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="'': none")
    args = parser.parse_args(argv)
    try:
        kept = load(args.results)
        if not kept:
            raise RecordError(f"{args.results} holds no records (*.json)")
        draw(kept, args.picture)
        if args.readme != Path():
            shown = args.picture.resolve()
            inside = shown.is_relative_to(ROOT)
            link = shown.relative_to(ROOT).as_posix() if inside else shown.name
            text = insert(args.readme.read_text(encoding="utf-8"), block(kept, link))
            args.readme.write_text(text, encoding="utf-8")
    except RecordError as error:
        say(f"error: {error.message}", sys.stderr)
        return 2
    say(table(kept))
    return 0


if __name__ == "__main__":
    sys.exit(main())
