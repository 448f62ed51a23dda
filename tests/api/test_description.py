"""What the OpenAPI description says of keys, errors, examples; HEAD and methods not taken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

FLAT_PATHS = ("/tts/", "/voices/")
METHODS = ("get", "post", "patch", "delete")


@pytest.fixture(scope="module")
def description(running) -> dict[str, Any]:
    return running.client.get("/openapi.json").json()


def operations(description: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in description["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for each in node.values():
            yield from references(each)
    elif isinstance(node, list):
        for each in node:
            yield from references(each)


def validator(description: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": description["components"]})


def test_every_reference_leads_somewhere(description):
    found = set(references(description))
    assert "#/components/schemas/VoiceSample" in found
    for reference in found:
        node = description
        for key in reference.removeprefix("#/").split("/"):
            node = node[key]


def test_every_route_is_told_of_in_full(description):
    for method, path, operation in operations(description):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["description"], where
        assert {"200", "403", "500"} <= set(operation["responses"]), where
        assert "422" not in operation["responses"], where
        in_path = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
        assert in_path == {part[1:-1] for part in path.split("/") if part[:1] == "{"}, where
        for parameter in operation.get("parameters", []):
            assert {"maxLength", "maxItems"} & set(parameter["schema"]) or any(
                "maxLength" in each for each in parameter["schema"].get("anyOf", ())
            ), where
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        assert body is None or body["examples"], where


def test_errors_are_told_in_the_shape_of_their_protocol(description):
    shapes = {True: "#/components/schemas/FlatError", False: "#/components/schemas/ErrorBody"}
    for method, path, operation in operations(description):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                told = response["content"]["application/json"]
                assert told["schema"] == {"$ref": shapes[path.startswith(FLAT_PATHS)]}
                check = validator(description, told["schema"])
                assert check.is_valid(told["example"]), f"{method} {path} {status}"
                assert ("Retry-After" in response["headers"]) == (status in ("429", "503"))


def test_examples_of_replies_fit_their_schemas(description):
    seen = 0
    for method, path, operation in operations(description):
        for kind, content in operation["responses"]["200"].get("content", {}).items():
            if "example" in content and "schema" in content:
                seen += 1
                check = validator(description, content["schema"])
                assert check.is_valid(content["example"]), f"{method} {path} {kind}"
    assert seen >= 8


def test_examples_of_requests_are_answered(running, description):
    sent = 0
    for method, path, operation in operations(description):
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        for example in body.get("examples", {}).values():
            if "clone" in path or method == "patch":  # turned off here
                continue
            reply = running.client.request(method, path, json=example["value"])
            assert reply.status_code == 200, f"{path}: {reply.text[:300]}"
            sent += 1
    assert sent == 7


def test_audio_comes_in_content_types_that_are_described(running, description):
    speech = description["paths"]["/v1/audio/speech"]["post"]["responses"]["200"]["content"]
    for fmt in ("pcm", "wav", "mp3", "flac", "opus", "aac", "m4a", "ogg"):
        reply = running.speak(input="Hi.", response_format=fmt)
        assert reply.headers["content-type"].partition(";")[0] in speech
    events = running.speak(input="Hi.", stream_format="sse")
    assert events.headers["content-type"].partition(";")[0] == "text/event-stream"
    assert "text/event-stream" in speech


def test_keys_are_told_of_where_there_are_some(run, description):
    assert "security" not in description
    assert "securitySchemes" not in description["components"]
    with run("server.api_keys=secret-key") as running:
        told = running.client.get("/openapi.json").json()
        assert told["security"] == [{"bearer": []}, {"basic": []}]
        schemes = told["components"]["securitySchemes"]
        assert schemes["bearer"]["scheme"] == "bearer"
        assert "secret-key" not in json.dumps(told)
        for method, path, operation in operations(told):
            needs_key = operation.get("security") != []
            answered = running.client.request(method, path.replace("{", "").replace("}", ""))
            assert (answered.status_code == 401) == needs_key, f"{method} {path}"


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/health", "/ready", "/docs", "/openapi.json", "/v1/models", "/v1/models/tts-1"),
        *("/v1/voices", "/v1/audio/voices", "/tts/v1/voices", "/voices/v1/voices/anna"),
    ],
)
def test_head_is_answered_as_get_without_the_body(running, path):
    whole, head = running.client.get(path), running.client.head(path)
    assert head.status_code == whole.status_code == 200
    assert head.content == b""
    for name in ("content-type", "content-length"):
        assert head.headers[name] == whole.headers[name]


def test_head_of_what_is_not_there_is_an_error_without_a_body(running):
    missing = running.client.head("/v1/nothing")
    assert (missing.status_code, missing.content) == (404, b"")
    assert running.client.head("/v1/audio/speech").status_code == 405
    assert running.client.get("/health").status_code == 200  # on the same connection


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/audio/speech", "POST"),
        ("/v1/audio/voices", "GET, HEAD, POST"),
        ("/voices/v1/voices/anna", "GET, HEAD, PATCH, DELETE"),
        ("/health", "GET, HEAD"),
    ],
)
def test_a_method_not_taken_is_told_all_that_are(running, path, allowed):
    reply = running.client.put(path)
    assert reply.status_code == 405
    assert reply.headers["allow"] == allowed
    assert f"use {allowed}" in reply.text
