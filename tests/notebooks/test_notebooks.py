"""The quicker notebooks run from top to bottom, here with few and short sentences.

``make notebooks`` runs all of them as they are. Both go through nbval: a cell that fails is a
failed test, and cells tagged ``nbval-check-output`` must say again what they say in the file.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from benchmarks import notebook as nb
from benchmarks.execute import check

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_BYTES = 2_000_000  # of all, so that a clone stays small
SHORT = {  # those of a minute in all
    "01_hear_it": 'TEXT = LONG_TEXT = "Sit down."\nSEEDS = [1]',
    "03_sweep": 'SWEEP, REPEATS = ["preset=low", "engine.cpu_threads=1,2"], 3',
    "05_inside_the_model": "SENTENCES, TEXT_GUIDANCE, FORCED = 1, [-1, 2], [None]",
}


def run_nbval(path: Path) -> subprocess.CompletedProcess[str]:
    """pytest with nbval on ``path``, the code under test being this checkout's."""
    options = ["--nbval-lax", "--nbval-current-env", "-q", "-p", "no:cacheprovider"]
    own = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(path)],
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": own},
        capture_output=True,
        text=True,
        timeout=280,
    )


def shortened(path: Path, folder: Path) -> Path:
    """A copy of the notebook whose parameters are set again, to less work."""
    notebook = nbformat.read(path, as_version=4)
    own = next(
        number
        for number, cell in enumerate(notebook.cells)
        if "parameters" in cell.metadata.get("tags", [])
    )
    less = SHORT[path.stem]
    if "OUT = " in notebook.cells[own].source:  # nothing that an earlier run has left
        less += f"\nOUT = {str(folder / 'out')!r}"
    notebook.cells.insert(own + 1, new_code_cell(less))
    copy = folder / path.name
    nbformat.write(notebook, copy)
    return copy


@pytest.mark.parametrize("name", SHORT)
def test_a_notebook_runs_from_top_to_bottom(name: str, tmp_path: Path) -> None:
    path = ROOT / "notebooks" / f"{name}.ipynb"
    done = run_nbval(shortened(path, tmp_path))
    assert done.returncode == 0, done.stdout[-6000:]
    cells = sum(cell.cell_type == "code" for cell in nbformat.read(path, as_version=4).cells)
    assert f"{cells + 1} passed" in done.stdout


def test_a_cell_that_fails_or_says_something_else_fails_the_test(tmp_path: Path) -> None:
    story = nbformat.v4.new_notebook()
    right, wrong = (new_code_cell("print(6 * 7)") for _ in range(2))
    for cell, said in ((right, "42\n"), (wrong, "43\n")):
        cell.metadata["tags"] = ["nbval-check-output"]
        cell.execution_count = 1
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=said)]
    story.cells = [right, wrong, new_code_cell("1 / 0"), new_code_cell("print('unchecked')")]
    nbformat.write(story, tmp_path / "story.ipynb")
    done = run_nbval(tmp_path / "story.ipynb")
    assert done.returncode == 1
    assert "2 failed, 2 passed" in done.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_kept_was_run_in_order_and_names_no_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [out for cell in code for out in cell.outputs if out.output_type == "error"]
    check(notebook, path.name)
    assert list(notebook.metadata) == ["kernelspec"]


def test_some_cells_must_say_again_what_they_said() -> None:
    assert sum(path.read_text().count('"nbval-check-output"') for path in NOTEBOOKS) >= 4


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_imports_is_there(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    assert found
    for node in found:
        module = import_module(str(node.module))
        for name in (alias.name for alias in node.names):
            assert hasattr(module, name) or import_module(f"{node.module}.{name}")
    own = {node.attr for node in ast.walk(ast.parse(source)) if _is_of_helper(node)}
    assert own <= set(nb.__all__)


def _is_of_helper(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "nb"
    )


def test_all_of_them_together_are_small() -> None:
    assert len(NOTEBOOKS) == 5
    assert sum(path.stat().st_size for path in NOTEBOOKS) < MAX_BYTES


def test_links_between_notebooks_lead_somewhere() -> None:
    for path in NOTEBOOKS:
        for name in re.findall(r"\]\((\w+\.ipynb)\)", path.read_text()):
            assert (path.parent / name).is_file(), f"{path.name}: {name}"
