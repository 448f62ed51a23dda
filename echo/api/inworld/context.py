"""One context of a WebSocket: text in pieces in, audio frames out, in order."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from echo.api.errors import flat_body, problem_of
from echo.api.inworld.body import Delivery
from echo.api.inworld.narrator import Narrator, Part
from echo.api.inworld.pending import PendingText
from echo.api.inworld.reply import part_body, usage
from echo.errors import EchoError, LimitExceededError

log = logging.getLogger(__name__)

REST_S = 0.1  # without new text, a full stop at the end is the end
MAX_WAITING_CHARS = 20_000  # of text sent ahead of the speech

SendResult = Callable[[str, dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class _Event:
    """In the order in which they came."""

    kind: Literal["text", "flush", "close"]
    text: str = ""


class Context:
    """Speaks what it is sent; ``run`` is its task, the other methods never wait."""

    def __init__(
        self, context_id: str, narrator: Narrator, delivery: Delivery, send: SendResult
    ) -> None:
        """``send``: gets the context's id and what a result frame says besides its status."""
        self.id = context_id
        self.closing = False
        self._narrator = narrator
        self._delivery = delivery
        self._send = send
        self._events: deque[_Event] = deque()
        self._waiting = 0  # characters
        self._news = asyncio.Event()
        self._pending = PendingText()
        self._rested = True  # all that could be spoken has been

    def add_text(self, text: str) -> None:
        """Raises LimitExceededError where too much waits already."""
        if self._waiting + len(self._pending) + len(text) > MAX_WAITING_CHARS:
            raise LimitExceededError(
                f"over {MAX_WAITING_CHARS} characters wait to be spoken; send the rest later",
                param="text",
            )
        self._waiting += len(text)
        self._put(_Event("text", text))

    def flush(self) -> None:
        """Speak what is there, whether or not a sentence has ended; ``flushCompleted`` follows."""
        self._put(_Event("flush"))

    def close(self) -> None:
        """Speak what is there and end."""
        self.closing = True
        self._put(_Event("close"))

    async def run(self) -> None:
        """Until closed. Cancelling it stops the generation at its next step.

        A failure is told in a status frame and ends the context.
        """
        try:
            while (event := await self._next_event()).kind != "close":
                if event.kind == "flush":
                    await self._speak(self._pending.take_all())
                    await self._tell(await self._narrator.drain(), "")
                    await self._send(self.id, {"flushCompleted": {}})
                else:
                    await self._speak(event.text)
            await self._speak(self._pending.take_all())
            await self._tell(await self._narrator.finish(), "")
        except EchoError as error:
            log.warning("context failed: %s", error.message)
            await self._send(self.id, {"status": flat_body(problem_of(error))})

    def _put(self, event: _Event) -> None:
        self._events.append(event)
        self._news.set()

    async def _next_event(self) -> _Event:
        """The next flush or close, or before that the next text that can be spoken."""
        while True:
            while self._events and self._events[0].kind == "text":
                piece = self._events.popleft().text
                self._waiting -= len(piece)
                self._pending.add(piece)
                self._rested = False
            if self._events:
                return self._events.popleft()
            if text := self._pending.take_sentences(at_rest=False):
                return _Event("text", text)
            if not await self._more_text():
                self._rested = True
                if text := self._pending.take_sentences(at_rest=True):
                    return _Event("text", text)

    async def _more_text(self) -> bool:
        """Wait for news; with text at hand that may be complete, not for long."""
        self._news.clear()
        if self._events:
            return True
        try:
            await asyncio.wait_for(self._news.wait(), None if self._rested else REST_S)
        except asyncio.TimeoutError:
            return False
        return True

    async def _speak(self, text: str) -> None:
        async with aclosing(self._narrator.say(text)) as parts:
            async for part in parts:
                await self._tell(part, text)

    async def _tell(self, part: Part, text: str) -> None:
        if part:
            told = part_body(part, usage(text, self._delivery))
            await self._send(self.id, {"audioChunk": told})
