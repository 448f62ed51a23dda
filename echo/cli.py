"""The ``echo-tts`` command: speak from a shell, start the server or the UI."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from echo import __version__
from echo.audio.encode import encode_file, format_of, get_format
from echo.audio.resample import Samples
from echo.config import EchoConfig, compose, run_program
from echo.engine.engine import Engine
from echo.engine.request import SpeechRequest
from echo.engine.stream import SpeechStream
from echo.errors import ConfigError, EchoError, InvalidRequestError
from echo.spec import SAMPLE_RATE
from echo.text import prepare

USAGE = f"""\
echo-tts {__version__}: speech in a cloned voice

  echo-tts say "TEXT" [--voice V] [--seed N] [--out F.wav|.mp3|...] [SETTING=VALUE ...]
  echo-tts demo [--out demo.wav]        speak a sentence with the shipped model, on the CPU
  echo-tts serve [SETTING=VALUE ...]    start the HTTP server
  echo-tts ui [SETTING=VALUE ...]       start the Gradio UI
  echo-tts doctor [SETTING=VALUE ...]   look for what would go wrong, and say what to do

echo-tts COMMAND --help tells more. Settings are those of conf/, such as preset=low, model=base
or vad.enabled=true.
"""
DEMO_TEXT = "Hello! This is Echo. It reads your words aloud, on your own machine."
PLAYERS = (
    ("ffplay", "-nodisp", "-autoexit", "-loglevel", "error"),
    ("pw-play",),
    ("paplay",),
    ("aplay", "-q"),
    ("afplay",),
    ("play", "-q"),
)
POLL_SECONDS = 0.05


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 for a failure, 2 for wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments.pop(0) if arguments else "--help"
    if command in ("--help", "-h", "help"):
        _print(USAGE)
        return 0
    if command == "--version":
        _print(f"echo-tts {__version__}")
        return 0
    commands: dict[str, Callable[[list[str]], int]] = {
        "say": _say,
        "demo": _demo,
        "serve": _serve,
        "ui": _ui,
        "doctor": _doctor,
    }
    if command not in commands:
        return _complain(f"there is no command {command!r}; see echo-tts --help", 2)
    try:
        return commands[command](arguments)
    except EchoError as error:
        return _complain(error.message, 2 if isinstance(error, ConfigError) else 1)
    except KeyboardInterrupt:
        return _complain("stopped", 130)
    except BrokenPipeError:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _serve(arguments: list[str]) -> int:
    from echo.cluster.server import main as serve
    from echo.ui.launch import page_beside_api

    return serve(arguments, page_beside_api)


def _ui(arguments: list[str]) -> int:
    from echo.ui.launch import DESCRIPTION, launch

    return run_program(arguments, launch, DESCRIPTION)


def _doctor(arguments: list[str]) -> int:
    from echo.doctor import main as doctor

    return doctor(arguments)


def _demo(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("echo-tts demo", description="Speak a sentence on the CPU.")
    parser.add_argument("--out", type=Path, default=Path("demo.wav"), help="file to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    config = compose(["model=tiny", "model.device=cpu", "model.codec_device=cpu"])
    _check_target(options.out)
    with Engine.from_config(config) as engine:
        _print(engine.describe())
        _print(f'saying "{DEMO_TEXT}"')
        _speak_to_file(engine, SpeechRequest(DEMO_TEXT, seed=options.seed), options.out)
    return 0


def _say(arguments: list[str]) -> int:
    options, text, overrides = _say_options(arguments)
    config = compose(overrides)
    if options.dry_run:
        return _dry_run(config, text, options.lines)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if options.lines is not None:
        return _say_lines(config, options)
    _check_target(options.out)
    player = _find_player() if options.play else None
    prepare(text, config.text, config.chunking)  # a wrong text fails before the model is loaded
    with Engine.from_config(config) as engine:
        request = SpeechRequest(text, voice=options.voice, seed=options.seed)
        _speak_to_file(engine, request, options.out)
    return 0 if player is None else _play(player, options.out)


def _say_options(arguments: list[str]) -> tuple[argparse.Namespace, str, list[str]]:
    parser = argparse.ArgumentParser(
        "echo-tts say", description="Speak a text to a file.", epilog="A text of - reads stdin."
    )
    parser.add_argument(
        "words", nargs="*", metavar="TEXT SETTING=VALUE", help="text, then settings"
    )
    parser.add_argument("--voice", help="name of a voice in audio_prompts/")
    parser.add_argument("--seed", type=int, help="the same seed says it the same way again")
    parser.add_argument("--out", type=Path, default=Path("speech.wav"), help="default: speech.wav")
    parser.add_argument("--play", action="store_true", help="play the file when it is done")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the normalised text and chunks as JSON"
    )
    parser.add_argument("--lines", type=Path, metavar="FILE", help="speak each line of a file")
    parser.add_argument(
        "--out-dir", type=Path, metavar="DIR", help="with --lines: 0001.wav and so on, by line"
    )
    parser.add_argument("--format", default="wav", help="of the files in --out-dir (wav)")
    options = parser.parse_intermixed_args(arguments)
    if options.lines is not None:
        if options.out_dir is None and not options.dry_run:
            parser.error("--lines needs --out-dir")
        return options, "", options.words
    if not options.words:
        parser.error("what shall be said? Give a text, or - to read stdin")
    text, *overrides = options.words
    return options, _read_stdin() if text == "-" else text, overrides


def _read_stdin() -> str:
    if sys.stdin is None:
        raise InvalidRequestError("there is no standard input to read", param="TEXT")
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"standard input is not UTF-8: {error}", param="TEXT") from error


def _play(player: list[str], file: Path) -> int:
    try:
        status = subprocess.run([*player, str(file)], check=False).returncode
    except OSError as error:
        return _complain(f"{player[0]} cannot be run: {error.strerror}", 1)
    return _complain(f"{player[0]} could not play {file}", 1) if status else 0


def _dry_run(config: EchoConfig, text: str, lines: Path | None) -> int:
    failed = 0
    for number, each in _read_lines(lines) if lines is not None else [(0, text)]:
        try:
            prepared = prepare(each, config.text, config.chunking)
        except InvalidRequestError as error:
            if lines is None:
                raise
            failed += 1
            _complain(f"line {number}: {error.message}", 1)
            continue
        for warning in prepared.warnings:
            _complain(warning, 0, label="note")
        shown = {"normalized": prepared.normalized, "chunks": list(prepared.chunks)}
        _print(json.dumps(shown, ensure_ascii=False))
    return 1 if failed else 0


def _say_lines(config: EchoConfig, options: argparse.Namespace) -> int:
    """Every line that can be spoken is; the others are named at the end."""
    lines = _read_lines(options.lines)
    suffix = get_format(options.format, param="--format").name
    try:
        options.out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot make the folder {options.out_dir}: {error.strerror}"
        raise InvalidRequestError(problem, param="--out-dir") from error
    failed = []
    with Engine.from_config(config) as engine:
        for number, line in lines:
            target = options.out_dir / f"{number:04d}.{suffix}"
            request = SpeechRequest(line, voice=options.voice, seed=options.seed)
            try:
                _speak_to_file(engine, request, target)
            except InvalidRequestError as error:
                if error.param != "input":
                    raise  # the voice or a setting: every line would fail
                failed.append(number)
                _complain(f"line {number}: {error.message}", 1)
    if failed:
        return _complain(f"{len(failed)} of {len(lines)} lines were not spoken: {failed}", 1)
    return 0


def _read_lines(path: Path) -> list[tuple[int, str]]:
    """Numbered lines that are not blank."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"cannot read {path}: {error}", param="--lines") from error
    # Not splitlines(), which knows line ends that editors do not count.
    lines = [(i, line) for i, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise InvalidRequestError(f"{path} has no text in it", param="--lines")
    return lines


def _speak_to_file(engine: Engine, request: SpeechRequest, target: Path) -> None:
    with engine.stream(request) as stream:
        for warning in stream.info.text.warnings:
            _complain(warning, 0, label="note")
        samples = _collect(stream)
        data = encode_file(samples, engine.sample_rate, target)
        try:
            target.write_bytes(data)
        except OSError as error:
            raise InvalidRequestError(f"cannot write {target}: {error.strerror}") from error
        _print(_summary(stream, target))


def _collect(stream: SpeechStream) -> Samples:
    """All audio of ``stream``, with a bar that moves at every sampling step."""
    chunks: list[Samples] = []
    with tqdm(unit="step", leave=False, disable=not sys.stderr.isatty()) as bar:
        while True:
            try:
                chunk = stream.poll()
            except EOFError:
                break
            if stream.progress is not None:
                bar.total = stream.progress.steps_planned
                bar.update(stream.progress.steps_done - bar.n)
            if chunk is not None:
                chunks.append(chunk)
                bar.set_postfix_str(f"{sum(map(len, chunks)) / SAMPLE_RATE:.1f} s of audio")
            else:
                time.sleep(POLL_SECONDS)
    return np.concatenate(chunks) if chunks else np.zeros(0, np.float32)


def _summary(stream: SpeechStream, target: Path) -> str:
    stats = stream.stats
    ttfb = "none" if stats.ttfb_s is None else f"{stats.ttfb_s:.2f} s"
    rtf = "none" if stats.rtf is None else f"{stats.rtf:.2f}"
    return (
        f"{target}: voice {stream.info.voice or 'none'}, seed {stream.info.seed}, "
        f"{stats.audio_s:.2f} s of audio, TTFB {ttfb}, RTF {rtf}"
    )


def _check_target(target: Path) -> None:
    """Fail before the work, not after it."""
    if not target.suffix:
        problem = f"{target} has no extension to tell the format by, such as {target}.wav"
        raise InvalidRequestError(problem, param="--out")
    format_of(target, param="--out")
    if not target.parent.is_dir():
        raise InvalidRequestError(f"there is no folder {target.parent}", param="--out")


def _find_player() -> list[str]:
    for name, *options in PLAYERS:
        if path := shutil.which(name):
            return [path, *options]
    names = ", ".join(player[0] for player in PLAYERS)
    raise ConfigError(f"found no player for --play; install one of {names}", param="--play")


def _print(line: str) -> None:
    sys.stdout.write(line.rstrip("\n") + "\n")
    sys.stdout.flush()


def _complain(message: str, status: int, *, label: str = "error") -> int:
    sys.stderr.write(f"{label}: {' '.join(message.split())}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
