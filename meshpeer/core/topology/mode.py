"""Full or regional: what a mesh of topology ``auto`` is, read from signed facts alone.

Small meshes are full, large ones regional, and between the two bounds a mesh stays what it is. What it *is*
must be the same to all, whoever joined when: so each member says in its record which way it derives the mesh,
and inside the band the majority of those words counts.
"""

from __future__ import annotations

from collections.abc import Collection

AUTO, FULL, REGIONAL = "auto", "full", "regional"
REGIONAL_FROM = 11
FULL_UP_TO = 8
DECLARED_BELOW = 2 * REGIONAL_FROM
"""Members of a larger mesh need not say which way they derive it: no band is near."""


def mode_of(topology: str, words: Collection[str]) -> str:
    """Returns ``full`` or ``regional``, given what each member's record says of the mode: one word a member.
    A topology that this version does not know is taken for full."""
    if topology != AUTO:
        return REGIONAL if topology == REGIONAL else FULL
    if len(words) >= REGIONAL_FROM:
        return REGIONAL
    if len(words) <= FULL_UP_TO:
        return FULL
    said = [one for one in words if one in (FULL, REGIONAL)]
    return REGIONAL if 2 * said.count(REGIONAL) > len(said) else FULL


def declared(topology: str, mode: str, count: int, before: str) -> str:
    """Returns what a member's record says of the mesh's mode; ``before`` is what it says now."""
    if topology != AUTO:
        return ""
    return mode if count < DECLARED_BELOW else before
