"""The notebook runs, and prints what stands in it.

``python -m parity_tests.project.test_notebook`` runs it and writes what came out into it.
"""

import base64
import contextlib
import io
import json

import matplotlib as mpl
import matplotlib.pyplot as plt

from parity_tests.project.test_examples import EXAMPLES

NOTEBOOK = EXAMPLES / "lenet_in_both.ipynb"


def cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def executed(notebook):
    """Run the cells in one namespace; yield what each printed, and its figures as PNG."""
    names = {"__name__": "__main__"}
    with mpl.rc_context({"figure.dpi": 55, "backend": "agg"}):
        for cell in cells(notebook):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
            figures = []
            for number in plt.get_fignums():
                held = io.BytesIO()
                plt.figure(number).savefig(held, bbox_inches="tight", metadata={"Software": None})
                figures.append(held.getvalue())
            plt.close("all")
            yield printed.getvalue(), figures


def outputs(printed, figures):
    """Say what came out as a notebook does."""
    found = []
    if printed:
        text = printed.splitlines(keepends=True)
        found.append({"name": "stdout", "output_type": "stream", "text": text})
    for figure in figures:
        data = {"image/png": base64.b64encode(figure).decode()}
        found.append({"data": data, "metadata": {}, "output_type": "display_data"})
    return found


def test_it_prints_what_stands_in_it():
    notebook = json.loads(NOTEBOOK.read_text())
    drawn = 0
    for cell, (printed, figures) in zip(cells(notebook), executed(notebook), strict=True):
        stored = [o for o in cell["outputs"] if o["output_type"] == "stream"]
        assert printed == "".join("".join(o["text"]) for o in stored), cell["id"]
        assert len(figures) == len(cell["outputs"]) - len(stored)
        drawn += len(figures)
    assert drawn == 5
    assert NOTEBOOK.stat().st_size < 150_000


if __name__ == "__main__":
    made = json.loads(NOTEBOOK.read_text())
    for number, (cell, came_out) in enumerate(zip(cells(made), executed(made), strict=True), 1):
        cell["execution_count"], cell["outputs"] = number, outputs(*came_out)
    NOTEBOOK.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
