"""The map as a picture: SVG 1.1 from a layout. Pure.

The tree of elements is built and serialised by ElementTree, so what other machines call themselves is text
and never markup; control characters, which XML can't carry at all, are made visible first. Colour is never
the only sign: lines differ in dashes, hubs in shape, and every state but alive is written out.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from meshpeer.app.cli import show
from meshpeer.app.cli.map_layout import (
    LEGEND_SIGN,
    STRETCH,
    Box,
    Label,
    LegendEntry,
    Picture,
    PlacedMember,
    PlacedRegion,
    lay_out,
    way,
)
from meshpeer.app.cli.map_model import HUB, STANDBY, MeshMap

FONTS = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif"
INK, MUTED, PAPER, RULE = "#1f2328", "#57606a", "#ffffff", "#d0d7de"
OWN_FILL, OTHER_FILL = "#eaf3ff", "#f6f8fa"
PATHS = {
    "direct": ("#1a7f37", ""),
    "hub": ("#0b57c2", "9 4"),
    "relay": ("#8250df", "9 3 2 3"),
    "link": ("#a04100", "2 4"),
}
"""Colour and dashes of a line, by path; what is not here has no line."""
STATES = {"alive": "#2da44e", "suspect": "#f0b429", "dead": "#cf222e"}
PLANNED = "#aab2bb"
RADIUS = 7.0
BOW_MIN, BOW_MAX = 10.0, 56.0
"""How far the line between two of one column swings out."""


def draw_svg(mesh: MeshMap) -> bytes:
    """Returns the picture as an SVG document in UTF-8."""
    picture = lay_out(mesh)
    width, height = _number(picture.width), _number(picture.height)
    root = Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "width": width,
            "height": height,
            "viewBox": f"0 0 {width} {height}",
            "font-family": FONTS,
            "role": "img",
        },
    )
    SubElement(root, "title").text = show.clean(f"{mesh.mesh}, as {mesh.node} sees it")
    _rect(root, Box(0, 0, picture.width, picture.height), {"fill": PAPER})
    for region in picture.regions:
        _region(root, region, mine=region.region.name == mesh.regions[0].name)
    places = {one.member.name: one for one in (picture.me, *picture.others)}
    planned = SubElement(
        root, "g", {"class": "planned", "fill": "none", "stroke": PLANNED, "stroke-width": "1"}
    )
    for tunnel in mesh.planned:
        if tunnel.source in places and tunnel.target in places:
            _planned(planned, places[tunnel.source], places[tunnel.target])
    paths = SubElement(root, "g", {"class": "paths", "fill": "none", "stroke-width": "2"})
    for one in picture.others:
        _path(paths, picture.me, one)
    for one in picture.others:
        _member(root, one)
    _me(root, picture)
    for label in (*picture.head, *picture.notes):
        _text(root, label)
    legend = SubElement(root, "g", {"class": "legend"})
    for entry in picture.legend:
        _legend(legend, entry)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


# --- parts ----------------------------------------------------------------------------------------------


def _region(root: Element, placed: PlacedRegion, *, mine: bool) -> None:
    group = SubElement(root, "g", {"class": "region"})
    SubElement(group, "title").text = show.clean(placed.region.name or "no region")
    _rect(group, placed.box, {"rx": "12", "fill": OWN_FILL if mine else OTHER_FILL, "stroke": RULE})
    for label in placed.labels:
        _text(group, label)


def _path(root: Element, me: PlacedMember, one: PlacedMember) -> None:
    if one.path is None or one.path.path not in PATHS:
        return
    colour, dashes = PATHS[one.path.path]
    turn = one.x - one.side * STRETCH
    middle = (me.x + turn) / 2
    line = SubElement(
        root,
        "path",
        {
            "class": f"path {one.path.path}",
            "d": f"M {_at(me.x, me.y)} C {_at(middle, me.y)} {_at(middle, one.y)} {_at(turn, one.y)} "
            f"L {_at(one.x, one.y)}",
            "stroke": colour,
            "stroke-opacity": "0.85",
            **({"stroke-dasharray": dashes} if dashes else {}),
        },
    )
    SubElement(line, "title").text = show.clean(f"{one.path.source} to {one.path.target}: {way(one.path)}")


def _planned(root: Element, one: PlacedMember, other: PlacedMember) -> None:
    line = f"M {_at(one.x, one.y)} "
    if one.side == other.side:
        # The farther apart the two are, the farther out, so that lines of one hub stay apart.
        bow = one.x - one.side * min(BOW_MAX, BOW_MIN + abs(one.y - other.y) / 6) * 4 / 3
        line += f"C {_at(bow, one.y)} {_at(bow, other.y)} {_at(other.x, other.y)}"
    else:
        line += f"L {_at(other.x, other.y)}"
    drawn = SubElement(root, "path", {"class": "planned", "d": line})
    SubElement(drawn, "title").text = show.clean(f"{one.member.name} and {other.member.name}: planned")


def _member(root: Element, one: PlacedMember) -> None:
    path = one.path.path if one.path else ""
    group = SubElement(root, "g", {"class": f"member {one.member.state}"})
    SubElement(group, "title").text = show.clean(f"{one.member.name}: {one.member.state}")
    if one.rtt is not None:
        box = one.rtt.box
        _rect(group, Box(box.x - 3, box.y - 1, box.width + 6, box.height + 2), {"rx": "4", "fill": PAPER})
        _text(group, one.rtt, PATHS.get(path, (MUTED, ""))[0])
    _sign(group, one.x, one.y, one.member.hub, one.member.state)
    name, detail = one.labels
    _text(group, name)
    _text(group, detail, MUTED if one.member.state == "alive" else "#9a1c24")


def _me(root: Element, picture: Picture) -> None:
    group = SubElement(root, "g", {"class": "me"})
    _rect(group, picture.me_box, {"rx": "12", "fill": "#0b57c2", "stroke": PAPER, "stroke-width": "2"})
    for label in picture.me.labels:
        _text(group, label, PAPER)


def _sign(root: Element, x: float, y: float, hub: str, state: str) -> None:
    """Draws a member: a circle; a hub is a large diamond, one that stands by a hollow one."""
    colour = STATES.get(state, STATES["dead"])
    if hub in (HUB, STANDBY):
        far = RADIUS * 1.6
        corners = ((x, y - far), (x + far, y), (x, y + far), (x - far, y))
        points = " ".join(_at(*corner) for corner in corners)
        fill = colour if hub == HUB else PAPER
        SubElement(
            root,
            "polygon",
            {"class": hub, "points": points, "fill": fill, "stroke": colour, "stroke-width": "2.5"},
        )
    else:
        SubElement(root, "circle", {"cx": _number(x), "cy": _number(y), "r": _number(RADIUS), "fill": colour})
    if state not in ("alive", "suspect"):
        arm = RADIUS * 0.5
        falling = f"M {_at(x - arm, y - arm)} L {_at(x + arm, y + arm)}"
        rising = f"M {_at(x - arm, y + arm)} L {_at(x + arm, y - arm)}"
        ink = INK if hub == STANDBY else PAPER
        SubElement(
            root, "path", {"d": f"{falling} {rising}", "stroke": ink, "stroke-width": "2", "fill": "none"}
        )


def _legend(root: Element, entry: LegendEntry) -> None:
    kind, _, which = entry.sign.partition(" ")
    middle = entry.x + LEGEND_SIGN / 2
    line = f"M {_at(entry.x, entry.y)} L {_at(entry.x + LEGEND_SIGN, entry.y)}"
    if kind == "path":
        colour, dashes = PATHS[which]
        looks = {"stroke": colour, "stroke-width": "2", **({"stroke-dasharray": dashes} if dashes else {})}
        SubElement(root, "path", {"d": line, **looks})
    elif kind == "planned":
        SubElement(root, "path", {"d": line, "stroke": PLANNED, "stroke-width": "1"})
    elif kind:
        _sign(root, middle, entry.y, "" if which else kind, which or "alive")
    _text(root, entry.label, MUTED)


# --- elements -------------------------------------------------------------------------------------------


def _rect(root: Element, box: Box, looks: Mapping[str, str]) -> None:
    place = {"x": box.x, "y": box.y, "width": box.width, "height": box.height}
    SubElement(root, "rect", {**{key: _number(value) for key, value in place.items()}, **looks})


def _text(root: Element, label: Label, colour: str = INK) -> None:
    drawn = SubElement(
        root,
        "text",
        {
            "x": _number(label.x),
            "y": _number(label.baseline),
            "font-size": str(label.size),
            "fill": colour,
            **({"text-anchor": label.anchor} if label.anchor != "start" else {}),
            **({"font-weight": "bold"} if label.bold else {}),
        },
    )
    drawn.text = label.text


def _at(x: float, y: float) -> str:
    return f"{_number(x)} {_number(y)}"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
