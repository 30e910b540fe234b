"""The five strategy slots and the policies made of them.

A *strategy* fills one slot: `accounting`, `activation`, `free`, `unmap`, `flush`, one module
each.  A *policy* is one strategy per slot: a stage of the series (`stages`), or any mapping
``{slot: strategy}`` over a base.  Strategies are found by name among the subclasses of their
slot's class, so defining a class is registering it; a class defined again under the same
name, as in a notebook, replaces the older one.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Mapping
from typing import Any

from reclaim._policy import (
    AccountingPolicy,
    ActivationPolicy,
    FlushPolicy,
    FreePolicy,
    Policies,
    Strategy,
    UnmapPolicy,
)
from reclaim.errors import PolicyError, did_you_mean

SLOTS: dict[str, type[Strategy]] = {
    "accounting": AccountingPolicy, "activation": ActivationPolicy, "free": FreePolicy,
    "unmap": UnmapPolicy, "flush": FlushPolicy,
}


def _subclasses(cls: type[Strategy]) -> list[type[Strategy]]:
    found: list[type[Strategy]] = []
    for sub in cls.__subclasses__():
        found += [sub, *_subclasses(sub)]
    return found


def strategies(slot: str) -> dict[str, type[Strategy]]:
    """Every named strategy class of a slot, compiled or Python, yours included.

    Raises
    ------
    reclaim.errors.PolicyError : no such slot.
    """
    if slot not in SLOTS:
        raise PolicyError(f"unknown slot {slot!r}: choose from {', '.join(SLOTS)}"
                          f"{did_you_mean(slot, SLOTS)}")
    base = SLOTS[slot]
    return {cls.name: cls for cls in _subclasses(base)
            if cls.__dict__.get("name")}          # the class defined last wins


def strategy(slot: str, which: str | Strategy | type[Strategy]) -> Strategy:
    """A strategy of a slot, by name, class or instance.

    ``"batch(8)"`` passes 8 to the class named ``batch``.

    Raises
    ------
    reclaim.errors.PolicyError : unknown name, or a strategy of another slot.
    """
    if isinstance(which, str):
        name, _, argument = which.partition("(")
        known = strategies(slot)
        if name not in known:
            raise PolicyError(f"unknown {slot} strategy {name!r}: choose from "
                              f"{', '.join(sorted(known))}{did_you_mean(name, known)}")
        if not argument:
            return known[name]()
        number = argument.removesuffix(")")
        if number == argument or not number.isdecimal():
            raise PolicyError(f"{which!r}: expected a whole number in the parentheses")
        try:
            return known[name](int(number))  # type: ignore[call-arg]
        except (TypeError, ValueError) as err:
            raise PolicyError(f"{which!r}: {err}") from None
    if isinstance(which, type) and issubclass(which, Strategy):
        which = which()
    if not isinstance(which, SLOTS[slot]):
        raise PolicyError(f"{which!r} is not a {slot} strategy: subclass "
                          f"reclaim.policies.{SLOTS[slot].__name__} or its Python base")
    return which


class Policy:
    """One strategy per slot.

    Parameters
    ----------
    name : str
    **slots : the strategies, as `strategy` takes them; those not given are stage 0's.
    """

    def __init__(self, name: str, **slots: str | Strategy | type[Strategy]) -> None:
        for slot in slots:
            strategies(slot)                      # refuses unknown slots
        chosen = {**DEFAULTS, **slots}
        self.name = name
        self.strategies = {slot: strategy(slot, chosen[slot]) for slot in SLOTS}

    def bind(self) -> Policies:
        """Copies of the strategies for one simulation."""
        return Policies(**{slot: _copy(s) for slot, s in self.strategies.items()})  # type: ignore[arg-type]

    def describe(self) -> dict[str, dict[str, Any]]:
        """Names, traits and a hash of the source of each strategy, for provenance."""
        return {slot: {"name": s.name, "class": f"{type(s).__module__}.{type(s).__qualname__}",
                       "traits": s._traits(), "source": _source_hash(type(s))}
                for slot, s in self.strategies.items()}

    def __repr__(self) -> str:
        inside = ", ".join(f"{slot}={s.name}" for slot, s in self.strategies.items())
        return f"<Policy {self.name!r}: {inside}>"


DEFAULTS = {"accounting": "returned", "activation": "kernel", "free": "inline",
            "unmap": "kernel", "flush": "per-folio"}


def _copy(instance: Strategy) -> Strategy:
    """A copy, so that what a run leaves in a strategy never reaches the next run."""
    try:
        return copy.deepcopy(instance)
    except TypeError as err:
        raise PolicyError(f"{instance!r} cannot be copied for a run: {err}; define __deepcopy__ "
                          "or __reduce__") from None


def _source_hash(cls: type) -> str:
    try:
        text = inspect.getsource(cls)
    except (OSError, TypeError):                  # compiled, or typed at a prompt
        text = cls.__module__ + "." + cls.__qualname__
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def get(policy: str | Policy | Mapping[str, Any] | Strategy | type[Strategy]) -> Policy:
    """A policy from what users write.

    ``"stage5"``, ``"v4:3"``; a `Policy`; a mapping ``{"base": "stage4", "flush": EveryEight()}``;
    or one strategy (instance or class), put over stage 4 (flush) or stage 0 (other slots).

    Raises
    ------
    reclaim.errors.PolicyError : nothing of that name, with a suggestion.
    """
    from reclaim.policies import stages

    if isinstance(policy, Policy):
        return policy
    if isinstance(policy, str):
        return stages.get(policy)
    if isinstance(policy, Mapping):
        slots = dict(policy)
        base = get(slots.pop("base", "stage0"))
        name = str(slots.pop("name", f"{base.name}+{'+'.join(slots)}"))
        for slot in slots:
            strategies(slot)
        return Policy(name, **{**base.strategies, **slots})
    if isinstance(policy, type) and issubclass(policy, Strategy):
        policy = policy()
    if isinstance(policy, Strategy):
        base = stages.get("stage4" if policy.slot == "flush" else "stage0")
        return Policy(policy.name or type(policy).__name__,
                      **{**base.strategies, policy.slot: policy})
    raise PolicyError(f"a policy is a name, a Policy, a strategy or a mapping of slots, got "
                      f"{type(policy).__name__}")


def names() -> list[str]:
    """Every policy that can be called by name."""
    from reclaim.policies import stages

    return stages.names()


from reclaim.policies import accounting, activation, flush, free, unmap  # noqa: E402

__all__ = ["SLOTS", "Policy", "accounting", "activation", "flush", "free", "get", "names",
           "strategies", "strategy", "unmap"]
