"""Other builds of the same source: another optimisation, the debug build, the sanitizers.

Each is made in a temporary copy.  The sanitizers take minutes: RECLAIM_SLOW=1 runs them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mutations import HERE, ROOT, build, build_env, copy_tree

pytestmark = pytest.mark.slow
only_slow = pytest.mark.skipif(os.environ.get("RECLAIM_SLOW") != "1",
                               reason="takes minutes: RECLAIM_SLOW=1 runs it")

SEEDS = (1, 7, 53)


# --- what the copies run, as `python test_builds.py <name>`

def digests() -> dict[str, str]:
    """Of the small scenario and of some random worlds."""
    from reclaim import Scenario, Simulation
    from reference.worlds import random_policy, random_world
    from twin import core_policy
    found = {}
    for stage in ("stage0", "stage5"):
        sim = Simulation(Scenario.load("small"), stage)
        sim._core.run(5 * 10**10, actions=1 << 40)   # Simulation.run of a debug build audits
        found[f"small {stage}"] = sim.digest()
    for seed in SEEDS:
        sim = Simulation(random_world(seed), core_policy(random_policy(seed)))
        sim._core.run(1 << 50, actions=300_000)
        found[f"random {seed}"] = sim.digest()
    return found


def verified() -> dict[str, int]:
    """Audit random worlds after every action, from a moment when they reclaim."""
    from reclaim import Simulation
    from reference.worlds import random_world
    made = {}
    for seed, stage in ((7, "stage5"), (53, "stage4"), (1, "stage0")):
        sim = Simulation(random_world(seed), stage)
        sim._core.run(1 << 50, actions=8000)
        made[f"random {seed}"] = 0
        for _ in range(600):
            if sim.step() is None:
                break
            sim.verify()
            made[f"random {seed}"] += 1
    return made


def twins() -> dict[str, int]:
    """Ten worlds beside the twin."""
    from reference.worlds import random_policy, random_world
    from twin import compare
    return {f"random {seed}": compare(random_world(seed), random_policy(seed), actions=5000,
                                      check=random_policy(seed)["remainder"])
            for seed in (1, 7, 8, 16, 18, 19, 24, 36, 37, 53)}


# --- the tests

def _in_copy(tree: Path, *command: str, **env: str) -> str:
    """Run Python with `reclaim` from the copy."""
    done = subprocess.run(
        [sys.executable, *command], cwd=tree, capture_output=True, text=True, timeout=400,
        env=build_env(PYTHONPATH=os.pathsep.join((str(tree), str(HERE))), **env))
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def _call(tree: Path, name: str, **env: str) -> dict:
    return json.loads(_in_copy(tree, __file__, name, **env).splitlines()[-1])


def test_optimisation_changes_no_digest(tmp_path: Path):
    copy_tree(tmp_path, only_core=True)
    build(tmp_path, RECLAIM_OPT="-O2")
    assert _call(tmp_path, "digests") == digests()


def test_debug_build(tmp_path: Path):
    """Bounds, None and initialisation are checked, and the digests are the same."""
    copy_tree(tmp_path, only_core=False)
    build(tmp_path, RECLAIM_DEBUG="1", RECLAIM_OPT="-O1")
    assert _call(tmp_path, "digests") == digests()
    assert all(n == 600 for n in _call(tmp_path, "verified").values())


def _sanitizers() -> dict[str, str]:
    """The environment in which an instrumented extension loads into plain Python."""
    paths = []
    for name in ("libasan.so", "libubsan.so"):
        path = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True,
                              check=True).stdout.strip()
        if not Path(path).is_absolute():
            pytest.skip(f"gcc has no {name}")
        paths.append(path)
    # Python leaks on purpose at its end; its own allocator would hide use after free.
    return {"LD_PRELOAD": " ".join(paths), "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "print_stacktrace=1", "PYTHONMALLOC": "malloc"}


@only_slow
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("gcc") is None, reason="needs gcc")
def test_sanitizers(tmp_path: Path):
    env = _sanitizers()
    copy_tree(tmp_path, only_core=False)
    build(tmp_path, RECLAIM_SANITIZE="address,undefined", RECLAIM_OPT="-O1")
    assert all(b"__asan_" in so.read_bytes() and b"__ubsan_" in so.read_bytes()
               for so in (tmp_path / "reclaim").glob("*.so"))
    assert len(_call(tmp_path, "twins", **env)) == 10
    assert _call(tmp_path, "digests", **env) == digests()
    shutil.copytree(HERE, tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    files = [name for name in ("tests/test_policies.py", "tests/test_snapshots.py")
             if (tmp_path / name).exists()]
    if files:
        _in_copy(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not docs",
                 *files, **env)


if __name__ == "__main__":
    import reclaim
    assert Path(reclaim.__file__).is_relative_to(Path.cwd()), reclaim.__file__
    print(json.dumps({"digests": digests, "verified": verified, "twins": twins}[sys.argv[1]]()))
