"""Agreement in words: how many members derive their plan from the same facts, who does not, and in what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from meshpeer.app.cli import show
from meshpeer.app.words import few, in_words

if TYPE_CHECKING:
    from meshpeer.runtime.control import Agreement

TITLE = "agreement"


def agreement_rows(found: Agreement | None) -> list[tuple[str, str]]:
    """Returns rows for ``show.facts``: the count, then why it is not all of them, one reason a row.
    Nothing where the agent does not say."""
    if found is None:
        return []
    count = f"{found.agree}/{found.total}"
    first, *more = [*_reasons(found)] or [""]
    return [(TITLE, f"{count}: {first}" if first else count), *(("", one) for one in more)]


def _reasons(found: Agreement) -> Iterator[str]:
    by_parts: dict[tuple[str, ...], list[tuple[str, float]]] = {}
    for one in found.differ:
        if one.travels:
            continue
        by_parts.setdefault(one.parts, []).append((one.name, one.lasts_s))
    for parts, those in by_parts.items():
        verb = "differs" if len(those) == 1 else "differ"
        since = show.seconds(max(lasts_s for _, lasts_s in those))
        yield f"{few([name for name, _ in those])} {verb} in {in_words(parts)}, since {since}"
    travels = [one for one in found.differ if one.travels]
    if travels:
        since = show.seconds(max(one.lasts_s for one in travels))
        yield f"news is on its way to or from {few([one.name for one in travels])}, since {since}"
    heard = {one.name: one.last_heard_s for one in found.unknown if one.last_heard_s is not None}
    if heard:
        least = "" if len(heard) == 1 else " or more"
        yield f"not heard from {few(list(heard))} for {show.seconds(min(heard.values()))}{least}"
    never = [one.name for one in found.unknown if one.last_heard_s is None]
    if never:
        yield f"not heard from {few(never)} yet"
