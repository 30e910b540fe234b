"""Workloads: each module compiles its scenario keys to an access program.

A workload is one module of this package with a function
``compile(workload, *, seed) -> AccessProgram``, registered in `KINDS` by its scenario name:
a new one is one file and one line of `_MODULES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

from reclaim.errors import ScenarioError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class AccessProgram:
    """What the tasks of a workload touch, in the arrays of `reclaim.world.World`.

    One entry of every ``task_*`` tuple per worker, one of every ``mm_*`` tuple per
    address space; passes are of dtype `reclaim.world.PASS_DTYPE`.
    """

    passes: np.ndarray
    task_mm: tuple[int, ...]
    task_first_pass: tuple[int, ...]
    task_nr_passes: tuple[int, ...]
    task_loop_to: tuple[int, ...]
    task_restart: tuple[bool, ...]
    mm_pages: tuple[int, ...]
    mm_recency: tuple[bool, ...]
    nr_processes: int            # processes whose kernel stack and page tables are charged
    trace: np.ndarray = field(default_factory=lambda: np.zeros(0, "<u4"))


# The module of each kind; it is imported when the kind is first compiled.
_MODULES = {
    "stress_ng.vm": "stress_ng",
    "writer": "synthetic",
    "trace": "trace",
}


def _compiler(module: str) -> Callable[..., AccessProgram]:
    def compile_kind(workload: Any, *, seed: int) -> AccessProgram:
        program: AccessProgram = import_module(f"{__name__}.{module}").compile(workload, seed=seed)
        return program
    return compile_kind


KINDS: dict[str, Callable[..., AccessProgram]] = {
    kind: _compiler(module) for kind, module in _MODULES.items()}


def compile(workload: Any, *, seed: int) -> AccessProgram:
    """The access program of `workload`, by its attribute ``kind``.

    seed : 0 to 2**64 - 1, of the draws made here (`stress_ng`: the advice of each worker).

    Raises
    ------
    ScenarioError : unknown kind, or a value that the kind refuses.
    TraceError : the trace cannot be read.
    """
    kind = str(workload.kind)
    if kind not in KINDS:
        raise ScenarioError(f"workload.kind = {kind!r}: unknown; choose from "
                            f"{', '.join(KINDS)}{did_you_mean(kind, KINDS)}")
    return KINDS[kind](workload, seed=seed)
