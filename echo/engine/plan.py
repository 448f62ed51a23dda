"""How much of a generation is planned and how much of that is done."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from echo.config.schema import SamplerConfig
from echo.engine.policy import Outlook, Work
from echo.sampling.block import BlockShape
from echo.sampling.schedule import is_guided, times


@dataclass(frozen=True)
class _BlockWork:
    """Work of one block: latents of all passes in each of its steps."""

    size: int
    step_tokens: tuple[int, ...]

    @property
    def work(self) -> Work:
        return Work(len(self.step_tokens), sum(self.step_tokens), self.size)


class Plan:
    """Chunks of a text, all of the same blocks; the work left in them."""

    def __init__(
        self, chunks: int, blocks: Sequence[tuple[object, BlockShape, SamplerConfig]], passes: int
    ) -> None:
        """``blocks``: (model, shape, settings) of each; ``passes``: of a guided step."""
        self._blocks = [_work(shape, sampler, passes) for _, shape, sampler in blocks]
        self._steps = sum(len(block.step_tokens) for block in self._blocks)
        self._tokens = sum(sum(block.step_tokens) for block in self._blocks)
        self._latents = sum(block.size for block in self._blocks)
        self._chunks = chunks
        self._chunk = 0
        self.block = 0
        self._step = 0
        self._decoded = 0  # of the block
        self._skipped = 0
        self._ended = False  # the chunk, before its last block

    @property
    def steps_planned(self) -> int:
        """Steps in all, without those that were skipped."""
        return self._steps * self._chunks - self._skipped

    @property
    def steps_done(self) -> int:
        """Of these; steps that are made again do not count."""
        earlier = sum(len(block.step_tokens) for block in self._blocks[: self.block])
        whole = self._chunk * self._steps - self._skipped
        if self._ended:  # what was skipped includes this chunk's rest
            whole += sum(len(block.step_tokens) for block in self._blocks[self.block + 1 :])
        return whole + earlier + self._step

    def enter(self, chunk: int, block: int) -> None:
        """A block begins."""
        self._chunk, self.block = chunk, block
        self._step = self._decoded = 0
        self._ended = False

    def step_done(self, step: int) -> None:
        """``step`` steps of the block are done; of another attempt they count anew."""
        self._step = step
        self._decoded = 0

    def decoded(self, latents: int) -> None:
        """That many more latents of the block are sound."""
        self._decoded += latents

    def skip_rest_of_chunk(self) -> None:
        """The chunk ended before its last block."""
        rest = self._blocks[self.block + 1 :]
        self._skipped += sum(len(block.step_tokens) for block in rest)
        self._ended = True

    def outlook(self, group: Hashable) -> Outlook:
        """What is left; ``group``: of the next step."""
        now = self._blocks[self.block]
        rest = [] if self._ended else self._blocks[self.block + 1 :]
        chunks = self._chunks - self._chunk - 1
        ahead = now.step_tokens[self._step :]
        upcoming = ahead or (rest or self._blocks)[0].step_tokens
        return Outlook(
            steps=len(ahead) + sum(len(b.step_tokens) for b in rest) + chunks * self._steps,
            tokens=sum(ahead) + sum(sum(b.step_tokens) for b in rest) + chunks * self._tokens,
            latents=now.size - self._decoded + sum(b.size for b in rest) + chunks * self._latents,
            block_steps=len(ahead),
            next_tokens=upcoming[0],
            group=group,
            block=Work(len(ahead), sum(ahead), now.size - self._decoded),
            following=rest[0].work if rest else None,
        )


def _work(shape: BlockShape, sampler: SamplerConfig, passes: int) -> _BlockWork:
    schedule = times(shape.num_steps, shape.init_scale)[:-1]
    guided = [is_guided(t, sampler.cfg_min_t, sampler.cfg_max_t) for t in schedule]
    return _BlockWork(shape.size, tuple(shape.size * (passes if g else 1) for g in guided))
