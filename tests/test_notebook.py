"""The tour runs, and is stored with what it shows."""

import nbformat
import pytest
from nbclient import NotebookClient

from tests.processes import ROOT

TOUR = ROOT / "notebooks" / "tour.ipynb"
PICTURES = 5


def pictures(notebook: nbformat.NotebookNode) -> int:
    """Of all cells; NotebookClient raises where one of them fails."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    return sum("image/png" in out.get("data", {}) for out in outputs)


def test_the_tour_is_stored_with_its_pictures():
    assert TOUR.stat().st_size < 500_000
    assert pictures(nbformat.read(TOUR, 4)) == PICTURES


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the kernel's client
def test_the_tour_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(TOUR, 4)
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place).execute()
    assert pictures(notebook) == PICTURES
