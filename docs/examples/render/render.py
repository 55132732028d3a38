"""Renders one strip of the poster, and one frame of the film: task number N of the array.

Every column of pixels is one walk over the height map, from near to far, drawing what rises above all that
came before (voxel terrain, as games did it in 1992). The hour depends on the column, so neighbouring strips
meet without a seam: the poster is one panorama and one day. The frame shows the whole valley at the strip's
own hour.
"""

import array
import json
import math
import os
import sys

from png import write_ppm
from sky import Colour, Light, mix

POSTER = (1440, 600)
FRAME = (400, 166)
FIRST_HOUR, LAST_HOUR = 3.4, 24.4
VIEW = math.radians(104)
HORIZON = 0.66
"""Where the far end of the lake stands, as a part of the height."""


def main(number: int) -> None:
    scene = Scene("scene")
    width, height = POSTER
    first, last = number * width // scene.strips, (number + 1) * width // scene.strips
    hour_of = (LAST_HOUR - FIRST_HOUR) / width
    columns = []
    for half in range(2 * first, 2 * last):
        across = (half + 0.5) / 2
        view = Column(across / width, FIRST_HOUR + across * hour_of, width * 2)
        view.disc_across = (first + last) / 2 / width
        columns.append(scene.column(view, 2 * height))
    write_ppm(f"strip-{number:02}.ppm", last - first, height, halved(columns, height))

    width, height = FRAME
    hour = FIRST_HOUR + (number + 0.5) / scene.strips * (LAST_HOUR - FIRST_HOUR)
    columns = []
    for x in range(width):
        view = Column((x + 0.5) / width, hour, width)
        view.disc_across = view.glow_across = (number + 0.5) / scene.strips
        columns.append(scene.column(view, height))
    write_ppm(f"frame-{number:02}.ppm", width, height, turned(columns, height))
    with open(f"maker-{number:02}.txt", "w") as file:
        file.write(os.uname().nodename)
    print(f"strip {number}: {first}..{last}, {hour:.1f} h")


class Column:
    """Where and when one column of pixels looks."""

    def __init__(self, across: float, hour: float, pixels_wide: int) -> None:
        self.across = across
        self.hour = hour
        self.angle = (across - 0.5) * VIEW
        self.per_radian = pixels_wide / VIEW
        self.pixels_wide = pixels_wide
        self.glow_across = across
        """Where the light of sun and moon comes from, as a part of the width; in the poster, from here."""
        self.disc_across = across
        """Where they are drawn: once in a strip."""


class Scene:
    def __init__(self, folder: str) -> None:
        with open(f"{folder}/scene.json") as file:
            facts = json.load(file)
        self.size: int = facts["size"]
        self.lake: float = facts["lake"]
        self.strips: int = facts["strips"]
        self.stars: list[list[float]] = sorted(facts["stars"])
        self.heights = self._map(f"{folder}/heights.f32")
        self.left = self._map(f"{folder}/left.f32")
        self.right = self._map(f"{folder}/right.f32")
        self.eye = self.lake + 3.2

    def _map(self, path: str) -> list[float]:
        values = array.array("f")
        with open(path, "rb") as file:
            values.fromfile(file, self.size * self.size)
        return values.tolist()

    def height(self, x: float, y: float) -> float:
        """Returns the ground between the cells, with finer relief taken from the map itself, shrunk."""
        size, mask, cells = self.size, self.size - 1, self.heights
        column, row = int(x), int(y)
        fx, fy = x - column, y - row
        here = (row & mask) * size
        below = ((row + 1) & mask) * size
        column &= mask
        right = (column + 1) & mask
        top = cells[here + column] + (cells[here + right] - cells[here + column]) * fx
        bottom = cells[below + column] + (cells[below + right] - cells[below + column]) * fx
        base = top + (bottom - top) * fy
        fine = cells[(int(y * 5.3) & mask) * size + (int(x * 5.3) & mask)]
        return base + (fine - 20) * 0.012 * min(1.0, max(0.0, (base - self.lake) * 0.2))

    def column(self, view: Column, rows: int) -> list[Colour]:
        """Returns the colours of one column, from the top down."""
        light = Light(view.hour)
        horizon = int(rows * HORIZON)
        out: list[Colour] = [(0.0, 0.0, 0.0)] * rows
        skyline, shore = self._draw_land(view, light, horizon, out)
        self._draw_sky(view, light, horizon, skyline, out)
        self._draw_lake(view, light, horizon, shore, out)
        return out

    def _draw_land(self, view: Column, light: Light, horizon: int, out: list[Colour]) -> tuple[int, int]:
        """Draws from the shore outwards; returns the first row below the sky, and the first of the lake."""
        sin, cos = math.sin(view.angle), math.cos(view.angle)
        middle, eye, scale, lake = self.size * 1.5, self.eye, view.per_radian, self.lake
        drawn = shore = len(out)
        away, before = 30.0, None
        haze = mix(light.horizon, light.zenith, 0.16)
        while away < 252:
            x, y = middle + sin * away, middle - cos * away
            ground = self.height(x, y)
            if ground <= lake and before is None:
                drawn = shore = horizon + int((eye - lake) / away * scale)
            elif ground > lake:
                trees = self._trees(x, y, ground)
                row = max(0, horizon - int((ground + trees - eye) / away * scale))
                if row < drawn:
                    colour = self._lit(x, y, ground, trees, light)
                    fog = 1 - math.exp(-((away / 215) ** 2.2) - 0.10 * away / 215)
                    colour = mix(colour, haze, fog)
                    start = before or colour
                    span = drawn - row
                    for step in range(span):
                        out[drawn - 1 - step] = mix(start, colour, (step + 1) / span)
                    drawn = row
                    before = colour
            away += 0.28 + away * 0.0024
        return drawn, shore

    def _trees(self, x: float, y: float, ground: float) -> float:
        """Returns how high the wood stands here; none on the shore, none above the tree line."""
        above = ground - self.lake
        if not 0.7 < above < 17:
            return 0.0
        mask = self.size - 1
        grain = self.heights[(int(y * 9.7) & mask) * self.size + (int(x * 9.7) & mask)]
        wood = self.heights[(int(y * 1.9 + 77) & mask) * self.size + (int(x * 1.9 + 31) & mask)]
        thick = min(1.0, (above - 0.7) * 0.5) * min(1.0, (17 - above) * 0.25)
        return thick * (0.35 + (int(grain * 977) & 7) * 0.14) if wood > 7 else 0.0

    def _lit(self, x: float, y: float, ground: float, trees: float, light: Light) -> Colour:
        """Returns the colour of the ground in this light."""
        dx = (self.height(x + 0.7, y) - self.height(x - 0.7, y)) / 1.4
        dy = (self.height(x, y + 0.7) - self.height(x, y - 0.7)) / 1.4
        length = math.sqrt(dx * dx + dy * dy + 1)
        to_x, to_y, to_up = light.to_light
        facing = (-dx * to_x - dy * to_y + to_up) / length
        flat = 1 / length
        cell = (int(y) & (self.size - 1)) * self.size + (int(x) & (self.size - 1))
        ridge = self.left[cell] if light.from_left else self.right[cell]
        shade = min(1.0, max(0.0, (light.light_slope - ridge) * 5 + 0.5))
        above = ground - self.lake
        grain = (int(self.heights[cell] * 811) & 15) / 15
        snow = min(1.0, max(0.0, (above - 21 - 5 * grain) * 0.16)) * min(1.0, max(0.0, (flat - 0.42) * 5))
        grass = min(1.0, max(0.0, (20 - above) * 0.16)) * min(1.0, max(0.0, (flat - 0.5) * 3))
        albedo = mix((0.40, 0.37, 0.36), (0.36, 0.43, 0.20), grass)
        albedo = mix(albedo, (0.95, 0.97, 1.0), snow)
        if trees:
            albedo = mix((0.10, 0.19, 0.13), (0.20, 0.29, 0.14), grain)
        elif above < 0.9:
            albedo = mix((0.56, 0.50, 0.40), albedo, above / 0.9)
        direct = max(0.0, facing) * shade * light.strength * 1.12
        sun, sky = light.sun, light.ambient
        open_sky = 0.62 + 0.38 * flat
        return (
            albedo[0] * (sun[0] * direct + sky[0] * open_sky),
            albedo[1] * (sun[1] * direct + sky[1] * open_sky),
            albedo[2] * (sun[2] * direct + sky[2] * open_sky),
        )

    def _draw_sky(self, view: Column, light: Light, horizon: int, skyline: int, out: list[Colour]) -> None:
        size = view.pixels_wide / 2880
        lit_up, glow_colour, glow_power = self._glow(view, light)
        disc_up, radius, disc_colour = self._disc(view)
        sideways = (view.across - view.disc_across) * view.pixels_wide
        slanted = (view.across - view.glow_across) * view.pixels_wide
        spread = 58000 * size * size
        sin, cos = math.sin(view.angle), math.cos(view.angle)
        cloud_colour = mix(mix(light.zenith, light.horizon, 0.75), glow_colour, min(0.5, glow_power))
        low, high = light.horizon, light.zenith
        for row in range(skyline):
            up = (horizon - row) / horizon
            colour = mix(low, high, min(1.0, up**0.62 * 1.12))
            down = row - (horizon - lit_up)
            far = slanted * slanted + down * down
            colour = mix(colour, glow_colour, glow_power * spread / (spread + far))
            plane = 15 / (up + 0.16)
            thick = self.height(sin * plane * 4 + 900, cos * plane * 9 + 700) + 0.5 * self.height(
                sin * plane * 13 + 700, cos * plane * 23 + 600
            )
            if thick > 22:
                colour = mix(colour, cloud_colour, min(0.72, (thick - 22) * 0.022) * min(1.0, up * 4))
            if disc_up is not None:
                down = row - (horizon - disc_up)
                far = math.sqrt(sideways * sideways + down * down) - radius
                if far < 40 * size:
                    bloom = 1.0 if far < 0 else 0.62 * (1 - far / (40 * size)) ** 2.4
                    colour = mix(colour, disc_colour, bloom)
            out[row] = colour
        if light.dark > 0.02:
            self._draw_stars(view, light, skyline, horizon, out)
            self._draw_aurora(view, light, skyline, horizon, out)

    def _glow(self, view: Column, light: Light) -> tuple[float, Colour, float]:
        """Returns how high the sky's light comes from, in pixels above the horizon, its colour and
        strength."""
        top = view.pixels_wide * 0.245
        sun = min(1.0, max(0.0, (light.sun_up + 0.32) * 2.2))
        if sun > 0:
            warm = min(1.0, max(0.0, light.sun_up * 2.2))
            return (
                light.sun_up * top,
                mix((255, 168, 92), (255, 250, 232), warm),
                0.55 * sun * (1 - 0.35 * warm),
            )
        moon = min(1.0, max(0.0, -light.sun_up - 0.32) * 4) * min(1.0, max(0.0, light.moon_up * 3))
        return max(0.0, light.moon_up) * top * 0.9, (150, 170, 214), 0.16 * moon

    def _disc(self, view: Column) -> tuple[float | None, float, Colour]:
        """Returns how high the sun or moon stands in pixels (None for neither), its radius and its colour."""
        size = view.pixels_wide / 2880
        light = Light(FIRST_HOUR + view.disc_across * (LAST_HOUR - FIRST_HOUR))
        top = view.pixels_wide * 0.245
        if light.sun_up > 0:
            warm = min(1.0, light.sun_up * 2.2)
            return light.sun_up * top, 17 * size, mix((255, 196, 120), (255, 252, 236), warm)
        if light.moon_up > 0:
            return light.moon_up * top * 0.9, 13 * size, (230, 236, 248)
        return None, 0.0, (0, 0, 0)

    def _draw_stars(self, view: Column, light: Light, skyline: int, horizon: int, out: list[Colour]) -> None:
        width = view.pixels_wide
        here = view.across * width
        small = width < 1000
        for across, up, bright, warm in self.stars:
            aside = here - across * width
            if not -2.6 < aside < 2.6 or (small and bright < 0.12):
                continue
            row = int((1 - up) * horizon)
            size = 0.6 if small else 0.8 + 1.8 * bright
            power = (0.35 + 0.65 * bright) * light.dark
            colour = mix((170, 196, 255), (255, 226, 190), warm)
            for place in range(max(0, row - 2), min(skyline, row + 3)):
                part = 1.4 - math.hypot(aside, place - row) / size
                if part > 0:
                    out[place] = mix(out[place], colour, power * min(1.0, part))

    def _draw_aurora(self, view: Column, light: Light, skyline: int, horizon: int, out: list[Colour]) -> None:
        """Hangs curtains into the late night: sharp below, fading upwards, green turning violet."""
        late = min(1.0, max(0.0, (view.hour - 20.7) / 1.6)) * light.dark
        if late <= 0:
            return
        a = view.across * 46
        for number, (base, tall, power) in enumerate(((0.36, 0.26, 0.85), (0.55, 0.34, 0.62))):
            fold = (
                math.sin(a * 0.9 + number * 2)
                + 0.6 * math.sin(a * 2.1 + 1.3 * number)
                + 0.3 * math.sin(a * 5.3)
            )
            rays = 0.62 + 0.38 * math.sin(a * 11 + 3 * math.sin(a * 2.3)) * math.sin(a * 4.7 + number)
            foot = horizon * (1 - base - 0.035 * fold)
            height = horizon * tall * (0.8 + 0.25 * math.sin(a * 1.7 + number))
            for row in range(max(0, int(foot - height * 2)), min(skyline, int(foot + height * 0.12))):
                above = (foot - row) / height
                shine = math.exp(-above * 2.4) if above > 0 else max(0.0, 1 + above * 9) ** 2
                colour = mix((70, 255, 150), (150, 90, 235), min(1.0, max(0.0, above * 1.1)))
                out[row] = mix(out[row], colour, late * power * rays * shine)

    def _draw_lake(self, view: Column, light: Light, horizon: int, shore: int, out: list[Colour]) -> None:
        """Mirrors what stands above the water, in ripples that grow towards the viewer."""
        scale = view.per_radian
        bright = sum(light.ambient) / 400
        deep = mix((6 * bright, 44 * bright, 66 * bright), light.zenith, 0.30)
        sin, cos = math.sin(view.angle), math.cos(view.angle)
        for row in range(shore, len(out)):
            below = (row - horizon + 0.5) / scale
            away = (self.eye - self.lake) / below
            x, y = sin * away, cos * away
            wave = math.sin(y * 4.1 + 2.3 * math.sin(x * 1.3 + y * 0.7)) + math.sin(y * 9.7 + x * 3.1)
            shift = wave * scale * 0.0022 * (0.6 + 5 * below)
            mirrored = min(max(0, int(2 * shore - row + shift) - 1), shore - 1)
            clear = 0.20 + 0.62 * math.exp(-below * 2.2)
            colour = mix(deep, out[mirrored], clear)
            out[row] = mix(colour, light.horizon, 0.05 * max(0.0, wave))


def halved(columns: list[list[Colour]], height: int) -> bytes:
    """Averages two by two, and turns columns into rows of bytes."""
    pixels = bytearray()
    pairs = [(columns[n], columns[n + 1]) for n in range(0, len(columns), 2)]
    for row in range(0, 2 * height, 2):
        for left, right in pairs:
            a, b, c, d = left[row], left[row + 1], right[row], right[row + 1]
            pixels.append(min(255, int((a[0] + b[0] + c[0] + d[0]) / 4)))
            pixels.append(min(255, int((a[1] + b[1] + c[1] + d[1]) / 4)))
            pixels.append(min(255, int((a[2] + b[2] + c[2] + d[2]) / 4)))
    return bytes(pixels)


def turned(columns: list[list[Colour]], height: int) -> bytes:
    """Turns columns into rows of bytes."""
    return bytes(min(255, int(part)) for row in range(height) for column in columns for part in column[row])


if __name__ == "__main__":
    main(int(sys.argv[1]))
