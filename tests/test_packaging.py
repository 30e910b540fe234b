"""The distribution: its metadata, what sdist and wheel hold, and what an unbuilt tree says."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import reclaim

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LEFT_OUT = shutil.ignore_patterns("*.so", "*.c", "build", "dist", ".git", ".venv", "venv", "*.egg-info",
                                  "__pycache__", ".pytest_cache", ".hypothesis", ".mypy_cache")


def readme_commands():
    block = re.search(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    return [line for line in block.splitlines() if line and not line.startswith("#")]


def test_metadata():
    assert (PROJECT["name"], PROJECT["version"]) == ("reclaim-sim", reclaim.__version__)
    assert PROJECT["dependencies"] == ["numpy>=1.26"] and PROJECT["requires-python"] == ">=3.11"
    assert PROJECT["scripts"] == {"reclaim": "reclaim.cli:main"}
    assert PROJECT["license"] == "BSD-3-Clause" and (ROOT / "LICENSE").is_file()
    assert set(PROJECT["optional-dependencies"]) >= \
        {"plot", "stats", "parquet", "scale", "test", "bench", "docs"}


def test_public_names():
    for name in reclaim.__all__:
        if name != "Simulation":    # has tests of its own
            assert getattr(reclaim, name) is not None
    assert callable(reclaim.compare) and callable(reclaim.simulate)
    assert set(reclaim.__all__) <= set(dir(reclaim))
    with pytest.raises(AttributeError, match="nonsense"):
        reclaim.nonsense


def test_no_module_hides_a_public_name():
    modules = {path.stem for path in (ROOT / "reclaim").glob("*.py")}
    assert modules & set(reclaim._HOME) == set()


def test_unbuilt_tree_says_so_in_a_sentence(tmp_path):
    shutil.copytree(ROOT / "reclaim", tmp_path / "reclaim", ignore=LEFT_OUT)

    def run(*args, **env):
        return subprocess.run([sys.executable, *args], cwd=tmp_path, env=os.environ | env,
                              capture_output=True, text=True, timeout=60)
    for code in ("import reclaim", "import reclaim.scenario", "from reclaim import cli"):
        assert run("-c", code).stderr.splitlines()[-1].startswith(
            "ImportError: reclaim is not built: this is its source tree; run `pip install -e .` in it")
    # The core's header is written from the names before there is a core.
    assert run("-m", "reclaim.names", RECLAIM_UNBUILT="1").stdout == \
        (ROOT / "reclaim" / "_mm" / "names.pxd").read_text()


def test_readme_begins_with_two_commands_and_ci_runs_the_second():
    first, second = readme_commands()
    assert first.endswith(".venv/bin/reclaim compare batch-tlb-flush")
    assert second.endswith(".venv/bin/python -m pytest -q -n auto")
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    steps = [line.strip() for line in script.read_text().replace('"$work/venv', '"VENV').splitlines()]
    for step in second.replace(".venv", "VENV").split(" && "):
        assert step.replace('"', "") in [s.replace('"', "") for s in steps], step


def test_generated_c_is_not_in_the_tree():
    assert list((ROOT / "reclaim").rglob("*.c")) == []


@pytest.mark.slow
def test_sdist_and_wheel(tmp_path):
    """The wheel is built from the sdist, so the sdist is complete if the wheel is."""
    tree = tmp_path / "tree"
    shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
    # -O0: what is tested is what the files hold, not how fast they run.
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", tree],
                   check=True, capture_output=True, text=True, timeout=300,
                   env=os.environ | {"RECLAIM_OPT": "-O0"})
    assert list((tree / "reclaim").rglob("*.c")) == []
    sources = {str(path.relative_to(tree)) for path in (tree / "reclaim").rglob("*")
               if path.suffix in {".py", ".pyx", ".pxd", ".pyi", ".toml", ".jsonl", ".typed"}}

    (sdist,) = (tmp_path / "dist").glob("reclaim_sim-*.tar.gz")
    with tarfile.open(sdist) as tar:
        held = {name.partition("/")[2] for name in tar.getnames()}
    assert sources <= held
    assert {"setup.py", "pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", ".ci/run",
            "docs/scenario.md", "docs/conf.py", "examples/render.py", "examples/1-the-series.ipynb",
            "tests/test_packaging.py"} <= held
    assert [name for name in held if name.endswith((".c", ".so", ".pyc"))] == []

    (wheel,) = (tmp_path / "dist").glob("reclaim_sim-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        metadata = archive.read(next(n for n in held if n.endswith(".dist-info/METADATA"))).decode()
    assert sources <= held
    assert any(re.fullmatch(r"reclaim/_core\..*\.so", name) for name in held)
    assert "reclaim/selfcheck.toml" in held
    assert [name for name in held if name.endswith((".c", ".pyc"))
            or not name.startswith(("reclaim/", "reclaim_sim-"))] == []
    assert "License-Expression: BSD-3-Clause" in metadata and "License-File: LICENSE" in metadata
    assert wheel.stat().st_size < 3 << 20

    # It runs from where there is no source tree.
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target",
                    tmp_path / "site", wheel], check=True, capture_output=True, timeout=120)
    done = subprocess.run([sys.executable, "-c", "import reclaim, reclaim._core\nprint(reclaim.__file__)\n"
                           "print(reclaim.Scenario.load('small').machine.load_profile().name)"],
                          cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
                          check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [str(tmp_path / "site" / "reclaim" / "__init__.py"), "vm16"]
