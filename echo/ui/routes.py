"""How the browser gets a clip: as it is made, or as a whole file in any format."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import PurePath

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from echo.audio.encode import FORMATS, get_format, open_encoder
from echo.ui.shelf import Clip, Shelf

FOLDER = "echo-clips"  # relative to the page, wherever that is mounted
POLL_S = 0.03  # how often a growing clip is looked at
LIVE_FORMAT = "pcm"  # of a clip that grows: page.js plays 16-bit samples as they come


def clip_router(shelf: Shelf) -> APIRouter:
    """``GET echo-clips/TOKEN.FORMAT``. Who has the token may listen: it cannot be guessed."""
    router = APIRouter(include_in_schema=False)

    @router.get(f"/{FOLDER}/{{file}}")
    async def read_clip(file: str, request: Request) -> Response:
        path = PurePath(file)
        clip, fmt = shelf.get(path.stem), path.suffix[1:].lower()
        if clip is None or fmt not in FORMATS:
            return PlainTextResponse("This audio is no longer kept; make it again.", 404)
        if not clip.finished and get_format(fmt).streams:
            media_type = get_format(fmt).media_type.format(rate=clip.sample_rate)
            headers = {"Cache-Control": "no-store"}
            return StreamingResponse(_growing(clip, fmt), headers=headers, media_type=media_type)
        data = await run_in_threadpool(clip.encoded, fmt)
        return _whole(clip, fmt, data, request.headers.get("range"))

    return router


async def _growing(clip: Clip, fmt: str) -> AsyncIterator[bytes]:
    encoder, read = open_encoder(fmt, clip.sample_rate), 0
    while True:
        last = clip.finished  # before the look: what comes after it is then seen, too
        parts = clip.parts_from(read)
        for part in parts:
            if data := await run_in_threadpool(encoder.push, part):
                yield data
        read += len(parts)
        if last:
            break
        if not parts:
            await asyncio.sleep(POLL_S)
    yield encoder.close()


def _whole(clip: Clip, fmt: str, data: bytes, wanted: str | None) -> Response:
    media_type = get_format(fmt).media_type.format(rate=clip.sample_rate)
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=3600",
        "Content-Disposition": f'inline; filename="{clip.name}.{fmt}"'.encode(
            "ascii", "replace"
        ).decode("ascii"),
    }
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
    if match is None:
        return Response(data, headers=headers, media_type=media_type)
    first, last = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
    if first > last:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
    return Response(data[first : last + 1], 206, headers, media_type)
