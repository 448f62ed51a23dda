"""The OpenAPI description: what FastAPI cannot know of errors, keys, headers and bodies."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from echo.api.access import OPEN_PATHS
from echo.api.errors import FLAT_PATHS, ErrorBody, FlatError, Problem, response_at
from echo.api.middleware import REQUEST_ID

Responses = dict[int | str, dict[str, Any]]

READING = (401, 403, 500)  # what every route may answer
CHANGING = (*READING, 429)
WITH_BODY = (*CHANGING, 400, 408, 413, 415)

TAGS = [
    {"name": "speech", "description": "Speech and models as in OpenAI's API."},
    {"name": "voices", "description": "Voices as in OpenAI's API and as Open WebUI reads them."},
    {
        "name": "inworld",
        "description": "Inworld's API, in both styles of its URLs; camelCase or snake_case.\n\n"
        "The WebSocket `/tts/v1/voice:streamBidirectional` takes frames of JSON, each with a "
        "`contextId`: `create` (`voiceId`, `modelId`, `audioConfig`, …), `send_text` (`text`, "
        "`flush_context`?), `flush_context`, `close_context`, `cancel_context`; up to five "
        "contexts at once. It answers with frames `result` that have the `contextId`, a `status` "
        "and one of `contextCreated`, `audioChunk` (`audioContent` in base64), `flushCompleted` "
        "and `contextClosed`, the last after all audio.",
    },
    {"name": "server", "description": "Its state."},
]

_SAMPLES: dict[int, tuple[str, Problem]] = {
    400: (
        "An impossible request; `param` or the message names the field.",
        Problem(400, "text is missing", "invalid_value", "text"),
    ),
    401: (
        "No right key, where the server has some.",
        Problem(401, "this server wants a key", "invalid_api_key"),
    ),
    403: (
        "Cloning is turned off; or a Host or Origin that is not allowed.",
        Problem(403, "making and deleting voices is turned off", "cloning_disabled"),
    ),
    404: ("There is no such thing.", Problem(404, "there is no 'nobody'", "not_found")),
    408: ("The body stopped arriving.", Problem(408, "send it again", "request_timeout")),
    409: (
        "There is a voice of that name already.",
        Problem(409, "there is a voice 'default__Anna' already", "voice_exists", "name"),
    ),
    413: (
        "A body or an upload over the limit.",
        Problem(413, "the request's body is over 67108864 bytes; send less", "body_too_large"),
    ),
    415: (
        "A body of another content type.",
        Problem(415, "the body is text/plain; send JSON", "unsupported_media_type"),
    ),
    429: (
        "Too much at once; see `Retry-After`.",
        Problem(429, "the queue is full; try again", "queue_full"),
    ),
    500: ("It failed.", Problem(500, "internal error", "internal_error")),
    503: (
        "The server is going down, or an unloaded model cannot be loaded; see `Retry-After`.",
        Problem(503, "the request was cancelled", "cancelled"),
    ),
}
_HEADERS = {
    "RequestId": {
        "description": "The request's own, if it sent a sane one.",
        "schema": {"type": "string"},
    },
    "RetryAfter": {
        "description": "Seconds.",
        "schema": {"type": "integer", "minimum": 1},
    },
}
_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`."},
    "basic": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "`Authorization: Basic KEY`, as Inworld's clients send it: the key as it "
        "is, neither user and password nor encoded.",
    },
}


class DescribedApp(FastAPI):
    """With a description that tells of errors in each protocol's shape, and of keys if there are
    any (``keyed``)."""

    def __init__(self, *, keyed: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self._keyed = keyed

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            described = super().openapi()
            components = described.setdefault("components", {})
            schemas = components.setdefault("schemas", {})
            components["headers"] = _HEADERS
            used = set()
            for path, operation in _operations(described):
                used.update(operation["tags"])
                _tell_errors(path, operation["responses"])
                _lift_definitions(operation, schemas)
                if self._keyed and path in OPEN_PATHS:
                    operation["security"] = []
            described["tags"] = [tag for tag in TAGS if tag["name"] in used]
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            if self._keyed:
                components["securitySchemes"] = _KEYS
                described["security"] = [{name: []} for name in _KEYS]
        assert self.openapi_schema is not None
        return self.openapi_schema


def openai_errors(*statuses: int) -> Responses:
    """For a route's ``responses``, in OpenAI's shape."""
    return _errors(ErrorBody, statuses)


def inworld_errors(*statuses: int) -> Responses:
    """For a route's ``responses``, in Inworld's shape."""
    return _errors(FlatError, statuses)


def json_body(model: type[BaseModel], examples: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """For a route's ``openapi_extra``: the body that it reads itself. ``examples``: by title."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    named = {title: {"value": value} for title, value in examples.items()}
    content = {"application/json": {"schema": schema, "examples": named}}
    return {"requestBody": {"required": True, "content": content}}


def json_reply(model: type[BaseModel], description: str, example: Any) -> Responses:
    """For a route's ``responses``: a reply that the route makes itself."""
    content = {"application/json": {"example": example}}
    return {200: {"model": model, "description": description, "content": content}}


def _errors(shape: type[BaseModel], statuses: Iterable[int]) -> Responses:
    return {
        status: {"model": shape, "description": _SAMPLES[status][0]} for status in sorted(statuses)
    }


def _operations(described: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in described["paths"].items():
        for operation in item.values():
            yield path, operation


def _tell_errors(path: str, responses: dict[str, Any]) -> None:
    """Examples in the path's shape. FastAPI's own 422 never comes: it is told as 400 or 404."""
    responses.pop("422", None)
    flat = path.startswith(FLAT_PATHS)
    for status, response in responses.items():
        headers = response.setdefault("headers", {})
        headers[REQUEST_ID] = {"$ref": "#/components/headers/RequestId"}
        if int(status) < HTTPStatus.BAD_REQUEST:
            continue
        if int(status) in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
        example = response_at(FLAT_PATHS[0] if flat else "/", _SAMPLES[int(status)][1]).body
        response["content"]["application/json"]["example"] = json.loads(bytes(example))


def _lift_definitions(operation: Mapping[str, Any], schemas: dict[str, Any]) -> None:
    """Move what a body's schema defines to where it refers to it."""
    for content in operation.get("requestBody", {}).get("content", {}).values():
        for name, definition in content["schema"].pop("$defs", {}).items():
            schemas.setdefault(name, definition)
