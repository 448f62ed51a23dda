import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from echo import __version__
from echo.config import EchoConfig, ProgramArgs, parse_program_args, run_program
from echo.errors import CheckpointError

PROGRAM = """
import sys
from echo.config import run_program

def main(cfg):
    print("serving", cfg.preset.name, cfg.vad.enabled)
    return 7

sys.exit(run_program(sys.argv[1:], main, "A program."))
"""


def never(cfg: EchoConfig) -> int:
    raise AssertionError("the program must not start")


def run_as_a_program(*arguments):
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_overrides_work_as_written_and_the_status_is_that_of_the_program():
    done = run_as_a_program("model=tiny", "preset=equal", "vad.enabled=true")
    assert (done.returncode, done.stdout, done.stderr) == (7, "serving equal True\n", "")


def test_cfg_job_prints_the_configuration_and_stops(monkeypatch):
    monkeypatch.setenv("PORT", "9001")
    done = run_as_a_program("--cfg", "job", "model=tiny", "preset=equal")
    assert (done.returncode, done.stderr) == (0, "")
    printed = OmegaConf.create(done.stdout)
    assert printed.preset.block_sizes == [213, 213, 214]
    assert printed.server.port == 9001


def test_a_wrong_setting_is_one_line_and_status_2():
    done = run_as_a_program("model=tiny", "preset=bogus")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "preset=bogus" in done.stderr


def test_a_wrong_flag_is_one_line_and_status_2(monkeypatch, capsys):
    monkeypatch.setenv("ECHO_COMPILE", "maybe")
    assert run_program(["model=tiny"], never, "A program.") == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "ECHO_COMPILE='maybe'" in err


def test_cfg_job_reports_a_wrong_setting_too(capsys):
    assert run_program(["--cfg", "job", "model=tiny", "server.port=x"], never, "A program.") == 2
    assert capsys.readouterr().out == ""


def test_another_typed_error_of_the_program_is_one_line_and_status_1(capsys):
    def fails(cfg: EchoConfig) -> int:
        raise CheckpointError("no weights here;\nget some")

    assert run_program(["model=tiny"], fails, "A program.") == 1
    assert capsys.readouterr().err == "error: no weights here; get some\n"


def test_other_failures_keep_their_traceback():
    def fails(cfg: EchoConfig) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_program(["model=tiny"], fails, "A program.")


def test_options_and_overrides_may_be_mixed():
    args = parse_program_args(["preset=low", "--cfg", "job", "~x", "+y=-1"], "A program.")
    assert args == ProgramArgs(overrides=("preset=low", "~x", "+y=-1"), cfg_job=True)
    assert parse_program_args([], "A program.") == ProgramArgs(overrides=(), cfg_job=False)


def test_help_lists_groups_options_keys_and_flags(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_program_args(["--help"], "A program that helps.")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "A program that helps." in text
    assert "preset: default, equal, low, low_mid, quality" in text
    assert "server.port = 8000  [PORT]" in text
    assert "model.pca_repo = ${model.repo}  [ECHO_PCA_REPO]" in text
    assert "voices.default = clara\n" in text


def test_help_works_with_a_wrong_environment(monkeypatch, capsys):
    monkeypatch.setenv("PORT", "x")
    monkeypatch.setenv("ECHO_PERFORMANCE_PRESET", "bogus")
    with pytest.raises(SystemExit) as caught:
        parse_program_args(["--help"], "A program.")
    assert caught.value.code == 0
    assert "server.port = 8000" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_program_args(["--version"], "A program.")
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"echo-tts {__version__}\n"


@pytest.mark.parametrize("argv", [["--cfg", "all"], ["--bogus"]])
def test_an_unknown_option_is_status_2(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_program_args(argv, "A program.")
    assert caught.value.code == 2
    assert argv[-1].removeprefix("--") in capsys.readouterr().err
