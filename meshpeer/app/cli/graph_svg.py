"""A job's graph as a picture: SVG 1.1, tasks of the file in boxes, in columns by how many steps stand before
them. Pure.

The tree of elements is built and serialised by ElementTree, so names are text and never markup. Colour is
never the only sign: every box says in words how many of its tasks are in which state.
"""

from __future__ import annotations

from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from meshpeer.app.cli import show
from meshpeer.app.cli.job_words import STATES, counted
from meshpeer.app.cli.map_svg import FONTS, INK, MUTED, PAPER, RULE
from meshpeer.app.graph_layout import BOX_HEIGHT, BOX_WIDTH, MARGIN, lay_out
from meshpeer.runtime.job_docs import GraphTask, JobGraph

NAME_COLUMNS, WORDS_COLUMNS = 24, 34
FILLS = {
    "succeeded": "#2da44e",
    "failed": "#cf222e",
    "running": "#f0b429",
    "ready": "#54aeff",
    "waiting": "#d0d7de",
    "skipped": "#8c959f",
    "cancelled": "#6e7781",
}
UNSAID = "#d0d7de"


def draw_svg(graph: JobGraph) -> bytes:
    """Returns the picture as an SVG document in UTF-8."""
    layout = lay_out(graph)
    places = layout.boxes
    corners = [*places.values(), *(one for bends in layout.bends.values() for one in bends)]
    width = max((x + BOX_WIDTH for x, _ in corners), default=0) + MARGIN
    height = max((y + BOX_HEIGHT for _, y in corners), default=0) + MARGIN
    width = max(width, 320)
    root = Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "width": str(width),
            "height": str(height),
            "viewBox": f"0 0 {width} {height}",
            "font-family": FONTS,
            "role": "img",
        },
    )
    total = show.count(sum(one.count for one in graph.tasks), "task")
    state = f", {graph.state}" if graph.state else ""
    title = show.clean(f"{graph.name}: {total}{state}")
    SubElement(root, "title").text = title
    SubElement(root, "rect", {"width": str(width), "height": str(height), "fill": PAPER})
    _text(root, MARGIN, MARGIN + 8, title, size=16, weight="bold")
    for (need, name), bends in layout.bends.items():
        _edge(root, [places[need], *bends, places[name]])
    for task in graph.tasks:
        _box(root, places[task.name], task)
    picture: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return picture + b"\n"


def _box(root: Element, at: tuple[int, int], task: GraphTask) -> None:
    x, y = at
    group = SubElement(root, "g")
    name = show.clean(f"{task.name} ({task.count:,})" if task.array else task.name)
    words = counted(task.states) if task.states else ""
    SubElement(group, "title").text = f"{name}: {words}" if words else name
    SubElement(
        group,
        "rect",
        {
            "x": str(x),
            "y": str(y),
            "width": str(BOX_WIDTH),
            "height": str(BOX_HEIGHT),
            "rx": "8",
            "fill": "#f6f8fa",
            "stroke": RULE,
        },
    )
    _text(group, x + 12, y + 24, show.cut(name, NAME_COLUMNS), size=14, weight="bold")
    _text(group, x + 12, y + 43, show.cut(words, WORDS_COLUMNS), size=11, fill=MUTED)
    left = float(x + 12)
    whole = BOX_WIDTH - 24
    shares = [(state, task.states.get(state, 0)) for state in STATES if task.states.get(state)]
    for state, count in shares or [("", task.count)]:
        part = whole * count / max(1, task.count)
        fill = FILLS.get(state, UNSAID)
        SubElement(
            group,
            "rect",
            {
                "x": f"{left:.1f}",
                "y": str(y + BOX_HEIGHT - 14),
                "width": f"{part:.1f}",
                "height": "6",
                "fill": fill,
            },
        )
        left += part


def _edge(root: Element, corners: list[tuple[int, int]]) -> None:
    """Draws an edge from the first box to the last, level through those between."""
    middle = BOX_HEIGHT // 2
    x, y = corners[0][0] + BOX_WIDTH, corners[0][1] + middle
    way = f"M {x} {y}"
    for number, (corner_x, corner_y) in enumerate(corners[1:], 2):
        x2, y2 = corner_x, corner_y + middle
        bow = max(24, (x2 - x) // 2)
        end = x2 - 5 if number == len(corners) else x2
        way += f" C {x + bow} {y} {x2 - bow} {y2} {end} {y2}"
        x, y = x2, y2
        if number < len(corners):
            x += BOX_WIDTH
            way += f" L {x} {y}"
    SubElement(root, "path", {"d": way, "fill": "none", "stroke": MUTED, "stroke-width": "1.5"})
    SubElement(root, "path", {"d": f"M {x} {y} l -8 -4 l 0 8 z", "fill": MUTED})


def _text(
    root: Element, x: float, y: float, text: str, *, size: int, weight: str = "normal", fill: str = INK
) -> None:
    if text:
        style = {"font-size": str(size), "font-weight": weight, "fill": fill}
        SubElement(root, "text", {"x": str(x), "y": str(y), **style}).text = text
