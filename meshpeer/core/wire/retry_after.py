"""``Retry-After``: how long a server wants to be left alone (RFC 9110, section 10.2.3)."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


def retry_after_s(value: str, unix_s: float) -> float | None:
    """Returns the seconds that a header says, as a number or as a date; None for what is neither."""
    text = value.strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    try:
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - unix_s)
    except (OverflowError, ValueError):
        return None
