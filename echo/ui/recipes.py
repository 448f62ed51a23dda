"""A generation as something to copy: the curl, Python or command line that makes it again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping

from echo.config.difference import hydra_value
from echo.ui.session import Entry
from echo.ui.settings import CONTROLS

SERVER = "http://127.0.0.1:8000"  # the API's default address

_PATHS = {control.key: control.path for control in CONTROLS}


def recipes(entry: Entry) -> dict[str, str]:
    """By name: curl, Python, Hydra. Each makes the samples of ``entry`` from the same weights."""
    return {"curl": curl(entry), "Python": python(entry), "Hydra": hydra(entry)}


def curl(entry: Entry) -> str:
    """Against a running server; a whole WAV, the blocks those of the stream."""
    body = {
        "input": entry.text,
        **_voice(entry),
        "stream": True,
        "response_format": "wav",
        "extra_body": {"seed": entry.info.seed, **entry.settings},
    }
    data = shlex.quote(json.dumps(body, ensure_ascii=False))
    return (
        f"curl -s {SERVER}/v1/audio/speech -H 'Content-Type: application/json' \\\n"
        f"  -d {data} -o {_file(entry)}"
    )


def python(entry: Entry) -> str:
    """With the engine, in a program of one's own."""
    given = [repr(entry.text), *(f"{key}={value!r}" for key, value in _voice(entry).items())]
    given.append(f"seed={entry.info.seed}")
    if entry.settings:
        given.append(f"overrides={dict(entry.settings)!r}")
    base = [f"{key}={value}" for key, value in entry.base.items()]
    return (
        "from echo.config import compose\n"
        "from echo.engine import Engine, SpeechRequest\n\n"
        f"with Engine.from_config(compose({base or ''})) as engine:\n"
        f"    audio = engine.synthesize(SpeechRequest({', '.join(given)}))\n"
    )


def hydra(entry: Entry) -> str:
    """The command with its settings in Hydra's syntax."""
    voice = _voice(entry).get("voice")
    words = ["echo-tts", "say"]
    words += [f"--voice={voice}"] if voice else []
    words += [f"--seed={entry.info.seed}", f"--out={_file(entry)}", "--", entry.text]
    words += [f"{key}={value}" for key, value in _assignments(entry).items()]
    return shlex.join(words)


def _assignments(entry: Entry) -> dict[str, str]:
    given = dict(entry.settings)
    count = len(entry.info.settings.blocks)
    found = dict(entry.base)
    if "preset" in given:
        found = {key: value for key, value in found.items() if not key.startswith("preset")}
        found["preset"] = str(given.pop("preset"))
    if "block_sizes" in given or "num_steps" in given:  # conf/ lists a step count for each block
        blocks = entry.info.settings.blocks
        given["block_sizes"] = [block.size for block in blocks]
        given["num_steps"] = [block.num_steps for block in blocks]
    for key, value in given.items():
        if isinstance(value, list | tuple) and len(value) not in (1, count):
            value = value[:count]
        found[_PATHS[key]] = value if key == "guidance_mode" else hydra_value(value)
    return found


def _voice(entry: Entry) -> Mapping[str, str]:
    """The voice, if it is one that others can name."""
    if entry.own_clip is not None:
        return {"voice": "YOUR_CLIP"}
    name = entry.voice or entry.info.voice
    return {"voice": name} if name else {}


def _file(entry: Entry) -> str:
    return f"echo-{entry.info.seed}.wav"
