"""The OpenAPI description against the application: what it says is what comes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.core.transport import Response
from schemathesis.schemas import BaseSchema

from echo.api.app import create_app
from echo.api.describe import DescribedApp
from echo.config import compose
from echo.engine import Engine
from echo.engine.components import load_components

EXAMPLES = int(os.environ.get("CONTRACT_EXAMPLES", "6"))  # of each operation and mode
SECONDS = 60.0  # a hang, whatever else the machine is doing
# Most strings name no voice, so that valid bodies are refused, too.
NOT_CHECKED = "positive_data_acceptance"
LINES = "/tts/v1/voice:stream"  # a document a line, which checkers of JSON do not know


@pytest.fixture(scope="module")
def app(toy_overrides, toy, tmp_path_factory) -> Iterator[DescribedApp]:
    clones = tmp_path_factory.mktemp("clones")
    roots = f"voices.roots=['{clones}','{toy / 'audio_prompts'}']"
    on = [roots, f"voices.clone_root='{clones}'", "inworld.clone_enabled=true"]
    config = compose([*toy_overrides, *on])
    with Engine(config, load_components(config)) as engine:
        yield create_app(engine, config)


@pytest.fixture(scope="module")
def schema(app) -> BaseSchema:
    load_all_checks()
    config = SchemathesisConfig.from_str(f"[checks.{NOT_CHECKED}]\nenabled = false")
    return schemathesis.openapi.from_asgi("/openapi.json", app, config=config)


def is_told_in_its_shape(response: Response, path: str) -> None:
    assert response.status_code < 500, response.text
    assert response.headers["x-request-id"]
    if response.status_code < 400:
        return
    assert response.headers["content-type"] == ["application/json"]
    if path.startswith(("/tts/", "/voices/")):
        assert set(response.json()) == {"code", "message", "details"}
    else:
        assert set(response.json()) == {"error"}
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def checked(case: schemathesis.Case) -> Response:
    """Send it and hold the answer against the description."""
    begun = time.monotonic()
    response = case.call()
    assert time.monotonic() - begun < SECONDS
    is_told_in_its_shape(response, case.path)
    if case.path == LINES and response.status_code == 200:
        for line in response.text.splitlines():
            assert set(json.loads(line)) == {"result"}
    else:
        case.validate_response(response)
    return response


def voiced(case: schemathesis.Case) -> schemathesis.Case:
    """With a voice that exists, so that speech is reached, too."""
    if isinstance(case.body, dict):
        names = {"/v1/audio/speech": "voice", "/tts/v1/voice": "voiceId", LINES: "voiceId"}
        if name := names.get(case.path):
            case.body[name] = "anna"
    return case


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_operation_answers_as_it_is_described(schema, mode):
    statuses: set[int] = set()
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) >= 23
    for operation in operations:
        if mode.is_negative and not (
            operation.body or operation.query or operation.path_parameters
        ):
            continue  # nothing to be wrong

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def answers(case: schemathesis.Case) -> None:
            statuses.add(checked(voiced(case) if mode.is_positive else case).status_code)

        answers()
    assert statuses & {400, 404, 415}
    assert mode.is_negative or 200 in statuses
