"""A simulator of Linux page reclaim and TLB shootdowns.

``reclaim.compare("batch-tlb-flush")`` prints the table of the series *mm: batch TLB flushing for
dirty folios in vmscan*, simulated.
"""

from __future__ import annotations

import importlib
import os
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reclaim import policies
    from reclaim.comparison import Comparison, compare, simulate
    from reclaim.counterexample import replay
    from reclaim.errors import (MeasuredError, NotModelledError, PolicyError, ReclaimError, ResultError,
                                SafetyError, ScenarioError, SimulationError, SnapshotError, TraceError,
                                WorldError)
    from reclaim.exploration import ablate, explore
    from reclaim.result import Result
    from reclaim.scenario import Scenario
    from reclaim.simulation import Simulation

__version__ = "0.1.0"

# Public name -> the module that defines it, imported when the name is first used: the command
# line answers --help without NumPy.  No module may bear a public name, since importing it
# would hide the function of that name.
_HOME = {
    "Simulation": "reclaim.simulation", "Scenario": "reclaim.scenario", "Result": "reclaim.result",
    "Comparison": "reclaim.comparison", "compare": "reclaim.comparison", "simulate": "reclaim.comparison",
    "explore": "reclaim.exploration", "replay": "reclaim.counterexample", "ablate": "reclaim.exploration",
    "ReclaimError": "reclaim.errors", "ScenarioError": "reclaim.errors",
    "NotModelledError": "reclaim.errors", "PolicyError": "reclaim.errors",
    "SnapshotError": "reclaim.errors", "TraceError": "reclaim.errors",
    "ResultError": "reclaim.errors",
    "WorldError": "reclaim.errors", "SimulationError": "reclaim.errors",
    "MeasuredError": "reclaim.errors",
    "SafetyError": "reclaim.errors",
}

__all__ = ["__version__", "policies", *_HOME]

# Only beside this file: another tree's core would not be this one's.
if PathFinder.find_spec("reclaim._core", __path__) is None and \
        os.environ.get("RECLAIM_UNBUILT") != "1":
    raise ImportError("reclaim is not built: this is its source tree; run `pip install -e .` in it "
                      "(or set RECLAIM_UNBUILT=1 for the parts that need no core)")


def __getattr__(name: str) -> Any:
    if name == "policies":
        return importlib.import_module("reclaim.policies")
    if name not in _HOME:
        raise AttributeError(f"module 'reclaim' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
