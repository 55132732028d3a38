"""The base of every JSON document; keys are only ever added."""

from __future__ import annotations

import msgspec


class Doc(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON document."""
