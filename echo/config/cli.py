"""The command line that every program of Echo shares: Hydra overrides and ``--cfg job``."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from echo import __version__
from echo.config.compose import compose, raw_values, to_yaml
from echo.config.resolvers import group_options
from echo.config.schema import EchoConfig
from echo.errors import ConfigError, EchoError

_FLAG = re.compile(r"\$\{echo\.env:(\w+),(.*)\}", re.DOTALL)


@dataclass(frozen=True)
class ProgramArgs:
    """What was asked on the command line."""

    overrides: tuple[str, ...]
    cfg_job: bool  # print the configuration and stop


def parse_program_args(argv: Sequence[str], description: str) -> ProgramArgs:
    """Read ``argv`` (without the program's name).

    ``--help`` and ``--version`` print and raise ``SystemExit(0)``; a wrong option raises
    ``SystemExit(2)``. Overrides are not checked here.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, see below")
    parser.add_argument("--cfg", choices=["job"], help="print the configuration and stop")
    parser.add_argument("--help", "-h", action="store_true", help="show this and stop")
    parser.add_argument("--version", action="version", version=f"echo-tts {__version__}")
    args = parser.parse_intermixed_args(list(argv))
    if args.help:
        parser.epilog = _settings_help()
        parser.print_help()
        parser.exit()
    return ProgramArgs(overrides=tuple(args.overrides), cfg_job=args.cfg is not None)


def run_program(argv: Sequence[str], main: Callable[[EchoConfig], int], description: str) -> int:
    """Compose the configuration of ``argv`` and hand it to ``main``; returns the exit status.

    2 for a wrong setting and 1 for any other :class:`EchoError`, each told in one line on stderr.
    """
    args = parse_program_args(argv, description)
    try:
        if args.cfg_job:
            sys.stdout.write(to_yaml(args.overrides))
            return 0
        return main(compose(args.overrides))
    except EchoError as error:
        sys.stderr.write(f"error: {' '.join(error.message.split())}\n")
        return 2 if isinstance(error, ConfigError) else 1


def _settings_help() -> str:
    """Groups with their options, and keys with defaults (of ``model=base``) and flags."""
    lines = ["groups (GROUP=OPTION):"]
    lines += [f"  {group}: {', '.join(names)}" for group, names in group_options().items()]
    lines += ["", "keys (KEY=VALUE), with the environment variable that sets the default:"]
    lines += _key_lines()
    lines += ["", "quote text twice: 'engine.warmup_text=\"Hello, you.\"'"]
    return "\n".join(lines)


def _key_lines() -> list[str]:
    lines = []
    # Naming the model spares the import of torch that finding out about CUDA takes.
    for key, value in raw_values(["model=base"]).items():
        match = _FLAG.fullmatch(value) if isinstance(value, str) else None
        flag, default = match.groups() if match else ("", "null" if value is None else value)
        lines.append(f"  {key} = {default}" + (f"  [{flag}]" if flag else ""))
    return lines
