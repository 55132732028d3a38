"""Looks for a short round trip through 60 towns: simulated annealing (Kirkpatrick et al., 1983)."""

import json
import math
import random
import sys

TOWNS = 60
STEPS = 60_000


def main(cooling: str, seed: int, path: str) -> None:
    place = random.Random(1983)
    towns = [(place.random(), place.random()) for _ in range(TOWNS)]
    length = anneal(towns, cooling, random.Random(seed))
    with open(path, "w") as file:
        json.dump({"cooling": cooling, "seed": seed, "length": round(length, 4)}, file)
    print(f"{cooling}, seed {seed}: {length:.4f}")


def anneal(towns: list[tuple[float, float]], cooling: str, rng: random.Random) -> float:
    """Turns parts of the tour around, and now and then keeps a worse one; returns the length of the last."""
    tour = list(range(len(towns)))
    rng.shuffle(tour)
    for step in range(STEPS):
        heat = temperature(cooling, step / STEPS)
        first, last = sorted(rng.sample(range(len(tour)), 2))
        a, b = towns[tour[first - 1]], towns[tour[first]]
        c, d = towns[tour[last]], towns[tour[(last + 1) % len(tour)]]
        change = math.dist(a, c) + math.dist(b, d) - math.dist(a, b) - math.dist(c, d)
        if (first, last) != (0, len(tour) - 1) and (change < 0 or rng.random() < math.exp(-change / heat)):
            tour[first : last + 1] = tour[first : last + 1][::-1]
    return sum(math.dist(towns[tour[n - 1]], towns[tour[n]]) for n in range(len(tour)))


def temperature(cooling: str, done: float) -> float:
    """Returns the temperature after a part of all steps: 0.3 at first, next to nothing in the end."""
    if cooling == "linear":
        return 0.3 * (1 - done) + 1e-4
    return 0.3 * math.exp((-7.0 if cooling == "geometric" else -4.5) * done)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
