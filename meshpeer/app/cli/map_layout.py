"""Where everything of the picture stands: numbers alone, no drawing.

This node stands in the middle, all others in two columns beside it, region by region in boxes, their names
on the outer side. So no line from this node crosses a name. Each line ends in a level stretch, as far from
the next as two rows are, and there it carries its round trip; between that and the column there is room for
the bows of planned tunnels. This node's own box reaches from its column to the middle, or to both columns
where there is no other region.

In a mesh of more than ``MEMBERS_DRAWN_MAX`` a region shows its hubs, whoever is not alive, and a count of
the rest.

Widths of text are taken from a wide font (DejaVu Sans), so a viewer's own font is hardly ever wider. y grows
downwards; all in pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

from meshpeer.app.cli import show
from meshpeer.app.cli.map_model import REGIONAL, STATES, MapMember, MapPath, MapRegion, MeshMap, round_trip

MEMBERS_DRAWN_MAX = 120
NOT_ALIVE_DRAWN_MAX = 10
"""Of each region, where not all are drawn."""
NAME_PX, DETAIL_PX, TITLE_PX, HEAD_PX = 14, 12, 14, 20
MARGIN, PAD, GAP = 24, 14, 18
ROW, BOX_TITLE = 38, 32
TITLE_WIDTH_MAX = 300
LABEL_COLUMN, LABEL_GAP = 216, 16
COLUMN_TO_ME = 320
STRETCH = 132
"""Length of the level end of a line."""
RTT_AT = 96
"""Where on it the round trip stands, from the column."""
HEAD_HEIGHT, LEGEND_ROW, LEGEND_SIGN = 66, 26, 44
NOTE_ROW = 18
PILL_HEIGHT, PILL_WIDTH_MAX = 46, 190
WIDTH = 2 * (MARGIN + PAD + LABEL_COLUMN + LABEL_GAP + COLUMN_TO_ME)
ME_X = WIDTH / 2
COLUMN_X = {-1: ME_X - COLUMN_TO_ME, 1: ME_X + COLUMN_TO_ME}
"""Of the left and the right column; a side is -1 or 1 all over."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float

    def meets(self, other: Box) -> bool:
        """Says whether two rectangles share more than an edge."""
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One line of text. ``anchor`` says which end stands at ``x``: start, middle or end."""

    text: str
    x: float
    baseline: float
    size: int
    anchor: str = "start"
    bold: bool = False

    @property
    def box(self) -> Box:
        """What it covers, descenders included."""
        width = text_width(self.text, self.size, bold=self.bold)
        left = {"start": self.x, "middle": self.x - width / 2, "end": self.x - width}[self.anchor]
        return Box(left, self.baseline - 0.8 * self.size, width, 1.05 * self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedMember:
    """A member in its column, or this node (``path`` None)."""

    member: MapMember
    path: MapPath | None
    side: int
    x: float
    y: float
    labels: tuple[Label, ...]
    rtt: Label | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedRegion:
    region: MapRegion
    box: Box
    labels: tuple[Label, ...]
    """Its title, and a count of those that are not drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LegendEntry:
    """A sign (``path direct``, ``planned``, ``hub``, ``state dead``) and what it means."""

    sign: str
    x: float
    y: float
    label: Label


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    width: float
    height: float
    head: tuple[Label, ...]
    regions: tuple[PlacedRegion, ...]
    me: PlacedMember
    me_box: Box
    others: tuple[PlacedMember, ...]
    legend: tuple[LegendEntry, ...]
    notes: tuple[Label, ...]

    @property
    def texts(self) -> list[Label]:
        """Every text of the picture."""
        placed = [label for one in (self.me, *self.others) for label in one.labels]
        trips = [one.rtt for one in self.others if one.rtt is not None]
        titles = [label for one in self.regions for label in one.labels]
        return [*self.head, *titles, *placed, *trips, *(one.label for one in self.legend), *self.notes]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """What of a region stands on one side."""

    region: MapRegion
    names: tuple[str, ...]
    more: str = ""
    """A last row, for those that are not drawn."""
    mine: bool = False

    @property
    def rows_height(self) -> float:
        return (len(self.names) + bool(self.more)) * ROW

    @property
    def height(self) -> float:
        least = PILL_HEIGHT + PAD if self.mine else 0
        return BOX_TITLE + max(self.rows_height, least) + PAD


def lay_out(mesh: MeshMap) -> Picture:
    """Returns the places of all that is drawn."""
    columns = _columns(mesh)
    alone = len(mesh.regions) == 1
    top, tallest = MARGIN + HEAD_HEIGHT, max(_height(rows) for rows in columns.values())
    members, paths = {one.name: one for one in mesh.members}, {one.target: one for one in mesh.paths}
    regions: list[PlacedRegion] = []
    others: list[PlacedMember] = []
    own = Box(0, 0, 0, 0)
    for side, blocks in columns.items():
        y = top + (tallest - _height(blocks)) / 2
        for rows in blocks:
            box = _box(side, y, rows, tallest if alone else rows.height, alone=alone)
            first_y = box.y + BOX_TITLE + (box.height - BOX_TITLE - PAD - rows.rows_height) / 2 + ROW / 2
            at = [first_y + row * ROW for row in range(len(rows.names) + 1)]
            more = (_more(rows.more, side, at[-1]),) if rows.more else ()
            if not alone or side < 0:
                regions.append(
                    PlacedRegion(region=rows.region, box=box, labels=(_title(rows.region, side, box), *more))
                )
            else:
                regions[-1] = dataclasses.replace(regions[-1], labels=(*regions[-1].labels, *more))
            others += [
                _member(members[name], paths[name], side, y) for name, y in zip(rows.names, at, strict=False)
            ]
            own = box if rows.mine else own
            y += rows.height + GAP
    me, pill = _me(next(one for one in mesh.members if one.me), own.y + (own.height + BOX_TITLE - PAD) / 2)
    legend = tuple(_legend(mesh, top + tallest + GAP + LEGEND_ROW))
    notes = tuple(_notes(mesh, legend[-1].y + LEGEND_ROW + NOTE_ROW))
    return Picture(
        width=WIDTH,
        height=(notes[-1].baseline if notes else legend[-1].y) + MARGIN,
        head=_head(mesh),
        regions=tuple(regions),
        me=me,
        me_box=pill,
        others=tuple(others),
        legend=legend,
        notes=notes,
    )


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Returns how wide a text may become, in pixels."""
    return sum(map(_em, text)) * size * (1.1 if bold else 1.0)


def _em(letter: str) -> float:
    if show.width_of(letter) == 2 or letter in "mwMW@%…":
        return 1.0
    return 0.79 if letter.isupper() else 0.64


# --- which side -----------------------------------------------------------------------------------------


def _columns(mesh: MeshMap) -> dict[int, list[_Rows]]:
    """Shares the regions out: this node's on the left, then the tallest first, each to the lower side."""
    own, *others = (_rows(region, mesh, mine=not at) for at, region in enumerate(mesh.regions))
    if not others:
        half = (len(own.names) + 1) // 2
        left = _Rows(region=own.region, names=own.names[:half], mine=True)
        return {-1: [left], 1: [dataclasses.replace(own, names=own.names[half:])]}
    beside: list[_Rows] = []
    right: list[_Rows] = []
    for one in sorted(others, key=lambda rows: (-rows.height, rows.region.name)):
        (beside if _height([own, *beside]) < _height(right) else right).append(one)
    beside.sort(key=lambda rows: rows.region.name)
    half = len(beside) // 2
    return {
        -1: [*beside[:half], own, *beside[half:]],
        1: sorted(right, key=lambda rows: rows.region.name),
    }


def _rows(region: MapRegion, mesh: MeshMap, *, mine: bool) -> _Rows:
    inside = [one for one in mesh.members if one.region == region.name and not one.me]
    if len(mesh.members) <= MEMBERS_DRAWN_MAX:
        return _Rows(region=region, names=tuple(one.name for one in inside), mine=mine)
    lost = [one.name for one in inside if one.state != "alive" and not one.hub][:NOT_ALIVE_DRAWN_MAX]
    names = tuple(one.name for one in inside if one.hub or one.name in lost)
    rest = len(inside) - len(names)
    return _Rows(region=region, names=names, more=f"and {rest:,} more" if rest else "", mine=mine)


def _height(blocks: Sequence[_Rows]) -> float:
    return sum(one.height for one in blocks) + GAP * max(len(blocks) - 1, 0)


# --- places ---------------------------------------------------------------------------------------------


def _box(side: int, y: float, rows: _Rows, height: float, *, alone: bool) -> Box:
    if alone:
        return Box(MARGIN, y, WIDTH - 2 * MARGIN, height)
    inner = COLUMN_TO_ME - STRETCH - PAD
    reach = PILL_WIDTH_MAX / 2 + PAD if rows.mine else -inner
    width = WIDTH / 2 - MARGIN + reach
    return Box(MARGIN if side < 0 else WIDTH - MARGIN - width, y, width, height)


def _title(region: MapRegion, side: int, box: Box) -> Label:
    count = f": {show.count(len(region.members), 'member')}"
    room = TITLE_WIDTH_MAX - text_width(count, TITLE_PX, bold=True)
    return Label(
        text=fitted(region.name or "no region", room, TITLE_PX, bold=True) + count,
        x=box.x + PAD if side < 0 else box.x + box.width - PAD,
        baseline=box.y + 21,
        size=TITLE_PX,
        anchor="start" if side < 0 else "end",
        bold=True,
    )


def _more(text: str, side: int, y: float) -> Label:
    return Label(text=text, **_outside(side), baseline=y + 5, size=DETAIL_PX)


def _member(member: MapMember, path: MapPath, side: int, y: float) -> PlacedMember:
    bold = bool(member.hub)
    detail = ", ".join(
        word for word in (member.hub, "" if member.state == "alive" else member.state, way(path)) if word
    )
    x = COLUMN_X[side]
    trip = None
    if path.rtt_ms is not None:
        trip = Label(
            text=round_trip(path.rtt_ms), x=x - side * RTT_AT, baseline=y + 4, size=DETAIL_PX, anchor="middle"
        )
    return PlacedMember(
        member=member,
        path=path,
        side=side,
        x=x,
        y=y,
        labels=(
            Label(
                text=fitted(member.name, LABEL_COLUMN, NAME_PX, bold=bold),
                **_outside(side),
                baseline=y - 2,
                size=NAME_PX,
                bold=bold,
            ),
            Label(
                text=fitted(detail, LABEL_COLUMN, DETAIL_PX),
                **_outside(side),
                baseline=y + 14,
                size=DETAIL_PX,
            ),
        ),
        rtt=trip,
    )


def _me(member: MapMember, y: float) -> tuple[PlacedMember, Box]:
    room = PILL_WIDTH_MAX - 2 * PAD
    detail = f"this node, {member.hub}" if member.hub else "this node"
    labels = (
        Label(
            text=fitted(member.name, room, NAME_PX, bold=True),
            x=ME_X,
            baseline=y - 3,
            size=NAME_PX,
            anchor="middle",
            bold=True,
        ),
        Label(text=detail, x=ME_X, baseline=y + 14, size=DETAIL_PX, anchor="middle"),
    )
    width = max(label.box.width for label in labels) + 2 * PAD
    placed = PlacedMember(member=member, path=None, side=0, x=ME_X, y=y, labels=labels)
    return placed, Box(ME_X - width / 2, y - PILL_HEIGHT / 2, width, PILL_HEIGHT)


class _Outside(TypedDict):
    x: float
    anchor: str


def _outside(side: int) -> _Outside:
    """Returns where a name begins: beyond the column, seen from this node."""
    return _Outside(x=COLUMN_X[side] + side * LABEL_GAP, anchor="start" if side > 0 else "end")


def way(path: MapPath) -> str:
    """Returns in words how a member is reached."""
    match path.path:
        case "hub" | "relay":
            return f"via {path.via}" if path.via else f"by a {path.path}"
        case "link":
            return "link only"
        case "none":
            return f"not reached, seen by {path.via}" if path.via else "not reached"
        case _:
            return path.path


# --- words around it ------------------------------------------------------------------------------------


def _head(mesh: MeshMap) -> tuple[Label, ...]:
    members, regions = show.count(len(mesh.members), "member"), show.count(len(mesh.regions), "region")
    size = (
        f"{members} in {regions}, {mesh.mode}: "
        + ", ".join(f"{count:,} {state}" for state, count in mesh.states.items())
        + (f"; {mesh.left:,} left for good" if mesh.left else "")
        + (f"; {mesh.revoked:,} revoked" if mesh.revoked else "")
    )
    room = WIDTH - 2 * MARGIN
    title = f"{mesh.mesh}, as {mesh.node} sees it"
    return (
        Label(
            text=fitted(title, room, HEAD_PX, bold=True),
            x=MARGIN,
            baseline=MARGIN + 20,
            size=HEAD_PX,
            bold=True,
        ),
        Label(text=fitted(size, room, NAME_PX), x=MARGIN, baseline=MARGIN + 44, size=NAME_PX),
    )


def _legend(mesh: MeshMap, y: float) -> Iterator[LegendEntry]:
    """Yields what the signs mean, in rows; a sign that this picture can't have is left out."""
    regional = mesh.mode == REGIONAL
    signs = [
        ("path direct", "direct tunnel"),
        ("path hub", "by a hub"),
        ("path link", "control link only"),
        ("", "no line: not reached"),
        *([("planned", "planned between others")] if regional else []),
        *([("hub", "hub"), ("standby", "standby")] if regional else []),
        *((f"state {state}", state) for state in STATES),
    ]
    x: float = MARGIN
    for sign, text in signs:
        width = text_width(text, DETAIL_PX) + (LEGEND_SIGN + 8 if sign else 0)
        if x + width > WIDTH - MARGIN:
            x, y = MARGIN, y + LEGEND_ROW
        label = Label(text=text, x=x + (LEGEND_SIGN + 8 if sign else 0), baseline=y + 4, size=DETAIL_PX)
        yield LegendEntry(sign=sign, x=x, y=y, label=label)
        x += width + 28


def _notes(mesh: MeshMap, baseline: float) -> Iterator[Label]:
    said = ["Times are round trips of this node's control links; of paths between others it knows none."]
    for at, text in enumerate((*said, *mesh.notes)):
        shown = fitted(text, WIDTH - 2 * MARGIN, DETAIL_PX)
        yield Label(text=shown, x=MARGIN, baseline=baseline + at * NOTE_ROW, size=DETAIL_PX)


def fitted(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """Returns the text with control characters made visible, its end left out where it is too wide."""
    text = show.clean(text)
    if text_width(text, size, bold=bold) <= width:
        return text
    while text and text_width(f"{text}…", size, bold=bold) > width:
        text = text[:-1]
    return f"{text}…"
