"""The picture is well-formed whatever members call themselves, and no text of it covers another."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

import pytest
from map_meshes import documents, mesh

from meshpeer.app.cli.map_layout import MEMBERS_DRAWN_MAX, Box, lay_out
from meshpeer.app.cli.map_model import MeshMap, map_mesh
from meshpeer.app.cli.map_svg import PATHS, draw_svg

SVG = "{http://www.w3.org/2000/svg}"
SHAPES = [(size, regions) for size in (1, 2, 3, 11, 50) for regions in range(1, 6) if regions <= size]
LARGE = [(MEMBERS_DRAWN_MAX + 80, 1), (MEMBERS_DRAWN_MAX + 80, 5)]
NAMINGS = ["node{:03}", "w" * 63 + "{}", "名前" * 20 + "{}"]


@pytest.mark.parametrize(("size", "regions"), [*SHAPES, *LARGE])
@pytest.mark.parametrize("named", NAMINGS, ids=["short", "long", "wide"])
def test_no_text_covers_another_or_leaves_the_picture(size: int, regions: int, named: str) -> None:
    for mode in ("regional", "full"):
        for me in (0, size - 1):
            picture = lay_out(mesh(size, regions, mode=mode, me=me, named=named.format))
            boxes = [(label.text, label.box) for label in picture.texts]
            for (text, box), (other, second) in itertools.combinations(boxes, 2):
                assert not box.meets(second), (text, other)
            for text, box in boxes:
                assert box.x >= 0, text
                assert box.x + box.width <= picture.width, text
                assert box.y >= 0, text
                assert box.y + box.height <= picture.height, text


@pytest.mark.parametrize(("size", "regions"), [*SHAPES, *LARGE])
def test_regions_stand_apart_and_hold_their_members(size: int, regions: int) -> None:
    picture = lay_out(mesh(size, regions))
    boxes = {one.region.name: one.box for one in picture.regions}
    assert len(boxes) == regions
    for one, other in itertools.combinations(boxes.values(), 2):
        assert not one.meets(other)
    assert inside(picture.me_box, boxes[picture.me.member.region])
    for placed in picture.others:
        for label in placed.labels:
            assert inside(label.box, boxes[placed.member.region]), placed.member.name


@pytest.mark.parametrize(("size", "regions"), SHAPES)
def test_everybody_is_drawn_and_every_line_has_its_path(size: int, regions: int) -> None:
    found = mesh(size, regions)
    root = parsed(found)
    lines = [one for one in root.iter(f"{SVG}path") if one.get("class", "").startswith("path ")]
    reached = [one for one in found.paths if one.path in PATHS]
    assert sorted(one.get("class", "") for one in lines) == sorted(f"path {one.path}" for one in reached)
    assert {(one.get("class"), one.get("stroke")) for one in lines} <= {
        (f"path {path}", colour) for path, (colour, _) in PATHS.items()
    }
    planned = [one for one in root.iter(f"{SVG}path") if one.get("class") == "planned"]
    assert len(planned) == len(found.planned)
    members = [one for one in root.iter(f"{SVG}g") if one.get("class", "").startswith("member ")]
    assert len(members) == size - 1
    assert sum(1 for one in found.paths if one.rtt_ms is not None) == sum(
        1 for text in texts(root) if text.endswith((" ms", " s"))
    )


def test_hubs_are_diamonds_and_the_legend_names_every_sign() -> None:
    found = mesh(11, 3)
    root = parsed(found)
    drawn = [one.get("class") for one in root.iter(f"{SVG}polygon")]
    assert (drawn.count("hub"), drawn.count("standby")) == (3 + 1, 3 + 1), "one of each in the legend"
    legend = texts(next(one for one in root.iter(f"{SVG}g") if one.get("class") == "legend"))
    assert legend == [
        "direct tunnel", "by a hub", "control link only", "no line: not reached", "planned between others",
        "hub", "standby", "alive", "suspect", "dead",
    ]  # fmt: skip


def test_names_are_text_and_never_markup() -> None:
    hostile = "</text><script>{}</script>&amp;\"'\x00\x1b\ud800\ufffe"
    status, peers, plan = documents(5, 2, named=hostile.format)
    root = parsed(map_mesh(status, peers, plan))
    assert {one.tag for one in root.iter()} <= {
        f"{SVG}{tag}" for tag in ("svg", "title", "g", "rect", "path", "text", "circle", "polygon")
    }
    assert any("</text><script>" in text for text in texts(root))


def test_a_large_mesh_shows_hubs_who_is_lost_and_a_count_of_the_rest() -> None:
    found = mesh(MEMBERS_DRAWN_MAX + 80, 5)
    picture = lay_out(found)
    shown = {one.member.name for one in picture.others}
    assert {one.name for one in found.members if one.hub and not one.me} <= shown
    assert len(shown) < len(found.members) / 2
    counted = [label.text for one in picture.regions for label in one.labels if label.text.startswith("and ")]
    assert sum(int(text.split()[1]) for text in counted) == len(found.members) - 1 - len(shown)


# --- helpers --------------------------------------------------------------------------------------------


def parsed(found: MeshMap) -> ElementTree.Element:
    return ElementTree.fromstring(draw_svg(found))


def texts(root: ElementTree.Element) -> list[str]:
    return [one.text or "" for one in root.iter(f"{SVG}text")]


def inside(box: Box, around: Box) -> bool:
    return (
        around.x <= box.x
        and around.y <= box.y
        and box.x + box.width <= around.x + around.width
        and box.y + box.height <= around.y + around.height
    )
