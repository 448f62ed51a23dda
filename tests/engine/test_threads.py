"""Threads where the configuration names none."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from echo.engine.threads import default_threads, in_passing_thread, usable_cores


@pytest.fixture
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def siblings(folder: Path, lists: list[str]) -> Path:
    for cpu, text in enumerate(lists):
        topology = folder / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(text + "\n")
    return folder


def test_two_threads_of_one_core_count_once(eight_cpus: None, tmp_path: Path) -> None:
    pairs = [f"{i % 4},{i % 4 + 4}" for i in range(8)]
    assert usable_cores(siblings(tmp_path, pairs), tmp_path / "none", tmp_path) == 4


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1)]
)
def test_a_containers_quota_is_kept(
    eight_cpus: None, tmp_path: Path, quota: str, cores: int
) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert usable_cores(tmp_path, tmp_path, tmp_path / "none") == cores


def test_the_quota_of_a_service_or_of_what_it_lies_in_is_kept(
    eight_cpus: None, tmp_path: Path
) -> None:
    own, service = tmp_path / "own", tmp_path / "system.slice" / "echo-tts.service"
    own.write_text("0::/system.slice/echo-tts.service\n")
    service.mkdir(parents=True)
    (service / "cpu.max").write_text("max 100000\n")
    assert usable_cores(tmp_path, tmp_path, own) == 8
    (service.parent / "cpu.max").write_text("300000 100000\n")
    assert usable_cores(tmp_path, tmp_path, own) == 3
    (service / "cpu.max").write_text("200000 100000\n")
    assert usable_cores(tmp_path, tmp_path, own) == 2


def test_where_the_system_tells_nothing_every_cpu_counts(eight_cpus: None, tmp_path: Path) -> None:
    assert usable_cores(tmp_path, tmp_path / "none", tmp_path / "none") == 8


def test_on_this_machine_there_is_at_least_one() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("said", "threads"), [("3", 3), ("5,2", 5), ("0", 8), ("", 8), ("many", 8), (None, 8)]
)
def test_the_variable_that_pytorch_reads_counts_first(
    monkeypatch: pytest.MonkeyPatch, said: str | None, threads: int
) -> None:
    monkeypatch.setattr("echo.engine.threads.usable_cores", lambda: 8)
    assert default_threads({} if said is None else {"OMP_NUM_THREADS": said}) == threads


def test_work_of_a_passing_thread_is_done_elsewhere_and_its_errors_come_back() -> None:
    assert in_passing_thread(threading.current_thread) is not threading.current_thread()
    assert in_passing_thread(lambda: 3) == 3
    with pytest.raises(KeyError):
        in_passing_thread(lambda: {}["nothing"])
    assert not [t for t in threading.enumerate() if t.name.startswith("echo-passing")]
