"""Light over a day: what the sky, the sun and the shadows look like at any hour."""

import bisect
import math

RISE, SET = 5.6, 19.4
MOON_RISE, MOON_SET = 18.8, 29.0

Colour = tuple[float, float, float]

# hour: zenith, horizon, sunlight, light from the whole sky
DAY: list[tuple[float, Colour, Colour, Colour, Colour]] = [
    (0.0, (5, 8, 26), (20, 30, 62), (26, 34, 60), (12, 17, 34)),
    (3.8, (7, 11, 34), (30, 42, 84), (26, 34, 60), (14, 20, 40)),
    (4.8, (30, 40, 92), (196, 110, 104), (120, 70, 60), (40, 44, 74)),
    (5.7, (62, 88, 158), (255, 168, 104), (255, 140, 70), (74, 78, 110)),
    (7.2, (74, 130, 206), (255, 216, 164), (255, 196, 128), (98, 112, 140)),
    (9.5, (46, 112, 204), (196, 222, 242), (255, 238, 205), (112, 132, 160)),
    (14.5, (42, 106, 200), (188, 218, 242), (255, 240, 212), (112, 132, 160)),
    (17.3, (66, 116, 198), (255, 222, 170), (255, 202, 132), (100, 110, 138)),
    (18.9, (72, 78, 158), (255, 158, 86), (255, 132, 62), (80, 74, 108)),
    (19.8, (50, 46, 116), (226, 94, 88), (150, 66, 58), (54, 50, 84)),
    (20.9, (20, 20, 66), (92, 56, 104), (50, 40, 66), (26, 28, 56)),
    (22.2, (7, 12, 40), (30, 46, 88), (74, 92, 140), (22, 30, 60)),
    (29.0, (7, 12, 40), (30, 46, 88), (74, 92, 140), (22, 30, 60)),
]
_HOURS = [row[0] for row in DAY]


class Light:
    """Everything about the sky at one hour that doesn't depend on where one looks."""

    def __init__(self, hour: float) -> None:
        after = min(max(1, bisect.bisect(_HOURS, hour)), len(DAY) - 1)
        first, second = DAY[after - 1], DAY[after]
        t = min(1.0, max(0.0, (hour - first[0]) / (second[0] - first[0])))
        self.zenith = mix(first[1], second[1], t)
        self.horizon = mix(first[2], second[2], t)
        self.sun = mix(first[3], second[3], t)
        self.ambient = mix(first[4], second[4], t)
        self.dark = min(1.0, max(0.0, 1 - sum(self.zenith) / 150))
        arc = (hour - RISE) / (SET - RISE)
        self.sun_up = math.sin(math.pi * arc) if -0.4 < arc < 1.4 else -1.0
        moon = (hour - MOON_RISE) / (MOON_SET - MOON_RISE)
        self.moon_up = math.sin(math.pi * moon) if 0 < moon < 1 else -1.0
        if self.sun_up < 0:
            arc = moon if self.moon_up > 0 else 0.5
        side = -math.cos(math.pi * min(1.0, max(0.0, arc)))
        up = max(0.09, abs(self.sun_up) if self.sun_up > 0 else self.moon_up if self.moon_up > 0 else 0.5)
        length = math.sqrt(side * side + 0.16 + up * up)
        self.to_light = (side / length, 0.4 / length, up / length)
        self.light_slope = up / max(0.05, abs(side))
        """Slope at which the light comes in; a cell whose horizon is steeper is in shadow."""
        self.from_left = side < 0
        moonlight = min(1.0, max(0.0, -self.sun_up * 3)) * min(1.0, max(0.0, self.moon_up * 2))
        self.strength = min(1.0, self.sun_up * 7) if self.sun_up > 0 else moonlight


def mix(a: Colour, b: Colour, t: float) -> Colour:
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t)
