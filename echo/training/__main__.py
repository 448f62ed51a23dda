"""``python -m echo.training STAGE [size=cpu|gpu|smoke] [key=value ...]``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

from echo.config.training import compose_training
from echo.errors import EchoError
from echo.training.stages import STAGES, Run

_NOT_THROUGH = 3  # the slice ended first: run the same command again


def main(arguments: list[str]) -> int:
    """Run one stage, or all; 0: through, 3: to be continued, 2: wrong arguments."""
    sizes = [a.partition("=")[2] for a in arguments if a.startswith("size=")]
    rest = [a for a in arguments if not a.startswith("size=")]
    stage = rest.pop(0) if rest else ""
    if stage not in (*STAGES, "all"):
        sys.stderr.write(f"{__doc__}\nSTAGE: {', '.join(STAGES)} or all\n")
        return 2
    try:
        config = compose_training(sizes[-1] if sizes else "cpu", rest)
        torch.set_num_threads(config.threads)
        for name in STAGES if stage == "all" else (stage,):
            run = Run(config, _speaker(name))
            if not STAGES[name](run):
                return _NOT_THROUGH
    except EchoError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _speaker(stage: str) -> Callable[[str], None]:
    def say(line: str) -> None:
        sys.stdout.write(f"{time.strftime('%H:%M:%S')} {stage}: {line}\n")
        sys.stdout.flush()

    return say


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
