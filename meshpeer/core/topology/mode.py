"""Full or regional: what a mesh of topology ``auto`` is, read from signed facts alone.

Small meshes are full, large ones regional, and between the two bounds a mesh stays what it is. What it *is*
must be the same to all, whoever joined when: so each member says in its record which way it derives the mesh,
and inside the band the majority of those words counts.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from typing import NamedTuple

AUTO, FULL, REGIONAL = "auto", "full", "regional"
REGIONAL_FROM = 11
FULL_UP_TO = 8
DECLARED_BELOW = 2 * REGIONAL_FROM
"""Members of a larger mesh need not say which way they derive it: no band is near."""


class ModeRule(enum.Enum):
    """What makes a mesh full or regional."""

    CHOSEN = "chosen"
    """The charter says so."""
    LARGE = "large"
    SMALL = "small"
    WORDS = "words"
    """Between the bounds: what most members say that it is."""
    NO_HUB = "no hub"
    """Nobody is fit to be a hub, so it is full, whatever else holds."""


class Mode(NamedTuple):
    mode: str
    rule: ModeRule


def judge_mode(topology: str, words: Collection[str]) -> Mode:
    """Returns ``full`` or ``regional`` and why, given what each member's record says of the mode: one word a
    member. A topology that this version does not know is taken for full."""
    if topology != AUTO:
        return Mode(REGIONAL if topology == REGIONAL else FULL, ModeRule.CHOSEN)
    if len(words) >= REGIONAL_FROM:
        return Mode(REGIONAL, ModeRule.LARGE)
    if len(words) <= FULL_UP_TO:
        return Mode(FULL, ModeRule.SMALL)
    said = [one for one in words if one in (FULL, REGIONAL)]
    return Mode(REGIONAL if 2 * said.count(REGIONAL) > len(said) else FULL, ModeRule.WORDS)


def mode_of(topology: str, words: Collection[str]) -> str:
    """Returns ``full`` or ``regional``."""
    return judge_mode(topology, words).mode


def declared(topology: str, mode: str, count: int, before: str) -> str:
    """Returns what a member's record says of the mesh's mode; ``before`` is what it says now."""
    if topology != AUTO:
        return ""
    return mode if count < DECLARED_BELOW else before
