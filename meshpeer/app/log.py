"""Logs: facts with fields, for people on a terminal, as JSON elsewhere.

By hand, since there is little to it: the library that was here before brought its console with it, 7 MiB in
every agent."""

from __future__ import annotations

import contextlib
import datetime
import sys
from collections.abc import Callable

import msgspec

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_COLOURS = {"warning": "\x1b[33m", "error": "\x1b[31m"}
_PLAIN = "\x1b[0m"


Listener = Callable[[str, str, tuple[tuple[str, str], ...]], None]
"""Is told of a level, a fact and its fields."""


class Log:
    """Writes to standard error, a line a fact."""

    listener: Listener | None = None
    """Is told of all but what is debugged, whether it is printed or not."""

    def __init__(self, level: str, form: str) -> None:
        self._least = LEVELS[level]
        self._as_json = form == "json"
        self._coloured = not self._as_json and sys.stderr.isatty()

    def write(self, level: str, fact: str, fields: tuple[tuple[str, str], ...]) -> None:
        """Logs one fact; of a level that is not known as ``info``."""
        level = level if level in LEVELS else "info"
        if self.listener is not None and LEVELS[level] >= LEVELS["info"]:
            self.listener(level, fact, fields)
        if LEVELS[level] < self._least:
            return
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        line = _json(now, level, fact, fields) if self._as_json else self._text(now, level, fact, fields)
        # A log that can't be written, for a full disk say, ends no agent.
        with contextlib.suppress(OSError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def _text(self, now: str, level: str, fact: str, fields: tuple[tuple[str, str], ...]) -> str:
        shown = f"[{level:<9}]"
        if self._coloured and level in _COLOURS:
            shown = f"{_COLOURS[level]}{shown}{_PLAIN}"
        return " ".join([f"{now} {shown} {fact}", *(f"{key}={_shown(value)}" for key, value in fields)])


def _json(now: str, level: str, fact: str, fields: tuple[tuple[str, str], ...]) -> str:
    return msgspec.json.encode({**dict(fields), "event": fact, "level": level, "timestamp": now}).decode()


def _shown(value: str) -> str:
    """Returns a value as one word; others chose some of them, so what is no plain text is escaped."""
    plain = value.isprintable() and not set(value) & set(" '\"=")
    return value if value and plain else repr(value)
