"""The wheel, installed in an empty environment, speaks: no checkout, no settings, no network."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from echo.spec import SAMPLE_RATE
from echo.training.judge import held_out_trials, judge_audio

ROOT = Path(__file__).parents[2]
START_S = 120.0  # of a server, on a busy machine


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this checkout, as ``make wheel`` does."""
    folder = tmp_path_factory.mktemp("dist")
    command = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of a new environment with the wheel. What it depends on is borrowed from the
    environment of the tests, by a path behind its own, so that nothing is downloaded."""
    home = tmp_path_factory.mktemp("env") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    install = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install"]
    offline = ["--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*install, *offline, str(wheel)], check=True)
    [packages] = (home / "lib").glob("python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"])
    return home / "bin"


def clean_environment(home: Path) -> dict[str, str]:
    """No flag of Echo's, no PYTHONPATH, a home of its own; the hub cannot be asked."""
    kept = {name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ}
    own = {"PATH": os.defpath, "HOME": str(home), "HF_HUB_OFFLINE": "1"}
    return {**kept, **own, "PYTHONDONTWRITEBYTECODE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}


def run(installed: Path, folder: Path, *command: str) -> str:
    """Run a program of the environment in ``folder``; what it wrote."""
    done = subprocess.run(
        [str(installed / command[0]), *command[1:]],
        cwd=folder,
        env=clean_environment(folder),
        capture_output=True,
        text=True,
        timeout=START_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def running(
    installed: Path, folder: Path, command: Sequence[str], address: re.Pattern[str]
) -> Iterator[str]:
    """A server of the environment; yields the address that it says it can be reached at."""
    told = folder / "output.txt"
    with told.open("w") as output:
        program = subprocess.Popen(
            [str(installed / "echo-tts"), *command],
            cwd=folder,
            env=clean_environment(folder),
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + START_S
        while (found := address.search(told.read_text())) is None:
            assert program.poll() is None, told.read_text()
            assert time.monotonic() < deadline, told.read_text()
            time.sleep(0.1)
        yield found[1]
        program.terminate()
        program.wait(timeout=30)
    finally:
        program.kill()
        program.wait()


def samples_of(wav: bytes) -> NDArray[np.float32]:
    """Of a 16-bit mono file with the canonical header."""
    assert wav[:4] == b"RIFF"
    return np.frombuffer(wav[44:], np.int16).astype(np.float32) / 32768


def test_the_wheel_holds_settings_model_voices_and_no_rest_of_the_checkout(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    inside = ("echo/_conf", "echo/_audio_prompts", "echo/assets/tiny")
    for folder, place in zip(("conf", "audio_prompts", "echo/assets/tiny"), inside, strict=True):
        files = {p.relative_to(ROOT / folder) for p in (ROOT / folder).rglob("*") if p.is_file()}
        assert {f"{place}/{file.as_posix()}" for file in files} <= set(names)
    tops = {name.partition("/")[0].partition("-")[0] for name in names}
    assert tops == {"echo", "benchmarks", "echo_tts"}
    assert not [name for name in names if "/results/" in name]


def test_it_speaks_a_sentence_that_is_understood(installed: Path, tmp_path: Path) -> None:
    where = run(installed, tmp_path, "python", "-c", "import echo; print(echo.__file__)")
    assert str(ROOT / "echo") not in where
    assert str(installed.parent) in where
    [trial] = held_out_trials(["clara"], slot_sentences=1, choices=0)
    text = trial.text.removeprefix("[S1] ")
    run(installed, tmp_path, "echo-tts", "say", text, "--seed", "0", "--out", "said.wav")
    audio = samples_of((tmp_path / "said.wav").read_bytes())
    verdict = judge_audio(audio, SAMPLE_RATE, trial.text, trial.kind)
    assert verdict.errors.rate < 0.5, f"{text!r} was not understood"


def test_its_server_speaks(installed: Path, tmp_path: Path) -> None:
    listens = re.compile(r"listening on (\S+)")
    command = ["serve", "server.port=0", "model=tiny"]
    with running(installed, tmp_path, command, listens) as url:
        body = {"input": "A quiet river.", "response_format": "wav", "voice": "oscar"}
        request = urllib.request.Request(
            f"{url}/v1/audio/speech",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=START_S) as answer:
            audio = answer.read()
    samples = samples_of(audio)
    assert len(samples) > SAMPLE_RATE // 2
    assert 0.05 < np.abs(samples).max() <= 1.0


def test_its_page_opens(installed: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["ui", f"ui.port={port}", "model=tiny"]
    opens = re.compile(r"open (http\S+?)/? in a browser")
    with (
        running(installed, tmp_path, command, opens) as url,
        urllib.request.urlopen(f"{url}/", timeout=START_S) as answer,
    ):
        assert b"gradio" in answer.read().lower()


def test_its_doctor_finds_the_machine_fit(installed: Path, tmp_path: Path) -> None:
    told = run(installed, tmp_path, "echo-tts", "doctor", "server.port=0", "model=tiny")
    assert told.splitlines()[-1] == "ready: echo-tts serve"
    assert str(installed.parent) in told  # its weights are those of the wheel
