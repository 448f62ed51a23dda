"""A worker in virtual time: the engine's own policy over work that only takes its time.

What decides is the engine's: who goes next, who shares a step, who is let in (``policy``), what
steps are thought to cost (``cost``), what is left of a request (``plan``), the voice cache. What
is simulated is the work itself: a turn lasts what :class:`Costs` says.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Generator, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.listening import Heard, playback
from echo.config.schema import SamplerConfig
from echo.engine.cost import Rate, StepCost
from echo.engine.plan import Plan
from echo.engine.policy import Candidate, Claim, admits, choose, claim_of
from echo.engine.task import Limits
from echo.models.codec import DECODE_PIECE_LATENTS
from echo.sampling.block import BlockShape
from echo.spec import HOP, SAMPLE_RATE
from echo.voices.cache import ByteBoundedCache

Stage = Literal["voice", "text", "prefix", "step", "codec"]
COMPANY_WEIGHT = 0.05  # as the worker weighs the last step in its average company


@dataclass(frozen=True)
class Costs:
    """Seconds that pieces of work take on one device, all in the worker's thread.

    A step takes ``step_s`` plus, for every latent of every pass in it, ``step_latent_s``; at least
    ``step_floor_s`` (a GPU reads the weights, however little there is to do). ``edge_s`` is what a
    caller waits outside of the worker: for its text to be prepared, and for the sound to reach it.
    ``spread`` is the relative standard deviation of a turn.
    """

    step_s: float
    step_latent_s: float
    step_floor_s: float = 0.0
    text_s: float = 0.0
    prefix_s: float = 0.0
    prefix_latent_s: float = 0.0
    codec_s: float = 0.0  # a piece
    codec_latent_s: float = 0.0
    voice_s: float = 0.0  # a voice that is not cached
    cached_voice_s: float = 0.0
    edge_s: float = 0.0
    spread: float = 0.0

    def step(self, latents: int) -> float:
        """Of all passes together."""
        return self.step_s + max(self.step_floor_s, latents * self.step_latent_s)


@dataclass(frozen=True)
class Order:
    """What is asked for.

    Attributes:
        chunks: latents that are kept of each block, by chunk; one with fewer blocks than the plan
            has ended early.
        voice: which one; None: none.
        voice_bytes: of its keys and values.
    """

    chunks: tuple[tuple[int, ...], ...]
    voice: int | None = None
    voice_bytes: int = 0


class Shape:
    """Blocks and passes that all requests of a run have; hands out their plans."""

    def __init__(
        self,
        blocks: Sequence[BlockShape],
        sampler: SamplerConfig,
        passes: int,
        piece_latents: int = DECODE_PIECE_LATENTS,
    ) -> None:
        """``passes``: of a guided step: 3 with a voice, else 2. ``piece_latents``: that the codec
        decodes at a time."""
        self.piece_latents = piece_latents
        self.sizes = tuple(block.size for block in blocks)
        self._blocks = [(None, block, sampler) for block in blocks]
        self._passes = passes
        self._plans: dict[int, Plan] = {}

    def plan(self, chunks: int) -> Plan:
        """A new plan of so many chunks; what never changes in it is worked out once."""
        if chunks not in self._plans:
            self._plans[chunks] = Plan(chunks, self._blocks, self._passes)
        return copy(self._plans[chunks])

    def step_latents(self, block: int) -> tuple[int, ...]:
        """Latents of all passes of each step of a block."""
        plan, latents = self.plan(1), []
        plan.enter(0, block)
        for step in range(plan.outlook(None).block_steps):
            latents.append(plan.outlook(None).next_tokens)
            plan.step_done(step + 1)
        return tuple(latents)


@dataclass
class Use:
    """What a replica did, in seconds of its device."""

    by_stage: dict[str, float] = field(default_factory=dict)
    turns: int = 0
    steps: int = 0
    shared: int = 0  # requests, summed over the steps
    voice_hits: int = 0
    voice_misses: int = 0
    most_active: int = 0

    @property
    def busy_s(self) -> float:
        return sum(self.by_stage.values())


@dataclass(eq=False)
class _Encoding:
    """A voice on its way into the cache, for all who want it: whose turn comes first does it."""

    left: float  # seconds


@dataclass(frozen=True)
class _Work:
    """A turn's worth. ``latents``: of a step, those of all passes; of the codec, to decode."""

    stage: Stage
    seconds: float
    latents: int = 0
    encoding: _Encoding | None = None  # takes what is left of it instead


@dataclass(frozen=True)
class _Sound:
    latents: int


@dataclass(eq=False)
class _Task:
    """A request on a replica, as ``echo.engine.task.Task`` is one on the worker."""

    arrived: float
    plan: Plan
    works: Generator[_Work | _Sound, None, None]
    done: Callable[[Heard], None]
    work: _Work | None = None
    parts: list[tuple[float, float]] = field(default_factory=list)  # (when, seconds of audio)
    audio_s: float = 0.0

    def dry_at(self) -> float:
        return self.parts[0][0] + self.audio_s if self.parts else self.arrived

    def candidate(self) -> Candidate[_Task]:
        work, outlook = self.work, self.plan.outlook(None)
        is_step = work is not None and work.stage == "step"
        return Candidate(
            self,
            newcomer=not self.parts,
            due=self.dry_at(),
            tokens=work.latents if work is not None and is_step else outlook.next_tokens,
            steps_left=outlook.block_steps,
            is_step=is_step,
            is_prelude=work is None or work.stage in ("text", "prefix"),
            group=outlook.group,
        )


class Replica:
    """The worker's loop, turn by turn; it begins with what a first request has taught it."""

    def __init__(
        self, costs: Costs, shape: Shape, limits: Limits, *, cache_bytes: int, seed: str
    ) -> None:
        self._costs, self._shape, self._limits = costs, shape, limits
        self._queued: deque[_Task] = deque()
        self._active: list[_Task] = []
        self._saturated = False
        self._cost, self._decode_s, self._company = StepCost(), Rate(), 1.0
        for latents in (n for block in range(len(shape.sizes)) for n in shape.step_latents(block)):
            self._cost.observe(latents, costs.step(latents))
        self._decode_s.observe(costs.codec_s / shape.piece_latents + costs.codec_latent_s)
        self._turn: list[_Task] = []
        self._seconds = 0.0
        self._cache: ByteBoundedCache[int, int] = ByteBoundedCache(cache_bytes)
        self._encoding: dict[int, _Encoding] = {}
        self._rng = random.Random(seed)
        self.use = Use()

    @property
    def busy(self) -> bool:
        """Whether a turn is under way."""
        return bool(self._turn)

    @property
    def load(self) -> int:
        return len(self._active) + len(self._queued)

    def submit(self, order: Order, arrived: float, done: Callable[[Heard], None]) -> bool:
        """False: refused, the queue is full."""
        limits = self._limits
        free = 0 if self._saturated else max(0, limits.max_active - len(self._active))
        if len(self._queued) >= limits.max_queued + free:
            return False
        plan = self._shape.plan(len(order.chunks))
        self._queued.append(_Task(arrived, plan, self._works(order, plan), done))
        return True

    def begin(self, now: float) -> float | None:
        """Choose a turn; returns when it ends, None if there is nothing to do."""
        while True:
            self._admit(now)
            if not self._active:
                return None
            tasks = self._choose(now)
            if tasks[0].work is None:  # begins: takes no time of its own
                self._resume(tasks[0], now)
                continue
            self._turn, self._seconds = tasks, self._duration(tasks)
            return now + self._seconds

    def end(self, now: float) -> None:
        """The turn is over: account for it and let its requests go on."""
        tasks, self._turn = self._turn, []
        self._account(tasks, self._seconds)
        for task in tasks:
            self._resume(task, now)

    def _admit(self, now: float) -> None:
        self._saturated = False
        while self._queued and len(self._active) < self._limits.max_active:
            newcomer, most = self._queued[0], self._limits.max_load
            claims = [self._claim(task, now) for task in self._active]
            if not admits(claims, self._claim(newcomer, now), most):
                self._saturated = True
                return
            self._active.append(self._queued.popleft())
            self.use.most_active = max(self.use.most_active, len(self._active))

    def _claim(self, task: _Task, now: float) -> Claim:
        return claim_of(
            task.plan.outlook(None),
            self._cost,
            decode_s=self._decode_s.value or 0.0,
            company=self._company,
            in_hand_s=task.dry_at() - now if task.parts else None,
        )

    def _choose(self, now: float) -> list[_Task]:
        if len(self._active) == 1:
            return [self._active[0]]
        candidates = [task.candidate() for task in self._active]
        return choose(candidates, self._cost, now=now, max_tokens=self._limits.max_batch_tokens)

    def _duration(self, tasks: Sequence[_Task]) -> float:
        works = [task.work for task in tasks if task.work is not None]
        if works[0].stage == "step":
            seconds = self._costs.step(sum(work.latents for work in works))
        elif (encoding := works[0].encoding) is not None:
            seconds, encoding.left = encoding.left, 0.0
        else:
            seconds = works[0].seconds
        if not self._costs.spread:
            return seconds
        sigma = math.sqrt(math.log1p(self._costs.spread**2))
        return seconds * self._rng.lognormvariate(-sigma * sigma / 2, sigma)

    def _account(self, tasks: Sequence[_Task], seconds: float) -> None:
        work, use = tasks[0].work, self.use
        assert work is not None
        use.turns += 1
        use.by_stage[work.stage] = use.by_stage.get(work.stage, 0.0) + seconds
        if work.stage == "codec":
            self._decode_s.observe(seconds / work.latents)
        if work.stage != "step":
            return
        self._cost.observe(sum(task.work.latents for task in tasks if task.work), seconds)
        self._company += COMPANY_WEIGHT * (len(tasks) - self._company)
        use.steps += 1
        use.shared += len(tasks)

    def _resume(self, task: _Task, now: float) -> None:
        for work in task.works:
            if isinstance(work, _Work):
                task.work = work
                return
            seconds = work.latents * HOP / SAMPLE_RATE
            task.parts.append((now, seconds))
            task.audio_s += seconds
        self._active.remove(task)
        task.done(_heard(task, self._costs.edge_s))

    def _works(self, order: Order, plan: Plan) -> Generator[_Work | _Sound, None, None]:
        """What a generation asks for, one after the other; see ``echo.engine.generation``."""
        costs = self._costs
        yield from self._voice(order)
        for index, kept in enumerate(order.chunks):
            yield _Work("text", costs.text_s)
            for number, latents in enumerate(kept):
                plan.enter(index, number)
                if number:
                    before = self._shape.sizes[number - 1]
                    yield _Work("prefix", costs.prefix_s + before * costs.prefix_latent_s)
                steps = plan.outlook(None).block_steps
                for step in range(steps):
                    yield _Work("step", 0.0, plan.outlook(None).next_tokens)
                    plan.step_done(step + 1)
                for first in range(0, latents, self._shape.piece_latents):
                    piece = min(self._shape.piece_latents, latents - first)
                    yield _Work("codec", costs.codec_s + piece * costs.codec_latent_s, piece)
                    plan.decoded(piece)
                if number == len(kept) - 1 and number < len(self._shape.sizes) - 1:
                    plan.skip_rest_of_chunk()
                if latents:
                    yield _Sound(latents)

    def _voice(self, order: Order) -> Generator[_Work, None, None]:
        voice = order.voice
        if voice is None:
            return
        if self._cache.get(voice) is not None:
            self.use.voice_hits += 1
            yield _Work("voice", self._costs.cached_voice_s)
            return
        self.use.voice_misses += 1
        encoding = self._encoding.setdefault(voice, _Encoding(self._costs.voice_s))
        yield _Work("voice", 0.0, encoding=encoding)
        self._encoding.pop(voice, None)
        self._cache.put(voice, voice, order.voice_bytes)


def _heard(task: _Task, edge_s: float) -> Heard:
    if not task.parts:
        return Heard(task.arrived, float("nan"), task.arrived, task.arrived, 0.0, 0.0)
    parts = [(when + edge_s, seconds) for when, seconds in task.parts]
    played, gap = playback(parts)
    return Heard(task.arrived, parts[0][0] - task.arrived, parts[-1][0], played, task.audio_s, gap)
