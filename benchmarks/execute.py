"""Run notebooks from top to bottom and keep their outputs, small and clean.

    python -m benchmarks.execute [notebooks/01_hear_it.ipynb ...]

Without names: all. Nothing is written of a notebook with a cell that fails, or with outputs that
are too large or name a place on this machine.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from benchmarks.machine import ROOT
from benchmarks.report import say
from echo.errors import EchoError

NOTEBOOKS = ROOT / "notebooks"
MAX_BYTES = 600_000  # of one notebook
CELL_TIMEOUT_S = 600
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
# A folder of a user, a temporary one, or where this checkout lies.
PLACES = re.compile(rf"{re.escape(str(ROOT))}|(?:/home|/root|/Users|/tmp|/var/folders)\b|[A-Z]:\\")


class NotebookError(EchoError):
    """A notebook that does not run, or whose outputs should not be kept."""


def execute(path: Path) -> nbformat.NotebookNode:
    """The notebook, run in a fresh process, with clean outputs. Raises :class:`NotebookError`."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=CELL_TIMEOUT_S, resources={"metadata": {"path": str(path.parent)}}
    )
    own = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    try:
        client.execute(env={**os.environ, "PYTHONPATH": own})
    except CellExecutionError as error:
        raise NotebookError(f"{path.name}: a cell failed\n{error}") from error
    clean(notebook)
    check(notebook, path.name)
    return notebook


def clean(notebook: nbformat.NotebookNode) -> None:
    """Take away what differs from run to run or machine to machine and says nothing."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    for number, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags")
        cell.id = f"cell-{number:02d}"
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            kept = [out for out in cell.outputs if out.get("name") != "stderr"]
            cell.outputs = [_without_metadata(out) for out in kept]


def check(notebook: nbformat.NotebookNode, name: str) -> None:
    """Raise :class:`NotebookError` for outputs that have no place in git."""
    size = len(nbformat.writes(notebook).encode())
    if size > MAX_BYTES:
        raise NotebookError(f"{name} has {size / 1e3:.0f} kB; at most {MAX_BYTES / 1e3:.0f}")
    for number, cell in enumerate(notebook.cells):
        found = PLACES.search(_text_of(cell.get("outputs", [])))
        if found:
            raise NotebookError(f"{name}, cell {number}: an output names {found.group()}")


def _without_metadata(output: Any) -> Any:
    if "metadata" in output:
        output.metadata = nbformat.from_dict({})
    data = output.get("data", {})
    if "image/png" in data or "text/html" in data:
        data["text/plain"] = re.sub(r" at 0x[0-9a-f]+", "", data.get("text/plain", ""))
    return output


def _text_of(outputs: Sequence[Any]) -> str:
    """What is to be read in outputs; not the letters that encode sound and pictures."""
    texts = [out.get("text", "") for out in outputs]
    texts += [
        t for out in outputs for mime, t in out.get("data", {}).items() if mime[:5] == "text/"
    ]
    return re.sub(r"base64,[\w+/=]+", "", "\n".join(texts))


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status: 1 if a notebook was not written."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.execute", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("notebooks", type=Path, nargs="*", help="default: all of notebooks/")
    args = parser.parse_args(argv)
    for path in args.notebooks or sorted(NOTEBOOKS.glob("*.ipynb")):
        begun = time.perf_counter()
        try:
            text = nbformat.writes(execute(path)) + "\n"
        except NotebookError as error:
            say(f"error: {error.message}", sys.stderr)
            return 1
        path.write_text(text, encoding="utf-8")
        taken = time.perf_counter() - begun
        say(f"{path.name}: {taken:.0f} s, {len(text.encode()) / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
