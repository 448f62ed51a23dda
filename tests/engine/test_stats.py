from collections import Counter
from typing import Any

import pytest

from echo.engine.stats import RequestStats, WorkerStats

RATE = 1000  # Hz


def starved(*parts: tuple[float, float]) -> float:
    """After sounds of given seconds at given times since the first."""
    stats = RequestStats(RATE)
    for since_first_s, audio_s in parts:
        if stats.samples:
            stats.played(since_first_s)
        stats.samples += round(audio_s * RATE)
    return stats.starved_s


def test_sound_that_comes_in_time_starves_nobody():
    assert starved((0.0, 2.0), (1.9, 3.0), (4.9, 1.0)) == 0.0


def test_gaps_add_up_and_each_is_counted_once():
    # Dry from 1.0 to 1.5; what came then lasts until 2.5; dry again until 3.0.
    assert starved((0.0, 1.0), (1.5, 1.0), (3.0, 1.0)) == pytest.approx(1.0)


def test_a_lead_that_was_won_back_does_not_undo_a_gap():
    assert starved((0.0, 1.0), (2.0, 9.0), (2.1, 9.0)) == pytest.approx(1.0)


class Growing(Counter[int]):
    """Gets a new size whenever it is looked through in Python, as from another thread."""

    def items(self) -> Any:
        for each in super().items():
            self[len(self) + 1] += 1
            yield each


def test_the_worker_may_count_on_while_its_counts_are_read():
    stats = WorkerStats(steps=5, batches=Growing({1: 3, 2: 1, 4: 1}))
    told = stats.as_dict()
    assert told["batches"] == {1: 3, 2: 1, 4: 1}
    assert told["batch_mean"] == pytest.approx(9 / 5)
    assert told["steps"] == 5
    assert WorkerStats().as_dict()["batch_mean"] is None
