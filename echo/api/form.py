"""A request's multipart form, read without trust."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from echo.api.errors import BodyTooLargeError, UnsupportedMediaError
from echo.errors import InvalidRequestError

MAX_PARTS = 20
OVERHEAD_BYTES = 65_536  # of a form beside its files


@dataclass(frozen=True)
class Form:
    """``fields``: texts by name. ``files``: contents by name. Of equal names, the last."""

    fields: dict[str, str]
    files: dict[str, bytes]


async def read_form(request: Request, *, max_bytes: int) -> Form:
    """The form in the body of ``request``; its files have at most ``max_bytes`` bytes each.

    Raises InvalidRequestError, UnsupportedMediaError or BodyTooLargeError.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise UnsupportedMediaError(
            f"the body is {kind[:60] or 'of no type'}; send a form (multipart/form-data)"
        )
    parsed = await _parse(request, await _read(request, max_bytes))
    form = Form({}, {})
    try:
        for name, value in parsed.multi_items():
            if isinstance(value, UploadFile):
                form.files[name] = await value.read()
                if len(form.files[name]) > max_bytes:
                    raise _too_large(max_bytes)
            else:
                form.fields[name] = value
    finally:
        await parsed.close()
    return form


async def _read(request: Request, max_bytes: int) -> bytes:
    """The body. Of a longer one, which the server's limit on bodies ends, nothing is kept."""
    body = bytearray()
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= max_bytes + OVERHEAD_BYTES:
            body += part
        else:
            body.clear()
    if size > max_bytes + OVERHEAD_BYTES:
        raise _too_large(max_bytes)
    return bytes(body)


async def _parse(request: Request, body: bytes) -> FormData:
    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, whole(), max_files=MAX_PARTS, max_fields=MAX_PARTS)
    try:
        return await parser.parse()
    except (MultiPartException, MultipartParseError, ValueError) as error:
        reason = getattr(error, "message", None) or str(error)
        raise InvalidRequestError(f"the form can't be read: {reason[:200]}") from None


def _too_large(max_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the upload is over {max_bytes} bytes; send a shorter sample")
