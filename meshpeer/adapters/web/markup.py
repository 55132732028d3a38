"""Writes the dashboard's page from the documents of the control API. Everything that is not written here is
escaped, with no exception, since names of members and jobs are other people's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from meshpeer.runtime.control import Job, Peer, Status

MEMBERS_MAX = 500
JOBS_MAX = 50
"""Rows that are shown; the commands show all."""


def page(inner: str) -> str:
    """Returns the whole page around its inner part."""
    return _document(f'<main id="content" aria-live="polite">{inner}</main>', following=True)


def closed_page() -> str:
    """Returns what somebody sees who has no session: nothing of the mesh."""
    return _document(
        "<main><h1>meshpeer</h1><p>This page opens with the link that <code>meshpeer dashboard</code> prints "
        "on this machine.</p></main>",
        following=False,
    )


def content(status: Status, peers: Sequence[Peer], jobs: Sequence[Job]) -> str:
    """Returns the part of the page that changes."""
    return "".join((_head(status), _warnings(status.warnings), _members(status, peers), _jobs(jobs)))


def _document(body: str, *, following: bool) -> str:
    script = '<script src="script.js" defer></script>' if following else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>meshpeer</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="stylesheet" href="style.css">{script}</head><body>{body}</body></html>\n'
    )


def _head(status: Status) -> str:
    node, members = status.node, status.members
    facts = [
        ("members", f"{members.alive} alive of {members.total}"),
        ("topology", status.mesh.topology_mode),
        ("addresses", "  ".join(one for one in (node.ipv4, node.ipv6) if one) or "none"),
        ("interface", f"{node.interface} ({node.backend})" if node.interface else "none: links only"),
        ("slots", str(node.slots)),
        ("version", node.version),
    ]
    shown = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return (
        f"<header><h1>{escape(node.name)} <small>in {escape(status.mesh.name)}</small></h1>"
        f"{_state(status.health)}</header><dl>{shown}</dl>"
    )


def _warnings(warnings: Iterable[str]) -> str:
    lines = "".join(f"<li>{escape(one)}</li>" for one in warnings)
    return f'<ul class="warnings">{lines}</ul>' if lines else ""


def _members(status: Status, peers: Sequence[Peer]) -> str:
    me = status.node
    mine = (f"{escape(me.name)} <small>this node</small>", escape(me.region or "–"))
    rows = [(*mine, _state("alive"), "–", "–", escape(me.ipv4 or me.ipv6))]
    rows += [
        (
            escape(one.name),
            escape(one.region or "–"),
            _state(one.state),
            escape(f"{one.path} by {one.via}" if one.via else one.path),
            "–" if one.rtt_ms is None else f"{one.rtt_ms:.1f} ms",
            escape(one.ipv4 or one.ipv6),
        )
        for one in peers[:MEMBERS_MAX]
    ]
    return _table(
        "Members", ("Name", "Region", "State", "Path", "Round trip", "Address"), rows, len(peers) + 1
    )


def _jobs(jobs: Sequence[Job]) -> str:
    rows = []
    for one in jobs[:JOBS_MAX]:
        tasks = one.tasks
        ended = tasks.succeeded + tasks.failed + tasks.skipped + tasks.cancelled
        failed = f", {tasks.failed} failed" if tasks.failed else ""
        rows.append(
            (
                f"{escape(one.name)} <small>{escape(one.id[:8])}</small>",
                _state(one.state),
                f'<progress value="{ended}" max="{max(1, tasks.total)}"></progress> '
                f"{ended}/{tasks.total}{failed}",
                str(tasks.running),
                escape(one.submitted_at[:19].replace("T", " ")),
            )
        )
    return _table(
        "Jobs of this node", ("Name", "State", "Tasks", "Running", "Submitted (UTC)"), rows, len(jobs)
    )


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], total: int) -> str:
    """Returns a table; cells are markup already."""
    if not rows:
        return f"<section><h2>{escape(title)}</h2><p>none</p></section>"
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    more = f"<p>and {total - len(rows)} more</p>" if total > len(rows) else ""
    return (
        f"<section><h2>{escape(title)}</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"{more}</section>"
    )


def _state(word: str) -> str:
    kind = {
        "ok": "good",
        "alive": "good",
        "succeeded": "good",
        "running": "busy",
        "pending": "busy",
        "suspect": "doubt",
        "degraded": "doubt",
        "alone": "doubt",
        "left": "gone",
        "cancelled": "gone",
    }.get(word, "bad")
    return f'<span class="state {kind}">{escape(word)}</span>'
