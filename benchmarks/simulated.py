"""Listeners and replicas in virtual time: no threads, no clock; the same seed, the same run."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

from benchmarks.listening import Heard
from benchmarks.replica import Costs, Order, Replica, Shape, Use
from echo.cluster.affinity import in_order
from echo.engine.task import Limits

RETRY_S = 2.0  # when a refused listener asks for its next text: as the engine tells it


@dataclass(frozen=True)
class Cluster:
    """``replicas`` engines of one kind, each with a device of its own.

    ``route``: ``voice`` sends a request where its voice is at home, as the proxies do
    (``echo.cluster.affinity``, ``slack`` is ``cluster.voice_slack``); ``least`` always goes to the
    least busy.
    """

    costs: Costs
    shape: Shape
    limits: Limits
    replicas: int = 1
    cache_bytes: int = 1 << 30
    route: Literal["least", "voice"] = "voice"
    slack: float = 1.25


@dataclass(frozen=True)
class Outcome:
    """What all listeners heard, and what it took."""

    heard: tuple[Heard, ...]
    uses: tuple[Use, ...]
    busy: float  # share of the time in which the devices had work; of the window, if there is one
    seconds: float  # until the last request had ended


@dataclass(frozen=True)
class Listener:
    """Asks ``orders`` one after the other, the first at ``begins``. ``plays``: hears the last one
    to its end first, and rests ``rest_s``."""

    orders: Sequence[Order]
    begins: float = 0.0
    plays: bool = True
    rest_s: float = 0.0


def poisson(orders: Sequence[Order], per_second: float, seed: int) -> list[Listener]:
    """Strangers with one order each, at random."""
    rng, now = random.Random(seed), 0.0
    strangers = []
    for order in orders:
        now += rng.expovariate(per_second)
        strangers.append(Listener((order,), now))
    return strangers


def simulate(
    cluster: Cluster,
    listeners: Sequence[Listener],
    seed: int = 0,
    window: tuple[float, float] | None = None,
) -> Outcome:
    """Everything until the last listener has had its last sound.

    ``window``: seconds from and to which it is looked at how busy the devices are; nobody asks
    after its end.
    """
    return _Run(cluster, seed, window).run(listeners)


class _Run:
    """The events of one simulation, in order of time."""

    def __init__(self, cluster: Cluster, seed: int, window: tuple[float, float] | None) -> None:
        self._cluster = cluster
        self._window = window
        self._busy_at: list[float] = []
        self._replicas = [_replica(cluster, f"{seed}/{i}") for i in range(cluster.replicas)]
        self._named = {str(i): replica for i, replica in enumerate(self._replicas)}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = count()
        self._now = 0.0
        self._heard: list[Heard] = []

    def run(self, listeners: Sequence[Listener]) -> Outcome:
        for moment in self._window or ():
            self._at(moment, lambda: self._busy_at.append(self._busy_s()))
        for listener in listeners:
            self._ask_at(listener.begins, listener, 0)
        while self._events:
            self._now, _, event = heapq.heappop(self._events)
            event()
        heard = tuple(sorted(self._heard, key=lambda each: each.arrived))
        seconds = max(each.ended for each in heard) - min(each.arrived for each in heard)
        spent, span = self._busy_s(), seconds
        if self._window is not None:
            spent, span = self._busy_at[1] - self._busy_at[0], self._window[1] - self._window[0]
        uses = tuple(replica.use for replica in self._replicas)
        return Outcome(heard, uses, spent / span / len(uses), seconds)

    def _busy_s(self) -> float:
        return sum(replica.use.busy_s for replica in self._replicas)

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._ticket), event))

    def _ask_at(self, when: float, listener: Listener, number: int) -> None:
        over = self._window is not None and when > self._window[1]
        if number < len(listener.orders) and not over:
            self._at(when, lambda: self._ask(listener, number))

    def _ask(self, listener: Listener, number: int) -> None:
        order, now = listener.orders[number], self._now

        def done(heard: Heard) -> None:
            self._heard.append(heard)
            again = heard.played if listener.plays else heard.ended
            rest = RETRY_S if heard.refused else listener.rest_s
            self._ask_at(max(self._now, again) + rest, listener, number + 1)

        replica = self._route(order.voice)
        if not replica.submit(order, now, done):
            done(Heard(now, float("nan"), now, now, 0.0, 0.0, refused=True))
        elif not replica.busy:
            self._begin(replica)

    def _begin(self, replica: Replica) -> None:
        ends = replica.begin(self._now)
        if ends is not None:
            self._at(ends, lambda: self._end(replica))

    def _end(self, replica: Replica) -> None:
        replica.end(self._now)
        self._begin(replica)

    def _route(self, voice: int | None) -> Replica:
        if self._cluster.route == "least" or voice is None:
            return min(self._replicas, key=lambda replica: replica.load)
        loads = {name: replica.load for name, replica in self._named.items()}
        return self._named[in_order(str(voice), list(loads), loads, self._cluster.slack)[0]]


def _replica(cluster: Cluster, seed: str) -> Replica:
    return Replica(
        cluster.costs, cluster.shape, cluster.limits, cache_bytes=cluster.cache_bytes, seed=seed
    )
