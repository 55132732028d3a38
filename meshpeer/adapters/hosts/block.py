"""The managed block of a hosts file: ``alpha.MESH.internal`` with the alias ``alpha.mesh``.

``.internal`` is reserved for private use (ICANN, 2024), so nothing in it is ever looked up in the public
DNS. The block stands between two marks; every other line, its end and its encoding stay as they are.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from meshpeer.core.addressing.labels import suggest_name

BEGIN = "# meshpeer begin (written by meshpeer; changes between these marks are lost)"
END = "# meshpeer end"
_BEGINS = "# meshpeer begin"
_OWN_LINE = re.compile(r"\S+\t\S+\.internal \S+\.mesh\r?\n?")


def render_block(mesh: str, members: Iterable[tuple[str, tuple[str, ...]]]) -> str:
    """Returns the block for (name, addresses) pairs; empty where there are none.

    What is no DNS label or no address is left out: a line break in either would write lines of a stranger's
    choice.
    """
    lines = [
        f"{address}\t{name}.{mesh}.internal {name}.mesh"
        for name, addresses in sorted(members)
        for address in addresses
        if name == suggest_name(name) and _is_address(address)
    ]
    if not lines or mesh != suggest_name(mesh):
        return ""
    return "\n".join([BEGIN, *lines, END]) + "\n"


def replace_block(text: str, block: str) -> str:
    """Returns the file's text with our block replaced, added at the end, or (for an empty one) removed.

    Where somebody deleted the mark of the end, only lines of our own form are taken for ours.
    """
    lines = text.splitlines(keepends=True)
    kept: list[str] = []
    position = 0
    while position < len(lines):
        if lines[position].startswith(_BEGINS):
            position = _after_block(lines, position + 1)
        else:
            kept.append(lines[position])
            position += 1
    rest = "".join(kept)
    if block and rest and not rest.endswith("\n"):
        rest += "\n"
    return rest + block


def names_in(text: str) -> dict[str, tuple[str, ...]]:
    """Returns the names in our block of a hosts file, each with its addresses."""
    lines = text.splitlines(keepends=True)
    found: dict[str, list[str]] = {}
    for position, line in enumerate(lines):
        if line.startswith(_BEGINS):
            for own in lines[position + 1 : _after_block(lines, position + 1)]:
                address, *names = own.partition("#")[0].split() or [""]
                for name in names:
                    found.setdefault(name, []).append(address)
    return {name: tuple(addresses) for name, addresses in found.items()}


def _after_block(lines: list[str], position: int) -> int:
    """Returns the position behind the block whose first line is at ``position``."""
    for end in range(position, len(lines)):
        if lines[end].startswith(END):
            return end + 1
        if lines[end].startswith(_BEGINS):
            break
    while position < len(lines) and _OWN_LINE.fullmatch(lines[position]):
        position += 1
    return position


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
