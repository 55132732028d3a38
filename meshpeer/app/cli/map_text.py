"""The map in letters: a trunk that begins at this node, a branch to every member that it reaches.

Up to ``MEMBERS_DRAWN_MAX`` members each has a line, regions follow one another, and the branch tells the
path: a heavy one is a tunnel, a double one a way by a hub, a dotted one a control link alone; whom this node
reaches in no way has none. Larger meshes are counted by region. Pure; colours are the caller's: a line is a
row of pieces, each with the colour's name or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meshpeer.app.cli import show
from meshpeer.app.cli.map_model import HUB, REGIONAL, MapMember, MapPath, MapRegion, MeshMap, round_trip

MEMBERS_DRAWN_MAX = 32
NOT_ALIVE_LISTED_MAX = 8
WIDTH_MIN = 64
ROLE_COLUMNS, STATE_COLUMNS, RTT_COLUMNS = 7, 7, 9
NAME_COLUMNS_MAX, WAY_COLUMNS_MIN = 24, 14
OTHER_COLUMNS = 7 + 2 + ROLE_COLUMNS + 2 + STATE_COLUMNS + 2 + 1 + RTT_COLUMNS
"""Of a member's line, but for its name and how it is reached."""
COLOURS = {"alive": "green", "suspect": "yellow", "dead": "red", "revoked": "red"}

Piece = tuple[str, str]
"""Text, and the name of its colour or nothing."""
Line = tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Letters:
    """What lines are drawn with."""

    trunk: str
    direct: str
    hub: str
    relay: str
    link: str
    end: dict[str, str]
    """How a member is drawn, by its state."""
    me: str
    rule: str
    dot: str
    cut: str

    def branch(self, path: str) -> str:
        """Returns the branch to a member, of four columns."""
        shown = {"direct": self.direct, "hub": self.hub, "relay": self.relay, "link": self.link}
        return shown.get(path, f"{self.trunk}   ")


LINES = Letters(
    trunk="│",
    direct="┝━━━",
    hub="╞═══",
    relay="╞═══",
    link="├╌╌╌",
    end={"alive": "●", "suspect": "◐", "dead": "✕"},
    me="◉",
    rule="─",
    dot="·",
    cut="…",
)
ASCII = Letters(
    trunk="|",
    direct="|---",
    hub="|===",
    relay="|===",
    link="|...",
    end={"alive": "o", "suspect": "?", "dead": "x"},
    me="@",
    rule="-",
    dot=",",
    cut="~",
)


def draw_text(
    mesh: MeshMap, *, columns: int = 80, letters: Letters = LINES, legend: bool = True
) -> list[Line]:
    """Returns the drawing, no line of it wider than ``columns`` (of which it needs at least 64)."""
    columns = max(columns, WIDTH_MIN)
    drawn = len(mesh.members) <= MEMBERS_DRAWN_MAX
    body = _tree(mesh, columns, letters) if drawn else _counts(mesh, columns, letters)
    lines = [*_head(mesh, columns, letters), (), *body]
    if legend:
        lines += [(), *_legend(mesh, columns, letters, drawn=drawn)]
    return lines


def _head(mesh: MeshMap, columns: int, letters: Letters) -> list[Line]:
    shown = ", ".join(f"{count:,} {state}" for state, count in mesh.states.items())
    title = f"{show.clean(mesh.mesh)}, as {show.clean(mesh.node)} sees it"
    size = (
        f"{show.count(len(mesh.members), 'member')} in {show.count(len(mesh.regions), 'region')} "
        f"({mesh.mode}): {shown}"
        + (f"; {mesh.left} left" if mesh.left else "")
        + (f"; {mesh.revoked} revoked" if mesh.revoked else "")
    )
    return [((_cut(title, columns, letters), "bold"),), *_wrapped(size, columns, "")]


# --- a line for everybody -------------------------------------------------------------------------------


def _tree(mesh: MeshMap, columns: int, letters: Letters) -> list[Line]:
    paths = {one.target: one for one in mesh.paths}
    members = {one.name: one for one in mesh.members}
    widest = max(show.width_of(show.clean(one.name)) for one in mesh.members)
    names = min(widest, NAME_COLUMNS_MAX, columns - WAY_COLUMNS_MIN - OTHER_COLUMNS)
    lines: list[Line] = []
    for region in mesh.regions:
        if lines:
            lines.append(((f" {letters.trunk}", ""),))
        lines.append(_region_rule(region, columns, letters, first=not lines))
        me = [name for name in region.members if members[name].me]
        lines += [
            _member(members[name], paths.get(name), names, columns, letters)
            for name in (*me, *(one for one in region.members if one not in me))
        ]
    return _without_loose_end(lines, letters)


def _region_rule(region: MapRegion, columns: int, letters: Letters, *, first: bool) -> Line:
    trunk = letters.rule if first else letters.trunk
    title = _cut(show.clean(region.name) or "no region", columns // 2, letters)
    count = show.count(len(region.members), "member")
    start = f"{letters.rule}{trunk}{letters.rule} "
    rest = columns - show.width_of(start) - show.width_of(title) - len(count) - 4
    return (
        (start, "dim"),
        (title, "bold"),
        (f" {letters.dot} {count} ", ""),
        (letters.rule * max(rest, 0), "dim"),
    )


def _member(one: MapMember, path: MapPath | None, names: int, columns: int, letters: Letters) -> Line:
    name = _padded(_cut(show.clean(one.name), names, letters), names)
    start: Line
    if path is None:
        start = ((f" {letters.me}     ", ""), (name, "bold"))
        way, rtt = "this node", ""
    else:
        end = letters.end.get(one.state, letters.end["dead"])
        start = ((f" {letters.branch(path.path)}", ""), (end, COLOURS.get(one.state, "")), (f" {name}", ""))
        way, rtt = _way(path), "" if path.rtt_ms is None else round_trip(path.rtt_ms)
    room = columns - names - OTHER_COLUMNS
    return (
        *start,
        (f"  {one.hub:<{ROLE_COLUMNS}}  ", "bold" if one.hub == HUB else ""),
        (f"{one.state[:STATE_COLUMNS]:<{STATE_COLUMNS}}", COLOURS.get(one.state, "")),
        (f"  {_padded(_cut(way, room, letters), room)} ", ""),
        (f"{rtt:>{RTT_COLUMNS}}", ""),
    )


def _way(path: MapPath) -> str:
    via = show.clean(path.via)
    match path.path:
        case "hub" | "relay":
            return f"{path.path} via {via}" if via else path.path
        case "none" if via:
            return f"none; seen by {via}"
        case "link":
            return "link only"
        case _:
            return path.path


def _without_loose_end(lines: list[Line], letters: Letters) -> list[Line]:
    """Ends the trunk at the last member that it leads to."""
    branches = tuple(f" {one}" for one in (letters.direct, letters.hub, letters.relay, letters.link))
    last = max((at for at, line in enumerate(lines) if line[0][0] in branches), default=-1)
    ended: list[Line] = []
    for at, line in enumerate(lines):
        if at > last and line[0][0].strip(f"{letters.trunk}{letters.rule} ") == "":
            (text, colour), *rest = line
            blank = letters.rule if text.startswith(letters.rule) else " "
            line = ((text.replace(letters.trunk, blank), colour), *rest)
        ended.append(line)
    return ended


# --- counted by region ----------------------------------------------------------------------------------


def _counts(mesh: MeshMap, columns: int, letters: Letters) -> list[Line]:
    rtts: dict[str, list[float]] = {}
    region_of = {one.name: one.region for one in mesh.members}
    for path in mesh.paths:
        if path.rtt_ms is not None:
            rtts.setdefault(region_of[path.target], []).append(path.rtt_ms)
    lines: list[Line] = []
    for region in mesh.regions:
        lines.append(_region_rule(region, columns, letters, first=True))
        facts = [("states", _tally(region.states))]
        if region.hubs or mesh.mode == REGIONAL:
            standing = f"; standing by: {', '.join(region.standbys)}" if region.standbys else ""
            facts.append(("hubs", f"{', '.join(region.hubs) or 'none of its own'}{standing}"))
        facts.append(("paths", _tally(_ways(region.paths)) or "this node alone"))
        if rtts.get(region.name):
            known = sorted(rtts[region.name])
            facts.append(
                (
                    "RTT",
                    f"median {known[len(known) // 2]:.1f} ms, {known[0]:.1f} to {known[-1]:.1f}, "
                    f"of {show.count(len(known), 'control link')}",
                )
            )
        for title, text in facts:
            lines += _wrapped(show.clean(text), columns, f"    {title:<7} ")
    lost = [one for one in mesh.members if one.state != "alive"]
    if lost:
        shown = ", ".join(f"{show.clean(one.name)} ({one.state})" for one in lost[:NOT_ALIVE_LISTED_MAX])
        more = len(lost) - NOT_ALIVE_LISTED_MAX
        lines += [
            (),
            *_wrapped(f"Not alive: {shown}" + (f", and {more} more" if more > 0 else ""), columns, ""),
        ]
    return lines


def _ways(paths: dict[str, int]) -> dict[str, int]:
    words = {"hub": "by a hub", "relay": "by a relay", "link": "link only", "none": "not reached"}
    return {words.get(path, path): count for path, count in paths.items()}


def _tally(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {word}" for word, count in counts.items())


# --- words ----------------------------------------------------------------------------------------------


def _legend(mesh: MeshMap, columns: int, letters: Letters, *, drawn: bool) -> list[Line]:
    lines: list[Line] = []
    if drawn:
        lines.append((("Lines are this node's own paths; RTT is of the control link.", "dim"),))
        tunnels = f"{letters.direct[1:]} direct tunnel   {letters.hub[1:]} by a hub"
        lines.append(((f"{tunnels}   {letters.link[1:]} link only   none: no way", "dim"),))
    if mesh.planned:
        lines += _wrapped(
            f"Planned between others: {show.count(len(mesh.planned), 'tunnel')}, hubs with hubs and members "
            "with their region's hubs; what they carry is not known here.",
            columns,
            "",
            "dim",
        )
    for note in mesh.notes:
        lines += _wrapped(show.clean(note), columns, "", "dim")
    return lines


def _wrapped(text: str, columns: int, start: str, colour: str = "") -> list[Line]:
    """Returns the text in lines, the first after ``start``, the others below its text."""
    lines: list[Line] = []
    room = columns - len(start)
    row = ""
    for word in text.split(" "):
        while show.width_of(word) > room:
            head, word = _split(word, room)
            lines += [((row, colour),)] if row else []
            lines.append(((head, colour),))
            row = ""
        if row and show.width_of(row) + 1 + show.width_of(word) > room:
            lines.append(((row, colour),))
            row = word
        else:
            row = f"{row} {word}" if row else word
    lines.append(((row, colour),))
    blank = " " * len(start)
    return [((start if at == 0 else blank, ""), *line) for at, line in enumerate(lines)]


def _split(text: str, columns: int) -> tuple[str, str]:
    at = len(text)
    while show.width_of(text[:at]) > columns:
        at -= 1
    return text[:at], text[at:]


def _cut(text: str, columns: int, letters: Letters) -> str:
    """Returns the text, its end left out where it is too wide."""
    if show.width_of(text) <= columns:
        return text
    return _split(text, columns - 1)[0] + letters.cut


def _padded(text: str, columns: int) -> str:
    return text + " " * (columns - show.width_of(text))


def plain(line: Sequence[Piece]) -> str:
    """Returns a line without its colours."""
    return "".join(text for text, _ in line).rstrip()
