"""What the parts of a plan's inputs are called when people read of them; cheap to import, for the command
line has it too."""

from __future__ import annotations

from collections.abc import Sequence

PARTS_IN_WORDS = {
    "charter": "the charter",
    "members": "who is in",
    "addresses": "addresses",
    "doubts": "who is doubted",
    "mode": "the mode (full or regional)",
    "hubs": "the hubs",
}
NAMED_MAX = 4


def in_words(parts: Sequence[str]) -> str:
    """Returns the parts (one or more) as people read them; one that a later agent names stays as it is."""
    return listed([PARTS_IN_WORDS.get(part, part) for part in parts])


def few(names: Sequence[str]) -> str:
    """Returns one or more names as part of a sentence; of many the first ones, and a count."""
    if len(names) <= NAMED_MAX:
        return listed(names)
    return f"{', '.join(names[:NAMED_MAX])} and {len(names) - NAMED_MAX} more"


def listed(words: Sequence[str]) -> str:
    """Returns ``a``, ``a and b``, ``a, b and c``."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
