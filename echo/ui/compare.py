"""Comparing: the variants of one text, the pairs of a blind test, and what the votes say."""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo.errors import InvalidRequestError, LimitExceededError, StorageError
from echo.ui.settings import CONTROLS, FLAG

if TYPE_CHECKING:
    from echo.ui.shelf import Clip

MAX_VARIANTS = 12
CONFIDENCE_Z = 1.96  # of a 95 % interval
CHOICES = {"a": "A is better", "b": "B is better", "same": "No difference"}

_votes_lock = threading.Lock()


@dataclass(frozen=True)
class Axis:
    """One thing that is varied. ``key``: voice, seed, preset or a setting; () of values: not."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Variant:
    """One cell of the grid: what differs from the common set-up, and its place."""

    label: str
    row: int
    column: int
    changes: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Match:
    """Two clips to choose between; ``a`` and ``b`` are shuffled, and so is the order of pairs."""

    a: Variant
    b: Variant
    clip_a: Clip
    clip_b: Clip


@dataclass(frozen=True)
class Vote:
    """One answer of a blind test. ``choice``: a, b or same."""

    text: str
    a: str
    b: str
    choice: str
    at: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%S%z"))


@dataclass(frozen=True)
class Standing:
    """How a variant did: ``wins`` of ``decided`` comparisons, and where its share may lie."""

    label: str
    wins: int
    decided: int
    ties: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.wins / self.decided if self.decided else 0.5


def parse_axis(key: str | None, words: Sequence[str] | None) -> Axis | None:
    """An axis of what was picked or typed; None where nothing is varied.

    Raises InvalidRequestError for a value of the wrong kind or no value at all.
    """
    if not key:
        return None
    unique = list(dict.fromkeys(word.strip() for word in words or () if word.strip()))
    if not unique:
        raise InvalidRequestError(f"pick some values of {key} to compare", param=key)
    return Axis(key, tuple(_value(key, word) for word in unique))


def variants(columns: Axis | None, rows: Axis | None) -> list[Variant]:
    """Every cell, row by row.

    Raises InvalidRequestError for fewer than two, or where both axes are the same;
    LimitExceededError for more than MAX_VARIANTS.
    """
    if columns is not None and rows is not None and columns.key == rows.key:
        raise InvalidRequestError(
            f"columns and rows both vary {columns.key}; choose two different things",
            param=rows.key,
        )
    cells = [
        Variant(_label(changes), row, column, changes)
        for row, down in enumerate(_steps(rows))
        for column, across in enumerate(_steps(columns))
        for changes in [{**across, **down}]
    ]
    if len(cells) < 2:
        raise InvalidRequestError("there is one variant only; pick at least two values")
    if len(cells) > MAX_VARIANTS:
        raise LimitExceededError(
            f"these are {len(cells)} variants; at most {MAX_VARIANTS} are compared at once"
        )
    return cells


def draw_matches(
    made: Sequence[tuple[Variant, Clip]], chance: random.Random | None = None
) -> list[Match]:
    """Every pair once, in random order, sides at random."""
    chance = chance or random.SystemRandom()
    pairs = list(itertools.combinations(made, 2))
    chance.shuffle(pairs)
    matches = []
    for pair in pairs:
        (a, clip_a), (b, clip_b) = chance.sample(pair, 2)
        matches.append(Match(a, b, clip_a, clip_b))
    return matches


def standings(votes: Sequence[Vote]) -> list[Standing]:
    """How each variant did, best first. Ties are counted and decide nothing."""
    if not votes:
        return []
    import pandas as pd

    table = votes_table(votes)
    sides = [
        table.assign(label=table[side], won=table["choice"] == side)[["label", "won", "choice"]]
        for side in ("a", "b")
    ]
    found = []
    for label, rows in pd.concat(sides).groupby("label"):
        ties = int((rows["choice"] == "same").sum())
        wins, decided = int(rows["won"].sum()), len(rows) - ties
        found.append(Standing(str(label), wins, decided, ties, *wilson(wins, decided)))
    return sorted(found, key=lambda each: (-each.share, each.label))


def wilson(wins: int, decided: int, z: float = CONFIDENCE_Z) -> tuple[float, float]:
    """The score interval of a share (Wilson, 1927): (low, high); (0, 1) where nothing is known."""
    if decided == 0:
        return 0.0, 1.0
    p, weight = wins / decided, z * z / decided
    centre = (p + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(p * (1 - p) / decided + weight / (4 * decided))
    return max(0.0, centre - half), min(1.0, centre + half)


def votes_table(votes: Sequence[Vote]) -> Any:
    """A pandas DataFrame with one row per vote: at, text, a, b, choice."""
    import pandas as pd

    return pd.DataFrame(
        [asdict(vote) for vote in votes], columns=["at", "text", "a", "b", "choice"]
    )


def save_vote(vote: Vote, path: str) -> None:
    """Add a line to the CSV at ``path``. Raises StorageError where that can't be written."""
    file = Path(path)
    try:
        with _votes_lock:
            file.parent.mkdir(parents=True, exist_ok=True)
            votes_table([vote]).to_csv(file, mode="a", header=not file.exists(), index=False)
    except OSError as error:
        raise StorageError(
            f"the vote is counted, but {path} can't be written: {error.strerror}"
        ) from error


def _steps(axis: Axis | None) -> list[dict[str, Any]]:
    return [{axis.key: value} for value in axis.values] if axis is not None else [{}]


def _label(changes: Mapping[str, Any]) -> str:
    return " · ".join(f"{_NAMES.get(key, key)} {_shown(value)}" for key, value in changes.items())


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _value(key: str, word: str) -> Any:
    if key in ("voice", "preset"):
        return word
    kind = _KINDS.get(key)
    if kind == FLAG:
        if word not in ("on", "off"):
            raise InvalidRequestError(f"{key} is {word[:40]!r}; it is on or off", param=key)
        return word == "on"
    try:
        return int(word) if key == "seed" else float(word)
    except ValueError:
        raise InvalidRequestError(f"{key} is {word[:40]!r}; give numbers", param=key) from None


_KINDS = {control.key: control.kind for control in CONTROLS}
_NAMES = {control.key: control.label.lower() for control in CONTROLS}
