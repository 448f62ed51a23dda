"""What a measurement was made with: hardware, driver, versions and the state of the sources."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "numpy", "echo-tts")


def describe_machine() -> dict[str, Any]:
    """Hardware and software, as plain values; what cannot be found out is None."""
    return {**hardware(), **software(), **sources()}


def hardware() -> dict[str, Any]:
    """CPU and GPU; ``load_1m`` tells how busy the machine was with other things."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    properties = torch.cuda.get_device_properties(0) if gpus else None
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": _memory_bytes(),
        "load_1m": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "gpu": properties.name if properties else None,
        "gpus": gpus,
        "gpu_memory_bytes": properties.total_memory if properties else None,
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
    }


def software() -> dict[str, Any]:
    """Versions."""
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        **{name.replace("-", "_"): _version(name) for name in PACKAGES},
    }


@lru_cache(maxsize=1)
def sources() -> dict[str, Any]:
    """The commit, and of a tree with changes of its own a short hash of those (else None).

    A copy without its repository says by ``ECHO_COMMIT`` what it is a copy of.
    """
    changes = _output("git", "diff", "HEAD", "--", ".", ":!benchmarks/results")
    return {
        "commit": _output("git", "rev-parse", "HEAD") or os.environ.get("ECHO_COMMIT"),
        "changes": hashlib.sha256(changes.encode()).hexdigest()[:12] if changes else None,
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    """The first line or all of a diff; None where the program is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
    text = done.stdout.strip()
    if done.returncode != 0 or not text:
        return None
    return text if command[1] == "diff" else text.splitlines()[0]
