"""What readers of JSON and TOML raise on bytes that are neither, whoever wrote them."""

from __future__ import annotations

import msgspec

UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
"""Wrong syntax or shape; what is no UTF-8, or a number of more digits than Python converts (4,300); nesting
that is deeper than Python's stack. The last two are errors of Python's to these readers, not of syntax."""
