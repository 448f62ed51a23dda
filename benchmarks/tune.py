"""A preset for this machine: the best sound at no more waiting, computing or memory than allowed.

    python -m benchmarks.tune gpu=auto benchmark.preset_name=mine benchmark.trials=60

First the setups of the card (number format, compilation) are timed, and the fastest that fits is
kept. Then Optuna searches block sizes, steps and guidance for the lowest cost (``scoring.py``)
within the limits, which are what the preset to beat (``preset=default``) needs unless
``conf/gpu`` has others. The best few are judged again on other texts, and the winner speaks a third
set of texts in turn with the preset to beat: that comparison is the result. The preset is written
with it in its header, whichever way it went.

The search is kept in a journal beside the records: an interrupted one goes on where it was.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.app import fingerprint, launch
from benchmarks.cards import GIB, check_card, register_card_resolver, with_setup
from benchmarks.judging import Judge
from benchmarks.latency import factors_of
from benchmarks.machine import describe_machine
from benchmarks.quality import voices_of
from benchmarks.recognition import listeners
from benchmarks.record import Factor, Record, Row, plain_config
from benchmarks.report import figure, save_figure, say, table
from benchmarks.scoring import Scorer, Weights, different_lines
from benchmarks.shapes import preset_path, shape_of, write_preset
from benchmarks.timing import mean_interval, median
from benchmarks.tuning import CONFIDENCE, Found, TuneSettings, hear, tune_engine
from echo.config import EchoConfig, shipped_path
from echo.engine import Engine
from echo.errors import ConfigError

NAME = "tune"
TUNED = "tuned"
SETUP_LINES = 4
GAIN = 0.9  # a setup further down the list must be faster by this
UNJUDGED = Weights(0, 0, 0, 0, 0, 0, 0, 0)
# What may change between two runs of one search: how much is heard, not what is searched.
BUDGET = (
    *("preset_name", "preset_folder", "journals", "trials"),
    *("finalists", "final_lines", "held_out_lines"),
)


def measure(config: EchoConfig, settings: TuneSettings) -> list[Row]:
    """Tune for the machine of ``config`` and write the preset."""
    check_card(config, settings.gpu)
    folder = settings.preset_folder
    path = preset_path(
        settings.preset_name, Path(folder) if folder else shipped_path("conf") / "preset"
    )
    heard_by = listeners(settings.whisper_model)
    setup, rows = fastest_setup(config, settings)
    own = with_setup(config, setup)
    with Engine.from_config(own) as engine:
        engine.warm_up()
        found = tune_engine(engine, settings, heard_by, journal_path(own, settings))
    rows += rows_of(found, factors_of(own))
    write_preset(path, found.winner, header_of(found, own, settings, setup))
    say(f"preset: {path}")
    return rows


def fastest_setup(config: EchoConfig, settings: TuneSettings) -> tuple[str, list[Row]]:
    """Of the setups that fit, the first that no other one is clearly faster than."""
    setups = settings.gpu.setups
    rows, fitting = [], dict[str, float]()
    most = settings.gpu.memory_gib
    for setup in setups if len(setups) > 1 else ():
        own = with_setup(config, setup)
        with Engine.from_config(own) as engine:
            engine.warm_up()
            voices = voices_of(engine, settings.voices)
            (lines,) = different_lines([SETUP_LINES], settings.sentences, voices, settings.seed + 1)
            scorer = Scorer(Judge(engine, (), settings.best_steps), UNJUDGED)
            heard = hear(scorer, lines, shape_of(config.preset))
        if most is None or heard.memory_bytes <= most * GIB:
            fitting[setup] = heard.rtf
        factors: dict[str, Factor] = {"setup": setup}
        for i, score in enumerate(heard.scores):
            rows.append(Row("setup_rtf", score.rtf, "ratio", "lower", i, factors))
        rows.append(Row("setup_ttfb_s", heard.ttfb_s, "s", "lower", 0, factors))
        rows.append(Row("setup_memory", heard.memory_bytes, "B", "lower", 0, factors))
    if len(setups) == 1:
        return setups[0], rows
    if not fitting:
        raise ConfigError(f"no setup of gpu={settings.gpu.name} fits in {most:g} GiB", param="gpu")
    fastest = min(fitting.values())
    return next(name for name, rtf in fitting.items() if rtf * GAIN <= fastest), rows


def journal_path(config: EchoConfig, s: TuneSettings) -> Path:
    """The journal of this search: the same for the same space, lines, limits and machine."""
    own = {name: value for name, value in asdict(s).items() if name not in BUDGET}
    stem = fingerprint({**plain_config(config), "benchmark": own}, describe_machine())
    return Path(s.journals) / f"{NAME}-{stem}.journal"


def rows_of(found: Found, common: dict[str, Factor]) -> Iterator[Row]:
    """Every trial, the limits, and the held-out lines, as raw samples."""
    for trial in found.trials:
        heard = trial.user_attrs
        place: dict[str, Factor] = {**common, "trial": trial.number, **trial.params}
        for name in ("block_sizes", "num_steps"):
            place[name] = ",".join(map(str, heard[name]))
        place |= {"lines": heard["lines"], "fits": all(v <= 0 for v in trial.constraints.values())}
        yield Row("trial_cost", heard["cost"], "ratio", "lower", 0, place)
        yield Row("trial_ttfb_s", heard["ttfb_s"], "s", "lower", 0, place)
        yield Row("trial_rtf", heard["rtf"], "ratio", "lower", 0, place)
        yield Row("trial_memory", heard["memory_bytes"], "B", "lower", 0, place)
    yield Row("limit_ttfb_s", found.limits.ttfb_s, "s", "", 0, common)
    yield Row("limit_rtf", found.limits.rtf, "ratio", "", 0, common)
    for i, pair in enumerate(found.held_out):
        for way, score in zip((found.base.name, TUNED), pair, strict=True):
            place = {**common, "way": way}
            yield Row("held_out_cost", score.cost, "ratio", "lower", i, place)
            yield Row("held_out_ttfb_s", score.ttfb_s, "s", "lower", i, place)
            yield Row("held_out_rtf", score.rtf, "ratio", "lower", i, place)
            for part, value in score.parts.items():
                yield Row("held_out_part", value, "ratio", "lower", i, {**place, "part": part})


def header_of(found: Found, config: EchoConfig, s: TuneSettings, setup: str) -> list[str]:
    """What a reader of the preset must know: for what, with what, at what limits, how good."""
    machine, limits = describe_machine(), found.limits
    rows = list(rows_of(found, {}))
    record = Record.of(NAME, rows, seed=s.seed, config={})
    device = machine["gpu"] if config.model.device.startswith("cuda") else machine["cpu"]
    memory = "no limit" if limits.memory_bytes is None else f"{limits.memory_bytes / GIB:.1f} GiB"
    weights = ", ".join(f"{name} {value:g}" for name, value in asdict(s.weights).items() if value)
    changes = " with changes" if machine["changes"] else ""
    return [
        f"for model {config.model.name} ({config.model.repo}) on gpu={s.gpu.name}: {device},",
        f"{machine['threads']} of {machine['cores']} cores, torch {machine['torch']}, commit "
        f"{str(machine['commit'])[:12]}{changes}, {datetime.now(timezone.utc):%Y-%m-%d}.",
        f"Serve it with: python serve.py preset={s.preset_name} {setup}",
        f"{len(found.trials)} trials. To beat: {found.base.name}, whose needs are the limits that "
        "were not given:",
        f"first sound {1e3 * limits.ttfb_s:.0f} ms, real-time factor {limits.rtf:.2f}, each times "
        f"{s.slack:g}; memory {memory}.",
        f"Held out, {len(found.held_out)} texts, mean and {CONFIDENCE:.0%} interval:",
        *(f"  {line}" for line in _comparison(record).splitlines()),
        verdict(record),
        f"Cost: {weights};",
        "0 is perfect (benchmarks/scoring.py). It is no listener's opinion.",
    ]


def verdict(record: Record) -> str:
    """One sentence: is it better?"""
    base = _base(record)
    mean, low, high = mean_interval(_differences(record, "held_out_cost"), CONFIDENCE)
    what = "better than" if high < 0 else "worse than" if low > 0 else "not shown to differ from"
    return (
        f"Held out, tuned is {what} {base} by its cost: {mean:+.3f} "
        f"({CONFIDENCE:.0%}: {low:+.3f} ... {high:+.3f})."
    )


def report(records: Sequence[Record], picture: Path) -> str:
    """The Pareto front of each record and the held-out comparison; the picture is of the last."""
    parts = []
    for record in records:
        front = [
            (
                row.factors["trial"],
                f"{1e3 * row.value:.0f}",
                f"{cost:.3f}",
                "yes" if row.factors["fits"] else "no",
                row.factors["block_sizes"],
                row.factors["num_steps"],
                f"{row.factors['cfg_min_t']:g}",
                f"{row.factors['truncation_factor']:g}",
            )
            for row, cost in pareto(record)
        ]
        heads = ("trial", "first ms", "cost", "in limits", "blocks", "steps", "min t", "truncation")
        heard = len(record.values("trial_cost"))
        parts += [
            f"Pareto front of {heard} trials, earliest first sound first:",
            table(heads, front),
            "",
            _comparison(record),
            verdict(record),
        ]
    _draw(records[-1], picture)
    return "\n".join(parts)


def pareto(record: Record) -> list[tuple[Row, float]]:
    """The trials' first-sound rows that no other trial beats both in time and cost, with the cost.

    Trials that were not heard to the end, being far too slow, do not count.
    """
    costs = {r.factors["trial"]: r.value for r in record.rows if r.metric == "trial_cost"}
    rows = [r for r in record.rows if r.metric == "trial_ttfb_s"]
    most = max((int(row.factors["lines"]) for row in rows), default=0)
    front: list[tuple[Row, float]] = []
    for row in sorted(rows, key=lambda r: (r.value, costs[r.factors["trial"]])):
        cost = costs[row.factors["trial"]]
        if row.factors["lines"] == most and (not front or cost < front[-1][1]):
            front.append((row, cost))
    return front


def _base(record: Record) -> str:
    return str(next(way for way in record.levels("way") if way != TUNED))


def _differences(record: Record, metric: str, **more: Factor) -> list[float]:
    before, after = (record.values(metric, way=w, **more) for w in (_base(record), TUNED))
    return [b - a for a, b in zip(before, after, strict=True)]


def _comparison(record: Record) -> str:
    ways = (_base(record), TUNED)

    def line(title: str, metric: str, decimals: int, scale: float = 1.0, **more: Any) -> list[str]:
        values = [[scale * v for v in record.values(metric, way=w, **more)] for w in ways]
        change = [scale * v for v in _differences(record, metric, **more)]
        cells = [f"{sum(v) / len(v):.{decimals}f}" for v in values]
        mean, low, high = mean_interval(change, CONFIDENCE)
        span = f"{mean:+.{decimals}f} ({low:+.{decimals}f} ... {high:+.{decimals}f})"
        return [title, *cells, span]

    rows = [line("cost", "held_out_cost", 3)]
    rows += [line(f"  {p}", "held_out_part", 3, part=p) for p in record.levels("part")]
    rows += [line("TTFB ms", "held_out_ttfb_s", 0, 1e3), line("RTF", "held_out_rtf", 2)]
    return table(("held out", *ways, "difference"), rows)


def _draw(record: Record, picture: Path) -> None:
    fig, (left, right) = figure(10.0, 4.2, columns=2)
    costs = {r.factors["trial"]: r.value for r in record.rows if r.metric == "trial_cost"}
    rows = [r for r in record.rows if r.metric == "trial_ttfb_s"]
    for fits, color, name in ((False, "0.75", "over a limit"), (True, "C0", "within the limits")):
        there = [(r.value, costs[r.factors["trial"]]) for r in rows if r.factors["fits"] == fits]
        if there:
            left.scatter(*zip(*((1e3 * t, c) for t, c in there), strict=True), c=color, label=name)
    front = [(1e3 * row.value, cost) for row, cost in pareto(record)]
    left.step(*zip(*front, strict=True), where="post", color="C1", label="Pareto front")
    limit = median(record.values("limit_ttfb_s"))
    left.axvline(1e3 * limit, color="0.5", linestyle=":", label="limit")
    left.set_xlabel("first audio, ms of an idle device")
    left.set_ylabel("cost on the searched texts (less is better)")
    left.legend(frameon=False, fontsize="small")
    for place, way in enumerate((_base(record), TUNED)):
        mean, low, high = mean_interval(record.values("held_out_cost", way=way), CONFIDENCE)
        right.bar(place, mean, 0.5, color=f"C{place}")
        right.errorbar(place, mean, [[mean - low], [high - mean]], color="0.2", capsize=5)
    right.set_xticks((0, 1), (_base(record), TUNED))
    right.set_ylabel("cost on held-out texts, 95 % interval")
    mean, low, high = mean_interval(_differences(record, "held_out_cost"), CONFIDENCE)
    right.set_title(f"difference {mean:+.3f} ({low:+.3f} ... {high:+.3f})", fontsize="medium")
    save_figure(fig, picture)


def main() -> None:
    """The program. ``gpu=3090`` is a name; Hydra would take it for a number."""
    register_card_resolver()
    sys.argv[1:] = [re.sub(r"^gpu=(\d+)$", r"gpu='\1'", given) for given in sys.argv[1:]]
    launch(NAME, TuneSettings, measure)


if __name__ == "__main__":
    main()
