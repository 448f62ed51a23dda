from __future__ import annotations

import threading

from prometheus_client.core import GaugeMetricFamily

from echo.api.metrics import Metrics
from echo.cluster import metrics as cluster_metrics
from echo.cluster.metrics import Exporter


class Gauges:
    """As Ray's: a gauge has the labels it was made with, and no others."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}

    def make(self, name: str, help: str, labels: tuple[str, ...]):
        values = self.values

        class Gauge:
            def set(self, value: float, tags: dict[str, str]) -> None:
                assert set(tags) == set(labels), name
                values[name, frozenset(tags.items())] = value

        return Gauge()


def test_every_sample_is_exported_with_the_replica_it_is_of(make_engine):
    metrics, gauges = Metrics(make_engine()), Gauges()
    metrics.http_ended("GET", "/health", "2xx")
    exporter = Exporter(metrics.collect, {"replica": "r1"}, gauges.make)
    exporter.export()
    labels = {"method": "GET", "route": "/health", "status": "2xx", "replica": "r1"}
    assert gauges.values["echo_http_requests_total", frozenset(labels.items())] == 1
    names = {name for name, _ in gauges.values}
    assert {"echo_ttfb_seconds_bucket", "echo_requests_active", "echo_batch_size_sum"} <= names
    assert all(("replica", "r1") in tags for _, tags in gauges.values)


def test_what_is_counted_later_is_exported_at_the_latest_when_it_closes(make_engine):
    metrics, gauges = Metrics(make_engine()), Gauges()
    exporter = Exporter(metrics.collect, {"replica": "r1"}, gauges.make)
    exporter.start()
    metrics.http_ended("GET", "/ready", "2xx")
    exporter.close()
    assert any(dict(tags).get("route") == "/ready" for _, tags in gauges.values)


def test_a_failure_is_logged_once_and_costs_no_later_export(monkeypatch, caplog):
    monkeypatch.setattr(cluster_metrics, "EVERY_S", 0.001)
    rounds = iter(range(1_000_000))
    enough = threading.Event()

    def collect():
        number = next(rounds)
        if number < 3:
            raise OSError(f"no agent, {number}")
        enough.set()
        return [GaugeMetricFamily("echo_rounds", "Of exports", number)]

    gauges = Gauges()
    exporter = Exporter(collect, {}, gauges.make)
    exporter.start()
    assert enough.wait(30), "it gave up"
    exporter.close()
    assert gauges.values["echo_rounds", frozenset()] >= 3
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "no agent, 0" in caplog.text
