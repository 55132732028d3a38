"""Makes the scene that all strips share: a mountain valley around a lake, and where the sun can reach.

Heights are midpoint displacement (Fournier, Fussell and Carpenter, 1982) on a square grid that wraps. For
every cell the horizon to the left and to the right is kept too, as a slope: a sun below it leaves the cell
in shadow. Computing both once here is what makes a strip cheap.
"""

import array
import json
import math
import os
import random
import sys

SIZE = 512
LAKE = 6.0
"""Height of the water; the camera stands a little above it, in the middle of the map."""


def main(seed: int, strips: int) -> None:
    rng = random.Random(seed)
    heights = carve(displaced(rng))
    left, right = horizons(heights)
    os.makedirs("scene", exist_ok=True)
    for name, values in (("heights", heights), ("left", left), ("right", right)):
        with open(f"scene/{name}.f32", "wb") as file:
            array.array("f", values).tofile(file)
    stars = [
        # across, up, brightness, warmth
        [round(value, 4) for value in (rng.random(), rng.random() ** 0.8, rng.random() ** 5, rng.random())]
        for _ in range(2200)
    ]
    with open("scene/scene.json", "w") as file:
        json.dump({"size": SIZE, "lake": LAKE, "strips": strips, "stars": stars}, file)
    print(f"a valley of {SIZE}x{SIZE} cells, peak {max(heights):.1f}, for {strips} strips")


def displaced(rng: random.Random) -> list[float]:
    """Returns fractal heights around 0, row by row."""
    size, mask = SIZE, SIZE - 1
    cells = [0.0] * (size * size)
    step = size // 4
    for y in range(0, size, step):
        for x in range(0, size, step):
            cells[y * size + x] = rng.uniform(-1, 1)
    rough = 0.62
    uniform = rng.uniform
    while step > 1:
        half = step // 2
        for y in range(half, size, step):
            up, down = (y - half) * size, ((y + half) & mask) * size
            for x in range(half, size, step):
                left, right = x - half, (x + half) & mask
                mean = (cells[up + left] + cells[up + right] + cells[down + left] + cells[down + right]) / 4
                cells[y * size + x] = mean + uniform(-rough, rough)
        for y in range(0, size, half):
            row, up, down = y * size, ((y - half) & mask) * size, ((y + half) & mask) * size
            for x in range(half if y % step == 0 else 0, size, step):
                near = (
                    cells[up + x]
                    + cells[down + x]
                    + cells[row + ((x - half) & mask)]
                    + cells[row + ((x + half) & mask)]
                )
                cells[row + x] = near / 4 + uniform(-rough, rough)
        step = half
        rough *= 0.52
    return cells


def carve(cells: list[float]) -> list[float]:
    """Shapes raw heights to a basin with a lake, foothills, and mountains that rise with the distance."""
    low, high = min(cells), max(cells)
    middle = SIZE / 2
    carved = []
    for y in range(SIZE):
        for x in range(SIZE):
            rock = (cells[y * SIZE + x] - low) / (high - low)
            away = math.hypot(x - middle, y - middle)
            rise = smooth(58, 190, away)
            hills = smooth(34, 70, away)
            carved.append(LAKE - 5 + 13 * hills * rock + 76 * rise * rock**2.1)
    return carved


def horizons(heights: list[float]) -> tuple[list[float], list[float]]:
    """Returns, per cell, the steepest slope that it sees to the left and to the right.

    A stack of the cells that can still be somebody's horizon (their upper hull) makes it one walk per row.
    """
    left = [0.0] * len(heights)
    right = [0.0] * len(heights)
    for y in range(SIZE):
        row = heights[y * SIZE : (y + 1) * SIZE]
        for slopes, order in ((right, range(SIZE - 1, -1, -1)), (left, range(SIZE))):
            hull: list[int] = []
            for x in order:
                here = row[x]
                slope = 0.0
                while hull:
                    slope = (row[hull[-1]] - here) / abs(hull[-1] - x)
                    if len(hull) == 1 or slope > (row[hull[-2]] - here) / abs(hull[-2] - x):
                        break
                    hull.pop()
                slopes[y * SIZE + x] = max(0.0, slope)
                hull.append(x)
    return left, right


def smooth(low: float, high: float, value: float) -> float:
    t = min(1.0, max(0.0, (value - low) / (high - low)))
    return t * t * (3 - 2 * t)


if __name__ == "__main__":
    main(seed=int(sys.argv[1]), strips=int(sys.argv[2]))
