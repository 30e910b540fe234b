"""The periodic load balancer of busy CPUs (docs/model.md, `balance`), and what goes by the clock where ticks are missed."""

import dataclasses

import numpy as np
import pytest

from reclaim import world as worlds
from reclaim.errors import WorldError
from reclaim.simulation import Simulation
from reference.worlds import small_world

CPUS, TICK = 4, 10**8


def run(tasks, seconds=0.1, cpus=CPUS, **more):
    """Tasks that never sleep: everything fits below the limit; (moves, tasks on each CPU)."""
    fields = {"limit": 4000, "nr_folios": 8000, "balance": 2 * TICK, "task_cpu": tuple(t % cpus for t in range(tasks))}
    world = small_world(nr_cpus=cpus, mm_pages=(16,) * tasks, tick=TICK, **fields | more)
    simulation = Simulation(world, "stage0")
    counters = simulation.run(seconds).counters
    simulation.verify()
    return counters["migrations"], np.bincount(simulation.view("task")["cpu"], minlength=cpus).tolist()


@pytest.mark.parametrize("tasks", [2 * CPUS, CPUS])
def test_an_even_machine_is_left_alone(tasks):
    assert run(tasks) == (0, [tasks // CPUS] * CPUS)


def test_three_and_one_become_two_and_two():
    """The load to be moved is a task's whole one: at the first look of the CPU that has one task."""
    moves, found = run(8, seconds=0.01, task_cpu=(0, 0, 0, 1, 2, 2, 3, 3))
    assert (moves, found) == (1, [2, 2, 2, 2])


def test_one_task_too_many_goes_round():
    """5 on 4 CPUs: 256 >> failed must reach what is missing, so every third look moves it; nobody shares for ever."""
    moves, found = run(5)
    assert sorted(found) == [1, 1, 1, 2]
    assert 20 < moves < 1000 / 7 * CPUS / 3


@pytest.mark.parametrize("never", [{"balance": 0}, {"task_pinned": (True,) * 5}])
def test_who_may_not_move_stays(never):
    assert run(5, **never) == (0, [2, 1, 1, 1])


def test_missed_ticks_count_for_slices():
    """CPUs that share a host CPU hear fewer ticks than were due; a slice of three is over at the first one that is late enough."""
    world = small_world(nr_cpus=8, mm_pages=(96,) * 16, limit=900, nr_folios=4000, nr_slots=4096, tick=TICK, host_cpus=1)
    got = Simulation(world, "stage5").run(0.05).counters
    assert got["ticks"] < 0.6 * 8 * 500
    assert got["context_switches"] > 1.3 * got["ticks"] / 3


def test_the_range_of_the_interval():
    good = small_world()
    worlds.check(dataclasses.replace(good, balance=10**12))
    for wrong in (-1, 10**12 + 1, 0.5):
        with pytest.raises(WorldError, match="World.balance"):
            worlds.check(dataclasses.replace(good, balance=wrong))
