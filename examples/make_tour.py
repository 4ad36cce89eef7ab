"""Runs tour.ipynb and stores its outputs, without what is of one machine or moment only:

uv run --with nbclient --with ipykernel python examples/make_tour.py
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

TOUR = Path(__file__).with_name("tour.ipynb")


def clean(output: Any) -> Any:
    """An output without the paths of this machine."""
    if isinstance(output, str):
        output = output.replace(str(TOUR.parent), "/…/examples")
        return re.sub(r"/tmp/tmp\w+", "/tmp/…", output)
    if isinstance(output, dict):
        return type(output)({name: clean(value) for name, value in output.items()})
    return [clean(value) for value in output] if isinstance(output, list) else output


if __name__ == "__main__":
    notebook = nbformat.read(TOUR, as_version=4)
    client = NotebookClient(
        notebook, resources={"metadata": {"path": str(TOUR.parent)}}, record_timing=False
    )
    client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            # Standard error is progress bars.
            cell.outputs = [clean(o) for o in cell.outputs if o.get("name") != "stderr"]
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, TOUR)
    print(f"{TOUR}: {TOUR.stat().st_size / 1000:.0f} kB")
