"""Where this process stands among control groups, read from what the kernel prints (cgroups(7), proc(5)).

A machine has one hierarchy of version 2, one of version 1 for each controller, or both. Groups for tasks are
made below the agent's own, so that whatever limits the agent also limits what it runs.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """One mounted hierarchy, and the folder of this process's group in it."""

    version: int
    controllers: frozenset[str]
    """Of version 1; version 2 says in each group which ones it has."""
    folder: str
    top: str
    """The folder where it is mounted: nothing above can be seen from here."""


def find_hierarchies(membership: str, mounts: str) -> tuple[Hierarchy, ...]:
    """Returns what ``/proc/self/cgroup`` and ``/proc/self/mountinfo`` say, version 2 first.

    Left out is what is mounted nowhere, or in such a way that this process's group can't be seen.
    """
    groups = dict(_parse_membership(membership))
    found: dict[tuple[int, frozenset[str]], Hierarchy] = {}
    for kind, root, point, options in _parse_mounts(mounts):
        named = frozenset() if kind == "cgroup2" else options
        match = next((key for key in groups if (key <= named if key else kind == "cgroup2")), None)
        if match is None or (match and kind == "cgroup2"):
            continue
        below = _below(root, groups[match])
        if below is not None:
            version = 2 if kind == "cgroup2" else 1
            folder = posixpath.join(point, below) if below else point
            one = Hierarchy(version=version, controllers=match, folder=folder, top=point)
            found.setdefault((version, match), one)
    return tuple(sorted(found.values(), key=lambda one: (-one.version, sorted(one.controllers))))


def counted(text: str, word: str) -> int:
    """Returns the number behind a word in a file of ``word number`` lines (``memory.events``); 0 without."""
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if name == word and number.isascii() and number.isdigit():
            return int(number)
    return 0


def tasks_memory(total_bytes: int, asked_bytes: int) -> int:
    """Returns what all tasks of a node may use together: what its settings say, or else all memory but an
    eighth, and 128 MiB at least, which stay for the agent and the machine."""
    rest = max(total_bytes // 8, 128 * 1024**2)
    return asked_bytes or max(total_bytes - rest, total_bytes // 2)


def _parse_membership(text: str) -> list[tuple[frozenset[str], str]]:
    """Returns controllers (none for version 2) and path of each line, ``HIERARCHY:CONTROLLERS:PATH``."""
    found = []
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        controllers = frozenset(name for name in names.split(",") if name)
        if path.startswith("/") and bool(controllers) != (number == "0"):
            found.append((controllers, path))
    return found


def _parse_mounts(text: str) -> list[tuple[str, str, str, frozenset[str]]]:
    """Returns kind, root, mount point and options of the super block of each mounted hierarchy."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, kinds = left.split(" "), right.split(" ")
        if len(fields) >= 6 and len(kinds) >= 3 and kinds[0] in ("cgroup", "cgroup2"):
            root, point = (_ESCAPE.sub(lambda match: chr(int(match[1], 8)), one) for one in fields[3:5])
            found.append((kinds[0], root, point, frozenset(kinds[2].split(","))))
    return found


def _below(root: str, path: str) -> str | None:
    """Returns the path from the root of a mount; None where it lies elsewhere (``/..`` in a namespace)."""
    if "/.." in path:
        return None
    if root == "/":
        return path.strip("/")
    if path == root or path.startswith(root + "/"):
        return path[len(root) :].strip("/")
    return None
