"""What got better or worse from record A to record B.

    python -m benchmarks.compare A B [--limit 1.1] [--confidence 0.99]

A and B are records or folders of records. A metric counts as worse when the whole bootstrap
interval of its ratio lies beyond the limit: noise alone seldom gets there. Decibels, error rates
and gaps have no ratio; of those the difference of the means counts (``--limit-db``,
``--limit-rate``, ``--limit-gap``). Exits 1 if any is worse, 2 if there is nothing to compare.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.record import Record, RecordError, Row, read_records
from benchmarks.report import say, table

RESAMPLES = 4000
FEWEST = 5  # samples on either side: of fewer all may lie on one side by chance, 1 in 20 of 3
STEADY_UNITS = ("B",)  # deterministic enough to be judged by a single value
POOLED = ("voice", "text")  # factors of a quality record that its samples are put together over

VERDICTS = ("worse", "better", "same", "not judged")
Key = tuple[str, str, tuple[tuple[str, object], ...]]


@dataclass(frozen=True)
class Change:
    """One metric in A and B: medians, or means where ``absolute``.

    ``change``: cost of B over cost of A, so above 1 is worse whichever way the metric points; or,
    where ``absolute``, cost of B less that of A. ``low``, ``high``: its interval. ``verdict``:
    worse, better, same, or not judged.
    """

    name: str
    unit: str
    a: float
    b: float
    change: float
    low: float
    high: float
    verdict: str
    absolute: bool = False

    @property
    def size(self) -> float:
        """To sort by: 0 is no change."""
        return abs(self.change) if self.absolute else abs(float(np.log(self.change or 1.0)))


@dataclass(frozen=True)
class Bounds:
    """Worse beyond these, with the whole interval of ``confidence``.

    ``ratio``: a factor. ``rate``: a difference of rates that can be 0, such as word errors;
    ``gap_s``: of seconds that can be, such as silence that a listener hears.
    """

    ratio: float
    confidence: float
    db: float = 1.0
    rate: float = 0.05
    gap_s: float = 0.05

    def of_difference(self, row: Row, values: np.ndarray) -> float | None:
        """The limit of a metric that is judged by its difference; None: by its ratio."""
        if row.unit == "dB":
            return self.db
        return {"ratio": self.rate, "s": self.gap_s}.get(row.unit) if values.min() <= 0 else None


def compare(
    a: Iterable[Record], b: Iterable[Record], *, limit: float, confidence: float, **more: float
) -> list[Change]:
    """Changes of all metrics that both sides have, the worst first.

    ``more``: ``db``, ``rate`` and ``gap_s`` of :class:`Bounds`. Metrics with no direction are left
    out; counts and bytes that are zero somewhere have no ratio and are not judged.
    """
    bounds = Bounds(limit, confidence, **more)
    left, right = _grouped(a), _grouped(b)
    rng = np.random.default_rng(0)
    changes = []
    for key in left:
        if key not in right:
            continue
        row = left[key][0]
        x, y = (np.array([r.value for r in side[key]]) for side in (left, right))
        changes.append(_change(key, row, x, y, bounds, rng))
    return sorted(changes, key=lambda c: (VERDICTS.index(c.verdict), -c.size))


def _change(
    key: Key,
    row: Row,
    a: np.ndarray,
    b: np.ndarray,
    bounds: Bounds,
    rng: np.random.Generator,
) -> Change:
    name = " ".join((f"{key[0]}.{key[1]}", *(f"{n}={v}" for n, v in key[2])))
    most = bounds.of_difference(row, np.concatenate((a, b)))
    if most is not None:
        return _difference(name, row, a, b, most, bounds.confidence, rng)
    limit, confidence = bounds.ratio, bounds.confidence
    middle_a, middle_b = float(np.median(a)), float(np.median(b))
    if min(a.min(), b.min()) <= 0:
        return Change(name, row.unit, middle_a, middle_b, 1.0, np.nan, np.nan, "not judged")
    up = row.better == "lower"
    ratio = middle_b / middle_a if up else middle_a / middle_b
    if min(len(a), len(b)) >= FEWEST:
        drawn = _medians(b, rng) / _medians(a, rng)
        drawn = drawn if up else 1 / drawn
        tail = (1 - confidence) / 2
        low, high = (float(q) for q in np.quantile(drawn, (tail, 1 - tail)))
    elif row.unit in STEADY_UNITS:
        low = high = ratio
    else:
        return Change(name, row.unit, middle_a, middle_b, ratio, np.nan, np.nan, "not judged")
    verdict = "worse" if low > limit else "better" if high < 1 / limit else "same"
    return Change(name, row.unit, middle_a, middle_b, ratio, low, high, verdict)


def _difference(
    name: str,
    row: Row,
    a: np.ndarray,
    b: np.ndarray,
    limit: float,
    confidence: float,
    rng: np.random.Generator,
) -> Change:
    sign = 1.0 if row.better == "lower" else -1.0
    means = float(a.mean()), float(b.mean())
    change = sign * (means[1] - means[0])
    if min(len(a), len(b)) < FEWEST:
        return Change(name, row.unit, *means, change, np.nan, np.nan, "not judged", True)
    drawn = sign * (_drawn(b, rng).mean(axis=1) - _drawn(a, rng).mean(axis=1))
    tail = (1 - confidence) / 2
    low, high = (float(q) for q in np.quantile(drawn, (tail, 1 - tail)))
    verdict = "worse" if low > limit else "better" if high < -limit else "same"
    return Change(name, row.unit, *means, change, low, high, verdict, True)


def _medians(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.median(_drawn(values, rng), axis=1)


def _drawn(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[RESAMPLES, n]: as many values again, drawn from them."""
    return values[rng.integers(0, len(values), size=(RESAMPLES, len(values)))]


def _grouped(records: Iterable[Record]) -> dict[Key, list[Row]]:
    groups: dict[Key, list[Row]] = {}
    for record in records:
        for row in record.rows:
            if row.better:
                pooled = POOLED if record.benchmark == "quality" else ()
                factors = tuple(sorted((n, v) for n, v in row.factors.items() if n not in pooled))
                groups.setdefault((record.benchmark, row.metric, factors), []).append(row)
    return groups


def _names(records: Iterable[Record]) -> set[str]:
    return {f"{each.benchmark}.{row.metric}" for each in records for row in each.rows if row.better}


def _differences(a: Sequence[Record], b: Sequence[Record]) -> list[str]:
    """What else changed and may be the reason."""
    names = ("cpu", "cores", "threads", "gpu", "driver", "torch", "commit", "changes")
    lines = []
    for name in names:
        old, new = ({str(r.machine.get(name)) for r in side} for side in (a, b))
        if old != new:
            lines.append(f"{name}: {', '.join(sorted(old))} -> {', '.join(sorted(new))}")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("a", type=Path, help="record or folder: before")
    parser.add_argument("b", type=Path, help="record or folder: after")
    parser.add_argument("--limit", type=float, default=1.1, help="worse beyond this factor")
    parser.add_argument("--limit-db", type=float, default=1.0, help="of a difference in dB")
    parser.add_argument("--limit-rate", type=float, default=0.05, help="of error rates")
    parser.add_argument("--limit-gap", type=float, default=0.05, help="of gaps, in seconds")
    parser.add_argument("--confidence", type=float, default=0.99, help="of the intervals")
    args = parser.parse_args(argv)
    if not args.limit >= 1 or not 0 < args.confidence < 1:
        parser.error("--limit must be at least 1 and --confidence between 0 and 1")
    if not min(args.limit_db, args.limit_rate, args.limit_gap) >= 0:
        parser.error("--limit-db, --limit-rate and --limit-gap must be at least 0")
    try:
        a, b = read_records(args.a), read_records(args.b)
    except RecordError as error:
        say(f"error: {error.message}", sys.stderr)
        return 2
    changes = compare(
        a,
        b,
        limit=args.limit,
        confidence=args.confidence,
        db=args.limit_db,
        rate=args.limit_rate,
        gap_s=args.limit_gap,
    )
    if not changes:
        say("error: the two have no metric in common", sys.stderr)
        return 2
    for line in _differences(a, b):
        say(line)
    rows = [
        (c.verdict, c.name, f"{c.a:.4g}", f"{c.b:.4g}", c.unit, _shown(c, c.change), _interval(c))
        for c in changes
    ]
    say(table(("", "metric", "A", "B", "", "cost B/A or B-A", "interval"), rows))
    say(", ".join(f"{sum(c.verdict == v for c in changes)} {v}" for v in VERDICTS))
    for name in sorted(_names(a) - _names(b)):
        say(f"only in A: {name}")
    return 1 if any(change.verdict == "worse" for change in changes) else 0


def _interval(change: Change) -> str:
    if np.isnan(change.low):
        return ""
    return f"{_shown(change, change.low)} ... {_shown(change, change.high)}"


def _shown(change: Change, value: float) -> str:
    return f"{value:+.3f}" if change.absolute else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
