"""Speech as one JSON object, or as a line of JSON for each part."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from echo.api.errors import flat_body, problem_of
from echo.api.inworld.body import Delivery
from echo.api.inworld.narrator import Narrator, Part
from echo.api.inworld.timestamps import SpeechFinder
from echo.api.reply import while_connected
from echo.engine import Engine
from echo.errors import EchoError, InvalidRequestError
from echo.text.markup import parse_markup


class InworldReply(StreamingResponse):
    """Speaks ``text`` to the client: ``whole``, or a line for each part as it is made.

    Errors before the first line are raised before the response has started, so that they become
    an error response; a later one is a line, then the connection breaks.
    """

    def __init__(
        self, engine: Engine, finder: SpeechFinder, text: str, delivery: Delivery, *, whole: bool
    ) -> None:
        narrator = Narrator(engine, finder, delivery, whole=whole)
        self._usage = usage(text, delivery)
        self._whole = whole
        self._parts = narrated(narrator, text)
        super().__init__((), media_type="application/json")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await while_connected(receive, self.stream_response(send))

    async def stream_response(self, send: Send) -> None:
        """First part, then header: until then a failure can still be told properly."""
        async with aclosing(self._parts) as parts:
            if self._whole:
                await self._send_whole([part async for part in parts], send)
                return
            first = await anext(parts)
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send_line(send, result=self._told(first))
            try:
                async for part in parts:
                    await self._send_line(send, result=self._told(part))
            except EchoError as error:
                await self._send_line(send, error=flat_body(problem_of(error)))
                raise
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_whole(self, parts: list[Part], send: Send) -> None:
        """One file, and the word times of all chunks."""
        told = self._told(Part(b"".join(part.audio for part in parts), _merged(parts)))
        body = json.dumps(told).encode()
        self.headers["Content-Length"] = str(len(body))
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _send_line(self, send: Send, **told: Any) -> None:
        line = json.dumps(told).encode() + b"\n"
        await send({"type": "http.response.body", "body": line, "more_body": True})

    def _told(self, part: Part) -> dict[str, Any]:
        return part_body(part, self._usage)


def part_body(part: Part, used: dict[str, Any]) -> dict[str, Any]:
    """A part as clients read it; ``timestampInfo`` only where there is one."""
    info = {} if part.timestamps is None else {"timestampInfo": part.timestamps}
    return {"audioContent": base64.b64encode(part.audio).decode(), **info, "usage": used}


def usage(text: str, delivery: Delivery) -> dict[str, Any]:
    """What is counted: characters, markup included."""
    return {"processedCharactersCount": len(text), "modelId": delivery.model_id}


async def narrated(narrator: Narrator, text: str) -> AsyncGenerator[Part, None]:
    """All parts of ``text``; at least one, and none without audio or times beside others.

    Raises InvalidRequestError if there is neither speech nor a pause in it.
    """
    if not parse_markup(text):
        raise InvalidRequestError("the text has no letter or digit to speak", param="text")
    told = False
    async with aclosing(narrator.say(text)) as parts:
        async for part in parts:
            told = True
            yield part
    if (last := await narrator.finish()) or not told:
        yield last


def _merged(parts: list[Part]) -> dict[str, Any] | None:
    """The times of all parts as one ``timestampInfo``."""
    merged: dict[str, Any] = {}
    for info in (part.timestamps for part in parts if part.timestamps):
        for alignment, arrays in info.items():
            into = merged.setdefault(alignment, {name: [] for name in arrays})
            for name, values in arrays.items():
                into[name] += values
    return merged or None
