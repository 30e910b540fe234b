"""What `reclaim` raises, all of it a `ValueError`: bad input, never a crash."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


class ReclaimError(ValueError):
    """Any bad input or misuse that `reclaim` noticed."""


class ScenarioError(ReclaimError):
    """One or more faults of a scenario or profile, all those found at once.

    Each argument is a sentence with the value, where it was read (file and key), the allowed
    range and what to do.

    Attributes
    ----------
    faults : tuple of str, the sentences.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__(*faults)   # keeps the exception picklable
        self.faults = faults

    def __str__(self) -> str:
        if len(self.faults) == 1:
            return self.faults[0]
        return "\n  ".join([f"{len(self.faults)} faults:", *self.faults])


class NotModelledError(ScenarioError):
    """Every fault of the scenario is a feature that `reclaim` knows but does not model yet."""


class WorldError(ReclaimError):
    """A `reclaim.world.World` that the core could not run safely."""


class SimulationError(ReclaimError):
    """A run that cannot go on, because a strategy broke an invariant of the model."""


class SafetyError(SimulationError):
    """A checked run broke a safety invariant.

    Attributes
    ----------
    invariant : str, one of `reclaim.counterexample.INVARIANTS`.
    folio : int, its frame, or -1.
    cpus : list of int, the CPUs that acted on it in the steps below.
    steps : list of (time [ps], CPU, step name, folio), those that led there.
    """

    def __init__(self, message: str, invariant: str = "", folio: int = -1, cpus: Iterable[int] = (),
                 steps: Iterable[tuple[int, int, str, int]] = ()) -> None:
        super().__init__(message)
        self.invariant, self.folio, self.cpus, self.steps = invariant, folio, list(cpus), list(steps)


class PolicyError(ReclaimError):
    """An unknown policy, or one that broke the contract of its slot."""


class SnapshotError(ReclaimError):
    """A snapshot that does not fit this world or this version."""


class TraceError(ReclaimError):
    """A malformed trace; the message holds file, line or offset, and what was expected."""


class ObservationError(ReclaimError):
    """A file of a real machine, or an argument of `observe`, is not what it should be; it is named."""


class CommandError(ReclaimError):
    """A command that could not be started.

    Attributes
    ----------
    absent : bool, there is none of that name.
    """

    def __init__(self, message: str, absent: bool = False) -> None:
        super().__init__(message, absent)
        self.absent = absent

    def __str__(self) -> str:
        return str(self.args[0])


class MachineError(ReclaimError):
    """This machine cannot do what was asked of it."""


class MeasuredError(ReclaimError):
    """A malformed file of measured runs; the message holds file, line and key."""


class ResultError(ReclaimError):
    """A saved result, comparison, plot or report that cannot be read, made or repeated."""


class UnknownNameError(ReclaimError, KeyError):
    """A counter, table or other name that is not there."""

    __str__ = ReclaimError.__str__      # KeyError's quotes the sentence


class Named(dict[str, Any]):
    """A dict that says what a name that is not in it may have meant.

    what : its values are.
    """

    def __init__(self, what: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.what = what

    def __missing__(self, name: str) -> Any:
        raise UnknownNameError(f"no {self.what} {name!r}{did_you_mean(name, self)}")


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """``"; did you mean 'limit'?"`` for the choice nearest to `name`, or an empty string."""
    near = difflib.get_close_matches(str(name), list(choices), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
