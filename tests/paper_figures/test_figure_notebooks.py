"""The notebooks run, from their own folder, and are the same as the .py files beside them."""

from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient
from synthetic_results import REPOSITORY

FOLDER = REPOSITORY / "paper_figures" / "notebooks"
NAMES = [*(f"figure{number}" for number in range(1, 7)), "tables", "theory"]


def test_all_notebooks_are_known_here():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_and_its_script_are_a_pair(name):
    notebook, script = nbformat.read(FOLDER / f"{name}.ipynb", 4), jupytext.read(FOLDER / f"{name}.py")
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in script.cells
    ]
    assert all(
        cell.outputs == [] and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name, demo_folder: Path):
    inside = demo_folder / "paper_figures" / "notebooks"
    inside.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    place = inside if name != "tables" else demo_folder
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": place}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in shown if output.output_type == "stream"]  # neither warnings nor chatter
    kinds = {kind for output in shown for kind in output.data}
    assert {"text/markdown"} <= kinds if name == "tables" else {"image/png", "text/html"} <= kinds
    if name == "tables":
        assert sum("NOT a reproduction" in output.data["text/markdown"] for output in shown) == 5
