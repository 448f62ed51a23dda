"""Records: raw samples in one tidy table, with everything needed to read them later.

``NAME.json`` is the record; ``NAME.parquet`` the same as one flat table, the machine repeated on
every row, so that tables of different machines can simply be put together.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from echo.config import EchoConfig
from echo.config.compose import SECRETS
from echo.errors import EchoError

SCHEMA = 1
LEFT_OUT = (*SECRETS, "voices.shared")  # of the settings: a URL may hold a password
Factor = str | int | float | bool


class RecordError(EchoError):
    """A file that is no record of ours."""


@dataclass(frozen=True)
class Row:
    """One raw sample.

    Attributes:
        metric: what was measured; ``unit`` is s, B, 1/s, FLOP/s, B/s, dB, ratio or count.
        better: ``lower``, ``higher``, or empty for what is neither (a length).
        sample: running number among those of the same metric and factors.
        factors: what was varied (``preset``, ``listeners``, ``stage``, ...).
    """

    metric: str
    value: float
    unit: str
    better: str = "lower"
    sample: int = 0
    factors: Mapping[str, Factor] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """The rows of one run."""

    benchmark: str
    run: str  # unique
    created: str  # UTC, ISO 8601
    seed: int
    machine: Mapping[str, Any]
    config: Mapping[str, Any]  # all settings in force
    rows: tuple[Row, ...]

    @classmethod
    def of(
        cls, benchmark: str, rows: Iterable[Row], *, seed: int, config: Mapping[str, Any]
    ) -> Record:
        """A record of what was just measured here."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        run = f"{now[:19].replace(':', '').replace('-', '')}-{secrets.token_hex(3)}"
        return cls(benchmark, run, now, seed, describe_machine(), config, tuple(rows))

    def values(self, metric: str, **factors: Factor) -> list[float]:
        """Samples of ``metric`` with exactly these values of the named factors."""
        return [
            row.value
            for row in self.rows
            if row.metric == metric
            and all(row.factors.get(name) == value for name, value in factors.items())
        ]

    def levels(self, factor: str, metric: str | None = None) -> list[Any]:
        """The values that ``factor`` takes, in the order of their first appearance."""
        rows = [row for row in self.rows if metric is None or row.metric == metric]
        return list(dict.fromkeys(r.factors[factor] for r in rows if factor in r.factors))

    def write(self, folder: Path, name: str | None = None) -> Path:
        """Write ``NAME.json`` and ``NAME.parquet``; returns the path of the first."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name or f'{self.benchmark}-{self.run}'}.json"
        head = {k: v for k, v in asdict(self).items() if k != "rows"}
        rows = ",\n".join(f"  {json.dumps(asdict(row))}" for row in self.rows)
        text = json.dumps({"schema": SCHEMA, **head}, indent=1)
        partial = path.with_suffix(".partial")
        partial.write_text(f'{text[:-2]},\n "rows": [\n{rows}\n ]\n}}\n', encoding="utf-8")
        _frame([self]).to_parquet(path.with_suffix(".parquet"), index=False)
        partial.replace(path)  # last: a record with its .json is complete
        return path


def read_record(path: Path) -> Record:
    """The record in a ``.json`` file. Raises :class:`RecordError` for anything else."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.pop("schema") != SCHEMA:
            raise RecordError(f"{path} is a record of another version of the benchmarks")
        rows = tuple(Row(**row) for row in raw.pop("rows"))
        return Record(rows=rows, **raw)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RecordError(f"{path} is not a record of the benchmarks ({error})") from error


def read_records(path: Path) -> list[Record]:
    """The record ``path``, or all of a folder, oldest first. Raises :class:`RecordError`."""
    if not path.is_dir():
        return [read_record(path)]
    records = [read_record(file) for file in sorted(path.glob("*.json"))]
    if not records:
        raise RecordError(f"{path} holds no records (*.json)")
    return sorted(records, key=lambda record: record.created)


def plain_config(config: EchoConfig) -> dict[str, Any]:
    """All settings in force; keys, passwords and where voices are shared are left out."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config), default=str))
    for path in LEFT_OUT:
        group, _, key = path.partition(".")
        del plain[group][key]
    return plain


def _frame(records: Sequence[Record]) -> Any:
    import pandas as pd

    flat = []
    for record in records:
        head = {
            "benchmark": record.benchmark,
            "run": record.run,
            "created": record.created,
            "seed": record.seed,
            **record.machine,
            "config": json.dumps(record.config),
        }
        for row in record.rows:
            own = {k: v for k, v in vars(row).items() if k != "factors"}
            factors = {f"factor_{name}": value for name, value in row.factors.items()}
            flat.append({**own, **factors, **head})
    return pd.DataFrame(flat).convert_dtypes()
