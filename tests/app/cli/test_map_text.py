"""The drawing in letters keeps its width, shows everybody in a small mesh, and counts a large one."""

from __future__ import annotations

import msgspec
import pytest
from map_meshes import documents, mesh

from meshpeer.app.cli.map_model import map_mesh
from meshpeer.app.cli.map_text import ASCII, LINES, MEMBERS_DRAWN_MAX, Letters, draw_text, plain
from meshpeer.app.cli.show import width_of

SHAPES = [(1, 1), (3, 1), (3, 3), (11, 1), (11, 3), (11, 5), (30, 4), (50, 1), (50, 5), (400, 5)]


def drawn(size: int, regions: int, *, columns: int = 80, letters: Letters = LINES) -> list[str]:
    return [plain(line) for line in draw_text(mesh(size, regions), columns=columns, letters=letters)]


@pytest.mark.parametrize(("size", "regions"), SHAPES)
@pytest.mark.parametrize("columns", [64, 80, 100])
def test_no_line_is_wider_than_asked_for(size: int, regions: int, columns: int) -> None:
    for mode in ("regional", "full"):
        found = mesh(size, regions, mode=mode)
        for letters in (LINES, ASCII):
            lines = [plain(line) for line in draw_text(found, columns=columns, letters=letters)]
            assert max(map(width_of, lines)) <= columns


def test_long_and_wide_names_are_cut_and_never_widen_a_line() -> None:
    for named in ("名前" * 16 + "-{}", "n" * 60 + "-{}", "a\x1b[2Jb\n{}"):
        status, peers, plan = documents(11, 3, named=named.format)
        for columns in (64, 80):
            for line in draw_text(map_mesh(status, peers, plan), columns=columns):
                assert width_of(plain(line)) <= columns
                assert plain(line).isprintable() or not plain(line)


def test_plain_letters_are_plain() -> None:
    assert all(line.isascii() for line in drawn(11, 3, letters=ASCII))


def test_a_small_mesh_shows_everybody_below_their_region() -> None:
    found = mesh(11, 3)
    lines = [plain(line) for line in draw_text(found)]
    for region in found.regions:
        at = next(at for at, line in enumerate(lines) if f" {region.name} " in line and "─" in line)
        below = lines[at + 1 : at + 1 + len(region.members)]
        assert sorted(
            next(name for name in region.members if f" {name} " in line) for line in below
        ) == sorted(region.members)


def test_a_members_line_says_role_state_path_and_round_trip() -> None:
    found = mesh(11, 3)
    lines = [plain(line) for line in draw_text(found)]
    members = {one.name: one for one in found.members}
    for path in found.paths:
        line = next(line for line in lines if f" {path.target} " in line)
        words = line.split()
        assert members[path.target].state in words
        assert (members[path.target].hub or "direct") in [*words, "direct"]
        assert path.path in words
        assert (f" via {path.via}" in line) is bool(path.via)
        assert (line.endswith((" ms", " s"))) is (path.rtt_ms is not None)
        assert LINES.branch(path.path) in line


def test_this_node_is_marked_once() -> None:
    lines = drawn(11, 3)
    (mine,) = (line for line in lines if LINES.me in line)
    assert "node010" in mine
    assert "this node" in mine


def test_whom_nobody_reaches_has_no_branch() -> None:
    status, peers, plan = documents(5, 1)
    cut = [msgspec.structs.replace(one, path="none", via="", rtt_ms=None) for one in peers]
    tree = [plain(line) for line in draw_text(map_mesh(status, cut, plan), legend=False)]
    assert not any(letter in line for line in tree for letter in "┝╞├│")


def test_a_large_mesh_is_counted_by_region() -> None:
    size = MEMBERS_DRAWN_MAX + 18
    lines = drawn(size, 5)
    text = "\n".join(lines)
    assert len(lines) < 45
    for region in mesh(size, 5).regions:
        assert f" {region.name} · {len(region.members)} members" in text
        assert f"hubs    {region.hubs[0]}; standing by: {region.standbys[0]}" in text
    assert "Not alive: " in text


def test_the_drawing_alone_has_no_legend() -> None:
    found = mesh(11, 3)
    bare = draw_text(found, legend=False)
    assert draw_text(found)[: len(bare)] == bare
    assert not any("control link." in plain(line) for line in bare)
