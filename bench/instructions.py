"""Instructions of the core in five hot paths, counted by callgrind: what CI compares, whatever the load.

    python bench/instructions.py             # count and print
    python bench/instructions.py --check     # and fail where a path takes over 5% more than is stored
    python bench/instructions.py --update    # write what was counted to instructions.json
    python bench/instructions.py --functions fault_reclaim     # of one path, by function

Growth that is meant needs a line in CHANGELOG.md that names the path and the count a unit, for example "-
Instructions: `tlb_hit` 61.5: why"; --check then holds the path to that count, and --update takes it over.

One process under valgrind runs every path twice, to warm up and then a round.  Counts of the core's run()
are dumped call by call, so what comes before cancels, and of these only the functions of reclaim's own
libraries are summed.  A count is of a compiler: instructions.json has a table for each, and one without is
not compared.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
STORE = HERE / "instructions.json"
CHANGELOG = HERE.parent / "CHANGELOG.md"
GROWTH = 1.05
# Of each path (worlds.PATHS) the touches to warm up with and the actions of the round, as few as will do:
# valgrind is slow.  (The core makes touches that hit ahead, and takes back what a round does not need: that
# one must be long.)
COUNTED = {"tlb_hit": (3_200, 1_500_000), "tlb_miss": (42_000, 150_000), "fault_reclaim": (36_000, 150_000),
           "swap_queue": (36_000, 150_000), "flush": (100, 100_000)}


def core() -> Path:
    from reclaim import _core
    return Path(_core.__file__)


def symbol() -> str | None:
    """The function that Core.run() is in the library; None if that was stripped."""
    found = re.search(rb"__pyx_pw_7reclaim_5_core_4Core_\d+run\0", core().read_bytes())
    return found and found[0][:-1].decode()


def unavailable() -> str | None:
    """Why there is nothing to count here, or None."""
    from reclaim import _core
    if shutil.which("valgrind") is None:
        return "valgrind is not installed"
    if _core.DEBUG:
        return "a debug build"
    return None if symbol() else "the core was stripped of its symbols"


def compiler() -> str:
    """What compiled the core, as it says itself."""
    found = re.search(rb"GCC: \([^)]*\) (\d+)\.\d+\.\d+|(clang version \d+)", core().read_bytes())
    if found is None:
        return "unknown"
    return f"{'gcc ' + found[1].decode() if found[1] else found[2].decode()} {os.uname().machine}"


def workload() -> None:
    """What runs under valgrind: of each path the touches to warm up, then its round; prints the units."""
    import dataclasses

    import worlds
    small = {"tlb_miss": lambda: worlds.misses("SEQ", pages=1 << 15),
             "fault_reclaim": lambda: worlds.writers(each=2048),
             "swap_queue": lambda: worlds.writers("nvme", each=2048)}
    units = {}
    for name, (warm, actions) in COUNTED.items():
        p = worlds.PATHS[name]
        p = dataclasses.replace(p, warm=warm, actions=actions, world=small.get(name, p.world))
        made = worlds.Round(p)
        made.run()
        units[name] = made.units
    print(json.dumps(units))


def own(dump: str) -> Counter[str]:
    """Instructions of a callgrind dump by function of reclaim's libraries, calls of others left out."""
    found: Counter[str] = Counter()
    names: dict[str, str] = {}
    here = {"ob": "", "fn": ""}
    call = False
    for line in dump.splitlines():
        kind, _, rest = line.partition("=")
        if kind in ("ob", "cob", "fn", "cfn"):
            number, _, name = rest.partition(" ")
            key = kind[-2:] + number
            names[key] = name or names[key]
            if kind in here:
                here[kind] = names[key]
        elif kind == "calls":
            call = True                     # the next line is the cost of the called function
        elif line[:1] in "0123456789+-*" and line:
            cost = line.split()[1:]         # none is 0
            if "/reclaim/_" in here["ob"] and not call and cost:
                found[here["fn"]] += int(cost[0])
            call = False
    return found


def count() -> dict[str, Counter[str]]:
    """Instructions per unit of each path, by function."""
    function = symbol()
    env = os.environ | {"PYTHONHASHSEED": "0",
                        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), *sys.path]))}
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "out"
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", "--compress-strings=yes", "--dump-instr=no",
             f"--toggle-collect={function}", f"--dump-before={function}", f"--callgrind-out-file={out}",
             sys.executable, str(HERE / "instructions.py"), "--workload"],
            env=env, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"instructions.py: valgrind failed:\n{done.stderr[-3000:]}")
        # before the n-th call its dump n is written, what came after the last call is in `out` itself
        dumps = [Path(f"{out}.{i}") for i in range(1, 2 * len(COUNTED) + 1)] + [out]
        rounds = [own(path.read_text()) for path in dumps[2::2]]
    units = json.loads(done.stdout)
    return {name: Counter({function: n / units[name] for function, n in found.items()})
            for name, found in zip(COUNTED, rounds, strict=True)}


def totals(found: Mapping[str, Counter[str]]) -> dict[str, float]:
    return {name: round(by_function.total(), 2) for name, by_function in found.items()}


def functions(by_function: Counter[str], most: int = 15) -> str:
    """Where a path's instructions are; what the compiler inlined counts for the function it is in."""
    total = by_function.total()
    lines = ["| function | instructions a unit | |", "|---|---|---|"]
    for name, n in by_function.most_common(most):
        short = re.sub(r"^__pyx_(f|pw)_7reclaim_(\d+_mm_)?\d+", "", name).removesuffix(".isra.0")
        lines.append(f"| `{short}` | {n:.0f} | {100 * n / total:.0f}% |")
    return "\n".join(lines) + "\n"


def allowed(path: str, stored: float) -> float:
    """The count that the path is held to: the stored one, or one that CHANGELOG.md names and explains."""
    named = re.findall(rf"^- Instructions: `{path}` ([0-9.]+[0-9])\b", CHANGELOG.read_text(), re.MULTILINE)
    return max([stored, *map(float, named)])


def compare(counted: Mapping[str, float], stored: Mapping[str, float]) -> list[str]:
    """What grew too much, in words."""
    return [f"{path}: {now} instructions a unit, {stored[path]} before; make it less, or say why in "
            f"CHANGELOG.md: \"- Instructions: `{path}` {now}: ...\""
            for path, now in counted.items() if path in stored and now > GROWTH * allowed(path, stored[path])]


def load() -> dict[str, dict[str, float]]:
    return json.loads(STORE.read_text()) if STORE.exists() else {}


def table(counted: Mapping[str, float], stored: Mapping[str, float]) -> str:
    import worlds
    lines = ["| path | unit | instructions a unit | stored |", "|---|---|---|---|"]
    lines += [f"| `{path}` | {worlds.PATHS[path].unit} | {now} | {stored.get(path, '-')} |"
              for path, now in counted.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail on growth that CHANGELOG.md does not name")
    parser.add_argument("--update", action="store_true", help="write instructions.json")
    parser.add_argument("--functions", choices=COUNTED, help="where a path's instructions are")
    parser.add_argument("--workload", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.workload:
        workload()
        return 0
    why = unavailable()
    if why is not None:
        print(f"nothing counted: {why}")
        return 0
    store, name = load(), compiler()
    found, stored = count(), store.get(name, {})
    counted = totals(found)
    sys.stdout.write(functions(found[args.functions]) if args.functions else table(counted, stored))
    faults = compare(counted, stored)
    print(*faults, sep="\n", end="\n" if faults else "")
    if any(now * GROWTH < stored.get(path, 0) for path, now in counted.items()) and not args.update:
        print("less than is stored: --update keeps it so")
    if args.update and not faults:
        STORE.write_text(json.dumps(store | {name: counted}, indent=1, sort_keys=True) + "\n")
    return 1 if faults and (args.check or args.update) else 0


if __name__ == "__main__":
    sys.exit(main())
