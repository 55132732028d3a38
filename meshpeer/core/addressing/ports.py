"""Ports as people write them."""

from __future__ import annotations

PORT_MAX = 65_535


def is_port(text: str) -> bool:
    """Says whether a text is a port that can be dialled: ASCII digits, from 1 on."""
    return text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) <= PORT_MAX
