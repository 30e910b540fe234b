"""The notebooks of examples/: run by a real Jupyter kernel, and in step with their sources."""

import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
RENDER = runpy.run_path(str(EXAMPLES / "render.py"))
SOURCES = RENDER["sources"]()
LIMIT_S = float(os.environ.get("RECLAIM_NOTEBOOK_S", "120"))    # they take 5 to 15 s on an idle machine


def test_there_are_five():
    assert [path.stem[0] for path in SOURCES] == list("12345")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_inputs_are_those_of_the_source(path):
    assert RENDER["in_step"](path), f"run python examples/render.py {path.stem}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_stored_notebook_was_run_without_an_error(path):
    cells = [cell for cell in json.loads(path.with_suffix(".ipynb").read_text())["cells"]
             if cell["cell_type"] == "code"]
    assert cells and all(cell["execution_count"] == i + 1 for i, cell in enumerate(cells))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs and not [output for output in outputs if output["output_type"] == "error"]
    for cell in cells:      # nothing is cut off where a notebook is shown
        assert max(map(len, "".join(cell["source"]).splitlines())) <= 110


@pytest.mark.slow
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_runs(path):
    for module in ("nbclient", "ipykernel", "matplotlib"):
        pytest.importorskip(module)
    began = time.monotonic()
    made = RENDER["run"](path)
    assert time.monotonic() - began < LIMIT_S
    stored = json.loads(path.with_suffix(".ipynb").read_text())["cells"]
    for cell, kept in zip(made.cells, stored, strict=True):
        kinds = [output["output_type"] for output in cell.get("outputs", ()) if output["output_type"] != "stream"]
        assert kinds == [output["output_type"] for output in kept.get("outputs", ())
                         if output["output_type"] != "stream"]


def test_a_stale_notebook_is_told(tmp_path):
    source = tmp_path / "1-x.py"
    source.write_text("# %% [markdown]\n# # Title\n#\n# text\n\n# %%\nprint(1)\n")
    assert RENDER["cells"](source.read_text()) == [("markdown", "# Title\n\ntext"), ("code", "print(1)")]
    assert not RENDER["in_step"](source)
    source.with_suffix(".ipynb").write_text(json.dumps({"cells": [
        {"cell_type": "markdown", "source": ["# Title\n", "\n", "text"]},
        {"cell_type": "code", "source": "print(1)"}]}))
    assert RENDER["in_step"](source)
    source.write_text(source.read_text() + "print(2)\n")
    assert not RENDER["in_step"](source)


@pytest.mark.slow
def test_your_machine_says_what_it_lacks(tmp_path):
    """On one CPU nothing can be calibrated, without systemd-run nothing limited: it goes on, and says so."""
    pinned = f"import os, runpy; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}}); "
    done = subprocess.run([sys.executable, "-c", pinned + f"runpy.run_path({str(SOURCES[3])!r})"], text=True,
                          capture_output=True, timeout=300, env=os.environ | {
                              "PATH": "", "TMPDIR": str(tmp_path), "PYTHONPATH": str(EXAMPLES.parent)})
    assert done.returncode == 0, done.stderr
    assert "no user scopes here" in done.stdout and "not calibrated: calibrate needs two CPUs" in done.stdout
    assert list(tmp_path.iterdir()) == []       # it tidies up
