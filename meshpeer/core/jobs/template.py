"""``${name}`` in an argument: the one expansion that meshpeer does itself.

``${name}`` is a field of the task, ``$$`` is one dollar sign, any other ``$`` stands for itself, so that a
shell line in an argument (``[sh, -c, 'echo $HOME']``) reaches the shell as it was written. Expanded values
are never read again: a value that contains ``${...}`` stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_DOLLAR = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>[^{}]*)\}|(?P<open>\{))")


def names_in(text: str) -> Iterator[str | None]:
    """Yields the name in every ``${name}``, in order, and None for a ``${`` that is never closed."""
    for match in _DOLLAR.finditer(text):
        if match["open"] is not None:
            yield None
        elif match["escaped"] is None:
            yield match["name"]


def expand(text: str, fields: Mapping[str, str]) -> str:
    """Puts the fields in; raises ``KeyError`` for a name that isn't one (``check_job`` refuses those)."""
    return _DOLLAR.sub(lambda match: _value(match, fields), text) if "$" in text else text


def _value(match: re.Match[str], fields: Mapping[str, str]) -> str:
    if match["escaped"] is not None:
        return "$"
    if match["open"] is not None:
        raise KeyError("${")
    return fields[match["name"]]
