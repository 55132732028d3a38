"""Names of nodes and meshes: one DNS label each (RFC 1035, section 2.3.1; RFC 1123, section 2.1, lets digits
lead)."""

from __future__ import annotations

import functools

from meshpeer.core.errors import LocalFault
from meshpeer.core.wire.limits import MEMBERS_MAX, NAME_LENGTH_MAX

FALLBACK = "node"


def check_name(name: str) -> str:
    """Returns the name where it is one DNS label in lower case; else raises ``LocalFault`` that suggests
    one."""
    if name != suggest_name(name):
        raise LocalFault(
            f"{name!r} can't be a name",
            f"use 1 to {NAME_LENGTH_MAX} small letters, digits and inner dashes, like {suggest_name(name)}",
        )
    return name


@functools.lru_cache(maxsize=MEMBERS_MAX)
def suggest_name(hostname: str) -> str:
    """Makes a valid name of a host's name: its first label, with dashes for what no label may hold."""
    label = hostname.split(".")[0].lower()
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in label).strip("-")
    return kept[:NAME_LENGTH_MAX].strip("-") or FALLBACK


def suffixed(name: str, number: int) -> str:
    """Returns ``name-2`` and the like, shortened to stay one label."""
    suffix = f"-{number}"
    return name[: NAME_LENGTH_MAX - len(suffix)].rstrip("-") + suffix
