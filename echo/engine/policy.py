"""Who goes next, who goes along, who is let in. Pure: no torch, no clock, no threads.

A listener's place is the moment it runs dry (earliest deadline first), but who has heard nothing
yet goes first. Others join the step of the one whose turn it is where that saves time and does
not cost the leader much, by what steps were seen to cost.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from echo.engine.cost import StepCost
from echo.spec import HOP, SAMPLE_RATE

T = TypeVar("T")

STRETCH = 1.5  # the pass of a leader in need takes at most this many times its own
SLACK_SHARE = 0.8  # of the time in hand that a leader may spend on a block's steps
MIN_GAIN = 0.1  # of its own time that a joiner must save
PLANNED_SHARE = 0.8  # of the time until a listener runs dry; the rest is for what was misjudged
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
    """Seconds of work that must be done ``due_s`` seconds from now, lest a listener runs dry; for
    one who has heard nothing yet ``due_s`` counts from its first sound."""

    work_s: float
    due_s: float


@dataclass(frozen=True)
class Claim:
    """What a request asks of the device.

    Attributes:
        load: share of the device, from now on, so that its listener never waits.
        first_s: seconds of the first block of one who has heard nothing; it goes ahead of all.
        demands: its next deadlines.
    """

    load: float = 0.0
    first_s: float = 0.0
    demands: tuple[Demand, ...] = ()


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
    if not leader.is_step:
        return [leader.task]
    limit = _longest_pass(leader, cost, now)
    batch, tokens = [leader.task], leader.tokens
    for other in ranked[1:]:
        together = tokens + other.tokens
        if other.group != leader.group or together > max_tokens:
            continue
        welcome = (
            cost.known and cost.predict(together) <= limit and _pays(tokens, other.tokens, cost)
        )
        to_learn = len(batch) == 1 and cost.lacks(together)
        if not (welcome or to_learn):
            continue
        if other.is_step:
            batch.append(other.task)
            tokens = together
        elif other.is_prelude and (other.newcomer or not leader.newcomer):
            return [other.task]  # then it can join
    return batch


def claim_of(
    outlook: Outlook, cost: StepCost, *, decode_s: float, company: float, in_hand_s: float | None
) -> Claim:
    """What is asked by a request with this outlook.

    Args:
        decode_s: seconds to decode one latent.
        company: requests that share a step, on average; they share its overhead.
        in_hand_s: audio that the listener has and has not played yet; below zero for one who
            waits for more, None for one who has heard nothing.
    """

    def seconds(work: Work) -> float:
        steps = work.steps * cost.overhead / max(1.0, company)
        return steps + work.tokens * cost.per_token + work.latents * decode_s

    whole = Work(outlook.steps, outlook.tokens, outlook.latents)
    until = max(0.0, in_hand_s or 0.0) + _audio_s(whole)
    load = seconds(whole) / until if until > 0 else 0.0
    block, then = outlook.block, outlook.following
    due_s = (in_hand_s or 0.0) + _audio_s(block)
    later = () if then is None else (Demand(seconds(then), due_s),)
    if in_hand_s is None:
        return Claim(load, seconds(block), later)
    return Claim(load, demands=(Demand(seconds(block), in_hand_s), *later))


def admits(claims: Sequence[Claim], newcomer: Claim, max_load: float | None) -> bool:
    """Whether a newcomer may start beside those with ``claims``, first come first.

    What this device cannot do in real time even alone would never be let in: of that a few.
    """
    if max_load is None or not claims:
        return True
    if newcomer.load > max_load:
        return len(claims) < SLOW_ACTIVE
    if sum(claim.load for claim in claims) + newcomer.load > max_load:
        return False
    return _in_time([*claims, newcomer])


def _in_time(claims: Sequence[Claim]) -> bool:
    """Whether all deadlines can be met, earliest first, after the first blocks of newcomers.

    The load alone does not tell: those who came at the same moment would all be heard at once,
    and then all run dry while their second blocks are made. A newcomer's deadline that could not
    be met even alone holds nobody back.
    """
    first_s, demands = 0.0, []
    for claim in claims:
        first_s += claim.first_s
        heard_s = first_s if claim.first_s else 0.0
        for each in claim.demands:
            alone_s = claim.first_s + each.work_s
            lost = claim.first_s > 0 and alone_s > PLANNED_SHARE * (claim.first_s + each.due_s)
            demands.append((heard_s + each.due_s, each.work_s, lost))
    done_s = first_s
    for due_s, work_s, lost in sorted(demands):
        done_s += work_s
        if done_s > PLANNED_SHARE * due_s and not lost:
            return False
    return True


def _audio_s(work: Work) -> float:
    return work.latents * HOP / SAMPLE_RATE


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
