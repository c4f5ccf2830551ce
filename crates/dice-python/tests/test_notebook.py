"""The notebook of the examples runs from its first cell to its last in a kernel of its own, and shows what it promises."""

from __future__ import annotations

import pytest

from conftest import ROOT

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

EXAMPLES = ROOT / "examples"


def shown(notebook):
    """The outputs of its cells, by kind."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert all(output.output_type in ("execute_result", "stream") for output in outputs)
    return "".join(output.text for output in outputs if "text" in output), [output.data for output in outputs if "data" in output]


def test_the_demo():
    notebook = nbformat.read(EXAMPLES / "demo.ipynb", 4)
    committed, _ = shown(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    printed, results = shown(notebook)
    assert printed == committed, "the outputs in the notebook are not what it prints now: run it again and save it"
    report = next(data for data in results if "AUROC" in data["text/plain"])
    assert "<table>" in report["text/html"] and report["text/html"].count("<circle") == 8
