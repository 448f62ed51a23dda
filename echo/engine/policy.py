"""Who goes next, who goes along, who is let in. Pure: no torch, no clock, no threads.

A listener's place is the moment it runs dry (earliest deadline first), but who has heard nothing
yet goes first. Others join the step of the one whose turn it is where that saves time and does
not cost the leader much, by what steps were seen to cost.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from echo.engine.cost import StepCost
from echo.spec import HOP, SAMPLE_RATE

T = TypeVar("T")

STRETCH = 1.5  # the pass of a leader in need takes at most this many times its own
SLACK_SHARE = 0.8  # of the time in hand that a leader may spend on a block's steps
MIN_GAIN = 0.1  # of its own time that a joiner must save
SLOW_ACTIVE = 4  # at once, of requests that this device cannot do in real time anyway


@dataclass(frozen=True)
class Work:
    """Some work: Euler steps, latents of all guidance passes in them, latents to be decoded."""

    steps: int = 0
    tokens: int = 0
    latents: int = 0


@dataclass(frozen=True)
class Outlook:
    """What is still to be done for a request, as far as it is planned."""

    steps: int  # Euler steps
    tokens: int  # latents of all guidance passes of these steps
    latents: int  # to be decoded
    block_steps: int  # of ``steps``, those of the block in work
    next_tokens: int  # of the next step
    group: Hashable  # of the next step: those of one group can share a pass
    block: Work = Work()  # left of the block in work
    following: Work | None = None  # the block after it, if there is one in this text


@dataclass(frozen=True)
class Demand:
    """Seconds of work that must be done ``due_s`` seconds from now, lest a listener runs dry."""

    work_s: float
    due_s: float


@dataclass(frozen=True)
class Candidate(Generic[T]):
    """A request that could go on now.

    Attributes:
        newcomer: has heard nothing yet.
        due: when it arrived (newcomers) or runs dry, in monotonic seconds.
        tokens: latents of its next step, all passes.
        steps_left: of its block.
        is_step: its turn is a step, which others can join.
        is_prelude: its turn is short work after which it could join.
        group: as in :class:`Outlook`.
    """

    task: T
    newcomer: bool
    due: float
    tokens: int
    steps_left: int
    is_step: bool
    is_prelude: bool
    group: Hashable

    @property
    def urgency(self) -> tuple[bool, float]:
        return (not self.newcomer, self.due)


def choose(
    candidates: Sequence[Candidate[T]], cost: StepCost, *, now: float, max_tokens: int
) -> list[T]:
    """The next turn: one request with work of its own, or those that share a step; leader first."""
    ranked = sorted(candidates, key=lambda c: c.urgency)
    leader = ranked[0]
    if not leader.is_step or not cost.known:
        return [leader.task]
    limit = _longest_pass(leader, cost, now)
    batch, tokens = [leader.task], leader.tokens
    for other in ranked[1:]:
        together = tokens + other.tokens
        if (
            other.group != leader.group
            or together > max_tokens
            or cost.predict(together) > limit
            or not _pays(tokens, other.tokens, cost)
        ):
            continue
        if other.is_step:
            batch.append(other.task)
            tokens = together
        elif other.is_prelude and (other.newcomer or not leader.newcomer):
            return [other.task]  # then it can join
    return batch


def real_time_load(
    outlook: Outlook, cost: StepCost, *, decode_s: float, company: float, in_hand_s: float
) -> float:
    """Share of the device that a request needs from now on so that its listener never waits.

    Args:
        decode_s: seconds to decode one latent.
        company: requests that share a step, on average; they share its overhead.
        in_hand_s: audio that the listener has and has not played yet.
    """
    work = outlook.steps * cost.overhead / max(1.0, company) + outlook.tokens * cost.per_token
    work += outlook.latents * decode_s
    until = max(0.0, in_hand_s) + outlook.latents * HOP / SAMPLE_RATE
    return work / until if until > 0 else 0.0


def demand_of(
    outlook: Outlook, cost: StepCost, *, decode_s: float, company: float, in_hand_s: float | None
) -> Demand:
    """The nearest demand of a request; the arguments as of :func:`real_time_load`.

    ``in_hand_s`` None: its listener has heard nothing yet. Its first block comes as soon as it
    can, and what must then be in time is the second.
    """

    def seconds(work: Work) -> float:
        steps = work.steps * cost.overhead / max(1.0, company)
        return steps + work.tokens * cost.per_token + work.latents * decode_s

    block = seconds(outlook.block)
    if in_hand_s is not None:
        return Demand(block, in_hand_s)
    if outlook.following is None:
        return Demand(block, math.inf)
    due = block + outlook.block.latents * HOP / SAMPLE_RATE
    return Demand(block + seconds(outlook.following), due)


def in_time(demands: Sequence[Demand], newcomer: Demand, max_load: float | None) -> bool:
    """Whether a newcomer leaves all demands feasible that are due no earlier than its own.

    Requests that came at the same moment would otherwise all be heard at once and then all run dry
    while their second blocks are made. One that would be late even alone is not held back.
    """
    if max_load is None or newcomer.work_s > max_load * newcomer.due_s:
        return True
    done = 0.0
    for demand in sorted((*demands, newcomer), key=lambda demand: demand.due_s):
        done += demand.work_s
        if demand.due_s >= newcomer.due_s and done > max_load * demand.due_s:
            return False
    return True


def admits(loads: Sequence[float], load: float, max_load: float | None) -> bool:
    """Whether a request of ``load`` may start beside those with ``loads``.

    What this device cannot do in real time even alone would never be let in: of that a few.
    """
    if max_load is None or not loads:
        return True
    if load > max_load:
        return len(loads) < SLOW_ACTIVE
    return sum(loads) + load <= max_load


def _longest_pass(leader: Candidate[T], cost: StepCost, now: float) -> float:
    """Seconds that a pass with the leader in it may take."""
    least = STRETCH * cost.predict(leader.tokens)
    if leader.newcomer:
        return least
    return max(least, SLACK_SHARE * (leader.due - now) / max(1, leader.steps_left))


def _pays(tokens: int, more: int, cost: StepCost) -> bool:
    alone = cost.predict(more)
    saved = cost.predict(tokens) + alone - cost.predict(tokens + more)
    return saved >= MIN_GAIN * alone
