"""Meshes of two, three and four, where no quorum helps: crash, silence, partition, under several seeds."""

from __future__ import annotations

import pytest

from meshpeer.sim.runner import Run
from meshpeer.sim.scenario import parse_scenario

pytestmark = pytest.mark.sim

SEEDS = range(1, 6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_crash_is_known_in_seconds(size: int, seed: int) -> None:
    expect_of(size, seed, 'do = "crash"\ncount = 1', "dead_within_s = 4")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("size", "within_s"), [(2, 30), (3, 10), (4, 10)])
def test_silence_takes_longer_and_longest_for_a_lone_witness(size: int, within_s: int, seed: int) -> None:
    expect_of(size, seed, 'do = "crash"\ncount = 1\nsilent = true', f"dead_within_s = {within_s}")


@pytest.mark.parametrize("seed", [*SEEDS, 7, 9])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_partition_heals_within_ten_seconds(size: int, seed: int) -> None:
    """A mesh of two needed 18.5 s (seed 9): both waited out a back-off for those who have other links."""
    expect_of(size, seed, 'do = "partition"\nshares = [0.5, 0.5]\nfor_s = 90', "heal_within_s = 10")


def expect_of(size: int, seed: int, event: str, expectation: str) -> None:
    text = (
        f"size = {size}\nseed = {seed}\nduration_s = 130\nlatency_ms = 10\n"
        f"[[events]]\nat_s = 20\n{event}\n[expect]\nno_false_dead = true\n{expectation}"
    )
    assert Run(parse_scenario(text, "small")).run().failures == ()
