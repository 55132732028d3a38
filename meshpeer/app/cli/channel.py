"""The channel in words: WireGuard, or links alone and since when, and what links go over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from meshpeer.app.words import few

if TYPE_CHECKING:
    from meshpeer.runtime.control import Channel, LinkOnly

TITLE = "channel"


def channel_rows(found: Channel | None) -> list[tuple[str, str]]:
    """Returns rows for ``show.facts``; nothing where the agent does not say, or there is nobody else."""
    first, *more = [*_lines(found)] if found else [""]
    return [(TITLE, first), *(("", one) for one in more)] if first else []


def _lines(found: Channel) -> Iterator[str]:
    linked = sum(len(one.names) for one in found.link)
    total = found.tunnel + linked + len(found.none) + len(found.unknown)
    if not total:
        yield ""
        return
    if found.tunnel:
        yield f"WireGuard to {found.tunnel} of {total}" if found.tunnel < total else "WireGuard"
    everybody = len(found.link) == 1 and linked == total
    for one in found.link:
        to = "" if everybody else f" to {few(list(one.names))}"
        yield f"links only{to}: {_why(one)}"
    if found.unknown:
        since = f" since {_clock(found.unknown_since)}" if found.unknown_since else ""
        yield f"not known to {few(list(found.unknown))}: nothing went through the tunnel{since}"
    if found.none:
        yield f"none to {few(list(found.none))}"
    for via, names in found.over.items():
        yield f"the link to {few(list(names))} goes by {via}"


def _why(one: LinkOnly) -> str:
    if not one.since:
        return "there is no tunnel"
    if one.never:
        return f"no UDP answered yet, asked since {_clock(one.since)}"
    return f"no UDP answered since {_clock(one.since)}"


def _clock(at: str) -> str:
    return f"{at[:10]} {at[11:19]} UTC"
