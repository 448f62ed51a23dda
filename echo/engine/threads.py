"""How many threads PyTorch should use where the configuration leaves it open."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

CPUS = Path("/sys/devices/system/cpu")
GROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")


def default_threads(environ: Mapping[str, str] = os.environ) -> int:
    """``OMP_NUM_THREADS`` where it is set, as for PyTorch itself; else :func:`usable_cores`."""
    asked = environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # the outermost level's
    return int(asked) if asked.isdecimal() and int(asked) > 0 else usable_cores()


def usable_cores(cpus: Path = CPUS, groups: Path = GROUPS, own: Path = OWN_GROUP) -> int:
    """Physical cores that this process may use, at least 1.

    Of the CPUs that it may run on, those that share a core count once (a second hardware thread
    adds nothing to matrix products), and no more than the CPU quota of a container or of a
    service. What the system does not tell is left out of the count.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
    else:
        allowed = set(range(os.cpu_count() or 1))
    cores = {_core(cpus, cpu) for cpu in allowed}
    return max(1, min(len(cores), *_quotas(groups, own)))


def in_passing_thread(work: Callable[[], T]) -> T:
    """The result of ``work``, done in a thread that ends with it.

    Every thread that runs parallel parts of PyTorch on a CPU keeps helpers as long as it lives.
    With more helpers than cores libgomp lets none of them wait actively, and each parallel part of
    the worker begins by waking one: measured 1.3 to 1.4 times the time of a pass.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="echo-passing") as thread:
        return thread.submit(work).result()


def _core(cpus: Path, cpu: int) -> str:
    """The CPUs of its core, as the kernel lists them; else itself."""
    siblings = cpus / f"cpu{cpu}" / "topology" / "thread_siblings_list"
    return siblings.read_text().strip() if siblings.is_file() else str(cpu)


def _quotas(groups: Path, own: Path) -> Iterator[int]:
    """Whole CPUs of the control groups (version 2) around this process; at least one number.

    A container sees its own group at the top; a service of systemd lies some levels below.
    """
    yield 1 << 20  # no limit
    lines = own.read_text().splitlines() if own.is_file() else []
    inside = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
    group = groups / inside.strip("/")
    for folder in (group, *group.parents):
        if folder.is_relative_to(groups) and (folder / "cpu.max").is_file():
            limit, _, period = (folder / "cpu.max").read_text().strip().partition(" ")
            if limit != "max":
                yield int(limit) // int(period)
