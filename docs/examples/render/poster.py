"""Assembles the strips to a picture and the frames to a film; the picture says which machine made what."""

import glob
import os

from png import read_ppm, write_film, write_png

LEGEND = 34
BACKGROUND = (13, 16, 27)
COLOURS = ((255, 183, 77), (79, 195, 247), (174, 213, 129), (240, 98, 146), (186, 104, 200), (255, 241, 118))

# Five rows of three dots each, one octal digit a row.
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.: "
DOTS = """
25755 65656 34443 65556 74647 74644 34553 55755 72227 11152 55655 44447 57755 65555 25552 65644 25573 65655
34216 72222 55557 55552 55775 55255 55222 71247 75557 26227 71747 71717 55711 74717 74757 71122 75757 75717
00700 00002 02020 00000
"""
GLYPHS = dict(zip(LETTERS, DOTS.split(), strict=True))


def main() -> None:
    strips = [read_ppm(path) for path in sorted(glob.glob("strip-*.ppm"))]
    makers = []
    for path in sorted(glob.glob("maker-*.txt")):
        with open(path) as file:
            makers.append(file.read().strip())
    width, height = sum(strip[0] for strip in strips), strips[0][1]
    rows = bytearray()
    for y in range(height):
        for wide, _, pixels in strips:
            rows += pixels[y * wide * 3 : (y + 1) * wide * 3]
    os.makedirs("out", exist_ok=True)
    write_png(
        "out/poster.png", width, height + LEGEND, bytes(rows) + legend([strip[0] for strip in strips], makers)
    )

    frames = [read_ppm(path) for path in sorted(glob.glob("frame-*.ppm"))]
    write_film("out/day.png", frames[0][0], frames[0][1], [frame[2] for frame in frames], milliseconds=160)
    counts = ", ".join(f"{name} made {makers.count(name)}" for name in sorted(set(makers)))
    print(f"out/poster.png: {width}x{height + LEGEND} of {len(strips)} strips; {counts}")
    print(f"out/day.png: {len(frames)} frames")


def legend(widths: list[int], makers: list[str]) -> bytes:
    """Draws a bar under every strip in the colour of its machine, and the names below."""
    width = sum(widths)
    canvas = [bytearray(BACKGROUND * width) for _ in range(LEGEND)]
    names = sorted(set(makers))
    colours = {name: COLOURS[position % len(COLOURS)] for position, name in enumerate(names)}
    left = 0
    for wide, maker in zip(widths, makers, strict=True):
        fill(canvas, left + 1, 4, wide - 2, 4, colours[maker])
        left += wide
    left = 14
    for name in names:
        fill(canvas, left, 17, 10, 10, colours[name])
        text = f"{name.split('.')[0][:24]} {makers.count(name)}"
        left = write(canvas, left + 17, 17, text, (214, 220, 232)) + 26
    return b"".join(canvas)


def write(canvas: list[bytearray], left: int, top: int, text: str, colour: tuple[int, int, int]) -> int:
    """Writes in dots of two pixels; returns where the next word may start."""
    for letter in text.upper():
        for row, dots in enumerate(GLYPHS.get(letter, "00000")):
            for column in range(3):
                if int(dots, 8) >> (2 - column) & 1:
                    fill(canvas, left + 2 * column, top + 2 * row, 2, 2, colour)
        left += 8
    return left


def fill(
    canvas: list[bytearray], left: int, top: int, wide: int, tall: int, colour: tuple[int, int, int]
) -> None:
    end = min(left + wide, len(canvas[0]) // 3)
    for row in canvas[top : top + tall] if left < end else ():
        row[left * 3 : end * 3] = bytes(colour) * (end - left)


if __name__ == "__main__":
    main()
