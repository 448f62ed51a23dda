"""What went wrong, as an HTTP status and as the body that the caller's protocol has for it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from echo.errors import (
    AudioDecodeError,
    BusyError,
    CancelledError,
    EchoError,
    GenerationError,
    InvalidRequestError,
    LimitExceededError,
    StorageError,
    UnavailableError,
    VoiceExistsError,
    VoiceNotFoundError,
)

log = logging.getLogger(__name__)


class BodyTooLargeError(LimitExceededError):
    """A request body over ``server.max_body_bytes``."""


class UnsupportedMediaError(InvalidRequestError):
    """A request body of another content type."""


class BodyTimeoutError(InvalidRequestError):
    """A request body that stopped arriving."""


class ModelNotFoundError(InvalidRequestError):
    """No model of that name."""


class CloneNotFoundError(VoiceNotFoundError):
    """No uploaded voice of that name."""


class CloningDisabledError(InvalidRequestError):
    """An upload where ``inworld.clone_enabled`` is off."""


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


class FlatError(BaseModel):
    """The body of every error."""

    code: int = Field(description="gRPC's: 3 invalid, 5 not found, 8 too many, 13 internal.")
    message: str = Field(description="What is wrong and what to do.")
    details: list[Any] = Field(description="Empty.")


# The first that fits: subclasses come before their bases.
_TABLE: tuple[tuple[type[EchoError], int, str], ...] = (
    (BodyTooLargeError, 413, "body_too_large"),
    (BodyTimeoutError, 408, "request_timeout"),
    (UnsupportedMediaError, 415, "unsupported_media_type"),
    (ModelNotFoundError, 404, "model_not_found"),
    (CloningDisabledError, 403, "cloning_disabled"),
    (CloneNotFoundError, 404, "voice_not_found"),
    (VoiceNotFoundError, 400, "voice_not_found"),
    (VoiceExistsError, 409, "voice_exists"),
    (AudioDecodeError, 400, "invalid_audio"),
    (LimitExceededError, 400, "limit_exceeded"),
    (InvalidRequestError, 400, "invalid_value"),
    (BusyError, 429, "queue_full"),
    (UnavailableError, 503, "model_unavailable"),
    (CancelledError, 503, "cancelled"),
    (StorageError, 500, "storage_failed"),
    (GenerationError, 500, "generation_failed"),
    (EchoError, 500, "internal_error"),
)
_NO_RETRY = {"x-should-retry": "false"}  # on statuses that OpenAI's clients would try again
# Where trying again can help: the load or the chance that made it fail has passed.
_PASSING = ("queue_full", "cancelled", "request_timeout", "generation_failed")

FLAT_PATHS = ("/tts/", "/voices/")  # of the protocol whose errors are flat, with gRPC's codes
_GRPC_CODES = {
    401: 16,  # unauthenticated
    403: 7,  # permission denied
    404: 5,  # not found
    405: 12,  # unimplemented
    408: 4,  # deadline exceeded
    409: 6,  # already exists
    429: 8,  # resource exhausted
    500: 13,  # internal
    503: 14,  # unavailable
}
_INVALID_ARGUMENT = 3


def problem_of(error: EchoError) -> Problem:
    """The table's entry for ``error``; where that helps, it says when to come back."""
    status, code = next((s, c) for kind, s, c in _TABLE if isinstance(error, kind))
    headers = {}
    if isinstance(error, BusyError | UnavailableError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "1"
    elif status == HTTPStatus.REQUEST_TIMEOUT:
        headers["Connection"] = "close"  # the rest of the body may still come
    elif code not in _PASSING and (status == HTTPStatus.CONFLICT or status >= 500):
        headers |= _NO_RETRY
    return Problem(status, error.message, code, error.param, headers)


def internal_problem(request_id: str) -> Problem:
    """For what nobody foresaw: details go to the log, not to the client."""
    message = f"internal error; the server's log has it under request {request_id}"
    return Problem(500, message, "internal_error", headers=_NO_RETRY)


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


def flat_response(problem: Problem) -> JSONResponse:
    """Inworld's shape of a :class:`Problem`; there an unknown voice is 404."""
    if problem.code == "voice_not_found":
        problem = replace(problem, status=HTTPStatus.NOT_FOUND)
    return JSONResponse(flat_body(problem), problem.status, headers=dict(problem.headers))


def flat_body(problem: Problem) -> dict[str, Any]:
    """A :class:`Problem` with gRPC's code for it, as in Inworld's bodies, lines and frames."""
    status = HTTPStatus.NOT_FOUND if problem.code == "voice_not_found" else problem.status
    code = _GRPC_CODES.get(status, _INVALID_ARGUMENT)
    return {"code": code, "message": problem.message, "details": []}


def response_at(path: str, problem: Problem) -> JSONResponse:
    """``problem`` in the shape of the protocol that ``path`` belongs to."""
    shape = flat_response if path.startswith(FLAT_PATHS) else error_response
    return shape(problem)


async def refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer an HTTP request or a WebSocket's handshake with ``problem``."""
    if scope["type"] == "websocket" and "websocket.http.response" not in scope["extensions"]:
        await send({"type": "websocket.close", "code": 1008, "reason": problem.message[:120]})
        return
    await response_at(scope["path"], problem)(scope, receive, send)


def install_error_handlers(app: FastAPI) -> None:
    """Turn everything that a route raises into :func:`response_at` its path."""
    app.add_exception_handler(EchoError, _on_echo_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_echo_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, EchoError)
    problem = problem_of(error)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s %s: %s", request.method, request.url.path, error.message)
    return response_at(request.url.path, problem)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return response_at(request.url.path, problem_of(validation_error(error.errors()[0])))


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    message = str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND:
        message = f"there is no {request.url.path[:200]!r} here; GET / lists what there is"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods_at(request))
        message = f"{request.url.path[:200]} does not take {request.method}; use {headers['Allow']}"
    problem = Problem(error.status_code, message, code, headers=headers)
    return response_at(request.url.path, problem)


def _methods_at(request: Request) -> list[str]:
    """What any route takes at the path of ``request``: Starlette tells those of the first only."""
    routes: list[BaseRoute] = request.app.routes
    return [
        method
        for method in ("GET", "HEAD", "POST", "PATCH", "DELETE")
        for answered in ["GET" if method == "HEAD" else method]  # by HeadAsGet
        if any(r.matches({**request.scope, "method": answered})[0] is Match.FULL for r in routes)
    ]


def _type_of(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
