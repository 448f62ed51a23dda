"""How many threads PyTorch should use where the configuration leaves it open."""

from __future__ import annotations

import os
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(cpus: Path = CPUS, quota: Path = QUOTA) -> int:
    """Physical cores that this process may use, at least 1.

    Of the CPUs that it may run on, those that share a core count once (a second hardware thread
    adds nothing to matrix products), and no more than a container's CPU quota. What the system
    does not tell is left out of the count.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
    else:
        allowed = set(range(os.cpu_count() or 1))
    cores = {_core(cpus, cpu) for cpu in allowed}
    limit = _quota(quota)
    return max(1, len(cores) if limit is None else min(len(cores), limit))


def _core(cpus: Path, cpu: int) -> str:
    """The CPUs of its core, as the kernel lists them; else itself."""
    siblings = cpus / f"cpu{cpu}" / "topology" / "thread_siblings_list"
    return siblings.read_text().strip() if siblings.is_file() else str(cpu)


def _quota(path: Path) -> int | None:
    """Whole CPUs of the control group (version 2), or None for no limit."""
    limit, _, period = (
        path.read_text().strip().partition(" ") if path.is_file() else ("max", "", "")
    )
    return int(limit) // int(period) if limit != "max" else None
