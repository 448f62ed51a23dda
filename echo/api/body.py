"""A request's JSON body, read without trust."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool

from echo.api.errors import UnsupportedMediaError
from echo.errors import InvalidRequestError

_BOM = b"\xef\xbb\xbf"  # some editors put it in front


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object in the body of ``request``; any number in it may be infinite (1e999).

    A body without a content type counts as JSON; one that claims another type is refused, also
    because a web page may send such a one to a local server without asking.

    Raises InvalidRequestError or UnsupportedMediaError saying what is wrong and where.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMediaError(
            f"the body is {kind[:60]}; send JSON with the header Content-Type: application/json"
        )
    return await run_in_threadpool(parse_object, await request.body())


def parse_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in ``raw``; no NaN, valid UTF-8, at most about 200 levels deep."""
    try:
        body = from_json(raw.removeprefix(_BOM), allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequestError(f"the body is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise InvalidRequestError('the body must be a JSON object: {"input": "…", …}')
    return body
