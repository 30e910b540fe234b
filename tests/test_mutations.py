"""Errors put into the core on purpose are noticed: see mutations.py and docs/mutations.md.

A few mutants by default; all with RECLAIM_MUTATIONS=all.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

import mutations
from twin import compare

ALL = os.environ.get("RECLAIM_MUTATIONS") == "all"
CHOSEN = mutations.MUTATIONS if ALL else mutations.DEFAULT
BUILDS = mutations.Builds(CHOSEN)


def test_every_mutation_still_applies():
    """Its text occurs once: a refactoring that moves it is noticed here, without a build."""
    wrong = []
    for mutation in mutations.MUTATIONS:
        text = (mutations.ROOT / "reclaim" / mutation.file).read_text()
        if text.count(mutation.old) != 1 or mutation.new == mutation.old:
            wrong.append(f"{mutation.name} ({mutation.file}): {text.count(mutation.old)} times")
    assert not wrong, f"adapt tests/mutations.py: {'; '.join(wrong)}"
    assert max(Counter(m.name for m in mutations.MUTATIONS).values()) == 1


def test_mutations_share_a_build():
    """All but those of constants and of methods."""
    alone = [m for m in mutations.MUTATIONS if mutations.function_of(m) is None]
    assert {m.file for m in alone} <= {mutations.TYPES, mutations.CORE}, alone


def test_the_core_as_it_is_passes():
    """Else a difference would say nothing about a mutant."""
    worlds = list(mutations.WORLDS.values())
    for make, actions in worlds if ALL else worlds[:8]:
        world, policy = make()
        compare(world, policy, actions=actions, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("mutation", CHOSEN, ids=[m.name.replace(" ", "_") for m in CHOSEN])
def test_noticed(mutation: mutations.Mutation):
    outcome = BUILDS.run(mutation)
    print(f"{mutation.name}: {outcome}")
    assert outcome.world is not None, f"{mutation.name!r}: no world of mutations.WORLDS differs"
