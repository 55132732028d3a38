"""The graphs that ``jobs.py`` runs: for each task the tasks that it needs."""

from __future__ import annotations

import random

Shape = list[list[int]]
LAYERS, WIDTH = 10, 100


def layered() -> Shape:
    dice = random.Random(1)
    return [
        [(layer - 1) * WIDTH + one for one in dice.sample(range(WIDTH), 2)] if layer else []
        for layer in range(LAYERS)
        for _ in range(WIDTH)
    ]


SHAPES: dict[str, Shape] = {
    "1,000 `true`": [[] for _ in range(1_000)],
    "10 layers of 100, each needs 2": layered(),
    "chain of 100": [[number - 1] if number else [] for number in range(100)],
    "one task": [[]],
}


def job_text(shape: Shape) -> str:
    """Returns a job file of a graph of `true`."""
    if len(shape) > 1 and not any(shape):
        return many_text(len(shape))
    tasks = (
        f"  t{number}: {{run: ['true'], needs: [{', '.join(f't{one}' for one in needs)}]}}\n"
        for number, needs in enumerate(shape)
    )
    return "name: bench\ntasks:\n" + "".join(tasks)


def many_text(count: int) -> str:
    """Returns a job file of one array of `true`."""
    return f"name: many\ntasks:\n  t: {{array: 0-{count - 1}, run: ['true']}}\n"


def makefile(shape: Shape) -> str:
    rules = [
        f"t{number}: {' '.join(f't{one}' for one in needs)}\n\t@/usr/bin/true\n"
        for number, needs in enumerate(shape)
    ]
    goals = " ".join(f"t{number}" for number in range(len(shape)))
    return f"SHELL=/bin/sh\nall: {goals}\n.PHONY: all {goals}\n" + "".join(rules)
