from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from benchmarks import execute
from benchmarks.execute import NotebookError, check, clean, main


def notebook(*sources: str) -> nbformat.NotebookNode:
    cells = [new_code_cell(source, metadata={"tags": ["parameters"]}) for source in sources]
    return new_notebook(cells=[new_markdown_cell("# A story"), *cells])


def put(folder: Path, *sources: str) -> Path:
    path = folder / "story.ipynb"
    path.write_text(nbformat.writes(notebook(*sources)))
    return path


def test_outputs_are_kept_and_nothing_that_differs_from_run_to_run(tmp_path, capsys) -> None:
    path = put(tmp_path, "import sys; print(6 * 7, file=sys.stderr)\nprint(6 * 7)", "6 * 8")
    assert main([str(path)]) == 0
    first = path.read_text()
    written = nbformat.reads(first, as_version=4)
    _, printed, shown = written.cells
    assert [out.text for out in printed.outputs] == ["42\n"]
    assert shown.outputs[0].data["text/plain"] == "48"
    assert [cell.execution_count for cell in (printed, shown)] == [1, 2]
    assert printed.metadata == {"tags": ["parameters"]}
    assert list(written.metadata) == ["kernelspec"]
    assert main([str(path)]) == 0
    assert path.read_text() == first
    assert "story.ipynb" in capsys.readouterr().out


def test_a_cell_that_fails_leaves_the_file_as_it_was(tmp_path, capsys) -> None:
    path = put(tmp_path, "print(1)", "1 / 0")
    before = path.read_text()
    assert main([str(path)]) == 1
    assert path.read_text() == before
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("record: /home/someone/echo/outputs/a.json", True),
        (r"C:\Users\someone", True),
        (f"record: {execute.ROOT}/outputs/a.json", True),
        ("record: outputs/a.json", False),
        ("6/7 of the time", False),
        ("data:audio/mpeg;base64,AB/tmp/ABCD==", False),
    ],
)
def test_an_output_that_names_a_place_on_this_machine_is_refused(text: str, refused: bool) -> None:
    story = notebook("pass")
    story.cells[1].outputs = [nbformat.v4.new_output("stream", text=text)]
    if refused:
        with pytest.raises(NotebookError, match=r"story, cell 1"):
            check(story, "story")
    else:
        check(story, "story")


def test_outputs_that_are_too_large_for_git_are_refused() -> None:
    story = notebook("pass")
    story.cells[1].outputs = [nbformat.v4.new_output("stream", text="x" * execute.MAX_BYTES)]
    with pytest.raises(NotebookError, match="at most"):
        check(story, "story")


def test_cleaning_drops_addresses_and_timestamps() -> None:
    story = notebook("pass")
    story.metadata["widgets"] = {"state": {}}
    cell = story.cells[1]
    cell.metadata["execution"] = {"iopub.status.busy": "2026-01-01T00:00:00Z"}
    data = {"image/png": "AAAA", "text/plain": "<Figure at 0x7f00deadbeef>"}
    cell.outputs = [nbformat.v4.new_output("display_data", data=data, metadata={"x": 1})]
    clean(story)
    assert cell.metadata == {"tags": ["parameters"]}
    assert cell.outputs[0].data["text/plain"] == "<Figure>"
    assert not cell.outputs[0].metadata
    assert cell.id == "cell-01"
