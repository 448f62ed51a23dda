"""The command line, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from echo import cli

FAST = ("model=tiny", "model.weights=random", "preset.block_sizes=[8,8]", "preset.num_steps=[1,1]")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_say_writes_a_file_and_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["say", "Hello.", "--seed", "3", "--out", "a.wav", *FAST]) == 0
    info = soundfile.info("a.wav")
    assert (info.samplerate, info.channels, info.frames) == (44_100, 1, 16 * 2048)
    said = capsys.readouterr().out
    assert all(word in said for word in ("a.wav", "seed 3", "0.74 s", "TTFB", "RTF", "voice"))


@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.ogg", "a.opus"])
def test_the_name_of_the_file_decides_its_format(name: str) -> None:
    assert cli.main(["say", "Hello.", "--out", name, *FAST]) == 0
    assert soundfile.info(name).frames > 0


def test_a_dry_run_prints_json_and_speaks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["say", "Hello; there!", "--dry-run"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"normalized": "[S1] Hello, there.", "chunks": ["[S1] Hello, there."]}
    assert list(Path().iterdir()) == []


def test_settings_change_a_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["say", "Stop!! Now!", "--dry-run", "text.normalize_exclamation=false"]) == 0
    assert json.loads(capsys.readouterr().out)["normalized"] == "[S1] Stop!! Now!"


def test_a_text_of_one_dash_is_read_from_stdin() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "echo.cli", "say", "-", "--dry-run"],
        input="From a pipe.",
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["normalized"] == "[S1] From a pipe."


@pytest.mark.parametrize("sent", [b"\xff\xfe", None])
def test_a_broken_pipe_of_text_is_told(sent: bytes | None) -> None:
    command = [sys.executable, "-m", "echo.cli", "say", "-", "--dry-run"]
    if sent is None:
        command = ["sh", "-c", 'exec "$0" "$@" <&-', *command]
    done = subprocess.run(command, input=sent, capture_output=True, check=False)
    assert done.returncode == 1
    assert b"standard input" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_reader_that_has_enough_is_no_error() -> None:
    Path("lines.txt").write_text("Hello there.\n" * 5000, encoding="utf-8")
    command = f"{sys.executable} -m echo.cli say --lines lines.txt --dry-run | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["normalized"] == "[S1] Hello there."
    assert done.stderr == ""


def test_a_dry_run_of_lines_goes_on_after_one_that_cannot_be_spoken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("lines.txt").write_text("One.\n...\nThree.\n", encoding="utf-8")
    assert cli.main(["say", "--lines", "lines.txt", "--dry-run"]) == 1
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 2
    assert "line 2" in shown.err


def test_each_line_of_a_file_becomes_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("lines.txt").write_text("One.\n\nTwo.\n...\n", encoding="utf-8")
    assert cli.main(["say", "--lines", "lines.txt", "--out-dir", "out", *FAST]) == 1
    assert sorted(path.name for path in Path("out").iterdir()) == ["0001.wav", "0003.wav"]
    assert "line 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["shout", "x"], 2, "no command"),
        (["say", "Hi.", "--voice", "nobody", *FAST], 1, "nobody"),
        (["say", "Hi.", "--out", "a.xyz", *FAST], 1, "xyz"),
        (["say", "Hi.", "--out", "wav", *FAST], 1, "no extension"),
        (["say", "--lines", "some.txt", "--out-dir", "some.txt", *FAST], 1, "folder"),
        (["say", "Hi.", "--out", "no/such/folder/a.wav", *FAST], 1, "no/such/folder"),
        (["say", "...", *FAST], 1, "speak"),
        (["say", "Hi.", "preset=bogus"], 2, "bogus"),
        (["say", "Hi.", "vad.max_rerols=3"], 2, "max_rerols"),
        (["say", "--lines", "gone.txt", "--out-dir", "out"], 1, "gone.txt"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    arguments: list[str], status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("some.txt").write_text("Hello.", encoding="utf-8")
    assert cli.main(arguments) == status
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1
    assert not list(Path().glob("*.wav"))


def test_demo_writes_a_valid_file_and_says_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--out", "demo.wav"]) == 0
    assert soundfile.info("demo.wav").samplerate == 44_100
    said = capsys.readouterr().out
    assert all(word in said for word in ("voice", "s of audio", "TTFB", "RTF"))
