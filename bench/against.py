"""Instructions per reclaimed page of this tree and of an older revision, on scenarios that both know.

    python bench/against.py b07dc57     # the last revision before asynchronous swap, threads, shared host CPUs, MGLRU

The older revision is taken from git and built beside this one, in a temporary directory.  Both run `SCENARIO`, which
uses nothing that came later, from the command line under callgrind: two lengths each, so that what comes before
the core runs cancels.  Only functions of the two packages' libraries
count.  What a mechanism costs those who do not use it is the difference, and what was made faster since.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import instructions

ROOT = Path(__file__).resolve().parent.parent
LENGTHS = "60ms", "120ms"
SCENARIO = """
[machine]
profile = "vm16"
cpus = {cpus}
[memcg]
limit = "{limit}M"
[memory]
total = "1G"
[swap]
kind = "zram"
size = "{swap}M"
[workload]
kind = "writer"
workers = {cpus}
bytes = "{bytes}M"
"""
POLICIES = "stage0", "stage5"


def build(revision: str, where: Path) -> Path:
    """`revision` as it was committed, built in `where`."""
    archive = subprocess.run(["git", "-C", ROOT, "archive", revision], capture_output=True)
    if archive.returncode:
        raise SystemExit(f"against.py: git archive {revision}: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(where, filter="data")
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "-i"], cwd=where, check=True,
                   stdout=subprocess.DEVNULL)
    return where


def run(tree: Path, scenario: Path, policy: str, length: str, out: Path) -> tuple[int, int]:
    """Instructions of the libraries of `tree` and pages reclaimed, in a run of `length`."""
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--compress-strings=yes", "--dump-instr=no",
         f"--callgrind-out-file={out}", sys.executable, "-m", "reclaim", "run", scenario, "--policy", policy,
         "--seconds", length, "--json"],
        env=os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": str(tree)}, cwd=out.parent,
        capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"against.py: {tree}: {done.stderr[-3000:]}")
    return instructions.own(out.read_text()).total(), json.loads(done.stdout)["counters"]["pgsteal_anon"]


def per_page(tree: Path, scenario: Path, policy: str, out: Path) -> float:
    (i0, n0), (i1, n1) = (run(tree, scenario, policy, length, out) for length in LENGTHS)
    return (i1 - i0) / (n1 - n0)


def scenarios(where: Path) -> dict[str, Path]:
    """What both trees run: name -> file."""
    found = {}
    for name, cpus, limit in (("2 CPUs, 8M", 2, 8), ("16 CPUs, 64M", 16, 64)):
        found[name] = where / f"{cpus}.toml"
        found[name].write_text(SCENARIO.format(cpus=cpus, limit=limit, bytes=2 * limit, swap=8 * limit))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("revision", help="a commit that has the package")
    args = parser.parse_args()
    why = instructions.unavailable()
    if why is not None:
        print(f"nothing counted: {why}")
        return 0
    print(f"| scenario | policy | {args.revision} | this tree | change |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        old, out = build(args.revision, Path(directory) / "old"), Path(directory) / "callgrind.out"
        for name, scenario in scenarios(Path(directory)).items():
            for policy in POLICIES:
                before, now = (per_page(tree, scenario, policy, out) for tree in (old, ROOT))
                print(f"| {name} | {policy} | {before:.0f} | {now:.0f} | {100 * (now / before - 1):+.1f}% |",
                      flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
