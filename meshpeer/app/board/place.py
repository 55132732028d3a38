"""Where on the dashboard's map members stand. Pure.

A region is a box; hubs, and this node, stand in its first rows, the others below by name. Boxes fill columns,
each the lowest one at its turn, this node's region first. Places depend on who is in, where, and who is a hub
alone: nothing moves because a state or a path changed. In a mesh of more than ``NAMED_MAX`` members only
hubs and this node have names beside them; the others are dots.

All in pixels, from the upper left; a sign stands in the middle of its row.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from meshpeer.app.board.rows import BoxRow, MapRow, PlaceRow

NAMED_MAX = 60
WIDE, NARROW = 1080, 358
"""Widths of the map: on a screen, and on a phone."""
GAP, PAD, TITLE = 14, 12, 26
CELL_WIDTH, CELL_HEIGHT = 158, 44
DOT = 26
SIGN = 14
"""From the left end of a cell to the middle of its sign."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A member to be placed."""

    id: str
    name: str
    region: str
    first: bool
    """It is a hub, or this node: it stands in the first rows, and has a name always."""
    me: bool = False


@dataclass(frozen=True, slots=True)
class Places:
    size: MapRow
    boxes: dict[str, BoxRow]
    members: dict[str, PlaceRow]


def place(spots: Sequence[Spot], width: int) -> Places:
    """Returns the map of these members, as wide as is asked for."""
    dense = len(spots) > NAMED_MAX
    regions = _regions(spots)
    count = 1 if width < WIDE else min(len(regions), 3 if len(regions) > 4 else 2) or 1
    box_width = (width - GAP * (count - 1)) // count
    bottoms = [0] * count
    boxes: dict[str, BoxRow] = {}
    members: dict[str, PlaceRow] = {}
    for region, inside in regions:
        column = bottoms.index(min(bottoms))
        x, y = column * (box_width + GAP), bottoms[column]
        below = y + TITLE
        for cells, cell_width, cell_height, named in _parts(inside, dense=dense):
            across = max(1, (box_width - 2 * PAD) // cell_width)
            room = (box_width - 2 * PAD) // across if named else cell_width
            for number, spot in enumerate(cells):
                row, at = divmod(number, across)
                members[spot.id] = PlaceRow(
                    x=x + PAD + at * room + (SIGN if named else cell_width // 2),
                    y=below + row * cell_height + cell_height // 2,
                    label=room - 2 * SIGN - 6 if named else 0,
                )
            below += -(-len(cells) // across) * cell_height
        height = below - y + PAD
        title = f"{region or 'no region'}: {len(inside)} {'member' if len(inside) == 1 else 'members'}"
        boxes[region] = BoxRow(x=x, y=y, width=box_width, height=height, title=title)
        bottoms[column] += height + GAP
    size = MapRow(width=width, height=max(max(bottoms) - GAP, 0), dense=dense)
    return Places(size, boxes, members)


def _regions(spots: Sequence[Spot]) -> list[tuple[str, list[Spot]]]:
    mine = next((one.region for one in spots if one.me), "")
    ordered = sorted(
        spots, key=lambda one: (one.region != mine, one.region, not one.first, not one.me, one.name)
    )
    return [(name, list(inside)) for name, inside in itertools.groupby(ordered, key=lambda one: one.region)]


def _parts(inside: Sequence[Spot], *, dense: bool) -> Iterator[tuple[Sequence[Spot], int, int, bool]]:
    """Yields what stands together in rows of its own: who, the size of a cell, whether names are shown."""
    first = [one for one in inside if one.first]
    rest = [one for one in inside if not one.first]
    if first:
        yield first, CELL_WIDTH, CELL_HEIGHT, True
    if rest:
        yield rest, *((DOT, DOT, False) if dense else (CELL_WIDTH, CELL_HEIGHT, True))
