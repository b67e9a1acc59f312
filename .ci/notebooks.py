"""Runs every notebook from top to bottom in its own folder; a cell that raises fails the run.

Usage: python .ci/notebooks.py [--write]; with --write the outputs are stored in the notebooks, without times and other
things that differ from run to run.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"

for path in sorted(NOTEBOOKS.glob("*.ipynb")):
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=300, record_timing=False, coalesce_streams=True, resources={"metadata": {"path": NOTEBOOKS}}
    )
    client.execute()
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    print(f"{path.name}: {cells} cells passed", flush=True)
    if "--write" in sys.argv[1:]:
        notebook.metadata.language_info = {"name": "python"}
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)
        path.write_text(nbformat.writes(notebook).rstrip("\n") + "\n", encoding="utf-8")
