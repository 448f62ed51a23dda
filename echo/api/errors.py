"""What went wrong, as an HTTP status and as the body that OpenAI's clients read."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from echo.errors import (
    AudioDecodeError,
    BusyError,
    CancelledError,
    EchoError,
    InvalidRequestError,
    LimitExceededError,
    VoiceNotFoundError,
)

log = logging.getLogger(__name__)


class BodyTooLargeError(LimitExceededError):
    """A request body over ``server.max_body_bytes``."""


class UnsupportedMediaError(InvalidRequestError):
    """A request body of another content type."""


@dataclass(frozen=True)
class Problem:
    """An error in HTTP's terms, whatever the protocol's body looks like."""

    status: int
    message: str
    code: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class ErrorDetail(BaseModel):
    message: str = Field(description="What is wrong and what to do.")
    type: str = Field(description="invalid_request_error, rate_limit_error or server_error.")
    param: str | None = Field(description="The field at fault, where there is one.")
    code: str = Field(description="Short name of the error.")


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorDetail


# The first that fits: subclasses come before their bases.
_TABLE: tuple[tuple[type[EchoError], int, str], ...] = (
    (BodyTooLargeError, 413, "body_too_large"),
    (UnsupportedMediaError, 415, "unsupported_media_type"),
    (VoiceNotFoundError, 400, "voice_not_found"),
    (AudioDecodeError, 400, "invalid_audio"),
    (LimitExceededError, 400, "limit_exceeded"),
    (InvalidRequestError, 400, "invalid_value"),
    (BusyError, 429, "queue_full"),
    (CancelledError, 503, "cancelled"),
    (EchoError, 500, "generation_failed"),
)


def problem_of(error: EchoError) -> Problem:
    """The table's entry for ``error``; a :class:`BusyError` says when to come back."""
    status, code = next((s, c) for kind, s, c in _TABLE if isinstance(error, kind))
    headers = {}
    if isinstance(error, BusyError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    return Problem(status, error.message, code, error.param, headers)


def internal_problem(request_id: str) -> Problem:
    """For what nobody foresaw: details go to the log, not to the client."""
    message = f"internal error; the server's log has it under request {request_id}"
    return Problem(500, message, "internal_error")


def validation_error(finding: Mapping[str, Any]) -> InvalidRequestError:
    """From one of pydantic's findings (``loc``, ``type``, ``msg``)."""
    where = finding["loc"]
    if len(where) > 1 and where[0] in ("body", "query", "path", "header"):
        where = where[1:]
    param = str(where[0]) if where else None
    if finding["type"] == "missing":
        return InvalidRequestError(f"{param} is missing", param=param)
    message = str(finding["msg"]).removeprefix("Value error, ")
    return InvalidRequestError(f"{param or 'the request'}: {message}", param=param)


def error_response(problem: Problem) -> JSONResponse:
    """OpenAI's shape of a :class:`Problem`."""
    detail = {
        "message": problem.message,
        "type": _type_of(problem.status),
        "param": problem.param,
        "code": problem.code,
    }
    return JSONResponse({"error": detail}, problem.status, headers=dict(problem.headers))


def install_error_handlers(app: FastAPI) -> None:
    """Turn everything that a route raises into :func:`error_response`."""
    app.add_exception_handler(EchoError, _on_echo_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_echo_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, EchoError)
    problem = problem_of(error)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s %s: %s", request.method, request.url.path, error.message)
    return error_response(problem)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return error_response(problem_of(validation_error(error.errors()[0])))


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    message = str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND:
        message = f"there is no {request.url.path[:200]!r} here; GET / lists what there is"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = headers.get("allow") or headers.get("Allow", "another method")
        message = f"{request.url.path} does not take {request.method}; use {allowed}"
    return error_response(Problem(error.status_code, message, code, headers=headers))


def _type_of(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
