"""What makes a measuring function a Hydra program on Echo's own settings.

    python -m benchmarks.NAME [-m] [preset=low,equal] [benchmark.KEY=VALUE]

One job is one record in ``benchmark.out``. A sweep can be interrupted and started again: what is
there already, of the same settings, sources and machine, is not measured again. Any Hydra launcher
(joblib, submitit, Ray) works, as jobs share nothing but that folder.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from benchmarks.machine import describe_machine
from benchmarks.record import Record, Row, plain_config, read_record
from benchmarks.report import say
from echo.config import EchoConfig, build, prefer_command_line, register_resolvers, shipped_path
from echo.config.build import build_group
from echo.engine.threads import default_threads
from echo.errors import ConfigError, EchoError

T = TypeVar("T")
Measure = Callable[[EchoConfig, T], Sequence[Row]]

POINTER = "record.txt"  # in a job's own folder: where its record lies
COMMON = ("name", "out", "resume")
# Not the threads of PyTorch: the jobs of a sweep share a process, so they may be the last one's.
SAME_MACHINE = ("cpu", "cores", "gpu", "gpus", "driver", "torch", "commit", "changes")


def launch(name: str, settings: type[T], measure: Measure[T]) -> None:
    """Run ``measure`` on the settings of ``conf/benchmark_NAME.yaml`` and the command line.

    ``benchmarks.NAME`` must have ``report(records, picture) -> str``, shown at the end of a run or
    sweep. Errors of ours are one line, and end the program: status 2 for wrong settings, else 1.
    """
    register_resolvers()

    def job(cfg: DictConfig) -> None:
        folder = Path(HydraConfig.get().runtime.output_dir)
        try:
            path = run_job(name, cfg, settings, measure)
        except EchoError as error:
            say(f"error: {error.message}", sys.stderr)
            sys.exit(2 if isinstance(error, ConfigError) else 1)
        (folder / POINTER).write_text(str(path.resolve()), encoding="utf-8")
        if not _is_sweep():
            show(name, [path], folder)

    main = hydra.main(
        config_path=str(shipped_path("conf")), config_name=f"benchmark_{name}", version_base="1.3"
    )
    main(job)()


def run_job(name: str, cfg: DictConfig, settings: type[T], measure: Measure[T]) -> Path:
    """Measure what ``cfg`` says, or find that this was done; returns the record's path."""
    prefer_command_line(cfg, HydraConfig.get().overrides.task)
    own = OmegaConf.to_container(cfg.benchmark, resolve=True)
    config = build(OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "benchmark"]))
    assert isinstance(own, dict)
    wanted = build_group(settings, _without(OmegaConf.create(own), COMMON), "benchmark.")
    described = {**plain_config(config), "benchmark": _public(own)}
    out = Path(cfg.benchmark.out)
    stem = f"{name}-{fingerprint(described, describe_machine())}"
    path = out / f"{stem}.json"
    same_subject = not own.get("url")  # what a server answers tells nothing of its sources
    if cfg.benchmark.resume and same_subject and path.is_file():
        say(f"measured already: {path}", sys.stderr)
        return path
    rows = measure(config, wanted)
    record = Record.of(name, rows, seed=int(cfg.benchmark.seed), config=described)
    return record.write(out, stem)


def fingerprint(config: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    """The same for the same settings, sources and machine."""
    own = {k: v for k, v in config["benchmark"].items() if k not in ("out", "resume")}
    same = {name: machine.get(name) for name in SAME_MACHINE}
    same["threads"] = config.get("engine", {}).get("cpu_threads") or default_threads()
    text = json.dumps([{**config, "benchmark": own}, same], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def show(name: str, paths: Sequence[Path], folder: Path) -> None:
    """The report of these records on stdout, and its picture in ``folder``."""
    records = [read_record(path) for path in paths]
    picture = folder / f"{name}.png"
    say(import_module(f"benchmarks.{name}").report(records, picture))
    for path in paths:
        say(f"record: {path}")
    say(f"picture: {picture}")


class ShowSweep(Callback):
    """At the end of a multirun: the report over all its jobs."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        pointers = sorted(folder.glob(f"*/{POINTER}"), key=lambda path: path.stat().st_mtime)
        paths = [Path(pointer.read_text(encoding="utf-8")) for pointer in pointers]
        if paths:
            show(str(config.benchmark.name), paths, folder)


def _is_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def _public(own: dict[Any, Any]) -> dict[str, Any]:
    return {str(k): v for k, v in own.items() if k != "api_key"}


def _without(node: DictConfig, names: Sequence[str]) -> DictConfig:
    return OmegaConf.masked_copy(node, [str(key) for key in node if key not in names])
