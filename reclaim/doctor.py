"""``reclaim doctor``: what is installed, what works, and what to do about what does not."""

from __future__ import annotations

import importlib.util
import mmap
import os
import platform
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata, resources
from typing import Any

from reclaim import __version__

OK, MISSING, BROKEN = "ok", "missing", "PROBLEM"

# Extra -> the module that it is for, and what it gives.
EXTRAS = {"plot": ("matplotlib", "reclaim plot, pictures in reports"),
          "stats": ("scipy", "nothing at run time: the tests compare with it"),
          "parquet": ("pyarrow", "the tests read tables with it; to use them as Arrow"),
          "notebook": ("jupyterlab", "the notebooks of examples/"),
          "docs": ("sphinx", "the site, from docs/"),
          "scale": ("distributed", "nothing in this version")}
SLOW_S = 5.0      # the self-check takes about 50 ms


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    status : ``ok``, ``missing`` (an extra, which nothing needs) or ``PROBLEM``.
    remedy : what to do; "" if nothing.
    """

    name: str
    status: str
    found: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """As ``doctor --json`` holds it."""
        return {"name": self.name, "status": self.status, "found": self.found, "remedy": self.remedy}


def diagnose() -> list[Finding]:
    """Every check; one that raises is a problem, and never ends the others."""
    findings = []
    for check in _CHECKS:
        try:
            findings += list(check())
        except Exception as err:    # a broken installation may fail in any way
            findings.append(Finding(check.__name__.strip("_"), BROKEN, f"{type(err).__name__}: {err}",
                                    "install again: pip install --force-reinstall reclaim-sim"))
    return findings


def show(findings: list[Finding]) -> str:
    """The findings as text, then a sentence."""
    width = max(len(f.name) for f in findings)
    lines = []
    for f in findings:
        lines.append(f"{f.status:<8} {f.name:<{width}}  {f.found}")
        if f.remedy:
            lines.append(" " * (width + 11) + f"-> {f.remedy}")
    problems = sum(f.status == BROKEN for f in findings)
    lines += ["", f"{problems} problem{'s' * (problems != 1)}." if problems else "No problem found."]
    return "\n".join(lines)


def _versions() -> Iterator[Finding]:
    new = sys.version_info >= (3, 11)
    yield Finding("reclaim", OK, f"{__version__} in {os.path.dirname(os.path.abspath(__file__))}")
    yield Finding("python", OK if new else BROKEN, f"{platform.python_version()} "
                  f"({platform.python_implementation()}, {platform.python_compiler()})",
                  "" if new else "use CPython 3.11 or later")
    yield Finding("platform", OK, f"{platform.platform()}, {os.cpu_count()} CPUs")


def _numpy() -> Iterator[Finding]:
    import numpy
    old = tuple(int(part) for part in re.findall(r"\d+", numpy.__version__)[:2]) < (1, 26)
    yield Finding("numpy", BROKEN if old else OK, numpy.__version__,
                  'pip install "numpy>=1.26"' if old else "")


def _extensions() -> Iterator[Finding]:
    for module in ("reclaim._core", "reclaim._policy", "reclaim._arrow"):
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            yield Finding(module, BROKEN, "not built",
                          "build it: pip install -e . (needs gcc, Cython and NumPy)")
            continue
        importlib.import_module(module)
        newer = _newer_source(module, spec.origin)
        yield Finding(module, BROKEN if newer else OK, _build(spec.origin),
                      f"{newer} is newer than the build: pip install -e . again" if newer else "")


def _newer_source(module: str, built: str) -> str:
    """A source of the extension, in a source tree, that is newer than its file, or ""."""
    own = module.rpartition(".")[2] + ".pyx"
    package = os.path.dirname(os.path.abspath(__file__))
    made = os.stat(built).st_mtime
    in_tree = os.path.isfile(os.path.join(os.path.dirname(package), "setup.py"))
    for folder in (package, os.path.join(package, "_mm")) if in_tree else ():
        for entry in sorted(os.listdir(folder)):
            path = os.path.join(folder, entry)
            if (entry == own or entry.endswith(".pxd")) and os.stat(path).st_mtime > made:
                return os.path.relpath(path, os.path.dirname(package))
    return ""


def _build(path: str) -> str:
    """What the file of an extension tells of its build."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        match = re.search(rb"GCC: \([^)\0]{1,80}\) [0-9.]{1,20}|clang version [0-9.]{1,20}", data)
        compiler = match[0].decode() if match else "an unknown compiler"
        del match     # it holds the map
        sanitized = [name for name, mark in (("address", b"__asan_init"), ("undefined", b"__ubsan_handle"))
                     if data.find(mark) >= 0]
    from reclaim import _core
    flags = [*(["RECLAIM_DEBUG=1"] if _core.DEBUG else []), *(f"sanitizer {name}" for name in sanitized)]
    return (f"built by {compiler}, "
            f"{os.path.getsize(path):,} bytes, {', '.join(flags) or 'release build'}")


def _compiler() -> Iterator[Finding]:
    import sysconfig
    command = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    try:
        done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=10)
        yield Finding("compiler", OK, f"{command}: {(done.stdout or done.stderr).splitlines()[0]}")
    except (OSError, subprocess.SubprocessError, IndexError):
        yield Finding("compiler", MISSING, f"{command} does not run",
                      "only to build: apt-get install gcc python3-dev, or set CC")


def _extras() -> Iterator[Finding]:
    for extra, (module, gives) in EXTRAS.items():
        try:
            yield Finding(f"extra {extra}", OK, f"{module} {metadata.version(module)}: {gives}")
        except metadata.PackageNotFoundError:
            yield Finding(f"extra {extra}", MISSING, f"{module} is not installed: {gives}",
                          f'pip install "reclaim-sim[{extra}]"')


def expected() -> dict[str, Any]:
    """The golden run of the self-check."""
    return tomllib.loads(resources.files("reclaim").joinpath("selfcheck.toml").read_text("utf-8"))


def run_expected() -> str:
    """The digest that the self-check's run gives here."""
    from reclaim.scenario import Scenario
    from reclaim.simulation import Simulation
    golden = expected()
    simulation = Simulation(Scenario.load(golden["scenario"]), golden["policy"])
    return str(simulation.run(golden["seconds"], touches=golden["touches"]).digest)


def _self_check() -> Iterator[Finding]:
    golden = expected()
    started = time.perf_counter()
    digest = run_expected()
    took = time.perf_counter() - started
    what = f"{golden['scenario']}, {golden['policy']}, {golden['seconds']:g} s"
    if digest != golden["digest"]:
        yield Finding("self-check", BROKEN,
                      f"{what}: digest {digest[:16]}..., expected {golden['digest'][:16]}...",
                      "the build does not match its sources: pip install --force-reinstall . ; if it stays, "
                      "report it with this output")
    elif took > SLOW_S:
        yield Finding("self-check", BROKEN, f"{what}: as expected, but it took {took:.1f} s",
                      "a debug or sanitizer build, or a busy machine: build again without RECLAIM_DEBUG")
    else:
        yield Finding("self-check", OK, f"{what}: digest as expected, in {took * 1000:.0f} ms")


_CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _versions, _numpy, _extensions, _compiler, _extras, _self_check)
