"""What `meshpeer top` shows: pure, from two looks at the agent and the size of the terminal to lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from meshpeer.app.cli import show
from meshpeer.app.cli.job_words import STATE_COLOURS as JOB_COLOURS
from meshpeer.app.cli.job_words import ended_of
from meshpeer.app.cli.look import STATE_COLOURS
from meshpeer.app.cli.progress import bar
from meshpeer.runtime.control import Job, Peer, Status

Piece = tuple[str, str]
"""A text and its colour; empty for none."""
Line = tuple[Piece, ...]

BAR_COLUMNS = 12
NAME_COLUMNS_MAX = 20
JOBS_SHARE = 3
"""Jobs get one line in so many, and what members leave them."""
_TROUBLE = {"revoked": 0, "dead": 1, "suspect": 2}


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the agent."""

    at_s: float
    """On any clock that only ever goes on."""
    status: Status
    peers: Sequence[Peer]
    jobs: Sequence[Job]
    silent: Sequence[str] = ()
    """Members that were not heard about their jobs."""
    jobs_trouble: str = ""
    """Why the jobs are older than the rest; empty where they are not."""


@dataclass(slots=True)
class _Table:
    titles: Sequence[str]
    right: frozenset[int]
    rows: list[list[Piece]] = field(default_factory=list)

    def lines(self, columns: int) -> list[Line]:
        """Returns the titles and the rows, aligned, none wider than the terminal."""
        cells = [[(title, "bold") for title in self.titles], *self.rows]
        widths = [max(show.width_of(row[at][0]) for row in cells) for at in range(len(self.titles))]
        return [_fit(self._pieces(row, widths), columns) for row in cells]

    def _pieces(self, row: Sequence[Piece], widths: Sequence[int]) -> list[Piece]:
        made: list[Piece] = []
        for at, ((text, colour), width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - show.width_of(text))
            made += [(space, ""), (text, colour)] if at in self.right else [(text, colour), (space, "")]
            made.append((" " * show.GAP, ""))
        while made and not made[-1][0].strip():
            made.pop()
        return made


def draw(
    look: Look, before: Look | None, *, columns: int, rows: int, clock: str, stale: str = ""
) -> list[Line]:
    """Returns at most ``rows`` lines of at most ``columns``; rates are those since ``before``.

    ``stale`` says since when the agent has not answered, where it does not.
    """
    lines = [_head(look, clock, columns)]
    if stale:
        lines.append(_fit([(stale, "red")], columns))
    lines += [_fit([(f"warning: {show.clean(one)}", "yellow")], columns) for one in look.status.warnings[:2]]
    going = [one for one in look.jobs if one.finished_at is None]
    ended = sorted((one for one in look.jobs if one.finished_at), key=lambda one: one.finished_at or "")
    jobs = [*sorted(going, key=lambda one: one.submitted_at), *reversed(ended)]
    room = rows - len(lines) - 2
    job_rows = min(len(jobs), max(room // JOBS_SHARE, room - len(look.peers) - 6)) if jobs else 0
    member_rows = room - (job_rows + 2 if job_rows else 0)
    lines += [(), *_members(look, before, columns, max(member_rows, 1))]
    if job_rows > 0:
        lines += [(), *_jobs(jobs, look, columns, job_rows)]
    return lines[:rows]


def _head(look: Look, clock: str, columns: int) -> Line:
    status = look.status
    node, members = status.node, status.members
    colour = {"ok": "green", "degraded": "yellow"}.get(status.health, "red")
    counts = f"{members.alive} of {members.total} alive"
    for number, word in ((members.suspect, "suspect"), (members.dead, "dead")):
        counts += f", {number} {word}" if number else ""
    agreed = status.agreement
    agree = f"{agreed.agree} agree" if agreed else "agreement unknown"
    pieces: list[Piece] = [
        (f"{node.name} in {status.mesh.name}: ", "bold"),
        (status.health, colour),
        (f"  {counts}  {agree}  {status.mesh.topology_mode}", ""),
    ]
    used = sum(show.width_of(text) for text, _ in pieces)
    if used + len(clock) + show.GAP <= columns:
        pieces += [(" " * (columns - used - len(clock)), ""), (clock, "dim")]
    return _fit(pieces, columns)


def _members(look: Look, before: Look | None, columns: int, rows: int) -> list[Line]:
    """Lists this node and the others, those in trouble first; the last line says who had no room."""
    running = _running(look.jobs)
    node = look.status.node
    table = _Table(
        ("MEMBER", "STATE", "PATH", "RTT", "IN/s", "OUT/s", "TASKS", "REGION"), frozenset({3, 4, 5, 6})
    )
    mine = "drained" if node.drained else f"{node.busy}/{node.slots}" if node.slots else "-"
    table.rows.append(
        [(node.name, "bold"), ("this one", ""), *[("-", "dim")] * 4, (mine, ""), (node.region or "-", "")]
    )
    old = {one.id: one for one in before.peers} if before else {}
    span_s = look.at_s - before.at_s if before else 0.0
    order = sorted(look.peers, key=lambda one: (_TROUBLE.get(one.state, 3), one.name))
    shown = order if len(order) + 1 <= rows - 1 else order[: max(rows - 3, 0)]
    for one in shown:
        was = old.get(one.id)
        tasks = running.get(one.name, 0)
        doing = str(tasks) if tasks else "drained" if one.work == "drained" else "-"
        table.rows.append(
            [
                (show.cut(show.clean(one.name), NAME_COLUMNS_MAX), ""),
                (one.state, STATE_COLOURS.get(one.state, "")),
                (f"{one.path} via {one.via}" if one.via else one.path, STATE_COLOURS.get(one.path, "")),
                ("-" if one.rtt_ms is None else f"{one.rtt_ms:.1f} ms", ""),
                (_rate(was.rx_bytes if was else None, one.rx_bytes, span_s), ""),
                (_rate(was.tx_bytes if was else None, one.tx_bytes, span_s), ""),
                (doing, ""),
                (_why(one) or one.region or "-", "dim" if _why(one) else ""),
            ]
        )
    lines = table.lines(columns)
    if len(shown) < len(order):
        left_out = show.count(len(order) - len(shown), "more member")
        lines.append(_fit([(f"and {left_out}: `meshpeer peers`", "dim")], columns))
    return lines


def _why(one: Peer) -> str:
    """Returns who says that a member is in trouble, or what this node has against it."""
    if one.state == "suspect" and one.observers:
        return show.clean(f"suspected by {', '.join(one.observers)}")
    return show.clean(one.because) if one.state in _TROUBLE else ""


def _rate(before: int | None, now: int, span_s: float) -> str:
    """Returns bytes a second; a dash where nothing moved, or nobody can tell: counters start anew with an
    interface."""
    if before is None or span_s <= 0 or now <= before:
        return "-"
    return show.size(round((now - before) / span_s))


def _running(jobs: Sequence[Job]) -> Mapping[str, int]:
    made: dict[str, int] = {}
    for job in jobs:
        for name, number in job.running_on.items() if job.finished_at is None else ():
            made[name] = made.get(name, 0) + number
    return made


def _jobs(jobs: Sequence[Job], look: Look, columns: int, rows: int) -> list[Line]:
    """Lists jobs, those that go on first, then the last to end."""
    table = _Table(("JOB", "NAME", "STATE", "PROGRESS", "DONE", "RUNNING ON"), frozenset({4}))
    for one in jobs[:rows]:
        counts, state = one.tasks, one.shown_state
        going = sorted(one.running_on.items(), key=lambda pair: (-pair[1], pair[0]))
        table.rows.append(
            [
                (one.id[:8], ""),
                (show.cut(show.clean(one.name), NAME_COLUMNS_MAX), ""),
                (state, JOB_COLOURS.get(state, "")),
                (bar(ended_of(counts), counts.total, BAR_COLUMNS), "dim"),
                (f"{ended_of(counts):,}/{counts.total:,}", ""),
                (show.clean(", ".join(f"{name} {number}" for name, number in going if number)) or "-", ""),
            ]
        )
    lines = table.lines(columns)
    if look.jobs_trouble:
        lines.append(_fit([(show.clean(look.jobs_trouble), "yellow")], columns))
    if look.silent:
        names = show.clean(", ".join(look.silent))
        lines.append(_fit([(f"not heard about their jobs: {names}", "dim")], columns))
    return lines


def _fit(pieces: Sequence[Piece], columns: int) -> Line:
    """Returns what a terminal of so many columns has room for."""
    kept: list[Piece] = []
    for text, colour in pieces:
        width = show.width_of(text)
        if width > columns:
            kept.append((show.cut(text, columns), colour))
            return tuple(kept)
        kept.append((text, colour))
        columns -= width
    while kept and not kept[-1][0].strip():
        kept.pop()
    return tuple(kept)
