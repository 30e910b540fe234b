"""Random streams: one per CPU and task, of every seed another."""

import dataclasses

from reclaim.simulation import Simulation
from reference.worlds import small_world


def test_no_two_streams_start_alike():
    world = small_world(nr_cpus=4, mm_pages=(20, 20, 20, 20), limit=90)
    starts = []
    for seed in range(200):
        simulation = Simulation(dataclasses.replace(world, seed=seed), "stage0")
        for table in ("cpu", "task"):
            starts += simulation.view(table)["rng"].tolist()
    assert len(set(starts)) == len(starts) == 200 * 8
