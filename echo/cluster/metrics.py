"""Echo's counts as Ray's metrics: its agent on each node offers them with those of all replicas
there, so that a scrape never depends on which replica a proxy would pick.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from prometheus_client.metrics_core import Metric

log = logging.getLogger(__name__)

EVERY_S = 5.0


class Gauge(Protocol):
    """As ``ray.util.metrics.Gauge``."""

    def set(self, value: float, tags: dict[str, str]) -> object: ...


class Exporter:
    """Copies every sample to a gauge of its name, from a thread of its own.

    Gauges, also for counters and the buckets of histograms: Ray's own counters could only be
    added to. Prometheus' functions ask for names and labels only.
    """

    def __init__(
        self,
        collect: Callable[[], Iterable[Metric]],
        tags: Mapping[str, str],
        make: Callable[[str, str, tuple[str, ...]], Gauge],
    ) -> None:
        """``tags``: added to each sample, which replica it is. ``make``: of name, help, labels."""
        self._collect = collect
        self._tags = dict(tags)
        self._make = make
        self._gauges: dict[str, Gauge] = {}
        self._failed: set[type[Exception]] = set()  # that were logged
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="echo-metrics", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Export once more and stop."""
        self._closing.set()
        self._thread.join()

    def export(self) -> None:
        """Set every gauge to what is counted now."""
        for metric in self._collect():
            for sample in metric.samples:
                gauge = self._gauges.get(sample.name)
                if gauge is None:
                    labels = (*sample.labels, *self._tags)
                    gauge = self._make(sample.name, metric.documentation, labels)
                    self._gauges[sample.name] = gauge
                gauge.set(sample.value, {**sample.labels, **self._tags})

    def _run(self) -> None:
        while not self._closing.wait(EVERY_S):
            self._try()
        self._try()

    def _try(self) -> None:
        """A failure, of Ray's agent for instance, costs one round; its kind is logged once."""
        try:
            self.export()
        except Exception as error:
            if type(error) not in self._failed:
                self._failed.add(type(error))
                log.exception("metrics were not exported; trying again every %g s", EVERY_S)
